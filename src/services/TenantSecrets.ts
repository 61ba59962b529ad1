import { Context, Effect, Layer, Schema } from "effect"
import type { Option, Redacted } from "effect"
import type { Statement } from "effect/sql"
import type { AuditAction } from "../domain/Audit.ts"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import { NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { SecretEntry } from "../domain/Secret.ts"
import type { SecretName } from "../domain/Secret.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { AuditLog } from "./AuditLog.ts"
import { orUnavailable } from "./DbErrors.ts"
import { SecretVault } from "./SecretVault.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"
import type { TenantTable } from "./TenantDb.ts"

const EntryRow = Schema.Struct({
  ...SecretEntry.fields,
  created_at: Schema.DateTimeUtcFromDate,
  updated_at: Schema.DateTimeUtcFromDate
})
const decodeEntry = Schema.decodeUnknownEffect(EntryRow)
const entryOf = (row: unknown): Effect.Effect<SecretEntry> =>
  decodeEntry(row).pipe(
    Effect.map((fields) => new SecretEntry(fields)),
    Effect.orDie
  )

const decodeVersion = Schema.decodeUnknownEffect(Schema.Struct({ version: Schema.Int }))
const decodeDataKey = Schema.decodeUnknownEffect(Schema.Struct({ sealed: Schema.Uint8Array }))

/**
 * The tenant's own secrets, such as its keys of LLM vendors. The database has them sealed (`SecretVault`) and nothing but; no
 * log or answer has them at all.
 *
 * @effect-leakable-service
 */
export class TenantSecrets extends Context.Service<
  TenantSecrets,
  {
    /** Sets a secret. Its version is one more than before; what was there is gone. */
    readonly put: (
      name: SecretName,
      value: Redacted.Redacted<string>
    ) => Effect.Effect<void, DependencyUnavailable>
    /** In the order of their names. */
    readonly list: (page: PageRequest) => Effect.Effect<Page<SecretEntry>, DependencyUnavailable>
    /** Fails with `NotFound`. A secret that is set again later begins with version 1. */
    readonly remove: (name: SecretName) => Effect.Effect<void, NotFound | DependencyUnavailable>
    /**
     * The current value: for services, never for an answer. What is set or removed here counts at once, on other instances
     * within a second. `DependencyUnavailable` also where the value does not open, so that nobody goes on without it.
     */
    readonly open: (
      name: SecretName
    ) => Effect.Effect<Option.Option<Redacted.Redacted<string>>, DependencyUnavailable>
  }
>()("agent-army/services/TenantSecrets") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<
    TenantSecrets["Service"],
    never,
    TenantContext | TenantDb | SecretVault | AuditLog
  > = Effect.gen(function* () {
    const { tenantId } = yield* TenantContext
    const parts: Parts = {
      tenantId,
      db: yield* TenantDb,
      vault: yield* SecretVault,
      audit: yield* AuditLog
    }
    return TenantSecrets.of({
      put: (name, value) => put(parts, name, value),
      list: (page) => list(parts, page),
      remove: (name) => remove(parts, name),
      open: (name) => Effect.provideService(parts.vault.open(tenantId, name), TenantDb, parts.db)
    })
  })
  static readonly layer = Layer.effect(TenantSecrets, this.make)
}

/** What a request's service consists of. Its methods are functions of it, since to make them anew costs each request 8 µs. */
interface Parts {
  readonly tenantId: TenantId
  readonly db: TenantDb["Service"]
  readonly vault: SecretVault["Service"]
  readonly audit: AuditLog["Service"]
}

/** Made with the first secret. Of two at once, the second waits, and gets the first one's. */
const dataKey = Effect.fnUntraced(function* (
  { tenantId, vault }: Parts,
  sql: Statement.Constructor,
  table: TenantTable
) {
  const stored = sql`SELECT sealed FROM ${table("data_keys")}`
  let [row] = yield* stored
  if (row === undefined) {
    yield* sql`INSERT INTO ${table("data_keys")} (sealed) VALUES (${yield* vault.newDataKey(tenantId)})
      ON CONFLICT (tenant_id) DO NOTHING`
    ;[row] = yield* stored
  }
  return (yield* Effect.orDie(decodeDataKey(row))).sealed
})

/** To be the last of the transaction. */
const record = ({ audit, db }: Parts, action: AuditAction, name: SecretName, version: number) =>
  audit
    .record({ action, target: { type: "secret", id: name }, details: { name, version } })
    .pipe(Effect.provideService(TenantDb, db))

const put = Effect.fn("TenantSecrets.put")(function* (
  parts: Parts,
  name: SecretName,
  value: Redacted.Redacted<string>
) {
  const { db, tenantId, vault } = parts
  yield* db
    .transaction(
      Effect.fnUntraced(function* (sql, table) {
        const key = yield* dataKey(parts, sql, table)
        // The version first, since the value is sealed with it. The row is locked from here on: of two at once, the
        // second counts on from the first.
        const [row] = yield* sql`INSERT INTO ${table("secrets")} AS s (name, sealed) VALUES (${name}, '')
          ON CONFLICT (name) DO UPDATE SET version = s.version + 1, updated_at = now()
          RETURNING version`
        const { version } = yield* Effect.orDie(decodeVersion(row))
        const sealed = yield* vault.seal({ tenantId, name, version }, value, key)
        yield* sql`UPDATE ${table("secrets")} SET sealed = ${sealed} WHERE name = ${name}`
        yield* record(parts, "secret.set", name, version)
      })
    )
    .pipe(orUnavailable)
  yield* vault.forget(tenantId, name)
})

const list = Effect.fn("TenantSecrets.list")(function* ({ db }: Parts, { after, limit }: PageRequest) {
  const rows = yield* db
    .query((sql, table) => {
      const from = after === undefined ? sql`` : sql`WHERE name > ${after}`
      return sql`SELECT name, version, created_at, updated_at FROM ${table("secrets")} ${from}
        ORDER BY name LIMIT ${limit + 1}`
    })
    .pipe(orUnavailable)
  return pageOf(yield* Effect.forEach(rows, entryOf), limit, (entry) => entry.name)
})

const remove = Effect.fn("TenantSecrets.remove")(function* (parts: Parts, name: SecretName) {
  const { db, tenantId, vault } = parts
  yield* db
    .transaction(
      Effect.fnUntraced(function* (sql, table) {
        const [row] = yield* sql`DELETE FROM ${table("secrets")} WHERE name = ${name} RETURNING version`
        if (row === undefined) return yield* new NotFound({ detail: "No such secret" })
        const { version } = yield* Effect.orDie(decodeVersion(row))
        yield* record(parts, "secret.removed", name, version)
      })
    )
    .pipe(orUnavailable)
  yield* vault.forget(tenantId, name)
})
