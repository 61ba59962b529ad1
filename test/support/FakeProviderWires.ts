import { anthropicRefusal, countTokens, messages } from "./FakeProviderAnthropic.ts"
import { chat, embeddings, responses } from "./FakeProviderOpenAi.ts"
import { created } from "./FakeProviderWire.ts"
import type { Headers, JsonObject, Wire } from "./FakeProviderWire.ts"

/** The endpoints that take a model's name, by path. */
export const wires: ReadonlyMap<string, Wire> = new Map([
  ["/v1/chat/completions", chat],
  ["/v1/responses", responses],
  ["/v1/embeddings", embeddings],
  ["/v1/messages", messages],
  ["/v1/messages/count_tokens", countTokens]
])

/** The vendor that a path, or the headers where both have the path, belongs to. */
export const vendor = (path: string, headers: Headers): Pick<Wire, "refusal" | "headers"> =>
  path.startsWith("/v1/messages") || headers["anthropic-version"] !== undefined ? messages : chat

export const isAnthropic = (wire: Pick<Wire, "refusal">) => wire.refusal === anthropicRefusal

const modelNames = ["mock", "gpt-5.4", "claude-sonnet-5-5"] as const

/** `GET /v1/models` of OpenAI. */
export const openAiModels: JsonObject = {
  object: "list",
  data: modelNames.map((id) => ({ id, object: "model", created, owned_by: "fake" }))
}

/** `GET /v1/models` of Anthropic. */
export const anthropicModels: JsonObject = {
  data: modelNames.map((id) => ({
    id,
    type: "model",
    display_name: id,
    created_at: "2026-10-01T00:00:00Z",
    capabilities: null,
    deprecated_at: null,
    lifecycle: "active",
    line: null,
    max_input_tokens: 200_000,
    max_tokens: 64_000
  })),
  has_more: false,
  first_id: modelNames[0],
  last_id: "claude-sonnet-5-5"
}
