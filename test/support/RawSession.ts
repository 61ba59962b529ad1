import { PgConnection } from "@effect/sql-pg"
import { Context, Effect, Layer, Redacted } from "effect"
import { createHmac } from "node:crypto"
import { Installation } from "../../src/layers/Installation.ts"
import { roleNameOf } from "../../src/domain/Tenant.ts"
import type { RoleName, TenantRef, TenantSlug } from "../../src/domain/Tenant.ts"
import { claimKeyId, Claims } from "../../src/services/Claims.ts"
import { Provisioning } from "../../src/services/Provisioning.ts"
import { tenantDb } from "../../src/services/TenantDb.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { TestDatabase } from "./Platform.ts"
import { uniqueSlug } from "./Tenants.ts"

/** A tenant as Postgres knows it, with one record that nobody else may ever see. */
export interface TenantInDatabase extends TenantRef {
  readonly slug: TenantSlug
  readonly role: RoleName
  readonly canary: string
}

/** Provisions a tenant without the detour of HTTP, and plants its canary. */
export const tenantInDatabase = Effect.fnUntraced(function* (name: string) {
  const provisioning = yield* Provisioning
  const pool = yield* TenantPool
  const slug = uniqueSlug(name)
  const { tenant } = yield* provisioning.provision({ slug, name })
  const ref = { id: tenant.id, schema: tenant.schema_name }
  const canary = `canary-of-${slug}`
  yield* tenantDb(pool, ref).query(
    (sql, table) => sql`INSERT INTO ${table("records")} (id, collection, data)
      VALUES (gen_random_uuid(), 'secrets', ${JSON.stringify({ canary })}::jsonb)`
  )
  const made: TenantInDatabase = { ...ref, slug, role: roleNameOf(tenant.id), canary }
  return made
})

/** A session as the app's login, without our pool: what somebody has who got hold of that login. */
export const rawSession = Effect.flatMap(TestDatabase, ({ appUrl }) => PgConnection.make({ url: appUrl }))

/** Runs the statements one after the other in a transaction that is rolled back; the rows of the last. */
export const inRolledBack = (session: PgConnection.PgConnection, statements: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    yield* session.query("BEGIN")
    let rows: ReadonlyArray<PgConnection.Row> = []
    for (const statement of statements) rows = (yield* session.query(statement, [], false)).rows
    return rows
  }).pipe(Effect.ensuring(Effect.ignore(session.query("ROLLBACK"))))

/** A pool of our own kind on the file's database, with as many connections as a test wants. */
export const tenantPool = Effect.fnUntraced(function* (size: number) {
  const { appUrl } = yield* TestDatabase
  const { tenantClaimKey } = yield* Installation
  const pool = TenantPool.layer({ url: appUrl, size }).pipe(Layer.provide(Claims.layer(tenantClaimKey)))
  return Context.get(yield* Layer.build(Layer.fresh(pool)), TenantPool)
})

/** A claim written out by hand, to be right or wrong in one place. */
export const claimOf = Effect.fnUntraced(function* (
  subject: string,
  wrong: {
    readonly version?: string
    readonly keyId?: string
    readonly expiry?: number
    readonly key?: Uint8Array
  } = {}
) {
  const { tenantClaimKey } = yield* Installation
  const { databaseTime } = yield* now
  const expiry = wrong.expiry ?? databaseTime + 60
  const body = `${wrong.version ?? "v1"}.${wrong.keyId ?? claimKeyId(tenantClaimKey)}.${subject}.${expiry}`
  const mac = createHmac("sha256", wrong.key ?? Redacted.value(tenantClaimKey))
    .update(body)
    .digest("hex")
  return `${body}.${mac}`
})

const now = Effect.gen(function* () {
  const { superuser } = yield* TestDatabase
  const [row] = yield* superuser<{ seconds: number }>`SELECT extract(epoch FROM now())::int AS seconds`
  return { databaseTime: row?.seconds ?? 0 }
})

/**
 * Every row of a tenant's every table as a superuser sees it, to be compared with what is there afterwards. When a key was
 * last used is left out: that is written for uses that were right, and some time after them.
 */
export const rowsOf = Effect.fnUntraced(function* (schema: string) {
  const { superuser: sql } = yield* TestDatabase
  const tables = yield* sql<{ tablename: string }>`
    SELECT tablename FROM pg_tables WHERE schemaname = ${schema} ORDER BY tablename`
  const rows = yield* Effect.forEach(tables, ({ tablename }) =>
    sql<{
      row: string
    }>`SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM ${sql(`${schema}.${tablename}`)} t ORDER BY 1`.pipe(
      Effect.map((found) => [tablename, found.map(({ row }) => row)])
    )
  )
  return JSON.stringify(rows)
})
