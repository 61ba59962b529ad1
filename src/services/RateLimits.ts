import { Cause, Clock, Context, Duration, Effect, Layer, Scope } from "effect"
import type { RateLimiter } from "effect/persistence"
import { makeLocalLimiter, SharedLimiter } from "./RateLimitStores.ts"
import { Redis } from "./Redis.ts"

/** So much of a limit at most is leased to an instance at one time: what it can't use elsewhere is lost for the window. */
const LEASED_SHARE = 0.01
/** A lease that is not used up by then lapses. */
const LEASE_MILLIS = 2_000
/** A lease used up within this time is followed by one twice its size. */
const SOON_MILLIS = 1_000
/** How long an instance may go on refusing without asking again. */
const REFUSAL_MILLIS = 1_000
/** The longest a request waits for Redis, once: after that Redis is taken for away. */
const PATIENCE = Duration.millis(250)
/** How often Redis is asked whether it is back. */
const LOOK_AGAIN = Duration.millis(500)
/** Keys an instance remembers. A forgotten lease is lost, a forgotten refusal is asked for again. */
const REMEMBERED_KEYS = 50_000

/** A limit, and whom it counts: `key` is the whole name of the counter in Redis. */
export interface Policy {
  /** What callers are told: a word, as in `RateLimit: "tenant";r=99;t=30`. */
  readonly name: string
  readonly key: string
  readonly limit: number
  readonly windowSeconds: number
}

/** Where a policy stands after a charge. Leases make `remaining` as exact as this instance knows. */
export interface Quota {
  readonly policy: Policy
  readonly remaining: number
  readonly resetSeconds: number
}

export interface Verdict {
  readonly allowed: boolean
  readonly quotas: ReadonlyArray<Quota>
  /** Whole seconds, one at least; 0 where it is allowed. */
  readonly retryAfterSeconds: number
}

/** What an instance holds of a counter. */
interface Entry {
  readonly limit: number
  /** Charged in Redis already, and not used yet. */
  left: number
  leasedAt: number
  size: number
  /** A lease is being asked for: who comes meanwhile asks for itself only. */
  asking: boolean
  refusedUntil: number
  remaining: number
  resetAt: number
}

type Outcome = { readonly granted: boolean; readonly remaining: number; readonly resetMillis: number }

/**
 * Fails when Redis has had its time. A process that was held up itself sees its timers before the answers that have long
 * arrived: they are read first, or a busy moment would count as Redis being away.
 */
const outOfPatience: Effect.Effect<never, Cause.TimeoutError> = Effect.sleep(PATIENCE).pipe(
  Effect.andThen(
    Effect.callback<void>((resume) => {
      const waiting = setImmediate(() => resume(Effect.void))
      return Effect.sync(() => clearImmediate(waiting))
    })
  ),
  Effect.andThen(Effect.fail(new Cause.TimeoutError()))
)

/**
 * Limits on how often something may be done, counted in Redis by `effect`'s fixed windows, for all instances together.
 *
 * Charging is in memory: an instance leases a part of a limit (1 % at most, and never more than it lately used up in a
 * second) and asks Redis again when that is used up. A lease is charged when it is taken, so that all
 * instances together never allow more than the limit; they may refuse up to one lease each too early. Limits under
 * 200 are counted one by one. What is refused is refused from memory for a second.
 *
 * While Redis is away each instance counts for itself, from nothing, to the same limits. No request waits for it:
 * the one that finds out waits 250 ms at the most, and none after it.
 */
export class RateLimits extends Context.Service<
  RateLimits,
  {
    /** Charges all policies, or none: what one refuses costs the others nothing. */
    readonly charge: (policies: ReadonlyArray<Policy>, cost?: number) => Effect.Effect<Verdict>
    /** Whether this instance knows that a policy refuses now. Asks nobody. */
    readonly refused: (policy: Policy) => Effect.Effect<Verdict | undefined>
    /** Gives back what was charged, or what of it was not used. */
    readonly refund: (policies: ReadonlyArray<Policy>, cost?: number) => Effect.Effect<void>
    /** Forgets what was counted. */
    readonly reset: (policy: Policy) => Effect.Effect<void>
  }
