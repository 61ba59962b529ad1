import { Data, Duration, Effect, Redacted, Ref, Result, Schedule, Schema, Stream } from "effect"
import { Sse } from "effect/encoding"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { ClosedCode, EventId } from "../domain/Event.ts"
import type { StreamName } from "../domain/Event.ts"
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

/** An event of a stream, as a subscriber gets it. */
export class ReceivedEvent extends Schema.TaggedClass<ReceivedEvent>()("Event", {
  id: EventId,
  type: Schema.String,
  data: Schema.Json
}) {}

/** Events since the last one are gone; the stream goes on with the oldest one kept, if there is any. */
export class EventsReset extends Schema.TaggedClass<EventsReset>()("Reset", {
  oldestId: Schema.NullOr(EventId)
}) {}

/** The platform closed the subscription for good, and says why. */
export class SubscriptionClosed extends Schema.TaggedError<SubscriptionClosed>()("SubscriptionClosed", {
  code: ClosedCode
}) {}

/** The connection ended, and the next may do better. */
class Interrupted extends Data.TaggedError("Interrupted") {}

const ResetData = Schema.fromJsonString(Schema.Struct({ oldest_id: Schema.NullOr(EventId) }))
const ClosedData = Schema.fromJsonString(Schema.Struct({ code: ClosedCode }))
const decodeData = Schema.decodeEffect(Schema.fromJsonString(Schema.Json))
const decodeId = Schema.decodeUnknownEffect(EventId)

/** How long nothing at all may come, not even a comment, until the connection is taken for dead. */
const SILENT = Duration.seconds(45)

/** What a client waits before it connects again, with some chance in it, so that not all come back at once. */
const reconnecting = Schedule.jittered(Schedule.spaced("1 second"))

/** Failures after which the next connection may do better. */
const passing: ReadonlySet<string> = new Set([
  "Interrupted",
  "HttpClientError",
  "DependencyUnavailable",
  "InternalError"
])

export interface SubscribeOptions {
  /** Everything after this event; without it only what is published from now on. `0-0` stands before all events. */
  readonly after?: EventId | undefined
}

/**
 * The events of a stream, for as long as the credential holds: connects again by itself, and goes on after the last
 * event that came. Ends with a problem where the platform refuses, and with `SubscriptionClosed`.
 */
export const subscribe = (client: Client, stream: StreamName, options: SubscribeOptions = {}) =>
  Stream.unwrap(
    Effect.map(Ref.make(options.after), (last) => {
      const toEvent = Effect.fnUntraced(function* (event: Sse.Event) {
        if (event.id !== undefined) yield* Ref.set(last, yield* decodeId(event.id))
        switch (event.event) {
          case "reset":
            return new EventsReset({
              oldestId: (yield* Schema.decodeEffect(ResetData)(event.data)).oldest_id
            })
          case "closed": {
            const { code } = yield* Schema.decodeEffect(ClosedData)(event.data)
            return yield* code === "ShuttingDown" || code === "DependencyUnavailable"
              ? new Interrupted()
              : new SubscriptionClosed({ code })
          }
          case "dropped":
            return yield* new Interrupted()
          default:
            return new ReceivedEvent({
              id: yield* decodeId(event.id),
              type: event.event,
              data: yield* decodeData(event.data)
            })
        }
      })

      const connect = Effect.gen(function* () {
        const after = yield* Ref.get(last)
        const bytes = yield* client.events.subscribe({
          params: { stream },
          headers: after === undefined ? {} : { "last-event-id": after }
        })
        const found: Array<Sse.Event> = []
        const parser = Sse.makeParser((event) => {
          // `retry` is for browsers.
          if (event._tag === "Event") found.push(event)
        })
        return bytes.pipe(
          Stream.timeoutOrElse({ duration: SILENT, orElse: () => Stream.fail(new Interrupted()) }),
          Stream.decodeText,
          Stream.mapEffect((text) => {
            const tooLarge = parser.feed(text)
            return tooLarge === undefined ? Effect.succeed(found.splice(0)) : Effect.fail(tooLarge)
          }),
          Stream.flatMap(Stream.fromIterable),
          Stream.mapEffect(toEvent),
          // An answer without an end: that it ended is a failure of the connection.
          Stream.concat(Stream.fail(new Interrupted()))
        )
      })

      return Stream.unwrap(connect).pipe(
        Stream.map(Result.succeed),
        // What is final leaves as a value, around the retry.
        Stream.catchIf(
          (error) => !passing.has(error._tag),
          (error) => Stream.succeed(Result.fail(error))
        ),
        Stream.retry(reconnecting),
        Stream.mapEffect(Effect.fromResult)
      )
    })
  )
