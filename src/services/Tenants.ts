import { Cache, Context, Duration, Effect, Exit, Layer, Option, Schema } from "effect"
import { PgTypes } from "@effect/sql-pg"
import type { AuditAction } from "../domain/Audit.ts"
import { invalidFields } from "../domain/InvalidFields.ts"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { InvalidRequest, NotFound } from "../domain/Problems.ts"
import { decodeTenantSettings, mergePatch } from "../domain/TenantSettings.ts"
import type { TenantSettingsPatch } from "../domain/TenantSettings.ts"
import { Tenant, TenantId, TenantSlug } from "../domain/Tenant.ts"
import type { TenantStatus } from "../domain/Tenant.ts"
import { AdminDb } from "./AdminDb.ts"
import { AuditLog } from "./AuditLog.ts"
import { PlatformDb } from "./PlatformDb.ts"
import { orUnavailable } from "./DbErrors.ts"

/**
 * How long an instance may believe what it read of a tenant. A suspension is in force everywhere within a second,
 * with Redis or without, because no instance remembers a tenant for longer than this.
 */
const REMEMBERED = Duration.millis(500)
const REMEMBERED_TENANTS = 20_000

const columns = "id, slug, name, schema_name, status, is_active, placement, settings, created_at, updated_at"

/** A tenant as a row: Postgres' timestamps are `Date`s here. */
export const TenantRow = Schema.Struct({
  ...Tenant.fields,
  created_at: Schema.DateTimeUtcFromDate,
  updated_at: Schema.DateTimeUtcFromDate
})

const decodeJson = Schema.decodeUnknownEffect(Schema.Json)
const decodeRow = Schema.decodeUnknownEffect(TenantRow)

/** A row that does not decode is a defect: nobody but us writes them. */
export const tenantOfRow = (row: unknown): Effect.Effect<Tenant> =>
  decodeRow(row).pipe(
    Effect.map((fields) => new Tenant(fields)),
    Effect.orDie
  )

const isId = Schema.is(TenantId)
const isSlug = Schema.is(TenantSlug)

/**
 * The registry of tenants. It knows no tenant's data. An id or a slug may name a tenant: no slug looks like an id.
 */
export class Tenants extends Context.Service<
  Tenants,
  {
    /** A tenant by id or slug, remembered for half a second; none for anything that is neither. */
    readonly find: (idOrSlug: string) => Effect.Effect<Option.Option<Tenant>, DependencyUnavailable>
    /** The same, read anew. Fails with `NotFound`. */
    readonly get: (idOrSlug: string) => Effect.Effect<Tenant, NotFound | DependencyUnavailable>
    readonly list: (page: PageRequest) => Effect.Effect<Page<Tenant>, DependencyUnavailable>
    /** Changes the name, merges the settings (RFC 7396); `InvalidRequest` names what a setting should have been. */
    readonly update: (
      idOrSlug: string,
      change: { readonly name?: string | undefined; readonly settings?: TenantSettingsPatch | undefined }
    ) => Effect.Effect<Tenant, NotFound | InvalidRequest | DependencyUnavailable>
    readonly suspend: (idOrSlug: string) => Effect.Effect<Tenant, NotFound | DependencyUnavailable>
    readonly activate: (idOrSlug: string) => Effect.Effect<Tenant, NotFound | DependencyUnavailable>
  }
