import { Clock, Context, DateTime, Duration, Effect, Layer, Schedule, Schema, Semaphore } from "effect"
import type { Statement } from "effect/sql"
import { randomUUID } from "node:crypto"
import { moneyOf, usdOf } from "../../domain/Money.ts"
import type { Money } from "../../domain/Money.ts"
import { BudgetExceeded } from "../../domain/Problems.ts"
import type { DependencyUnavailable } from "../../domain/Problems.ts"
import type { TenantRef } from "../../domain/Tenant.ts"
import { orUnavailable } from "../DbErrors.ts"
import { tenantDb } from "../TenantDb.ts"
import type { TenantTable } from "../TenantDb.ts"
import { TenantPool } from "../TenantPool.ts"

// A budget is hard when nobody can spend what another one counts on. Here one row of the tenant's says what its month came to and what of
// the rest the instances hold is in `llm_leases`; an instance takes a lease under that row's lock, and reserves from it in memory. A row of
// usage and the lease that it is paid from change in one statement (`LlmUsage`), so that
//
//     spent + leased ≤ budget
//
// holds in the database at each moment, and within an instance  held + unwritten ≤ its lease. Nothing has to be counted again after a
// crash or an outage: a lease that nobody renews goes back, and until then it is spent by nobody.

/** Of what is left, an instance that asks gets so much beyond its need: most calls ask nobody. */
const SHARE = 2n
/** What has not been used for so long goes back to the others. */
const IDLE = Duration.seconds(5)
const LOOK_EVERY = Duration.seconds(1)
const RENEW_EVERY = Duration.seconds(20)
/** Who has not renewed for so long spends no more of it; a minute later others may. */
const STALE_AFTER = Duration.minutes(4)
const SWEPT_AFTER = Duration.minutes(5)
/** How long a refusal holds without asking again. */
const REFUSE_FOR = Duration.millis(500)

/** What an instance holds of a tenant's month. */
interface Purse {
  readonly tenant: TenantRef
  readonly month: string
  limit: Money
  leased: Money
  /** Reserved for calls under way. */
  held: Money
  /** Of calls that are over, and not in the database yet. */
  unwritten: Money
  renewedAt: number
  usedAt: number
  refusedUntil: number
  /** The least that was refused. */
  refused: Money
  /** One asks at a time. */
  readonly turns: Semaphore.Semaphore
}

/** What is held for one attempt. */
export interface Reservation {
  /** What it came to, once: it stays counted until its row is `written`. */
  readonly settle: (cost: Money) => void
  /** Its row is in the database, which has taken its cost from the lease. */
  readonly written: () => void
}

/** What a tenant has spent and what is held of its budget, in the month of now. */
export interface Standing {
  readonly spent: string
  readonly reserved: string
}

const Month = Schema.Tuple([Schema.Struct({ spent: Schema.String, leased: Schema.String })])
const decodeMonth = Schema.decodeUnknownEffect(Month)

/** What a month came to, and what instances hold of the rest. */
const standingOf = (sql: Statement.Constructor, table: TenantTable, month: string) =>
  Effect.flatMap(
    sql`SELECT (SELECT trim_scale(coalesce(sum(spent_usd), 0))::text FROM ${table("llm_months")}
          WHERE month = ${month}::date) AS spent,
        (SELECT trim_scale(coalesce(sum(amount_usd), 0))::text FROM ${table("llm_leases")}
          WHERE month = ${month}::date) AS leased`,
    (rows) => Effect.map(Effect.orDie(decodeMonth(rows)), ([standing]) => standing)
  )

/** The first day of the month, in UTC. */
export const monthOf = (millis: number): string =>
  `${DateTime.formatIsoDateUtc(DateTime.makeUnsafe(millis)).slice(0, 7)}-01`

const freeOf = ({ held, leased, unwritten }: Purse): Money => leased - held - unwritten

/** Hard monthly budgets of LLM calls. Knows no tenant: whose budget it is is told with each call. */
export class LlmBudgets extends Context.Service<
  LlmBudgets,
  {
    /** Under which leases are held. */
    readonly instance: string
    /**
     * Before a provider is called: `amount` is the most that it can cost. Fails with `BudgetExceeded` where the month has not so much left,
     * and with `DependencyUnavailable` where nobody can say.
     */
    readonly reserve: (
      tenant: TenantRef,
      month: string,
      limit: Money,
      amount: Money
    ) => Effect.Effect<Reservation, BudgetExceeded | DependencyUnavailable>
    readonly standing: (tenant: TenantRef, month: string) => Effect.Effect<Standing, DependencyUnavailable>
  }
