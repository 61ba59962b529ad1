import { Schema } from "effect"
import { HttpApiError } from "effect/http-api"

/**
 * The catalogue of everything the API can refuse, as RFC 9457 problems. `code` is the stable name that
 * clients react to; `request_id` is filled in where the answer leaves (`http/Problems.ts`).
 *
 * A `detail` is written for the caller: it never names another tenant, a table, a key or a stack frame.
 */

/** The `type` of a problem: a name, not a page. RFC 9457, 3.1.1 allows any URI. */
const type = <const Name extends string>(name: Name) => `urn:agent-army:problem:${name}` as const

/** The members that every problem of ours has beside those of RFC 9457. */
const members = <const Code extends string>(code: Code) => ({
  code: Schema.tag(code),
  request_id: Schema.optionalKey(Schema.String)
})

/** 401: no credential, or one that is invalid, expired or revoked. One answer for all of these. */
export class Unauthenticated extends HttpApiError.Problem<Unauthenticated>()(
  "Unauthenticated",
  { type: type("unauthenticated"), status: 401, title: "A valid credential is required" },
  members("Unauthenticated")
) {}

/** 401: login with a wrong tenant, e-mail or password. One answer for all three. */
export class InvalidCredentials extends HttpApiError.Problem<InvalidCredentials>()(
  "InvalidCredentials",
  { type: type("invalid-credentials"), status: 401, title: "The tenant, e-mail or password is wrong" },
  members("InvalidCredentials")
) {}

/** 403: a credential of one tenant with a header, path or body that names another, existing or not. */
export class CrossTenantAccess extends HttpApiError.Problem<CrossTenantAccess>()(
  "CrossTenantAccess",
  { type: type("cross-tenant-access"), status: 403, title: "The credential does not speak for this tenant" },
  members("CrossTenantAccess")
) {}

/** 403: the role or the scopes of the credential do not allow it. */
export class Forbidden extends HttpApiError.Problem<Forbidden>()(
  "Forbidden",
  { type: type("forbidden"), status: 403, title: "The credential does not allow this" },
  members("Forbidden")
) {}

/** 403: the tenant is suspended. */
export class TenantSuspended extends HttpApiError.Problem<TenantSuspended>()(
  "TenantSuspended",
  { type: type("tenant-suspended"), status: 403, title: "The tenant is suspended" },
  members("TenantSuspended")
) {}

/** 404: no such thing here; also for every object of another tenant. */
export class NotFound extends HttpApiError.Problem<NotFound>()(
  "NotFound",
  { type: type("not-found"), status: 404, title: "Not found" },
  members("NotFound")
) {}

/** 405: the path exists, the method does not; `Allow` lists those that do. */
export class MethodNotAllowed extends HttpApiError.Problem<MethodNotAllowed>()(
  "MethodNotAllowed",
  { type: type("method-not-allowed"), status: 405, title: "Method not allowed" },
  members("MethodNotAllowed")
) {}

/** 406: `Accept` excludes every media type that the endpoint answers with. */
export class NotAcceptable extends HttpApiError.Problem<NotAcceptable>()(
  "NotAcceptable",
  { type: type("not-acceptable"), status: 406, title: "No acceptable content type" },
  members("NotAcceptable")
) {}

/** 408: the request took longer to arrive, or to answer, than the server waits. */
export class RequestTimeout extends HttpApiError.Problem<RequestTimeout>()(
  "RequestTimeout",
  { type: type("request-timeout"), status: 408, title: "The request took too long" },
  members("RequestTimeout")
) {}

/** 409: a slug, an e-mail, … that is taken already. */
export class Conflict extends HttpApiError.Problem<Conflict>()(
  "Conflict",
  { type: type("conflict"), status: 409, title: "Already taken" },
  members("Conflict")
) {}

/** 412: `If-Match` names another version than the current one. */
export class PreconditionFailed extends HttpApiError.Problem<PreconditionFailed>()(
  "PreconditionFailed",
  { type: type("precondition-failed"), status: 412, title: "The version has changed" },
  members("PreconditionFailed")
) {}

/** 413: the body is larger than the endpoint takes. */
export class PayloadTooLarge extends HttpApiError.Problem<PayloadTooLarge>()(
  "PayloadTooLarge",
  { type: type("payload-too-large"), status: 413, title: "The body is too large" },
  members("PayloadTooLarge")
) {}

/** 414: the path and query are longer than the server takes. */
export class UriTooLong extends HttpApiError.Problem<UriTooLong>()(
  "UriTooLong",
  { type: type("uri-too-long"), status: 414, title: "The URL is too long" },
  members("UriTooLong")
) {}

/** 415: the body is of a content type that the endpoint does not take. */
export class UnsupportedMediaType extends HttpApiError.Problem<UnsupportedMediaType>()(
  "UnsupportedMediaType",
  { type: type("unsupported-media-type"), status: 415, title: "Unsupported content type" },
  members("UnsupportedMediaType")
) {}

