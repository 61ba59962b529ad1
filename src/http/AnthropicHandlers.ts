import { Effect } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { TenantLlm } from "../services/TenantLlm.ts"
import { Api } from "./Api.ts"
import { headOf, makeAnswerCall, passedOn, refused } from "./LlmAnswer.ts"

export const AnthropicHandlers = HttpApiBuilder.group(
  Api,
  "anthropic",
  Effect.fn(function* (handlers) {
    const answerCall = yield* makeAnswerCall
    return handlers.handleAll({
      messages: ({ payload }) =>
        answerCall("anthropic-messages", payload, { stream: payload["stream"] === true }),
      countTokens: Effect.fnUntraced(function* ({ payload }) {
        const { headers } = yield* HttpServerRequest.HttpServerRequest
        const llm = yield* TenantLlm
        const answer = yield* Effect.catchTag(
          llm.countTokens(payload, passedOn(headers)),
          "ProviderRefused",
          refused
        )
        return HttpServerResponse.jsonUnsafe(answer.body, { headers: headOf(answer) })
      })
    })
  })
)
