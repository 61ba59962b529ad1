import { BigDecimal, Clock, Context, Effect, Layer, Schema } from "effect"
import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { costOf, priceOf } from "../../domain/Prices.ts"
import { BudgetExceeded } from "../../domain/Problems.ts"
import type { DependencyUnavailable } from "../../domain/Problems.ts"
import type { TenantRef } from "../../domain/Tenant.ts"
import type { TenantSettings } from "../../domain/TenantSettings.ts"
import { orUnavailable } from "../DbErrors.ts"
import { tenantDb } from "../TenantDb.ts"
import { TenantPool } from "../TenantPool.ts"
import type { AttemptRecord } from "./Attempt.ts"
import { countAttempt } from "./LlmMetrics.ts"
import { LlmUsage } from "./LlmUsage.ts"

/** Whose session is metered. */
export interface MeteredSession {
  /** Ours, and never used twice. */
  readonly sessionId: string
  readonly tenant: TenantRef
  readonly settings: TenantSettings
  readonly requestId: string
  readonly keyId: string | null
  /** The model's name in the request. */
  readonly asked: string
}

/** What a provider bills: a response, or the transcription of what was said to it. */
export interface Metering {
  readonly kind: "response" | "transcription"
  /** The provider's. With the session's id it names what is billed: settled twice, it counts once. */
  readonly id: string
  readonly ref: ModelRef
  readonly ownKey: boolean
  readonly status: AttemptRecord["status"]
  /** `completed`, `cancelled`, `failed` or `incomplete`, as the provider says it; null where it did not come to say it. */
  readonly told: string | null
  readonly fault: string | null
  readonly usage: TokenUsage
  /** Of audio, where that is what a transcription is billed by. */
  readonly seconds: number | undefined
  /** Whether some of `usage` was not told by the provider. */
  readonly estimated: boolean
  readonly latencyMillis: number
  readonly firstTokenMillis: number | null
}

/** What is left after a settlement: `spent` ends the session. */
export type Standing = "open" | "spent"

/** A session's account. */
export interface RealtimeAccount {
  /** Never fails: what could not be written is the meter's to remember. */
  readonly settle: (metering: Metering) => Effect.Effect<Standing>
  /** Gives back what was reserved and not used. Called once, after the last `settle`. */
  readonly close: Effect.Effect<void>
}

const decodeSpent = Schema.decodeUnknownEffect(Schema.Struct({ spent: Schema.String }))

/** What sessions of realtime voice cost: reserved when one begins, settled with each response. */
export class RealtimeMeter extends Context.Service<
  RealtimeMeter,
  {
    /** Fails where nothing is left to spend. */
    readonly reserve: (
      session: MeteredSession
    ) => Effect.Effect<RealtimeAccount, BudgetExceeded | DependencyUnavailable>
  }
>()("agent-army/services/RealtimeMeter") {
  /**
   * A row of `llm_usage` for each metering. A session is held to the tenant's budget by what the month's rows came to when
   * it began, and its own cost since.
   */
  static readonly layer = Layer.effect(
    RealtimeMeter,
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const rows = yield* LlmUsage

      const spentIn = Effect.fnUntraced(function* (tenant: TenantRef) {
        const [row] = yield* tenantDb(pool, tenant)
          .query(
            (sql, table) => sql`SELECT coalesce(sum(cost_usd), 0)::text AS spent FROM ${table("llm_usage")}
              WHERE created_at >= date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'`
          )
          .pipe(orUnavailable)
        const { spent } = yield* Effect.orDie(decodeSpent(row))
        return BigDecimal.fromStringUnsafe(spent)
      })

      return RealtimeMeter.of({
        reserve: Effect.fn("RealtimeMeter.reserve")(function* (session) {
          const { asked, keyId, requestId, sessionId, settings, tenant } = session
          const limit = settings["llm.monthly_budget_usd"]
          const budget = limit === undefined ? undefined : BigDecimal.fromStringUnsafe(limit)
          let spent = budget === undefined ? BigDecimal.make(0n, 0) : yield* spentIn(tenant)
          const standing = (): Standing =>
            budget !== undefined && BigDecimal.isGreaterThanOrEqualTo(spent, budget) ? "spent" : "open"
          if (standing() === "spent") {
            return yield* new BudgetExceeded({ detail: "The tenant's monthly budget is spent" })
          }
          const settled = new Set<string>()

          const settle = Effect.fnUntraced(function* (metering: Metering) {
            const name = `${metering.kind}/${metering.id}`
            if (settled.has(name)) return standing()
            settled.add(name)
            const { id, kind, seconds, told, ...known } = metering
            const { ownKey, ref, ...closing } = known
            const price = priceOf(ref, settings["llm.prices"], yield* Clock.currentTimeMillis)
            const cost = costOf(known.usage, price)
            if (cost !== null) spent = BigDecimal.sum(spent, BigDecimal.fromStringUnsafe(cost))
            yield* countAttempt(ref, known)
            const row = yield* rows.open({
              tenant,
              operation: "realtime",
              asked,
              provider: ref.provider,
              model: ref.model,
              requestId,
              keyId,
              retry: 0,
              streamed: true,
              resumed: false,
              ownKey,
              metadata: {
                session_id: sessionId,
                kind,
                status: told,
                ...(seconds === undefined ? undefined : { seconds })
              },
              estimatedInput: 0,
              reached: 0,
              price: price ?? null
            })
            yield* row.close({ ...closing, httpStatus: null, providerRequestId: id })
            return standing()
          })

          return { settle, close: Effect.void }
        })
      })
    })
  )
}
