import { Array as Arr, Cause, Context, Data, Duration, Effect, Layer, Metric, Option, Schedule } from "effect"
import { Scope, Stream } from "effect"
import type { Pull } from "effect"
import { BEGINNING, compareEventIds, EventId } from "../domain/Event.ts"
import type { ClosedCode, NewEvent, StoredEvent, StreamName } from "../domain/Event.ts"
import type { DependencyUnavailable, RateLimited } from "../domain/Problems.ts"
import { tenantSettingDefaults } from "../domain/TenantSettings.ts"
import { EventReader, eventOf, tailOf } from "./EventReader.ts"
import type { Mailbox } from "./EventReader.ts"
import { Redis } from "./Redis.ts"
import { EVENTS, tenantPrefix } from "./TenantCache.ts"
import { TenantContext } from "./TenantContext.ts"

/** A page of history: begun small, then as many events as make up about so many characters. */
const FIRST_PAGE = 16
const LARGEST_PAGE = 256
const PAGE_CHARACTERS = 512 * 1024

const RETRY_AFTER = Duration.millis(100)

/**
 * Each entry names the one before it, so that whoever reads on from an id sees whether one is missing in between,
 * however it was lost: trimmed, or with Redis' memory. The bound is exact: `~` would save Redis little, since one entry
 * in is one entry out, and a stream is kept as a few nodes only.
 *
 * KEYS[1] the stream, ARGV: the bound, the type, the data.
 */
const PUBLISH = `
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[1], '*', 'p', last and last[1] or '0-0', 't', ARGV[2], 'd', ARGV[3])`

const published = Metric.counter("events_published_total", {
  description: "Events published",
  incremental: true
})

/** What a subscriber is told. The last are `Dropped`, it was too slow, and `Closed`, it may not go on. */
export type Happening = Data.TaggedEnum<{
  Event: { readonly event: StoredEvent }
  /**
   * Events after the last one that was seen are gone. The stream goes on after `position`, with `oldestId` if there is
   * any.
   */
  Reset: { readonly position: EventId; readonly oldestId: EventId | null }
  Heartbeat: {}
  Dropped: {}
  Closed: { readonly code: ClosedCode }
}>
const Happening = Data.taggedEnum<Happening>()

/** An open subscription, until the scope in which it was made closes. */
export interface Subscription {
  /** Ends after `Dropped` or `Closed`, and never fails: while Redis is away, nothing comes. */
  readonly happenings: Stream.Stream<Happening>
  /** Ends it with `Closed`. */
  readonly close: (code: ClosedCode) => void
  /** Returns once it was dropped or closed, even if nobody reads that. */
  readonly ended: Effect.Effect<void>
}

/**
 * The tenant's streams of events. They stand in the same slot of a Redis Cluster as its other keys, beneath `events:`.
 *
 * @effect-leakable-service
 */
export class TenantEvents extends Context.Service<
  TenantEvents,
  {
    /**
     * Adds an event, and lets go of the oldest beyond the tenant's `events.max_length`. `DependencyUnavailable` may
     * also mean that the answer was lost: published again, the event may then be there twice.
     */
    readonly publish: (stream: StreamName, event: NewEvent) => Effect.Effect<EventId, DependencyUnavailable>
    /** What comes from now on, or everything after an event; `0-0` stands before all of them. */
    readonly subscribe: (
      stream: StreamName,
      after: EventId | undefined
    ) => Effect.Effect<Subscription, DependencyUnavailable | RateLimited, Scope.Scope>
  }
>()("agent-army/services/TenantEvents") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<TenantEvents["Service"], never, TenantContext | Redis | EventReader> =
    Effect.gen(function* () {
      const redis = yield* Redis
      const reader = yield* EventReader
      const { settings, tenantId } = yield* TenantContext
      const keyOf = (stream: StreamName) => tenantPrefix(tenantId) + EVENTS + stream
      const maxLength = settings["events.max_length"] ?? tenantSettingDefaults["events.max_length"]

      return TenantEvents.of({
        publish: Effect.fn("TenantEvents.publish")(function* (stream, { data, type }) {
          const id = yield* redis.use((client) =>
            client.eval(PUBLISH, 1, keyOf(stream), maxLength, type, JSON.stringify(data))
          )
          yield* Metric.update(published, 1)
          return EventId.make(String(id))
        }),
        subscribe: Effect.fn("TenantEvents.subscribe")(function* (stream, after) {
          const key = keyOf(stream)
          const scope = yield* Effect.scope
          const mailbox = yield* reader.open(tenantId)
          const source: Source = {
            mailbox,
            listen: Effect.provideService(reader.listen(key, mailbox), Scope.Scope, scope),
            tail: Effect.map(
              redis.use((client) => client.xrevrange(key, "+", "-", "COUNT", 1)),
              tailOf
            ),
            after: (last, count) =>
              Effect.map(
                redis.use((client) => client.xrange(key, `(${last}`, "+", "COUNT", count)),
                (entries) => entries.map(eventOf)
              )
          }
          return {
            happenings: Stream.fromPull(Effect.succeed(yield* follow(source, after))),
            close: (code) => mailbox.close(code),
            ended: mailbox.ended
          }
        })
      })
    })
  static readonly layer = Layer.effect(TenantEvents, this.make)
}