>()("agent-army/services/Tenants") {
  static readonly layer = Layer.effect(
    Tenants,
    Effect.gen(function* () {
      const platform = yield* PlatformDb
      const admin = yield* AdminDb
      const audit = yield* AuditLog

      const read = Effect.fn("Tenants.read")(function* (idOrSlug: string) {
        if (!isId(idOrSlug) && !isSlug(idOrSlug)) return Option.none<Tenant>()
        const rows = yield* platform
          .query((sql) =>
            isId(idOrSlug)
              ? sql`SELECT ${sql.literal(columns)} FROM shared.tenants WHERE id = ${idOrSlug}`
              : sql`SELECT ${sql.literal(columns)} FROM shared.tenants WHERE slug = ${idOrSlug}`
          )
          .pipe(orUnavailable)
        const [row] = rows
        return row === undefined ? Option.none<Tenant>() : Option.some(yield* tenantOfRow(row))
      })

      const remembered = yield* Cache.makeWith(read, {
        capacity: REMEMBERED_TENANTS,
        // A tenant that is not there may be provisioned the next moment.
        timeToLive: (exit) => (Exit.isSuccess(exit) && Option.isSome(exit.value) ? REMEMBERED : Duration.zero)
      })

      const get = Effect.fn("Tenants.get")(function* (idOrSlug: string) {
        const found = yield* read(idOrSlug)
        if (Option.isNone(found)) return yield* new NotFound({ detail: "No such tenant" })
        return found.value
      })

      const forget = (tenant: Tenant) =>
        Effect.andThen(Cache.invalidate(remembered, tenant.id), Cache.invalidate(remembered, tenant.slug))

      /** Into the tenant's own log, under its claim: to be the last of a transaction. */
      const record = Effect.fnUntraced(function* (
        tenant: Tenant,
        action: AuditAction,
        details: Readonly<Record<string, Schema.Json>> = {}
      ) {
        yield* admin.become(tenant.id)
        yield* audit.recordIn(admin.sql, tenant.schema_name, {
          action,
          target: { type: "tenant", id: tenant.id },
          details
        })
      })

      const setStatus = (status: TenantStatus) =>
        Effect.fn("Tenants.setStatus")(function* (idOrSlug: string) {
          const tenant = yield* get(idOrSlug)
          const sql = admin.sql
          const changed = yield* admin
            .transaction(
              Effect.gen(function* () {
                yield* admin.become("platform")
                const [row] = yield* sql`UPDATE shared.tenants SET status = ${status}, updated_at = now()
                  WHERE id = ${tenant.id} AND status IN ('active', 'suspended')
                  RETURNING ${sql.literal(columns)}`
                if (row === undefined) return yield* new NotFound({ detail: "No such tenant" })
                const changed = yield* tenantOfRow(row)
                yield* record(changed, status === "active" ? "tenant.activated" : "tenant.suspended")
                return changed
              })
            )
            .pipe(orUnavailable)
          yield* forget(changed)
          return changed
        })

      return Tenants.of({
        find: (idOrSlug) => Cache.get(remembered, idOrSlug),
        get,
        list: Effect.fn("Tenants.list")(function* ({ after, limit }) {
          const rows = yield* platform
            .query((sql) =>
              after === undefined
                ? sql`SELECT ${sql.literal(columns)} FROM shared.tenants ORDER BY slug LIMIT ${limit + 1}`
                : sql`SELECT ${sql.literal(columns)} FROM shared.tenants WHERE slug > ${after}
                    ORDER BY slug LIMIT ${limit + 1}`
            )
            .pipe(orUnavailable)
          return pageOf(yield* Effect.forEach(rows, tenantOfRow), limit, (tenant) => tenant.slug)
        }),
        update: Effect.fn("Tenants.update")(function* (idOrSlug, change) {
          const { id } = yield* get(idOrSlug)
          const sql = admin.sql
          const tenant = yield* admin
            .transaction(
              Effect.gen(function* () {
                yield* admin.become("platform")
                const [current] = yield* sql`SELECT ${sql.literal(columns)} FROM shared.tenants
                  WHERE id = ${id} FOR UPDATE`
                if (current === undefined) return yield* new NotFound({ detail: "No such tenant" })
                const before = yield* tenantOfRow(current)
                const merged = mergePatch(before.settings, change.settings ?? {})
                const settings = yield* decodeTenantSettings(merged).pipe(
                  Effect.mapError(
                    (error) =>
                      new InvalidRequest({
                        detail: "The settings are invalid",
                        errors: invalidFields(error).map((field) => ({
                          ...field,
                          path: ["settings", ...field.path]
                        }))
                      })
                  )
                )
                const [row] = yield* sql`UPDATE shared.tenants
                  SET name = ${change.name ?? before.name}, settings = ${PgTypes.jsonb(settings)}, updated_at = now()
                  WHERE id = ${id} RETURNING ${sql.literal(columns)}`
                const updated = yield* tenantOfRow(row)
                // The operator's own words, so that the log tells what was asked and not only what became of it.
                yield* record(updated, "tenant.updated", {
                  ...(change.name !== undefined && { name: change.name }),
                  ...(change.settings !== undefined && {
                    settings: yield* Effect.orDie(decodeJson(change.settings))
                  })
                })
                return updated
              })
            )
            .pipe(orUnavailable)
          yield* forget(tenant)
          return tenant
        }),
        suspend: setStatus("suspended"),
        activate: setStatus("active")
      })
    })
  )
}
