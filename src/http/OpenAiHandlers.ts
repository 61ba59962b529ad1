import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { NotFound } from "../domain/Problems.ts"
import { TenantLlm } from "../services/TenantLlm.ts"
import { Api } from "./Api.ts"
import { CallerDialect } from "./CallerDialect.ts"
import { headOf, makeAnswerCall, refused } from "./LlmAnswer.ts"
import { makeRealtimeAnswer } from "./RealtimeAnswer.ts"

interface Model {
  readonly id: string
  readonly ownedBy: string
}

const openAiModel = ({ id, ownedBy }: Model) => ({
  id,
  object: "model",
  // A group, or a name of a table, was not made at any time.
  created: 0,
  owned_by: ownedBy
})

const anthropicModel = ({ id }: Model) => ({
  type: "model",
  id,
  display_name: id,
  // What Anthropic says of a model whose release it doesn't know.
  created_at: "1970-01-01T00:00:00Z",
  capabilities: null,
  deprecated_at: null,
  lifecycle: "active",
  line: null,
  max_input_tokens: null,
  max_tokens: null
})

const listOf = (models: ReadonlyArray<Model>, anthropic: boolean) =>
  anthropic
    ? {
        data: models.map(anthropicModel),
        has_more: false,
        first_id: models.at(0)?.id ?? null,
        last_id: models.at(-1)?.id ?? null
      }
    : { object: "list", data: models.map(openAiModel) }

const speaksAnthropic = Effect.map(CallerDialect, (dialect) => dialect === "anthropic-messages")

export const OpenAiHandlers = HttpApiBuilder.group(
  Api,
  "openai",
  Effect.fn(function* (handlers) {
    const answerCall = yield* makeAnswerCall
    const realtime = yield* makeRealtimeAnswer
    return handlers.handleAll({
      chat: ({ payload }) => answerCall("openai-chat", payload, { stream: payload["stream"] === true }),
      responses: ({ payload }) =>
        answerCall("openai-responses", payload, { stream: payload["stream"] === true }),
      embeddings: Effect.fnUntraced(function* ({ payload }) {
        const llm = yield* TenantLlm
        const answer = yield* Effect.catchTag(llm.embed(payload), "ProviderRefused", refused)
        return HttpServerResponse.jsonUnsafe(answer.body, { headers: headOf(answer) })
      }),
      models: Effect.fnUntraced(function* () {
        const llm = yield* TenantLlm
        return listOf(yield* llm.models, yield* speaksAnthropic)
      }),
      model: Effect.fnUntraced(function* ({ params }) {
        const llm = yield* TenantLlm
        const found = (yield* llm.models).find(({ id }) => id === params.model)
        if (found === undefined) return yield* new NotFound({ detail: "There is no such model here" })
        return (yield* speaksAnthropic) ? anthropicModel(found) : openAiModel(found)
      }),
      realtime: ({ query }) => realtime.open(query.model),
      clientSecret: ({ payload }) => realtime.mint(payload.session ?? {}, payload.expires_after?.seconds)
    })
  })
)
