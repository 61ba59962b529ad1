import { Data, Duration, Effect, Ref, Result, Schedule, Schema, Stream } from "effect"
import { Sse } from "effect/encoding"
import { ClosedCode, EventId } from "../domain/Event.ts"
import type { StreamName } from "../domain/Event.ts"
import type { Client } from "./Client.ts"

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
