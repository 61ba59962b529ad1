import { Context } from "effect"
import type { Headers } from "effect/http"
import type { Dialect } from "../domain/Llm.ts"

/**
 * The dialect that a request speaks, by its path: clients of a vendor know its envelope of errors alone, whoever in front
 * of the endpoint refuses. Both vendors have `/v1/models`; only Anthropic's clients send an `anthropic-version`.
 */
export const dialectOf = (url: string, headers: Headers.Headers): Dialect => {
  if (!url.startsWith("/v1/")) return "native"
  if (url.startsWith("/v1/messages")) return "anthropic-messages"
  if (url.startsWith("/v1/responses")) return "openai-responses"
  if (url.startsWith("/v1/models") && headers["anthropic-version"] !== undefined) return "anthropic-messages"
  return "openai-chat"
}

/** The dialect of the current request, as the face found it. */
export const CallerDialect = Context.Reference<Dialect>("agent-army/http/CallerDialect", {
  defaultValue: () => "native"
})
