import { PgTypes } from "@effect/sql-pg"
import { Context, Duration, Effect, FiberSet, Layer, Metric, Schedule, Semaphore } from "effect"
import { SecureRandom } from "effect/crypto"
import type { TenantRef } from "../../domain/Tenant.ts"
import { tenantDb } from "../TenantDb.ts"
import { TenantPool } from "../TenantPool.ts"
import type { AttemptRecord } from "./Attempt.ts"
import type { JsonObject } from "./Codec.ts"

/** A row that Postgres does not take is tried again so often, doubling the pause. */
const RETRIES = 4
const FIRST_PAUSE = Duration.millis(250)
/** Rows written at one time: when many callers leave together, those who stay keep the rest of the pool. */
const WRITERS = 3
/** How long the end of the process waits for rows that are being written. */
const LAST_ROWS = Duration.seconds(5)

const unwritten = Metric.counter("llm_usage_unwritten_total", {
  description: "Attempts at LLM providers whose row could not be written; each is in the log",
  incremental: true
})

/** An attempt, and what only the tenant's side knows of it. */
export interface UsageRow extends AttemptRecord {
  readonly requestId: string
  readonly keyId: string | null
  /** USD, a decimal string. */
  readonly cost: string | null
  readonly metadata: JsonObject
}

/** Writes a tenant's `llm_usage` beside its requests: a row is written also for a caller who is gone. */
export class LlmUsage extends Context.Service<
  LlmUsage,
  {
    /** Returns at once. A row that can't be written is logged whole, and counted. */
    readonly write: (tenant: TenantRef, row: UsageRow) => Effect.Effect<void>
  }
>()("agent-army/services/LlmUsage") {
  static readonly layer = Layer.effect(
    LlmUsage,
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const random = yield* SecureRandom.SecureRandom
      const writers = yield* Semaphore.make(WRITERS)
      const fibers = yield* FiberSet.make<void>()
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeout(FiberSet.awaitEmpty(fibers), LAST_ROWS)))

      const insert = Effect.fnUntraced(function* (tenant: TenantRef, row: UsageRow) {
        const id = yield* random.uuidV7()
        const { usage } = row
        yield* tenantDb(pool, tenant)
          .query(
            (sql, table) => sql`INSERT INTO ${table("llm_usage")} (
              id, request_id, key_id, operation, asked, provider, model, status, fault, http_status,
              input_tokens, cached_read_tokens, cached_write_tokens, output_tokens, reasoning_tokens, estimated,
              cost_usd, latency_ms, first_token_ms, provider_request_id, retry, streamed, resumed, own_key, metadata
            ) VALUES (
              ${id}::uuid, ${row.requestId === "" ? null : row.requestId}::uuid, ${row.keyId}::uuid, ${row.operation},
              ${row.asked}, ${row.ref.provider}, ${row.ref.model}, ${row.status}, ${row.fault}::text,
              ${row.httpStatus}::integer, ${usage.input}, ${usage.cachedRead}, ${usage.cachedWrite}, ${usage.output},
              ${usage.reasoning}, ${row.estimated}, ${row.cost}::text::numeric, ${Math.round(row.latencyMillis)},
              ${row.firstTokenMillis === null ? null : Math.round(row.firstTokenMillis)}::integer,
              ${row.providerRequestId}::text, ${row.retry}, ${row.streamed}, ${row.resumed}, ${row.ownKey},
              ${PgTypes.jsonb(row.metadata)}
            ) ON CONFLICT DO NOTHING`
          )
          .pipe(
            writers.withPermit,
            Effect.retry({ times: RETRIES, schedule: Schedule.exponential(FIRST_PAUSE) })
          )
      })

      return LlmUsage.of({
        write: (tenant, row) =>
          Effect.asVoid(
            FiberSet.run(
              fibers,
              Effect.catchCause(insert(tenant, row), (cause) => {
                const { metadata: _, ...told } = row
                return Effect.andThen(
                  Metric.update(unwritten, 1),
                  Effect.logError("A row of llm_usage could not be written", told, cause)
                )
              })
            )
          )
      })
    })
  )
}