/** 422: an `Idempotency-Key` that was used for another body. */
export class IdempotencyKeyReused extends HttpApiError.Problem<IdempotencyKeyReused>()(
  "IdempotencyKeyReused",
  {
    type: type("idempotency-key-reused"),
    status: 422,
    title: "The Idempotency-Key was used for another body"
  },
  members("IdempotencyKeyReused")
) {}

/** 429: more than a limit allows. Comes with `Retry-After`, whose seconds `retry_after` repeats. */
export class RateLimited extends HttpApiError.Problem<RateLimited>()(
  "RateLimited",
  { type: type("rate-limited"), status: 429, title: "Too many requests" },
  { ...members("RateLimited"), retry_after: Schema.optionalKey(Schema.Int) }
) {}

/** 431: the headers are larger than the server takes. */
export class HeadersTooLarge extends HttpApiError.Problem<HeadersTooLarge>()(
  "HeadersTooLarge",
  { type: type("headers-too-large"), status: 431, title: "The headers are too large" },
  members("HeadersTooLarge")
) {}

/** One field that was refused: where it stands, and why. */
export const InvalidField = Schema.Struct({
  path: Schema.Array(Schema.Union([Schema.String, Schema.Finite])),
  message: Schema.String
})

/** 400: malformed JSON, or fields that fail their schema (`errors` lists them). */
export class InvalidRequest extends HttpApiError.Problem<InvalidRequest>()(
  "InvalidRequest",
  { type: type("invalid-request"), status: 400, title: "The request is invalid" },
  { ...members("InvalidRequest"), errors: Schema.optionalKey(Schema.Array(InvalidField)) }
) {}

/** 500: a defect of ours. It is logged with its cause; the caller sees nothing of it but the request id. */
export class InternalError extends HttpApiError.Problem<InternalError>()(
  "InternalError",
  { type: type("internal-error"), status: 500, title: "Internal error" },
  members("InternalError")
) {}

/** 503: Postgres or Redis is away. Comes with `Retry-After`. */
export class DependencyUnavailable extends HttpApiError.Problem<DependencyUnavailable>()(
  "DependencyUnavailable",
  { type: type("dependency-unavailable"), status: 503, title: "A dependency is unavailable" },
  members("DependencyUnavailable")
) {}

/** 422: the tenant's policy is `block`, and the guard flags the input. */
export class PromptInjectionBlocked extends HttpApiError.Problem<PromptInjectionBlocked>()(
  "PromptInjectionBlocked",
  { type: type("prompt-injection-blocked"), status: 422, title: "The prompt looks like an injection" },
  { ...members("PromptInjectionBlocked"), categories: Schema.optionalKey(Schema.Array(Schema.String)) }
) {}

/** 402: the tenant's monthly budget is spent. */
export class BudgetExceeded extends HttpApiError.Problem<BudgetExceeded>()(
  "BudgetExceeded",
  { type: type("budget-exceeded"), status: 402, title: "The monthly budget is spent" },
  members("BudgetExceeded")
) {}

/**
 * 400: a provider refused the request, and no other one was asked: it is the caller's, or the provider's policy forbids it.
 * `detail` is what the provider said.
 */
export class RefusedByProvider extends HttpApiError.Problem<RefusedByProvider>()(
  "RefusedByProvider",
  { type: type("provider-refused"), status: 400, title: "The LLM provider refused the request" },
  {
    ...members("ProviderRefused"),
    provider: Schema.String,
    provider_status: Schema.Int,
    provider_type: Schema.NullOr(Schema.String),
    provider_code: Schema.NullOr(Schema.String),
    provider_param: Schema.NullOr(Schema.String)
  }
) {}

/** 502: every provider of the group failed; `detail` says which and why. */
export class ProviderUnavailable extends HttpApiError.Problem<ProviderUnavailable>()(
  "ProviderUnavailable",
  { type: type("provider-unavailable"), status: 502, title: "No LLM provider could answer" },
  members("ProviderUnavailable")
) {}

/** 503: no provider of the group has a key. */
export class ProviderNotConfigured extends HttpApiError.Problem<ProviderNotConfigured>()(
  "ProviderNotConfigured",
  { type: type("provider-not-configured"), status: 503, title: "No LLM provider is configured" },
  members("ProviderNotConfigured")
) {}

/** Every problem, for the place that renders them. */
export type Problem =
  | Unauthenticated
  | InvalidCredentials
  | CrossTenantAccess
  | Forbidden
  | TenantSuspended
  | NotFound
  | MethodNotAllowed
  | NotAcceptable
  | RequestTimeout
  | Conflict
  | PreconditionFailed
  | PayloadTooLarge
  | UriTooLong
  | UnsupportedMediaType
  | IdempotencyKeyReused
  | RateLimited
  | HeadersTooLarge
  | InvalidRequest
  | InternalError
  | DependencyUnavailable
  | PromptInjectionBlocked
  | BudgetExceeded
  | RefusedByProvider
  | ProviderUnavailable
  | ProviderNotConfigured
