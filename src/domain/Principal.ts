import { Schema } from "effect"
import { TenantId, TenantSlug } from "./Tenant.ts"
import { KeyLimits } from "./TenantSettings.ts"

export const UserId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("UserId"))
export type UserId = typeof UserId.Type

export const ApiKeyId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("ApiKeyId"))
export type ApiKeyId = typeof ApiKeyId.Type

export const SessionId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("SessionId"))
export type SessionId = typeof SessionId.Type

export const Role = Schema.Literals(["admin", "member"])
export type Role = typeof Role.Type

/** What a credential may do. `x:*` stands for every scope that begins with `x:`. */
export const Scope = Schema.Literals([
  "records:read",
  "records:write",
  "state:read",
  "state:write",
  "state:*",
  "events:read",
  "events:write",
  "events:*",
  "llm:use",
  "llm:usage",
  "llm:*",
  "users:read",
  "users:write",
  "users:*",
  "audit:read",
  "secrets:read",
  "secrets:write",
  "secrets:*"
])
export type Scope = typeof Scope.Type

/** Scopes a role carries by itself. */
export const scopesOfRole: Readonly<Record<Role, ReadonlyArray<Scope>>> = {
  admin: [
    "records:read",
    "records:write",
    "state:*",
    "events:*",
    "llm:*",
    "users:*",
    "audit:read",
    "secrets:*"
  ],
  member: ["records:read", "records:write", "state:*", "events:*", "llm:*"]
}

/** True when one of `granted` is `required`, or the wildcard of its group. */
export const allows = (granted: ReadonlyArray<Scope>, required: Scope): boolean => {
  const wildcard = `${required.slice(0, required.indexOf(":"))}:*`
  return granted.some((scope) => scope === required || scope === wildcard)
}

/** True when `granted` holds all that an admin may: what it takes to make an admin, or to change one. */
export const mayMakeAdmins = (granted: ReadonlyArray<Scope>): boolean =>
  scopesOfRole.admin.every((scope) => allows(granted, scope))

/** A person of one tenant, signed in. */
export class UserPrincipal extends Schema.TaggedClass<UserPrincipal>()("User", {
  tenantId: TenantId,
  tenantSlug: TenantSlug,
  userId: UserId,
  email: Schema.String,
  role: Role,
  sessionId: Schema.String
}) {}

/** A service of one tenant, by API key. */
export class ApiKeyPrincipal extends Schema.TaggedClass<ApiKeyPrincipal>()("ApiKey", {
  tenantId: TenantId,
  tenantSlug: TenantSlug,
  keyId: ApiKeyId,
  scopes: Schema.Array(Scope),
  limits: KeyLimits
}) {}

/** Whoever runs the platform. Has the control plane, and no tenant's data. */
export class OperatorPrincipal extends Schema.TaggedClass<OperatorPrincipal>()("Operator", {
  /** None for the key of the settings. */
  id: Schema.NullOr(Schema.String),
  name: Schema.String
}) {}

/** Who is calling inside a tenant. */
export type TenantPrincipal = UserPrincipal | ApiKeyPrincipal

export type Principal = TenantPrincipal | OperatorPrincipal

export const scopesOf = (principal: TenantPrincipal): ReadonlyArray<Scope> =>
  principal._tag === "User" ? scopesOfRole[principal.role] : principal.scopes
