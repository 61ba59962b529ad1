import { PgTypes } from "@effect/sql-pg"
import { Clock, Context, Duration, Effect, Layer, Metric, Schema, Semaphore } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { moneyOf } from "../../domain/Money.ts"
import { costOf } from "../../domain/Prices.ts"
import { SchemaName, TenantId } from "../../domain/Tenant.ts"
import type { TenantRef } from "../../domain/Tenant.ts"
import { sqlMessageOf, sqlStateOf } from "../DbErrors.ts"
import { tenantDb } from "../TenantDb.ts"
import { TenantPool } from "../TenantPool.ts"
import { monthOf } from "./LlmBudgets.ts"
import type { Reservation } from "./LlmBudgets.ts"
import { UsageJournal } from "./UsageJournal.ts"
import type { Closing, Opening, UsageRow } from "./UsageEntry.ts"

/** How often rows are written: many calls' together, and few enough that a look at the usage is up to date. */
const WRITE_EVERY = Duration.millis(100)
/** Rows in one statement. */
const BATCH = 500
/** Tenants written to at one time: the rest of the pool is the requests'. */
const WRITERS = 3
/** The longest pause while the database is away. */
const LONGEST_PAUSE = Duration.seconds(2)
/** Rows that wait in memory; what is beyond is read from the journal again when these are written. */
const MOST_WAITING = 50_000
const ADOPT_EVERY = Duration.seconds(10)
/** How long the end of the process waits for rows that are being written. The rest is in the journal. */
const LAST_ROWS = Duration.seconds(5)

const waitingRows = Metric.gauge("llm_usage_waiting", {
  description: "Attempts at LLM providers that are over and not in the database yet"
})
const written = Metric.counter("llm_usage_written_total", {
  description: "Attempts at LLM providers whose row was written",
  incremental: true
})
const rejected = Metric.counter("llm_usage_rejected_total", {
  description: "Attempts whose row the database refused (put aside in the journal), or whose tenant is gone",
  incremental: true
})

/** Before the provider is called. Its failures are those of what stands before it: a budget, a limit. */
export interface OpenAttempt {
  readonly id: string
  /** Told before more output than that is delivered, in tokens. */
  readonly reach: (tokens: number) => void
  /** Once, by whoever ends it. Returns when it is kept. */
  readonly close: (closing: Omit<Closing, "cost">) => Effect.Effect<void>
}

/** No such role or schema: the tenant was deleted. */
const GONE = new Set(["22023", "42704", "3F000"])
/**
 * A value that no table takes, by the SQLSTATE's class: data exception, integrity constraint, program limit. Whatever else it is
 * (no right, no such column yet), somebody will mend it.
 */
const NEVER = /^(?:22|23|54)/

const decodeTenant = Schema.decodeUnknownEffect(Schema.Struct({ id: TenantId, schema: SchemaName }))

/**
 * A tenant's `llm_usage`: one row for each attempt at a provider, whatever becomes of the call, the process or the database.
 *
 * An attempt is in the `UsageJournal` before its provider is called, closed there once, and written to the database in
 * batches, under an id that makes a second writing nothing. Rows of instances that died are found and written, too.
 */
export class LlmUsage extends Context.Service<
  LlmUsage,
  {
    /** `reservation` is what the attempt is paid from, where its tenant has a budget: settled with it, and told when it is written. */
    readonly open: (
      opening: Omit<Opening, "id" | "openedAt">,
      reservation?: Reservation
    ) => Effect.Effect<OpenAttempt>
    /** Returns when all that was closed until now is in the database, or the database away. */
    readonly flush: Effect.Effect<void>
  }