>()("agent-army/services/RateLimits") {
  static readonly layer = Layer.effect(
    RateLimits,
    Effect.gen(function* () {
      const redis = yield* Redis
      const shared = yield* SharedLimiter
      const local = yield* makeLocalLimiter
      const scope = yield* Scope.Scope
      const entries = new Map<string, Entry>()
      let away = false

      const fresh = (limit: number): Entry => ({
        limit,
        left: 0,
        leasedAt: 0,
        size: 1,
        asking: false,
        refusedUntil: 0,
        remaining: limit,
        resetAt: 0
      })

      const entryOf = ({ key, limit }: Policy, now: number): Entry => {
        const found = entries.get(key)
        if (found?.limit === limit) {
          if (found.left > 0 && now - found.leasedAt > LEASE_MILLIS) {
            found.left = 0
            found.size = Math.max(1, found.size >> 1)
          }
          return found
        }
        const made = fresh(limit)
        entries.delete(key)
        entries.set(key, made)
        if (entries.size > REMEMBERED_KEYS) {
          const oldest = entries.keys().next()
          if (oldest.done !== true) entries.delete(oldest.value)
        }
        return made
      }

      const quota = (policy: Policy, entry: Entry, now: number): Quota => ({
        policy,
        remaining: Math.max(0, Math.floor(entry.remaining + entry.left)),
        resetSeconds: Math.max(0, Math.ceil((entry.resetAt - now) / 1000))
      })

      const refusal = (
        policies: ReadonlyArray<Policy>,
        held: ReadonlyArray<Entry>,
        now: number
      ): Verdict | undefined => {
        let until = 0
        for (const entry of held) if (entry.refusedUntil > now) until = Math.max(until, entry.resetAt)
        if (until === 0) return undefined
        return {
          allowed: false,
          quotas: policies.flatMap((policy, index) => {
            const entry = held[index]
            return entry === undefined ? [] : [quota(policy, entry, now)]
          }),
          retryAfterSeconds: Math.max(1, Math.ceil((until - now) / 1000))
        }
      }

      const consume = (limiter: Pick<RateLimiter.RateLimiter, "consume">, policy: Policy, tokens: number) =>
        limiter
          .consume({
            algorithm: "fixed-window",
            key: policy.key,
            limit: policy.limit,
            window: Duration.seconds(policy.windowSeconds),
            tokens
          })
          .pipe(
            Effect.map(({ remaining, resetAfter }): Outcome => ({
              granted: true,
              remaining,
              resetMillis: Duration.toMillis(resetAfter)
            })),
            Effect.catchReason("RateLimiterError", "RateLimitExceeded", ({ retryAfter }) =>
              Effect.succeed<Outcome>({
                granted: false,
                remaining: 0,
                resetMillis: Duration.toMillis(retryAfter)
              })
            )
          )

      /** Until Redis answers again, everybody counts here. */
      const goLocal = Effect.suspend(() => {
        if (away) return Effect.void
        away = true
        const look = Effect.suspend(() =>
          redis
            .use((client) => client.ping())
            .pipe(Effect.delay(LOOK_AGAIN), Effect.retry({ times: Infinity }))
        )
        return Effect.andThen(
          local.renew,
          Effect.forkIn(
            Effect.tap(look, () =>
              Effect.sync(() => {
                away = false
              })
            ),
            scope
          )
        )
      })

      const take = (policy: Policy, tokens: number): Effect.Effect<Outcome> => {
        const here = Effect.suspend(() =>
          Effect.orDie(consume(local, policy, Math.min(tokens, policy.limit)))
        )
        return Effect.suspend(() =>
          away
            ? here
            : consume(shared, policy, tokens).pipe(
                Effect.raceFirst(outOfPatience),
                Effect.catch(() => Effect.andThen(goLocal, here))
              )
        )
      }

      /** Charges one policy whose lease is used up: for a new one, or, near the limit, for this one charge. */
      const lease = Effect.fnUntraced(function* (policy: Policy, entry: Entry, cost: number, now: number) {
        if (entry.leasedAt > 0 && now - entry.leasedAt <= SOON_MILLIS) entry.size *= 2
        entry.size = Math.min(entry.size, Math.max(1, Math.floor(policy.limit * LEASED_SHARE)))
        const alone = entry.asking || away
        const size = alone ? cost : Math.max(cost, entry.size)
        if (!alone) entry.asking = true
        const first = yield* Effect.onExit(take(policy, size), () =>
          Effect.sync(() => {
            if (!alone) entry.asking = false
          })
        )
        const outcome = first.granted || size === cost ? first : yield* take(policy, cost)
        const answeredAt = yield* Clock.currentTimeMillis
        entry.resetAt = answeredAt + outcome.resetMillis
        if (outcome.granted) {
          entry.remaining = outcome.remaining
          if (first.granted && !alone) {
            entry.left += size - cost
            entry.leasedAt = answeredAt
          }
        } else {
          entry.remaining = 0
          entry.refusedUntil = answeredAt + Math.min(outcome.resetMillis, REFUSAL_MILLIS)
        }
        return outcome.granted
      })

      const chargeSlowly = Effect.fnUntraced(function* (
        policies: ReadonlyArray<Policy>,
        held: ReadonlyArray<Entry>,
        cost: number,
        now: number
      ) {
        const charged = yield* Effect.forEach(
          policies,
          (policy, index) => {
            const entry = held[index] ?? fresh(policy.limit)
            if (entry.left < cost) return lease(policy, entry, cost, now)
            entry.left -= cost
            return Effect.succeed(true)
          },
          { concurrency: "unbounded" }
        )
        const later = yield* Clock.currentTimeMillis
        const quotas = policies.flatMap((policy, index) => {
          const entry = held[index]
          return entry === undefined ? [] : [quota(policy, entry, later)]
        })
        if (charged.every((granted) => granted)) return { allowed: true, quotas, retryAfterSeconds: 0 }
        let until = 0
        for (const [index, granted] of charged.entries()) {
          const entry = held[index]
          if (entry === undefined) continue
          // What the others were charged goes to the next request of theirs.
          if (granted) {
            entry.left += cost
            entry.leasedAt = later
          } else until = Math.max(until, entry.resetAt)
        }
        return {
          allowed: false,
          quotas,
          retryAfterSeconds: Math.max(1, Math.ceil((until - later) / 1000))
        }
      })

      return RateLimits.of({
        charge: (policies, cost = 1) =>
          Clock.clockWith((clock) => {
            const now = clock.currentTimeMillisUnsafe()
            const held = policies.map((policy) => entryOf(policy, now))
            const refused = refusal(policies, held, now)
            if (refused !== undefined) return Effect.succeed(refused)
            if (held.some(({ left }) => left < cost)) return chargeSlowly(policies, held, cost, now)
            const quotas = policies.flatMap((policy, index) => {
              const entry = held[index]
              if (entry === undefined) return []
              entry.left -= cost
              return [quota(policy, entry, now)]
            })
            return Effect.succeed({ allowed: true, quotas, retryAfterSeconds: 0 })
          }),
        refused: (policy) =>
          Clock.clockWith((clock) => {
            const entry = entries.get(policy.key)
            return Effect.succeed(
              entry === undefined ? undefined : refusal([policy], [entry], clock.currentTimeMillisUnsafe())
            )
          }),
        refund: (policies, cost = 1) =>
          Effect.forEach(policies, (policy) => take(policy, -cost), {
            concurrency: "unbounded",
            discard: true
          }),
        reset: (policy) =>
          Effect.suspend(() => {
            entries.delete(policy.key)
            return away ? local.forget(policy) : Effect.ignore(redis.use((client) => client.del(policy.key)))
          })
      })
    })
  ).pipe(Layer.provide(SharedLimiter.layer))
}
