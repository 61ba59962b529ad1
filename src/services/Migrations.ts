import { Context, Effect, Layer, Schema } from "effect"
import type { Redacted } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql"
import { sharedMigrations } from "../../migrations/shared.ts"
import { tenantMigrations } from "../../migrations/tenant.ts"
import { roleNameOf } from "../domain/Tenant.ts"
import type { TenantRef, TenantSlug } from "../domain/Tenant.ts"
import { AdminDb } from "./AdminDb.ts"
import { claimKeyId, claimKeyPads } from "./Claims.ts"
import { MigratingTenant } from "./MigratingTenant.ts"
import { classify, sqlMessageOf } from "./DbErrors.ts"
import type { DbError } from "./DbErrors.ts"

/** One numbered step. What it is given: the connection of the transaction it runs in, and `R`. */
export interface Migration<R> {
  readonly id: number
  readonly name: string
  readonly up: Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient | R>
}

/** A migration that could not be run: which one, and why. Nothing of it remains. */
export class MigrationFailed extends Schema.TaggedError<MigrationFailed>()("MigrationFailed", {
  message: Schema.String
}) {}

/** What a run did: the version before, and after. */
export interface Migrated {
  readonly from: number
  readonly to: number
}

/** A tenant, and the version that its schema is at. */
export interface TenantVersion extends TenantRef {
  readonly slug: TenantSlug
  readonly version: number
}

const newest = (migrations: ReadonlyArray<{ readonly id: number }>): number => migrations.at(-1)?.id ?? 0

/** The newest version of each kind that this build knows. */
export const latestVersions = { shared: newest(sharedMigrations), tenant: newest(tenantMigrations) }

/**
 * The one runner of migrations: the registry's (`migrations/shared`), and each tenant's (`migrations/tenant`).
 * What ran is recorded in the registry, so that one query tells the version of every tenant. Written by
 * ourselves, because `effect/sql`'s `Migrator` keeps its record in the schema that it migrates: in a tenant's it
 * would be a table without walls, and a run over all tenants would visit each to find nothing to do.
 */
export class Migrations extends Context.Service<
  Migrations,
  {
    /** Brings the registry up to date, and installs the key that claims are verified with. */
    readonly shared: Effect.Effect<Migrated, MigrationFailed | DbError>
    /** The registry's version in the database: 0 where there is none. */
    readonly sharedVersion: Effect.Effect<number, DbError>
    /** Brings one tenant up to date in one transaction: all of its migrations, or none. */
    readonly tenant: (tenant: TenantRef) => Effect.Effect<Migrated, MigrationFailed | DbError>
    /** The same inside a transaction that is open already: provisioning's. Leaves it as the owner, in the tenant's claim. */
    readonly tenantInTransaction: (tenant: TenantRef) => Effect.Effect<Migrated, MigrationFailed | DbError>
    /** Every tenant with its version, by one query, in the order of their slugs. */
    readonly versions: Effect.Effect<ReadonlyArray<TenantVersion>, DbError>
  }
