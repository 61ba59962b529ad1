import { Effect, Predicate, Schema } from "effect"
import { HttpServerError, HttpServerRespondable, HttpServerResponse, ProblemDetails } from "effect/http"
import { HttpApiError } from "effect/http-api"
import { invalidFields } from "../domain/InvalidFields.ts"
import type { Dialect } from "../domain/Llm.ts"
import { InvalidRequest, NotFound, PayloadTooLarge, RefusedByProvider } from "../domain/Problems.ts"
import type { Problem } from "../domain/Problems.ts"
import { RequestId } from "../domain/RequestId.ts"
import type { WireProblem } from "../services/llm/Codec.ts"
import { codecOf } from "../services/llm/Codecs.ts"
import { CallerDialect } from "./CallerDialect.ts"

/** Seconds a caller waits before it asks again for what was unavailable: about one reconnection. */
const RETRY_AFTER_SECONDS = 2

/** RFC 6750, 3. Without an error code: one answer for a missing, expired and revoked credential. */
const CHALLENGE = `Bearer realm="agent-army"`

/** What every problem of the catalogue has, whatever members of its own it adds. */
export interface AnyProblem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: string
  readonly detail?: string
}

/** Whether a failure is one of our problems: it renders itself and has a `code`. */
export const isProblem = (u: unknown): u is AnyProblem =>
  HttpServerRespondable.isRespondable(u) &&
  Predicate.hasProperty(u, "code") &&
  Predicate.isString(u.code) &&
  Predicate.hasProperty(u, "status") &&
  Predicate.isNumber(u.status) &&
  Predicate.hasProperty(u, "title")

const isInvalidRequest = Schema.is(InvalidRequest)
const isRefusedByProvider = Schema.is(RefusedByProvider)

/** The members of a problem's body (RFC 9457, 3.1), ours included. */
export const problemBody = (problem: AnyProblem, requestId: string): Record<string, unknown> => {
  const { type, title, status, detail, code, ...rest } = { detail: undefined, ...problem }
  return {
    type,
    title,
    status,
    detail: detail ?? title,
    code,
    ...rest,
    ...(requestId === "" ? undefined : { request_id: requestId })
  }
}

/** The seconds that a `RateLimited` names. */
const retryAfterOf = (problem: AnyProblem): number =>
  Predicate.hasProperty(problem, "retry_after") && Predicate.isNumber(problem.retry_after)
    ? problem.retry_after
    : RETRY_AFTER_SECONDS

/**
 * The headers a problem comes with: a challenge on every 401 (RFC 9110, 15.5.2), `Retry-After` on 429 and 503, and an
 * end of the connection where the rest of the request will not be read (RFC 9110, 15.5.9 and 15.5.14).
 */
export const problemHeaders = (problem: AnyProblem): Record<string, string> => ({
  "cache-control": "no-store",
  ...(problem.status === 401 ? { "www-authenticate": CHALLENGE } : undefined),
  ...(problem.status === 503 ? { "retry-after": String(RETRY_AFTER_SECONDS) } : undefined),
  ...(problem.status === 429 ? { "retry-after": String(retryAfterOf(problem)) } : undefined),
  ...(problem.status === 408 || problem.status === 413 ? { connection: "close" } : undefined)
})

/** Where the first invalid field stands: `messages[0].role`. */
const paramOf = (problem: AnyProblem): string | null => {
  if (!isInvalidRequest(problem)) return null
  const path = problem.errors?.at(0)?.path
  if (path === undefined || path.length === 0) return null
  return path.reduce<string>(
    (text, part) =>
      typeof part === "number" ? `${text}[${part}]` : text === "" ? String(part) : `${text}.${part}`,
    ""
  )
}

/** A problem for a vendor's envelope of errors: what a provider refused, in the provider's own words. */
export const wireProblem = (problem: AnyProblem, requestId: string): WireProblem =>
  isRefusedByProvider(problem)
    ? {
        status: problem.provider_status,
        code: problem.provider_code,
        type: problem.provider_type,
        message: problem.detail ?? problem.title,
        param: problem.provider_param,
        requestId
      }
    : {
        status: problem.status,
        code: problem.code,
        type: null,
        message: problem.detail ?? problem.title,
        param: paramOf(problem),
        requestId
      }

/** What will be refused again however often it is asked: the vendors' clients would ask three times. */
const FINAL: ReadonlySet<string> = new Set(["BudgetExceeded", "ProviderNotConfigured"])

/** What the vendors' clients obey besides: how long to wait, in milliseconds, and whether it is worth while. */
const vendorHeaders = (problem: AnyProblem): Record<string, string> => {
  const seconds = problemHeaders(problem)["retry-after"]
  return {
    ...(seconds === undefined ? undefined : { "retry-after-ms": String(Number(seconds) * 1000) }),
    ...(FINAL.has(problem.code) ? { "x-should-retry": "false" } : undefined)
  }
}

/**
 * The one place where a problem becomes a response: as RFC 9457 has it, or in the envelope of the vendor whose dialect the
 * caller speaks. `headers` go over those it has by itself.
 */
export const toResponse = (
  problem: Problem | AnyProblem,
  requestId: string,
  headers?: Readonly<Record<string, string>>,
  dialect: Dialect = "native"
): HttpServerResponse.HttpServerResponse => {
  if (dialect === "native") {
    return HttpServerResponse.jsonUnsafe(problemBody(problem, requestId), {
      status: problem.status,
      contentType: ProblemDetails.contentType,
      headers: { ...problemHeaders(problem), ...headers }
    })
  }
  const wire = wireProblem(problem, requestId)
  return HttpServerResponse.jsonUnsafe(codecOf[dialect].encodeProblem(wire), {
    status: wire.status,
    headers: { ...problemHeaders(problem), ...vendorHeaders(problem), ...headers }
  })
}

/**
 * Answers with a problem from within a request. For a middleware whose refusal carries headers that a failure
 * cannot, such as the `RateLimit` of a 429.
 */
export const respondWith = (
  problem: Problem | AnyProblem,
  headers?: Readonly<Record<string, string>>
): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
  Effect.withFiber((fiber) =>
    Effect.map(RequestId, (requestId) => toResponse(problem, requestId, headers, fiber.getRef(CallerDialect)))
  )

const where = {
  Params: "The path is invalid",
  Query: "The query is invalid",
  Headers: "The headers are invalid",
  Payload: "The body is invalid"
} as const

/**
 * What was wrong with a request, field by field; `undefined` when it was our own answer that failed its schema.
 */
export const invalidRequest = (error: HttpApiError.HttpApiSchemaError): InvalidRequest | undefined => {
  if (error.kind === "Body" || error.kind === "ResponseHeaders") {
    return undefined
  }
  return new InvalidRequest({ detail: where[error.kind], errors: invalidFields(error.cause) })
}

/** What a failure says to the caller; `undefined` for what is a defect of ours. */
export const problemOf = (error: unknown): AnyProblem | undefined => {
  if (isProblem(error)) return error
  if (HttpApiError.HttpApiSchemaError.is(error)) return invalidRequest(error)
  if (HttpApiError.HttpApiPayloadTooLarge.is(error)) return new PayloadTooLarge()
  if (!HttpServerError.isHttpServerError(error)) return undefined
  const { reason } = error
  switch (reason._tag) {
    case "RequestParseError":
      return reason.reason === "BodyTooLarge"
        ? new PayloadTooLarge()
        : new InvalidRequest({ detail: reason.description ?? "The body is malformed" })
    case "RouteNotFound":
      return new NotFound()
    default:
      return undefined
  }
}
