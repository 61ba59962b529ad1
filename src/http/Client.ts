import { Duration, Effect, Redacted, Schedule } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Api } from "./Api.ts"

/** What a client presents, and how patient it is. At most one of the two credentials is needed. */
export interface ClientOptions {
  readonly baseUrl: string
  /** An access token, an API key or an operator key. */
  readonly bearer?: Redacted.Redacted<string> | undefined
  readonly apiKey?: Redacted.Redacted<string> | undefined
  /** The tenant's id or slug: needed to sign in, and else only checked against the credential. */
  readonly tenant?: string | undefined
  /**
   * How often a call is tried again: when the connection failed, or the answer was 408, 429 or a 5xx that passes. It
   * waits with jitter, and as long as `Retry-After` says at the least. 0, the default, tries once.
   */
  readonly retries?: number | undefined
}

/** The wait before a retry doubles from here, up to `LONGEST_WAIT`. */
const FIRST_WAIT = Duration.millis(200)
const LONGEST_WAIT = Duration.seconds(10)

const waits = Schedule.exponential(FIRST_WAIT).pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, LONGEST_WAIT))),
  Schedule.jittered
)

/**
 * One key for a call, whatever times it is sent (draft-ietf-httpapi-idempotency-key-header): of a creating call that is
 * tried again, the platform acts once.
 */
const withIdempotencyKey = (request: HttpClientRequest.HttpClientRequest) =>
  request.method !== "POST" || request.headers["idempotency-key"] !== undefined
    ? Effect.succeed(request)
    : Effect.sync(() => HttpClientRequest.setHeader(request, "idempotency-key", crypto.randomUUID()))

const retrying = <E, R>(client: HttpClient.HttpClient.With<E, R>, times: number) =>
  client.pipe(
    HttpClient.retryTransient({ schedule: waits, times }),
    // A retry repeats what stands before this, and not the making of the key.
    HttpClient.transform((answer) => answer),
    HttpClient.mapRequestEffect(withIdempotencyKey)
  )

/**
 * The typed client of the platform, made from the same contract as the server: every answer is decoded, every problem
 * comes back as its class. Give it an `HttpClient`, such as `FetchHttpClient.layer`.
 */
export const makeClient = (options: ClientOptions) =>
  HttpApiClient.make(Api, {
    baseUrl: options.baseUrl,
    transformClient: (client) =>
      (options.retries === undefined ? client : retrying(client, options.retries)).pipe(
        HttpClient.mapRequest((request) => {
          let prepared = request
          if (options.bearer !== undefined) {
            prepared = HttpClientRequest.bearerToken(prepared, Redacted.value(options.bearer))
          }
          if (options.apiKey !== undefined) {
            prepared = HttpClientRequest.setHeader(prepared, "x-api-key", Redacted.value(options.apiKey))
          }
          if (options.tenant !== undefined) {
            prepared = HttpClientRequest.setHeader(prepared, "x-tenant-id", options.tenant)
          }
          return prepared
        })
      )
  })

export type Client = Effect.Success<ReturnType<typeof makeClient>>
