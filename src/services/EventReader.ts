import { Context, Duration, Effect, Latch, Layer, Metric, Option, Queue, Schedule } from "effect"
import type { Scope } from "effect"
import { randomUUID } from "node:crypto"
import { BEGINNING, compareEventIds, EventId } from "../domain/Event.ts"
import type { ClosedCode, StoredEvent } from "../domain/Event.ts"
import { DependencyUnavailable, RateLimited } from "../domain/Problems.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { Redis } from "./Redis.ts"

/** A tenant that opened more would take the sockets of the others. */
const OPEN_PER_TENANT = 1_000

/** What may wait for one subscriber to be read; beyond either it is dropped, and finds the rest in the stream. */
const WAITING_EVENTS = 1_000
const WAITING_CHARACTERS = 4 * 1024 * 1024

/** Below a minute, after which proxies and balancers begin to take a connection for dead. */
const HEARTBEAT = Duration.seconds(15)

/** What one answer of Redis holds of each stream, at the most: the rest is in the next. */
const EVENTS_PER_READ = 16

/** Whatever becomes of a connection, no read is waited for longer. */
const READ_WITHIN = Duration.seconds(4)

/** How long Redis lets a read wait. Within `Redis`' patience with a silent peer. */
const BLOCK_MILLIS = 1_000

const RETRY_AFTER = Duration.millis(100)

/** Streams that are looked at in one go after a reconnection. */
const CHECKED_AT_ONCE = 100

/** What reaches a subscriber. */
export type Heard =
  | { readonly _tag: "Event"; readonly event: StoredEvent }
  /** The stream began anew: what was read of it tells nothing of what comes. */
  | { readonly _tag: "Restarted" }
  /** A while has passed. */
  | { readonly _tag: "Heartbeat" }
  /** The last: it was too slow. */
  | { readonly _tag: "Dropped" }
  /** The last: it may not go on. */
  | { readonly _tag: "Closed"; readonly code: ClosedCode }

export type RawEntry = readonly [id: string, fields: ReadonlyArray<string>]

/** An entry of a Redis stream as `TenantEvents` writes it: `p` previous `t` type `d` data. */
export const eventOf = ([
  id,
  [, previous = BEGINNING, , type = "", , data = "null"]
]: RawEntry): StoredEvent => ({
  id: EventId.make(id),
  previous: EventId.make(previous),
  type,
  data
})

/** The id of a stream's last entry, by Redis' answer to XREVRANGE: `0-0` for a stream that has none. */
export const tailOf = (entries: ReadonlyArray<RawEntry>): EventId => {
  const [last] = entries
  return last === undefined ? BEGINNING : EventId.make(last[0])
}

const heartbeat: Heard = { _tag: "Heartbeat" }
const restarted: Heard = { _tag: "Restarted" }
const dropped: Heard = { _tag: "Dropped" }

interface Limits {
  readonly events: number
  readonly characters: number
}

/** What waits for one subscriber. Whoever puts something in never waits: what does not fit ends it. */
export class Mailbox {
  readonly #queue: Queue.Queue<Heard>
  readonly #limits: Limits
  readonly #onDropped: () => void
  readonly #over = Latch.makeUnsafe(false)
  #events = 0
  #characters = 0
  #ended = false

  constructor(queue: Queue.Queue<Heard>, limits: Limits, onDropped: () => void) {
    this.#queue = queue
    this.#limits = limits
    this.#onDropped = onDropped
  }

  /** What has come since, at least one; the last of all is `Dropped` or `Closed`. */
  get take(): Effect.Effect<ReadonlyArray<Heard>> {
    return Effect.map(Queue.takeAll(this.#queue), (heard) => {
      this.#events = 0
      this.#characters = 0
      return heard
    })
  }

  /** Returns once it is dropped or closed, whether anybody has read so or not. */
  get ended(): Effect.Effect<void> {
    return this.#over.await
  }

  get isEnded(): boolean {
    return this.#ended
  }

