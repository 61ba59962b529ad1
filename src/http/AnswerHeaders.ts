import { Context, Effect } from "effect"
import { HttpEffect, HttpServerResponse } from "effect/http"
import type { HttpServerRequest } from "effect/http"

/** Collects the headers that a handler puts on its answer, for whoever keeps the answer. */
export const AnswerHeaders = Context.Reference<Map<string, string> | undefined>(
  "agent-army/http/AnswerHeaders",
  {
    defaultValue: () => undefined
  }
)

/** Puts a header that belongs to the answer itself (unlike the request's id, or its limits) on the current request's. */
export const answerWithHeader = (
  name: string,
  value: string
): Effect.Effect<void, never, HttpServerRequest.HttpServerRequest> =>
  Effect.flatMap(AnswerHeaders, (collected) => {
    collected?.set(name, value)
    return HttpEffect.appendPreResponseHandler((_request, response) =>
      Effect.succeed(HttpServerResponse.setHeader(response, name, value))
    )
  })
