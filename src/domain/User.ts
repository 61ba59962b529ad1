import { Schema } from "effect"
import { Role, UserId } from "./Principal.ts"
import { TenantId, TenantSlug } from "./Tenant.ts"

/** An e-mail address as people write it. Whether it receives mail is not ours to know. RFC 5321, 4.5.3.1 bounds it. */
export const Email = Schema.Trim.check(
  Schema.isMaxLength(254),
  Schema.isPattern(/^[^\s@\p{Cc}]{1,64}@[^\s@\p{Cc}]+\.[^\s@\p{Cc}]+$/u, {
    message: "Expected an e-mail address"
  })
)

/** 12 characters at least (NIST SP 800-63B asks for 8), and few enough that hashing stays cheap. */
export const NewPassword = Schema.String.check(
  Schema.isMinLength(12, { message: "Expected 12 characters or more" }),
  Schema.isMaxLength(256, { message: "Expected 256 characters or fewer" })
)

/** A user as stored, without the password's hash. */
export class User extends Schema.Class<User>("agent-army/domain/User")({
  id: UserId,
  email: Schema.String,
  name: Schema.NullOr(Schema.String),
  role: Role
}) {}

/** `GET /api/v1/auth/me`: a user, and the tenant that the credential speaks for. */
export class Me extends Schema.Class<Me>("agent-army/domain/Me")({
  id: UserId,
  email: Schema.String,
  name: Schema.NullOr(Schema.String),
  role: Role,
  tenant_id: TenantId,
  tenant_slug: TenantSlug
}) {}
