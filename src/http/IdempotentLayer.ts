import { Effect, Exit, Layer, Schema } from "effect"
import { HttpServerRequest, HttpServerResponse, ProblemDetails } from "effect/http"
import { invalidFields } from "../domain/InvalidFields.ts"
import type { Principal } from "../domain/Principal.ts"
import { InvalidRequest } from "../domain/Problems.ts"
import { orUnavailable } from "../services/DbErrors.ts"
import type { DbError } from "../services/DbErrors.ts"
import { Idempotency } from "../services/Idempotency.ts"
import type { KeptAnswer, KeyedRequest, Once } from "../services/Idempotency.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { AnswerHeaders } from "./AnswerHeaders.ts"
import { CurrentPrincipal } from "./Authentication.ts"
import { IdempotencyKey, Idempotent, IdempotentOperation } from "./Idempotent.ts"
import { isProblem, toResponse } from "./ProblemResponse.ts"
import { announce } from "./RateLimitHeaders.ts"
import { RequestId } from "../domain/RequestId.ts"

/** Refusals that are the answer to what was asked, and would be the same again. */
const KEPT_REFUSALS: ReadonlySet<number> = new Set([400, 403, 404, 409, 412, 413, 422])

/** Seconds after which to ask again for an answer that is still being made. */
const RETRY_AFTER = { "retry-after": "1" }

const decodeKey = Schema.decodeUnknownEffect(IdempotencyKey)
const decodeProblem = Schema.decodeSync(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Json)))

const idOf = (principal: Principal): string =>
  principal._tag === "User"
    ? `user:${principal.userId}`
    : principal._tag === "ApiKey"
      ? `key:${principal.keyId}`
      : // By its id: a name may be another key's tomorrow. The one of the settings has none.
        `operator:${principal.id ?? ""}`

const textOf = ({ body }: HttpServerResponse.HttpServerResponse): string | undefined =>
  body._tag === "Empty" ? "" : body._tag === "Uint8Array" ? Buffer.from(body.body).toString() : undefined

/** An answer to keep. The body of a problem without its request's id: whoever asks again is another request. */
const keep =
  (headers: Readonly<Record<string, string>> | undefined) =>
  (exit: Exit.Exit<HttpServerResponse.HttpServerResponse, unknown>): KeptAnswer | undefined => {
    const response = Exit.match(exit, {
      onSuccess: (response) => (response.status < 300 ? response : undefined),
      onFailure: ({ reasons: [reason, ...more] }) =>
        more.length === 0 &&
        reason?._tag === "Fail" &&
        isProblem(reason.error) &&
        KEPT_REFUSALS.has(reason.error.status)
          ? toResponse(reason.error, "")
          : undefined
    })
    if (response === undefined) return undefined
    const body = textOf(response)
    if (body === undefined) return undefined
    const contentType = response.body._tag === "Uint8Array" ? response.body.contentType : undefined
    return {
      status: response.status,
      headers: {
        ...response.headers,
        ...headers,
        ...(contentType === undefined ? {} : { "content-type": contentType })
      },
      body
    }
  }

const replay = ({ body, headers, status }: KeptAnswer, requestId: string) => {
  const { "content-length": _, "content-type": contentType = "", ...rest } = headers
  const again = { ...rest, "idempotency-replayed": "true" }
  if (body === "") return HttpServerResponse.empty({ status, headers: again })
  const text =
    contentType === ProblemDetails.contentType
      ? JSON.stringify({ ...decodeProblem(body), request_id: requestId })
      : body
  return HttpServerResponse.text(text, { status, contentType, headers: again })
}

type Response = HttpServerResponse.HttpServerResponse
type Act<E, R> = Effect.Effect<Response, E, R>

/** `once` gets the act, and what is kept of it, into one transaction. */
const respond = Effect.fnUntraced(function* <E, E2, R, R2>(
  principal: Principal,
  httpEffect: Act<E, R>,
  once: (
    request: KeyedRequest,
    act: Act<E, R>,
    keep: (exit: Exit.Exit<Response, unknown>) => KeptAnswer | undefined
  ) => Effect.Effect<Once<Response, E | DbError>, E2, R2>
) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const header = request.headers["idempotency-key"]
  if (header === undefined) return yield* httpEffect
  const key = yield* decodeKey(header).pipe(
    Effect.mapError(
      (error) =>
        new InvalidRequest({
          detail: "The headers are invalid",
          errors: invalidFields(error).map((field) => ({ ...field, path: ["idempotency-key"] }))
        })
    )
  )
  const headers = yield* AnswerHeaders
  const done = yield* once(
    {
      principal: idOf(principal),
      method: request.method,
      path: request.url,
      key,
      body: yield* Effect.orDie(request.text)
    },
    httpEffect,
    (exit) => keep(headers.value)(exit)
  ).pipe(
    Effect.tapError((error) =>
      isProblem(error) && error.status === 409 ? announce(RETRY_AFTER) : Effect.void
    )
  )
  return done._tag === "Acted" ? yield* done.exit : replay(done.answer, yield* RequestId)
})

const IdempotentTenantLayer = Layer.effect(
  Idempotent,
  Effect.gen(function* () {
    const idempotency = yield* Idempotency
    return Idempotent.of((httpEffect) =>
      Effect.flatMap(TenantContext, ({ principal }) =>
        orUnavailable(respond(principal, httpEffect, idempotency.inTenant))
      )
    )
  })
)

const IdempotentOperationLayer = Layer.effect(
  IdempotentOperation,
  Effect.gen(function* () {
    const idempotency = yield* Idempotency
    return IdempotentOperation.of((httpEffect) =>
      Effect.flatMap(CurrentPrincipal, (principal) =>
        orUnavailable(respond(principal, httpEffect, idempotency.inPlatform))
      )
    )
  })
)

export const IdempotentLayer = Layer.mergeAll(IdempotentTenantLayer, IdempotentOperationLayer)