/** A stream, as one subscriber reads it. */
interface Source {
  readonly mailbox: Mailbox
  readonly listen: Effect.Effect<Effect.Effect<EventId, DependencyUnavailable>>
  readonly tail: Effect.Effect<EventId, DependencyUnavailable>
  readonly after: (
    last: EventId,
    count: number
  ) => Effect.Effect<ReadonlyArray<StoredEvent>, DependencyUnavailable>
}

/**
 * First the history in pages, then what the mailbox hears. It is put to the stream only when the history is nearly read,
 * so that a long one does not overflow it; what comes in between is in both, and told apart by its id.
 *
 * Fails while nothing has been sent yet, so that the failure can be answered; from then on it waits.
 */
const follow = Effect.fnUntraced(function* (source: Source, after: EventId | undefined) {
  const { mailbox } = source
  let last = after ?? BEGINNING
  let tail: Effect.Effect<EventId, DependencyUnavailable> | undefined
  let live = false
  let unknown = false
  let over = false
  let page = FIRST_PAGE

  if (after === undefined) {
    tail = yield* source.listen
    last = yield* tail
    live = true
  } else {
    // An id that is yet to come was given out by another Redis, or by none.
    unknown = compareEventIds(yield* source.tail, last) < 0
  }

  /** None only when the subscription has ended meanwhile. */
  const patiently = <A>(effect: Effect.Effect<A, DependencyUnavailable>): Effect.Effect<Option.Option<A>> =>
    Effect.option(
      Effect.retry(effect, { schedule: Schedule.spaced(RETRY_AFTER), while: () => !mailbox.isEnded })
    )

  const reset = Effect.gen(function* () {
    const found = yield* patiently(source.after(BEGINNING, 1))
    if (Option.isNone(found)) return []
    const [oldest] = found.value
    last = oldest?.previous ?? BEGINNING
    return [Happening.Reset({ position: last, oldestId: oldest?.id ?? null })]
  })

  const advance = (event: StoredEvent): ReadonlyArray<Happening> => {
    if (compareEventIds(event.id, last) <= 0) return []
    // Either the one before it has not been seen, or it is the first of a stream that began anew.
    const missed =
      compareEventIds(event.previous, last) > 0 || (event.previous === BEGINNING && last !== BEGINNING)
    last = event.id
    const happening = Happening.Event({ event })
    return missed
      ? [Happening.Reset({ position: event.previous, oldestId: event.id }), happening]
      : [happening]
  }

  const hear = Effect.gen(function* () {
    const happenings: Array<Happening> = []
    for (const heard of yield* mailbox.take) {
      if (heard._tag === "Event") happenings.push(...advance(heard.event))
      else if (heard._tag === "Restarted") happenings.push(...(yield* reset))
      else happenings.push(heard)
      over = heard._tag === "Dropped" || heard._tag === "Closed"
    }
    return happenings
  })

  const catchUp = Effect.gen(function* () {
    const read = yield* patiently(source.after(last, page))
    if (Option.isNone(read)) return []
    const events = read.value
    if (events.length === page) {
      const characters = events.reduce((sum, event) => sum + event.data.length, 1)
      page = Math.min(LARGEST_PAGE, Math.max(1, Math.floor((page * PAGE_CHARACTERS) / characters)))
    } else if (tail === undefined) {
      tail = yield* source.listen
      const now = yield* patiently(tail)
      unknown = Option.isSome(now) && compareEventIds(now.value, last) < 0
    } else {
      live = true
    }
    return events.flatMap(advance)
  })

  const step = Effect.suspend((): Effect.Effect<ReadonlyArray<Happening>> => {
    if (live || mailbox.isEnded) return hear
    if (!unknown) return catchUp
    unknown = false
    return reset
  })

  return Effect.suspend(function next(): Pull.Pull<Arr.NonEmptyReadonlyArray<Happening>> {
    return over
      ? Cause.done()
      : Effect.flatMap(step, (happenings) =>
          Arr.isReadonlyArrayNonEmpty(happenings) ? Effect.succeed(happenings) : Effect.suspend(next)
        )
  })
})
