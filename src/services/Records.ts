import { Context, Effect, Layer, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import { NotFound, PayloadTooLarge, PreconditionFailed } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { RecordId, StoredRecord } from "../domain/Record.ts"
import type { CollectionName } from "../domain/Record.ts"
import { tenantSettingDefaults } from "../domain/TenantSettings.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"
import { orUnavailable } from "./DbErrors.ts"

const RecordRow = Schema.Struct({
  ...StoredRecord.fields,
  created_at: Schema.DateTimeUtcFromDate,
  updated_at: Schema.DateTimeUtcFromDate
})
const decodeRow = Schema.decodeUnknownEffect(RecordRow)
const recordOf = (row: unknown): Effect.Effect<StoredRecord> =>
  decodeRow(row).pipe(
    Effect.map((fields) => new StoredRecord(fields)),
    Effect.orDie
  )

const columns = "id, collection, data, version, created_at, updated_at"

/** The versions that `If-Match` allows; `undefined` allows any. */
export type ExpectedVersions = ReadonlyArray<number> | undefined

/** A tenant's own JSON documents, in collections. Every method needs a tenant, and says so in its type. */
export class Records extends Context.Service<
  Records,
  {
    /** Fails with `PayloadTooLarge` beyond the tenant's `records.max_bytes`. */
    readonly create: (
      collection: CollectionName,
      data: Schema.Json
    ) => Effect.Effect<StoredRecord, PayloadTooLarge | DependencyUnavailable, TenantDb | TenantContext>
    readonly get: (
      collection: CollectionName,
      id: RecordId
    ) => Effect.Effect<StoredRecord, NotFound | DependencyUnavailable, TenantDb>
    /** In the order of creation; a page's cursor stays right whatever is inserted meanwhile. */
    readonly list: (
      collection: CollectionName,
      page: PageRequest
    ) => Effect.Effect<Page<StoredRecord>, DependencyUnavailable, TenantDb>
    /** Replaces the document. `PreconditionFailed` where its version is none of those expected. */
    readonly replace: (
      collection: CollectionName,
      id: RecordId,
      data: Schema.Json,
      expected: ExpectedVersions
    ) => Effect.Effect<
      StoredRecord,
      NotFound | PreconditionFailed | PayloadTooLarge | DependencyUnavailable,
      TenantDb | TenantContext
    >
    readonly remove: (
      collection: CollectionName,
      id: RecordId,
      expected: ExpectedVersions
    ) => Effect.Effect<void, NotFound | PreconditionFailed | DependencyUnavailable, TenantDb>
  }
>()("agent-army/services/Records") {
  static readonly layer = Layer.effect(
    Records,
    Effect.gen(function* () {
      const random = yield* SecureRandom.SecureRandom

      const encode = Effect.fnUntraced(function* (data: Schema.Json) {
        const { settings } = yield* TenantContext
        const limit = settings["records.max_bytes"] ?? tenantSettingDefaults["records.max_bytes"]
        const document = JSON.stringify(data)
        if (Buffer.byteLength(document) > limit) {
          return yield* new PayloadTooLarge({ detail: `A record of this tenant has ${limit} bytes at most` })
        }
        return document
      })

      /** Why a conditional write found no row: it is gone, or it is there in another version. */
      const whyNot = Effect.fnUntraced(function* (collection: CollectionName, id: RecordId) {
        const db = yield* TenantDb
        const rows = yield* db
          .query(
            (sql, table) =>
              sql`SELECT 1 FROM ${table("records")} WHERE id = ${id} AND collection = ${collection}`
          )
          .pipe(orUnavailable)
        return rows.length === 0
          ? yield* new NotFound({ detail: "No such record" })
          : yield* new PreconditionFailed({ detail: "The record has another version" })
      })

      return Records.of({
        create: Effect.fn("Records.create")(function* (collection, data) {
          const document = yield* encode(data)
          const id = RecordId.make(yield* random.uuidV7())
          const db = yield* TenantDb
          const [row] = yield* db
            .query(
              (sql, table) => sql`INSERT INTO ${table("records")} (id, collection, data)
                VALUES (${id}, ${collection}, ${document}::jsonb) RETURNING ${sql.literal(columns)}`
            )
            .pipe(orUnavailable)
          return yield* recordOf(row)
        }),
        get: Effect.fnUntraced(function* (collection, id) {
          const db = yield* TenantDb
          const [row] = yield* db
            .query(
              (sql, table) => sql`SELECT ${sql.literal(columns)} FROM ${table("records")}
                WHERE id = ${id} AND collection = ${collection}`
            )
            .pipe(orUnavailable)
          return row === undefined ? yield* new NotFound({ detail: "No such record" }) : yield* recordOf(row)
        }),
        list: Effect.fn("Records.list")(function* (collection, { after, limit }) {
          const db = yield* TenantDb
          const rows = yield* db
            .query((sql, table) => {
              const from = after === undefined ? sql`` : sql`AND id > ${after}`
              return sql`SELECT ${sql.literal(columns)} FROM ${table("records")}
                WHERE collection = ${collection} ${from} ORDER BY id LIMIT ${limit + 1}`
            })
            .pipe(orUnavailable)
          return pageOf(yield* Effect.forEach(rows, recordOf), limit, (record) => record.id)
        }),
        replace: Effect.fn("Records.replace")(function* (collection, id, data, expected) {
          const document = yield* encode(data)
          const db = yield* TenantDb
          const [row] = yield* db
            .query((sql, table) => {
              const matching = expected === undefined ? sql`` : sql`AND ${sql.in("version", expected)}`
              return sql`UPDATE ${table("records")}
                SET data = ${document}::jsonb, version = version + 1, updated_at = now()
                WHERE id = ${id} AND collection = ${collection} ${matching}
                RETURNING ${sql.literal(columns)}`
            })
            .pipe(orUnavailable)
          return row === undefined ? yield* whyNot(collection, id) : yield* recordOf(row)
        }),
        remove: Effect.fn("Records.remove")(function* (collection, id, expected) {
          const db = yield* TenantDb
          const rows = yield* db
            .query((sql, table) => {
              const matching = expected === undefined ? sql`` : sql`AND ${sql.in("version", expected)}`
              return sql`DELETE FROM ${table("records")}
                WHERE id = ${id} AND collection = ${collection} ${matching} RETURNING id`
            })
            .pipe(orUnavailable)
          if (rows.length === 0) return yield* whyNot(collection, id)
        })
      })
    })
  )
}