>()("agent-army/services/Migrations") {
  static readonly layer = (options: { readonly claimKey: Redacted.Redacted<Uint8Array> }) =>
    Layer.effect(
      Migrations,
      Effect.gen(function* () {
        const admin = yield* AdminDb
        const sql = admin.sql

        /** Runs what is newer than `from`, each step between `enter` and `record`. */
        const run = Effect.fnUntraced(function* <R>(
          migrations: ReadonlyArray<Migration<R>>,
          from: number,
          enter: Effect.Effect<void, SqlError.SqlError>,
          record: (migration: Migration<R>) => Effect.Effect<unknown, SqlError.SqlError>
        ) {
          for (const migration of migrations) {
            if (migration.id <= from) continue
            yield* enter.pipe(
              Effect.andThen(Effect.provideService(migration.up, SqlClient.SqlClient, sql)),
              Effect.mapError((error) => {
                const reason = classify(error)
                return reason._tag === "DependencyUnavailable"
                  ? reason
                  : new MigrationFailed({
                      message: `Migration ${migration.id}_${migration.name}: ${sqlMessageOf(error)}`
                    })
              })
            )
            yield* record(migration)
          }
          return { from, to: Math.max(from, newest(migrations)) }
        })

        const installClaimKey = Effect.suspend(() => {
          const { inner, outer } = claimKeyPads(options.claimKey)
          // Once there is a rotated key, the settings' own is not needed, and comes back no more.
          return sql`INSERT INTO shared.claim_keys (kid, inner_pad, outer_pad)
            SELECT ${claimKeyId(options.claimKey)}::text, ${inner}::bytea, ${outer}::bytea
            WHERE NOT EXISTS (SELECT FROM shared.platform_keys WHERE kind = 'claim' AND sealed IS NOT NULL)
            ON CONFLICT (kid) DO NOTHING`
        })

        const shared = admin.transaction(
          Effect.gen(function* () {
            yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army migrations'))`
            yield* admin.become("platform")
            const [schema] = yield* sql<{
              found: boolean
            }>`SELECT to_regnamespace('shared') IS NOT NULL AS found`
            if (schema?.found !== true) {
              yield* sql`CREATE SCHEMA shared`
              yield* sql`CREATE TABLE shared.migrations (
                id integer PRIMARY KEY,
                name text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now()
              )`
            }
            const [row] = yield* sql<{ version: number }>`
              SELECT coalesce(max(id), 0) AS version FROM shared.migrations`
            const migrated = yield* run(
              sharedMigrations,
              row?.version ?? 0,
              Effect.void,
              ({ id, name }) => sql`INSERT INTO shared.migrations (id, name) VALUES (${id}, ${name})`
            )
            yield* installClaimKey
            return migrated
          })
        )

        const sharedVersion = admin.transaction(
          Effect.gen(function* () {
            const [schema] = yield* sql<{
              found: boolean
            }>`SELECT to_regnamespace('shared') IS NOT NULL AS found`
            if (schema?.found !== true) return 0
            yield* admin.become("platform")
            const [row] = yield* sql<{ version: number }>`
              SELECT coalesce(max(id), 0) AS version FROM shared.migrations`
            return row?.version ?? 0
          })
        )

        /** Fail closed: a migration that forgot a table's walls does not commit. */
        const refuseBareTables = Effect.fnUntraced(function* (tenant: TenantRef) {
          const bare = yield* sql<{ relname: string }>`
            SELECT c.relname FROM pg_class c
            WHERE c.relnamespace = ${tenant.schema}::regnamespace AND c.relkind IN ('r', 'p')
              AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (
                SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND NOT p.polpermissive AND p.polcmd = '*'))`
          if (bare.length > 0) {
            const names = bare.map((table) => table.relname).join(", ")
            return yield* new MigrationFailed({ message: `These tables have no row security: ${names}` })
          }
        })

        const tenantInTransaction = Effect.fn("Migrations.tenant")(function* (tenant: TenantRef) {
          yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army tenant'), hashtext(${tenant.id}))`
          yield* admin.become("platform")
          const [row] = yield* sql<{ version: number }>`
            SELECT coalesce(max(id), 0) AS version FROM shared.tenant_migrations WHERE tenant_id = ${tenant.id}`
          const migrated = yield* run(
            tenantMigrations,
            row?.version ?? 0,
            admin.become(tenant.id),
            ({ id, name }) =>
              Effect.andThen(
                admin.become("platform"),
                sql`INSERT INTO shared.tenant_migrations (tenant_id, id, name) VALUES (${tenant.id}, ${id}, ${name})`
              )
          ).pipe(Effect.provideService(MigratingTenant, { ...tenant, role: roleNameOf(tenant.id) }))
          if (migrated.to > migrated.from) yield* refuseBareTables(tenant)
          yield* admin.become(tenant.id)
          return migrated
        })

        return Migrations.of({
          shared,
          sharedVersion,
          tenantInTransaction,
          tenant: (tenant) => admin.transaction(tenantInTransaction(tenant)),
          versions: admin.transaction(
            Effect.andThen(
              admin.become("platform"),
              sql<TenantVersion>`
                SELECT t.id, t.slug, t.schema_name AS schema, coalesce(max(m.id), 0) AS version
                FROM shared.tenants t LEFT JOIN shared.tenant_migrations m ON m.tenant_id = t.id
                GROUP BY t.id ORDER BY t.slug`
            )
          )
        })
      })
    )
}
