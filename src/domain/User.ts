import { Schema } from "effect"
import { whyRefused } from "./PasswordRule.ts"
import { Role, UserId } from "./Principal.ts"
import { TenantId, TenantSlug } from "./Tenant.ts"

/** An e-mail address as people write it. Whether it receives mail is not ours to know. RFC 5321, 4.5.3.1 bounds it. */
export const Email = Schema.Trim.check(
  Schema.isMaxLength(254),
  Schema.isPattern(/^[^\s@\p{Cc}]{1,64}@[^\s@\p{Cc}]+\.[^\s@\p{Cc}]+$/u, {
    message: "Expected an e-mail address"
  })
)

/** What a person is called. */
export const PersonName = Schema.Trim.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(200),
  Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u, { message: "Expected text without control characters" })
)

/** 12 characters at least (NIST SP 800-63B asks for 8), none of the common ones, and few enough to hash cheaply. */
export const NewPassword = Schema.String.check(
  Schema.isMinLength(12, { message: "Expected 12 characters or more" }),
  Schema.isMaxLength(1024, { message: "Expected 1024 characters or fewer" }),
  Schema.makeFilter((password: string) => whyRefused(password))
)

/** A user as stored, without the password's hash. */
export class User extends Schema.Class<User>("agent-army/domain/User")({
  id: UserId,
  email: Schema.String,
  name: Schema.NullOr(Schema.String),
  role: Role
}) {}

/** A user as an admin sees it. */
export class Account extends Schema.Class<Account>("agent-army/domain/Account")({
  ...User.fields,
  is_active: Schema.Boolean,
  created_at: Schema.DateTimeUtcFromString,
  updated_at: Schema.DateTimeUtcFromString
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

/** What someone who guesses a user's password tries first. */
export const namesOf = (slug: TenantSlug, email: string): ReadonlyArray<string> => [
  slug,
  email,
  email.slice(0, email.lastIndexOf("@"))
]
