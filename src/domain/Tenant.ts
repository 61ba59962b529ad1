import { Schema } from "effect"
import { TenantSettings } from "./TenantSettings.ts"

export const TenantId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("TenantId"))
export type TenantId = typeof TenantId.Type

/** Names that would read as a part of the platform or of Postgres. `pg-` is refused as a prefix. */
const reservedSlugs: ReadonlySet<string> = new Set([
  "shared",
  "public",
  "platform",
  "system",
  "admin",
  "root",
  "operator",
  "internal",
  "postgres",
  "redis",
  "template0",
  "template1",
  "information-schema",
  "all",
  "none",
  "null",
  "default",
  "agent-army"
])

/** Where a slug or an id names a tenant, nothing may be both. */
const looksLikeId = (slug: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(slug)

/**
 * The name of a tenant in URLs, and what its schema is named after. The pattern is the injection guard:
 * only a validated slug ever becomes an identifier.
 */
export const TenantSlug = Schema.String.check(
  Schema.isPattern(/^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$/, {
    message: "Expected 3 to 50 of a-z, 0-9 and -, beginning and ending with a letter or digit"
  }),
  Schema.makeFilter((slug: string) =>
    reservedSlugs.has(slug) || slug.startsWith("pg-") || looksLikeId(slug)
      ? "Expected a slug that is not reserved"
      : undefined
  )
).pipe(Schema.brand("TenantSlug"))
export type TenantSlug = typeof TenantSlug.Type

/** A tenant's schema: `tenant_<slug with - as _>`. One to one, since a slug has no underscore. */
export const SchemaName = Schema.String.check(Schema.isPattern(/^tenant_[a-z0-9_]{3,50}$/)).pipe(
  Schema.brand("SchemaName")
)
export type SchemaName = typeof SchemaName.Type

export const schemaNameOf = (slug: TenantSlug): SchemaName =>
  SchemaName.make(`tenant_${slug.replaceAll("-", "_")}`)

/** A tenant's Postgres role. Roles are shared by a whole cluster of databases, hence the id and not the slug. */
export const RoleName = Schema.String.check(Schema.isPattern(/^aa_t_[0-9a-f]{32}$/)).pipe(
  Schema.brand("RoleName")
)
export type RoleName = typeof RoleName.Type

export const roleNameOf = (id: TenantId): RoleName =>
  RoleName.make(`aa_t_${id.toLowerCase().replaceAll("-", "")}`)

export const TenantStatus = Schema.Literals(["provisioning", "active", "suspended", "deleting"])
export type TenantStatus = typeof TenantStatus.Type

export const TenantName = Schema.Trim.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(200),
  Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u, { message: "Expected text without control characters" })
)

/** A tenant as the registry knows it, and as the control plane shows it. */
export class Tenant extends Schema.Class<Tenant>("agent-army/domain/Tenant")({
  id: TenantId,
  slug: TenantSlug,
  name: Schema.String,
  schema_name: SchemaName,
  status: TenantStatus,
  is_active: Schema.Boolean,
  placement: Schema.String,
  settings: TenantSettings,
  created_at: Schema.DateTimeUtcFromString,
  updated_at: Schema.DateTimeUtcFromString
}) {}

/** Just what entering a tenant's rows takes. */
export interface TenantRef {
  readonly id: TenantId
  readonly schema: SchemaName
}