>()("agent-army/services/LlmUsage") {
  static readonly layer = Layer.effect(
    LlmUsage,
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const random = yield* SecureRandom.SecureRandom
      const journal = yield* UsageJournal
      /** Of attempts whose row is not written yet. */
      const reservations = new Map<string, Reservation>()
      let waiting: Array<UsageRow> = []
      /** Rows wait in the journal alone. */
      let isOverfull = false
      let pause = Duration.zero

      const insert = (tenant: TenantRef, rows: ReadonlyArray<UsageRow>) =>
        tenantDb(pool, tenant).query(
          (sql, table) => sql`WITH told AS (
            SELECT * FROM jsonb_to_recordset(${PgTypes.jsonb(rows.map(toRecord))}) AS r(
              id uuid, opened_at float8, request_id uuid, key_id uuid, operation text, asked text, provider text, model text,
              status text, fault text, http_status integer, input bigint, cached_read bigint, cached_write bigint,
              output bigint, reasoning bigint, audio_input bigint, audio_cached bigint, audio_output bigint,
              estimated boolean, cost text, latency integer, first_token integer, provider_request_id text,
              retry integer, streamed boolean, resumed boolean, own_key boolean, metadata jsonb, month date, lease uuid
            )
          ), new AS (INSERT INTO ${table("llm_usage")} (
            id, created_at, request_id, key_id, operation, asked, provider, model, status, fault, http_status,
            input_tokens, cached_read_tokens, cached_write_tokens, output_tokens, reasoning_tokens,
            audio_input_tokens, audio_cached_tokens, audio_output_tokens, estimated,
            cost_usd, latency_ms, first_token_ms, provider_request_id, retry, streamed, resumed, own_key, metadata
          ) SELECT
            id, to_timestamp(opened_at / 1000.0), request_id, key_id, operation, asked, provider, model, status, fault,
            http_status, input, cached_read, cached_write, output, reasoning, audio_input, audio_cached, audio_output,
            estimated, cost::numeric, latency, first_token, provider_request_id, retry, streamed, resumed, own_key, metadata
          FROM told ON CONFLICT (id) DO NOTHING RETURNING id
          ), costs AS (
            SELECT month, lease, coalesce(sum(cost::numeric), 0) AS cost FROM told JOIN new USING (id) GROUP BY month, lease
          ), months AS (
            INSERT INTO ${table("llm_months")} AS m (month, spent_usd)
            SELECT month, sum(cost) FROM costs GROUP BY month ORDER BY month
            ON CONFLICT (month) DO UPDATE SET spent_usd = m.spent_usd + excluded.spent_usd RETURNING month
          ) UPDATE ${table("llm_leases")} l SET amount_usd = l.amount_usd - c.cost
            FROM costs c JOIN months USING (month) WHERE l.month = c.month AND l.instance = c.lease`
        )

      const settle = (rows: ReadonlyArray<UsageRow>) =>
        Effect.suspend(() => {
          for (const { id } of rows) {
            reservations.get(id)?.written()
            reservations.delete(id)
          }
          return journal.settle(rows.map(({ id }) => id))
        })

      /** Returns the rows that have to wait. What is wrong with one of them holds up none of the others. */
      const write = (
        tenant: TenantRef,
        rows: ReadonlyArray<UsageRow>
      ): Effect.Effect<ReadonlyArray<UsageRow>> =>
        insert(tenant, rows).pipe(
          Effect.andThen(settle(rows)),
          Effect.andThen(Metric.update(written, rows.length)),
          Effect.as([]),
          Effect.catchIf(SqlError.isSqlError, (error) => refused(tenant, rows, error)),
          Effect.catch(() => Effect.succeed(rows))
        )

      const refused = (
        tenant: TenantRef,
        rows: ReadonlyArray<UsageRow>,
        error: SqlError.SqlError
      ): Effect.Effect<ReadonlyArray<UsageRow>> => {
        const [row, ...others] = rows
        if (row === undefined) return Effect.succeed([])
        const state = sqlStateOf(error) ?? ""
        if (GONE.has(state)) {
          return Effect.logWarning("Rows of llm_usage are dropped: their tenant is gone").pipe(
            Effect.annotateLogs({ tenant_id: tenant.id, rows: rows.length }),
            Effect.andThen(Metric.update(rejected, rows.length)),
            Effect.andThen(settle(rows)),
            Effect.as([])
          )
        }
        if (!NEVER.test(state)) return Effect.succeed(rows)
        if (others.length === 0) {
          return Effect.logError(`A row of llm_usage is put aside: ${sqlMessageOf(error)}`).pipe(
            Effect.annotateLogs({ tenant_id: tenant.id, id: row.id }),
            Effect.andThen(journal.reject(row, sqlMessageOf(error))),
            Effect.andThen(Metric.update(rejected, 1)),
            Effect.andThen(settle(rows)),
            Effect.as([])
          )
        }
        const half = Math.ceil(rows.length / 2)
        return Effect.zipWith(write(tenant, rows.slice(0, half)), write(tenant, rows.slice(half)), (a, b) => [
          ...a,
          ...b
        ])
      }

      const writeAll = Effect.fnUntraced(function* (rows: ReadonlyArray<UsageRow>) {
        const batches: Array<{ readonly of: UsageRow["tenant"]; readonly rows: Array<UsageRow> }> = []
        const open = new Map<string, Array<UsageRow>>()
        for (const row of rows) {
          const batch = open.get(row.tenant.schema)
          if (batch !== undefined && batch.length < BATCH) {
            batch.push(row)
            continue
          }
          const begun = [row]
          open.set(row.tenant.schema, begun)
          batches.push({ of: row.tenant, rows: begun })
        }
        const left = yield* Effect.forEach(
          batches,
          ({ of, rows }) =>
            decodeTenant(of).pipe(
              Effect.flatMap((tenant) => write(tenant, rows)),
              // A journal that somebody wrote in.
              Effect.catchTag("SchemaError", () => Effect.as(settle(rows), []))
            ),
          { concurrency: WRITERS }
        )
        return left.flat()
      })

      const add = (row: UsageRow): void => {
        if (waiting.length < MOST_WAITING) waiting.push(row)
        else isOverfull = true
      }

      const turn = Effect.gen(function* () {
        if (waiting.length === 0 && isOverfull) {
          isOverfull = false
          for (const row of yield* journal.unsettled) add(row)
        }
        const rows = waiting
        waiting = []
        if (rows.length === 0) return
        const left = yield* Effect.onInterrupt(writeAll(rows), () =>
          Effect.sync(() => {
            // Written or not: a second writing is nothing.
            waiting = [...rows, ...waiting]
          })
        )
        for (const row of left) add(row)
        pause = left.length === 0 ? Duration.zero : Duration.min(LONGEST_PAUSE, Duration.sum(pause, pause))
        if (left.length > 0 && Duration.isZero(pause)) pause = WRITE_EVERY
        yield* Metric.update(waitingRows, waiting.length)
      })

      const adopt = Effect.gen(function* () {
        const rows = yield* journal.adopt
        if (rows.length === 0) return
        yield* Effect.logInfo(
          `${rows.length} attempts at LLM providers are written for an instance that ended`
        )
        for (const row of rows) add(row)
      })

      // One turn at a time: the loop's, a flush's, and the last one's.
      const turns = yield* Semaphore.make(1)
      const takeTurn = turns.withPermit(turn)
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.timeout(takeTurn, LAST_ROWS)))
      yield* Effect.forkScoped(
        Effect.forever(
          Effect.andThen(
            takeTurn,
            Effect.suspend(() => Effect.sleep(Duration.max(pause, WRITE_EVERY)))
          )
        )
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(adopt, Effect.sleep(ADOPT_EVERY))))

      return LlmUsage.of({
        flush: takeTurn,
        open: Effect.fnUntraced(function* (known, reservation) {
          const opening: Opening = {
            ...known,
            id: yield* random.uuidV7(),
            openedAt: yield* Clock.currentTimeMillis
          }
          const { id } = opening
          yield* journal.open(opening)
          if (reservation !== undefined) reservations.set(id, reservation)
          return {
            id,
            reach: (tokens) => journal.reach(id, tokens),
            close: (closing) => {
              const whole = { ...closing, cost: costOf(closing.usage, opening.price ?? undefined) }
              reservation?.settle(whole.cost === null ? 0n : moneyOf(whole.cost))
              return Effect.map(journal.close(id, whole), () => add({ ...opening, ...whole }))
            }
          }
        })
      })
    })
  )
}

const toRecord = (row: UsageRow) => ({
  id: row.id,
  opened_at: row.openedAt,
  request_id: row.requestId,
  key_id: row.keyId,
  operation: row.operation,
  asked: row.asked,
  provider: row.provider,
  model: row.model,
  status: row.status,
  fault: row.fault,
  http_status: row.httpStatus,
  input: row.usage.input,
  cached_read: row.usage.cachedRead,
  cached_write: row.usage.cachedWrite,
  output: row.usage.output,
  reasoning: row.usage.reasoning,
  audio_input: row.usage.audioInput ?? 0,
  audio_cached: row.usage.audioCachedRead ?? 0,
  audio_output: row.usage.audioOutput ?? 0,
  estimated: row.estimated,
  cost: row.cost,
  latency: Math.round(row.latencyMillis),
  first_token: row.firstTokenMillis === null ? null : Math.round(row.firstTokenMillis),
  provider_request_id: row.providerRequestId,
  retry: row.retry,
  streamed: row.streamed,
  resumed: row.resumed,
  own_key: row.ownKey,
  metadata: { ...row.metadata, ...row.outcome },
  month: monthOf(row.openedAt),
  lease: row.lease ?? null
})