  offer(heard: Heard): void {
    if (this.#ended) return
    if (heard._tag === "Event") {
      this.#events++
      this.#characters += heard.event.data.length
      if (this.#events > this.#limits.events || this.#characters > this.#limits.characters) {
        this.#onDropped()
        this.#end(dropped)
        return
      }
    }
    Queue.offerUnsafe(this.#queue, heard)
  }

  close(code: ClosedCode): void {
    if (!this.#ended) this.#end({ _tag: "Closed", code })
  }

  /** What waits is let go: it is in the stream still, after the last id that the subscriber saw. */
  #end(last: Heard): void {
    this.#ended = true
    while (Queue.takeUnsafe(this.#queue) !== undefined);
    Queue.offerUnsafe(this.#queue, last)
    this.#over.openUnsafe()
  }
}

/** A stream of Redis that somebody listens to. */
interface Listened {
  /** What was read up to; undefined until it is known where to begin. */
  cursor: EventId | undefined
  readonly mailboxes: Set<Mailbox>
}

const openStreams = Metric.gauge("events_open_streams", {
  description: "Event streams open on this instance"
})
const droppedReaders = Metric.counter("events_dropped_readers_total", {
  description: "Event streams ended because their reader was too slow",
  incremental: true
})

export interface EventReaderOptions {
  readonly heartbeat?: Duration.Input
  readonly waitingEvents?: number
  readonly waitingCharacters?: number
  readonly openPerTenant?: number
}

/**
 * Reads the streams of all tenants for whoever listens on this instance, over one blocking connection. Only
 * `TenantEvents` sees it: keys are made there.
 *
 * XREAD answers for keys of one slot only, so that on a Redis Cluster there is nothing to listen with, and `open` fails
 * with `DependencyUnavailable`; a reader per node would not do either, since a node has many slots.
 */
export class EventReader extends Context.Service<
  EventReader,
  {
    /** A mailbox that hears heartbeats, for as long as the scope is open. `RateLimited` beyond a tenant's share. */
    readonly open: (
      tenantId: TenantId
    ) => Effect.Effect<Mailbox, RateLimited | DependencyUnavailable, Scope.Scope>
    /**
     * Puts the mailbox to a key. It hears every event after the one whose id the inner effect gives, the last that there
     * is now; it may hear some from before. The inner one may be tried again.
     */
    readonly listen: (
      key: string,
      mailbox: Mailbox
    ) => Effect.Effect<Effect.Effect<EventId, DependencyUnavailable>, never, Scope.Scope>
  }
>()("agent-army/services/EventReader") {
  static readonly layer = (options: EventReaderOptions = {}) =>
    Layer.effect(
      EventReader,
      Effect.gen(function* () {
        const redis = yield* Redis
        const context = yield* Effect.context<never>()
        const blocking = yield* redis.blocking
        const limits = {
          events: options.waitingEvents ?? WAITING_EVENTS,
          characters: options.waitingCharacters ?? WAITING_CHARACTERS
        }
        const openPerTenant = options.openPerTenant ?? OPEN_PER_TENANT
        const wakeKey = `p:events:wake:${randomUUID()}`

        const listened = new Map<string, Listened>()
        const open = new Set<Mailbox>()
        const openOf = new Map<TenantId, number>()
        const anyListened = Latch.makeUnsafe(false)
        let reading: ReadonlySet<string> = new Set()

        // Begun at zero: the first increase of a series that begins at one is lost.
        yield* Metric.update(droppedReaders, 0)
        yield* Metric.update(openStreams, 0)
        const onDropped = () => droppedReaders.updateUnsafe(1, context)

        const tailAt = (key: string) =>
          redis.use((client) => client.xrevrange(key, "+", "-", "COUNT", 1)).pipe(Effect.map(tailOf))

        /**
         * A read that blocks already does not know of a new key. Each read listens to a stream of this instance's own as
         * well, and an entry there ends it. That can't be lost between two reads, as CLIENT UNBLOCK can, which reaches
         * nobody when it comes before the read does, and which many a managed Redis forbids; and nobody waits out a
         * short BLOCK. Should it fail, the read ends by itself within a second.
         */
        const wake = Effect.ignore(
          redis.use((client) =>
            client
              .multi()
              .xadd(wakeKey, "MAXLEN", "=", 1, "*", "w", "1")
              .pexpire(wakeKey, 60 * BLOCK_MILLIS)
              .exec()
          )
        )

        const dispatch = (key: string, entries: ReadonlyArray<RawEntry>) => {
          const found = listened.get(key)
          if (found === undefined) return
          for (const entry of entries) {
            const event = eventOf(entry)
            if (found.cursor === undefined || compareEventIds(event.id, found.cursor) > 0)
              found.cursor = event.id
            const heard: Heard = { _tag: "Event", event }
            for (const mailbox of found.mailboxes) mailbox.offer(heard)
          }
        }

        /** After a time without Redis: a stream that has no such entry any more is another stream. */
        const check = Effect.gen(function* () {
          const known = [...listened].flatMap(([key, { cursor }]) =>
            cursor === undefined ? [] : [{ key, cursor }]
          )
          for (let first = 0; first < known.length; first += CHECKED_AT_ONCE) {
            const some = known.slice(first, first + CHECKED_AT_ONCE)
            const tails = yield* Effect.forEach(some, ({ key }) => tailAt(key), { concurrency: "unbounded" })
            for (const [index, { cursor, key }] of some.entries()) {
              const found = listened.get(key)
              if (found === undefined || compareEventIds(tails[index] ?? BEGINNING, cursor) >= 0) continue
              found.cursor = BEGINNING
              for (const mailbox of found.mailboxes) mailbox.offer(restarted)
            }
          }
        })

        if (Option.isSome(blocking)) {
          const client = blocking.value
          let wokenAt: string = BEGINNING
          let unsure = false

          const readOnce = Effect.gen(function* () {
            if (unsure) yield* check
            unsure = false
            const streams = [...listened].flatMap(([key, { cursor }]) =>
              cursor === undefined ? [] : [{ key, cursor }]
            )
            reading = new Set(streams.map(({ key }) => key))
            const reply = yield* Effect.tryPromise(() =>
              client.xread(
                "COUNT",
                EVENTS_PER_READ,
                "BLOCK",
                BLOCK_MILLIS,
                "STREAMS",
                wakeKey,
                ...streams.map(({ key }) => key),
                wokenAt,
                ...streams.map(({ cursor }) => cursor)
              )
            ).pipe(Effect.timeout(READ_WITHIN))
            for (const [key, entries] of reply ?? []) {
              if (key === wakeKey) wokenAt = entries.at(-1)?.[0] ?? wokenAt
              else dispatch(key, entries)
            }
          }).pipe(
            Effect.catch(() => {
              unsure = true
              return Effect.sleep(RETRY_AFTER)
            })
          )
          yield* Effect.andThen(anyListened.await, readOnce).pipe(Effect.forever, Effect.forkScoped)
        }

        yield* Effect.sync(() => {
          for (const mailbox of open) mailbox.offer(heartbeat)
        }).pipe(
          Effect.delay(options.heartbeat ?? HEARTBEAT),
          Effect.repeat(Schedule.forever),
          Effect.forkScoped
        )

        const count = (tenantId: TenantId, change: number) => {
          const now = (openOf.get(tenantId) ?? 0) + change
          if (now === 0) openOf.delete(tenantId)
          else openOf.set(tenantId, now)
          openStreams.updateUnsafe(open.size, context)
        }

        return EventReader.of({
          open: Effect.fnUntraced(function* (tenantId) {
            if (Option.isNone(blocking)) {
              return yield* new DependencyUnavailable({ detail: "Events need a Redis that is no Cluster" })
            }
            if ((openOf.get(tenantId) ?? 0) >= openPerTenant) {
              return yield* new RateLimited({ detail: `At most ${openPerTenant} event streams may be open` })
            }
            const mailbox = new Mailbox(yield* Queue.unbounded<Heard>(), limits, onDropped)
            yield* Effect.acquireRelease(
              Effect.sync(() => {
                open.add(mailbox)
                count(tenantId, 1)
              }),
              () =>
                Effect.sync(() => {
                  open.delete(mailbox)
                  count(tenantId, -1)
                })
            )
            return mailbox
          }),
          listen: Effect.fnUntraced(function* (key, mailbox) {
            const mine = yield* Effect.acquireRelease(
              Effect.sync(() => {
                const found = listened.get(key) ?? { cursor: undefined, mailboxes: new Set() }
                found.mailboxes.add(mailbox)
                listened.set(key, found)
                return found
              }),
              (found) =>
                Effect.sync(() => {
                  found.mailboxes.delete(mailbox)
                  if (found.mailboxes.size > 0) return
                  if (listened.get(key) === found) listened.delete(key)
                  if (listened.size === 0) anyListened.closeUnsafe()
                })
            )
            // Only now: an event that comes after this is in the mailbox, or will be.
            return Effect.tap(tailAt(key), (tail) => {
              // The earlier of two that begin at once: whoever hears an event twice knows it by its id.
              if (mine.cursor === undefined || compareEventIds(tail, mine.cursor) < 0) mine.cursor = tail
              anyListened.openUnsafe()
              return reading.has(key) ? Effect.void : wake
            })
          })
        })
      })
    )
}