>()("agent-army/services/LlmBudgets") {
  static readonly layer = Layer.effect(
    LlmBudgets,
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const instance = randomUUID()
      const purses = new Map<string, Purse>()
      const keyOf = (tenant: TenantRef, month: string) => `${tenant.schema}/${month}`

      const purseOf = (tenant: TenantRef, month: string, limit: Money, now: number): Purse => {
        const key = keyOf(tenant, month)
        const found = purses.get(key)
        if (found !== undefined) return found
        const purse: Purse = {
          tenant,
          month,
          limit,
          leased: 0n,
          held: 0n,
          unwritten: 0n,
          renewedAt: 0,
          usedAt: now,
          refusedUntil: 0,
          refused: 0n,
          turns: Semaphore.makeUnsafe(1)
        }
        purses.set(key, purse)
        return purse
      }

      /** What is missing for an amount, and a share of the rest. Returns what was granted: nothing where it is not there. */
      const lease = Effect.fn("LlmBudgets.lease")(function* (purse: Purse, need: Money) {
        const { limit, month } = purse
        return yield* tenantDb(pool, purse.tenant)
          .transaction((sql, table) =>
            Effect.gen(function* () {
              yield* sql`INSERT INTO ${table("llm_months")} (month) VALUES (${month}::date) ON CONFLICT DO NOTHING`
              yield* sql`SELECT 1 FROM ${table("llm_months")} WHERE month = ${month}::date FOR UPDATE`
              yield* sql`DELETE FROM ${table("llm_leases")} WHERE month = ${month}::date AND instance <> ${instance}::uuid
                AND renewed_at < now() - ${Duration.toSeconds(SWEPT_AFTER)}::float8 * interval '1 second'`
              // A statement of its own, which sees what was there when the lock was.
              const standing = yield* standingOf(sql, table, month)
              const rest = limit - moneyOf(standing.spent) - moneyOf(standing.leased)
              const granted = rest < need ? 0n : need > rest / SHARE ? need : rest / SHARE
              if (granted > 0n) {
                yield* sql`INSERT INTO ${table("llm_leases")} AS l (month, instance, amount_usd)
                  VALUES (${month}::date, ${instance}::uuid, ${usdOf(granted)}::numeric)
                  ON CONFLICT (month, instance) DO UPDATE SET amount_usd = l.amount_usd + excluded.amount_usd, renewed_at = now()`
              }
              return granted
            })
          )
          .pipe(orUnavailable)
      })

      /** Gives back what nobody uses. */
      const giveBack = Effect.fnUntraced(function* (purse: Purse) {
        const free = freeOf(purse)
        if (free <= 0n) return
        // Before the database knows of it: nobody here may take it meanwhile.
        purse.leased -= free
        yield* tenantDb(pool, purse.tenant)
          .transaction((sql, table) =>
            Effect.gen(function* () {
              const { month } = purse
              yield* sql`SELECT 1 FROM ${table("llm_months")} WHERE month = ${month}::date FOR UPDATE`
              yield* sql`UPDATE ${table("llm_leases")} SET amount_usd = amount_usd - ${usdOf(free)}::numeric
                WHERE month = ${month}::date AND instance = ${instance}::uuid`
              yield* sql`DELETE FROM ${table("llm_leases")} WHERE month = ${month}::date
                AND instance = ${instance}::uuid AND amount_usd = 0`
            })
          )
          .pipe(
            Effect.tapError(() => Effect.sync(() => (purse.leased += free))),
            Effect.ignore
          )
      })

      const renew = Effect.fnUntraced(function* (purse: Purse, now: number) {
        const kept = yield* tenantDb(pool, purse.tenant)
          .query(
            (sql, table) => sql`UPDATE ${table("llm_leases")} SET renewed_at = now()
              WHERE month = ${purse.month}::date AND instance = ${instance}::uuid RETURNING 1`
          )
          .pipe(Effect.orElseSucceed(() => undefined))
        if (kept === undefined) return
        if (kept.length > 0) purse.renewedAt = now
        // Others have it: what is under way is settled with a purse that nobody takes from any more.
        else purses.delete(keyOf(purse.tenant, purse.month))
      })

      const isDone = ({ held, leased, unwritten }: Purse) => leased === 0n && held === 0n && unwritten === 0n

      const drop = (purse: Purse) =>
        Effect.suspend(() => {
          if (!isDone(purse)) return Effect.void
          purses.delete(keyOf(purse.tenant, purse.month))
          return Effect.ignore(
            tenantDb(pool, purse.tenant).query(
              (sql, table) => sql`DELETE FROM ${table("llm_leases")} WHERE month = ${purse.month}::date
                AND instance = ${instance}::uuid AND amount_usd = 0`
            )
          )
        })

      const isFresh = (purse: Purse, now: number) => now - purse.renewedAt < Duration.toMillis(STALE_AFTER)

      const take = (purse: Purse, amount: Money, now: number): Reservation => {
        purse.held += amount
        purse.usedAt = now
        let state: "held" | "settled" | "written" = "held"
        let spent = 0n
        return {
          settle: (cost) => {
            if (state !== "held") return
            state = "settled"
            spent = cost
            purse.held -= amount
            purse.unwritten += cost
          },
          written: () => {
            if (state !== "settled") return
            state = "written"
            purse.unwritten -= spent
            purse.leased -= spent
          }
        }
      }

      const ask = Effect.fnUntraced(function* (purse: Purse, amount: Money, now: number) {
        // Somebody may have asked while this one waited for its turn.
        if (isFresh(purse, now) && freeOf(purse) >= amount) return take(purse, amount, now)
        const granted = yield* lease(purse, isFresh(purse, now) ? amount - freeOf(purse) : amount)
        if (granted > 0n) {
          purse.leased += granted
          purse.renewedAt = now
          purse.refusedUntil = 0
          return take(purse, amount, now)
        }
        purse.refused = amount
        purse.refusedUntil = now + Duration.toMillis(REFUSE_FOR)
        // Too little for this call, and perhaps enough for another instance's.
        yield* giveBack(purse)
        return yield* spentUp
      })

      const reserve = Effect.fn("LlmBudgets.reserve")(function* (
        tenant: TenantRef,
        month: string,
        limit: Money,
        amount: Money
      ) {
        for (;;) {
          const now = yield* Clock.currentTimeMillis
          const purse = purseOf(tenant, month, limit, now)
          if (purse.limit !== limit) {
            purse.limit = limit
            purse.refusedUntil = 0
            yield* giveBack(purse)
          }
          if (isFresh(purse, now) && freeOf(purse) >= amount) return take(purse, amount, now)
          if (now < purse.refusedUntil && amount >= purse.refused) return yield* spentUp
          // Dropped, or lost to others, while this one waited for its turn: then there is another one.
          const isCurrent = () => purses.get(keyOf(tenant, month)) === purse
          const taken = yield* purse.turns.withPermit(
            Effect.suspend(() => (isCurrent() ? ask(purse, amount, now) : Effect.succeed(undefined)))
          )
          if (taken !== undefined) return taken
        }
      })

      const look = Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        for (const purse of purses.values()) {
          if (now - purse.usedAt > Duration.toMillis(IDLE)) yield* purse.turns.withPermit(giveBack(purse))
          if (purse.leased > 0n) {
            if (now - purse.renewedAt > Duration.toMillis(RENEW_EVERY)) yield* renew(purse, now)
          } else if (isDone(purse) && now > purse.refusedUntil) {
            yield* purse.turns.withPermit(drop(purse))
          }
        }
      })
      yield* Effect.addFinalizer(() => Effect.forEach([...purses.values()], giveBack, { discard: true }))
      yield* Effect.forkScoped(Effect.repeat(look, Schedule.spaced(LOOK_EVERY)))

      return LlmBudgets.of({
        instance,
        reserve,
        standing: Effect.fn("LlmBudgets.standing")(function* (tenant, month) {
          const { leased, spent } = yield* tenantDb(pool, tenant)
            .transaction((sql, table) => standingOf(sql, table, month))
            .pipe(orUnavailable)
          // What this instance holds for calls to come is nobody's: it would be given back for the asking.
          const purse = purses.get(keyOf(tenant, month))
          const free = purse === undefined ? 0n : freeOf(purse)
          const held = moneyOf(leased) - (free > 0n ? free : 0n)
          return { spent, reserved: usdOf(held > 0n ? held : 0n) }
        })
      })
    })
  )
}

const spentUp = Effect.fail(
  new BudgetExceeded({ detail: "The tenant's monthly budget is spent, or held by calls that are under way" })
)
