import { PgTypes } from "@effect/sql-pg"
import { Context, DateTime, Effect, Layer, Option, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import type { SqlError, Statement } from "effect/sql"
import { CurrentActor } from "../domain/Actor.ts"
import type { Actor } from "../domain/Actor.ts"
import { AuditEntry } from "../domain/Audit.ts"
import type { Act, AuditAction } from "../domain/Audit.ts"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { RequestId } from "../domain/RequestId.ts"
import { orUnavailable } from "./DbErrors.ts"
import { TenantDb } from "./TenantDb.ts"
import type { TenantTable } from "./TenantDb.ts"

/** Entries that a check of the chain reads at a time. */
const CHECKED_AT_ONCE = 10_000

const Hash = Schema.NullOr(Schema.Uint8ArrayFromHex.pipe(Schema.flip))

const EntryRow = Schema.Struct({
  ...AuditEntry.fields,
  created_at: Schema.DateTimeUtcFromDate,
  previous_hash: Hash,
  hash: Schema.Uint8ArrayFromHex.pipe(Schema.flip)
})
const decodeRow = Schema.decodeUnknownEffect(EntryRow)
const entryOf = (row: unknown): Effect.Effect<AuditEntry> =>
  decodeRow(row).pipe(
    Effect.map((fields) => new AuditEntry(fields)),
    Effect.orDie
  )

export interface AuditFilter {
  readonly action?: AuditAction | undefined
  readonly actorId?: string | undefined
  readonly targetId?: string | undefined
  /** From this moment on. */
  readonly from?: DateTime.Utc | undefined
  /** Before this moment. */
  readonly to?: DateTime.Utc | undefined
}

/** What a check of the chain found: how many entries there are, and the first place that does not fit. */
export interface ChainCheck {
  readonly entries: number
  readonly brokenAt: Option.Option<number>
}

/** How an act gets into a log: on any connection that is in a transaction and may write there. */
interface Append {
  readonly sql: Statement.Constructor
  readonly table: TenantTable
  readonly id: string
  readonly actor: Actor
  readonly requestId: string
}

/**
 * The statements that append an act: the head's row is locked, so that of two writers the second waits and goes on
 * from the first one's hash. To be run last in the act's own transaction, since the lock is held until its end.
 */
const append = Effect.fnUntraced(function* <E, R>(
  act: Act,
  { actor, id, requestId, sql, table }: Append,
  run: <A>(statement: Statement.Statement<A>) => Effect.Effect<ReadonlyArray<A>, E, R>
) {
  yield* run(sql`SELECT seq FROM ${table("audit_head")} FOR UPDATE`)
  yield* run(sql`WITH act AS MATERIALIZED (
      SELECT h.seq + 1 AS seq, h.hash AS previous, ${id}::uuid AS id, clock_timestamp() AS created_at,
        ${PgTypes.jsonb(actor)} AS actor, ${act.action}::text AS action,
        ${PgTypes.jsonb(act.target ?? null)} AS target, ${PgTypes.jsonb(act.details ?? {})} AS details,
        ${requestId === "" ? null : requestId}::uuid AS request_id
      FROM ${table("audit_head")} h
    ), entry AS (
      INSERT INTO ${table("audit_log")}
        (seq, id, created_at, actor, action, target, details, request_id, previous_hash, hash)
      SELECT seq, id, created_at, actor, action, target, details, request_id, previous, shared.audit_hash(
        previous, shared.current_tenant(), seq, id, created_at, actor, action, target, details, request_id)
      FROM act RETURNING seq, hash
    )
    UPDATE ${table("audit_head")} SET seq = entry.seq, hash = entry.hash FROM entry`)
})

/**
 * The log of a tenant's security-relevant acts, written in the transaction of the act itself. Append-only by grants
 * and policies, and chained: an entry's hash covers the one before (as in RFC 9162's logs, without the tree), so that
 * whoever changes the past with a superuser's rights has to change all that came after, and every copy of it.
 */
export class AuditLog extends Context.Service<
  AuditLog,
  {
    /**
     * Appends an act of whoever is acting. To be called last inside the transaction of the act (`TenantDb.transaction`):
     * on its own it is one all by itself.
     */
    readonly record: (act: Act) => Effect.Effect<void, DependencyUnavailable, TenantDb>
    /** The same for an act of someone whom the request did not name: a person who signs in. */
    readonly recordAs: (actor: Actor, act: Act) => Effect.Effect<void, DependencyUnavailable, TenantDb>
    /** The same on the control plane's connection, inside its transaction, that has entered the claim that `schema` needs. */
    readonly recordIn: (
      sql: Statement.Constructor,
      schema: string,
      act: Act
    ) => Effect.Effect<void, SqlError.SqlError>
    /** The newest first. */
    readonly list: (
      filter: AuditFilter,
      page: PageRequest
    ) => Effect.Effect<Page<AuditEntry>, DependencyUnavailable, TenantDb>
    /** Reads the whole chain, and computes every hash anew. */
    readonly check: Effect.Effect<ChainCheck, DependencyUnavailable, TenantDb>
  }
>()("agent-army/services/AuditLog") {
  static readonly layer = Layer.effect(
    AuditLog,
    Effect.gen(function* () {
      const random = yield* SecureRandom.SecureRandom

      const recordAs = Effect.fn("AuditLog.record")(function* (actor: Actor, act: Act) {
        const db = yield* TenantDb
        const id = yield* random.uuidV7()
        const requestId = yield* RequestId
        yield* db
          .transaction((sql, table) =>
            append(act, { sql, table, id, actor, requestId }, <A>(statement: Statement.Statement<A>) =>
              db.query(() => statement)
            )
          )
          .pipe(orUnavailable)
      })

      const conditions = (sql: Statement.Constructor, filter: AuditFilter, after: string | undefined) => [
        ...(filter.action === undefined ? [] : [sql`action = ${filter.action}`]),
        ...(filter.actorId === undefined ? [] : [sql`actor ->> 'id' = ${filter.actorId}`]),
        ...(filter.targetId === undefined ? [] : [sql`target ->> 'id' = ${filter.targetId}`]),
        ...(filter.from === undefined ? [] : [sql`created_at >= ${DateTime.toDate(filter.from)}`]),
        ...(filter.to === undefined ? [] : [sql`created_at < ${DateTime.toDate(filter.to)}`]),
        ...(after === undefined ? [] : [sql`seq < ${after}::bigint`])
      ]

      /** The first entry from `from` on whose place, hash or link to the one before it is not as it should be. */
      const checkFrom = Effect.fnUntraced(function* (from: number) {
        const db = yield* TenantDb
        const [row] = yield* db
          .query(
            (sql, table) => sql<{ checked: number; broken: number | null }>`
              SELECT count(*)::int AS checked, min(seq) FILTER (WHERE NOT fits)::int AS broken FROM (
                SELECT e.seq, e.seq = ${from} + row_number() OVER (ORDER BY e.seq) - 1
                  AND e.previous_hash IS NOT DISTINCT FROM (
                    SELECT b.hash FROM ${table("audit_log")} b WHERE b.seq = e.seq - 1)
                  AND e.hash = shared.audit_hash(e.previous_hash, e.tenant_id, e.seq, e.id, e.created_at, e.actor,
                    e.action, e.target, e.details, e.request_id) AS fits
                FROM ${table("audit_log")} e WHERE e.seq >= ${from} ORDER BY e.seq LIMIT ${CHECKED_AT_ONCE}
              ) AS entries`
          )
          .pipe(orUnavailable)
        return row ?? { checked: 0, broken: null }
      })

      const check: AuditLog["Service"]["check"] = Effect.gen(function* () {
        const db = yield* TenantDb
        const [head] = yield* db
          .query(
            (sql, table) => sql<{ seq: number; fits: boolean }>`
              SELECT h.seq::int AS seq, h.hash IS NOT DISTINCT FROM (
                SELECT e.hash FROM ${table("audit_log")} e WHERE e.seq = h.seq) AS fits
              FROM ${table("audit_head")} h`
          )
          .pipe(orUnavailable)
        let entries = 0
        while (true) {
          const { broken, checked } = yield* checkFrom(entries + 1)
          if (broken !== null) return { entries: entries + checked, brokenAt: Option.some(broken) }
          entries += checked
          if (checked < CHECKED_AT_ONCE) break
        }
        // Less than the head says: the end is cut off. More: something was written since.
        const whole = head !== undefined && head.fits && entries >= head.seq
        return { entries, brokenAt: whole ? Option.none() : Option.some(entries + 1) }
      })

      return AuditLog.of({
        recordAs,
        record: (act) => Effect.flatMap(CurrentActor, (actor) => recordAs(actor, act)),
        recordIn: Effect.fnUntraced(function* (sql, schema, act) {
          const id = yield* random.uuidV7()
          const actor = yield* CurrentActor
          const requestId = yield* RequestId
          const table = (name: string) => sql(`${schema}.${name}`)
          yield* append(act, { sql, table, id, actor, requestId }, (statement) => statement)
        }),
        list: Effect.fn("AuditLog.list")(function* (filter, { after, limit }) {
          const db = yield* TenantDb
          const rows = yield* db
            .query((sql, table) => {
              const all = conditions(sql, filter, after)
              return sql`SELECT id, seq::int AS seq, action, actor, target, details, request_id, created_at,
                  previous_hash, hash
                FROM ${table("audit_log")} ${all.length === 0 ? sql`` : sql`WHERE ${sql.and(all)}`}
                ORDER BY seq DESC LIMIT ${limit + 1}`
            })
            .pipe(orUnavailable)
          return pageOf(yield* Effect.forEach(rows, entryOf), limit, (entry) => String(entry.seq))
        }),
        check
      })
    })
  )
}
