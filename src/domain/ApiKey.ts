import { Duration, Option, Redacted, Schema } from "effect"
import { Environment } from "./Environment.ts"
import { ApiKeyId, Scope } from "./Principal.ts"
import { TenantId } from "./Tenant.ts"
import { KeyLimits } from "./TenantSettings.ts"

/** How long a rotated key may go on working beside the one that follows it. */
export const MAX_OVERLAP = Duration.days(7)

/** An API key as it may be shown. The key itself is told once, when it is made, and stored only as a hash. */
export class ApiKey extends Schema.Class<ApiKey>("agent-army/domain/ApiKey")({
  id: ApiKeyId,
  name: Schema.String,
  prefix: Schema.String,
  scopes: Schema.Array(Scope),
  limits: KeyLimits,
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  /** About when, to the minute: uses are gathered, and written in batches. */
  last_used_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  /** The key that follows this one. */
  rotated_to: Schema.NullOr(ApiKeyId),
  created_at: Schema.DateTimeUtcFromString
}) {}

/** An API key taken apart: `aa_<environment>_<key id><tenant id>_<secret>`, both ids as 32 hex digits. */
export interface ParsedApiKey {
  readonly environment: Environment
  readonly keyId: ApiKeyId
  /** The tenant whose table holds the key. A claim to be checked there, not a fact. */
  readonly tenantId: TenantId
  readonly secret: Redacted.Redacted<string>
}

const pattern = /^aa_(development|testing|staging|production)_([0-9a-f]{32})([0-9a-f]{32})_([A-Za-z0-9]{43})$/

/** An id out of its 32 hex digits. */
export const uuidOf = (hex: string): string =>
  `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`

const decodeEnvironment = Schema.decodeUnknownOption(Environment)
const decodeKeyId = Schema.decodeUnknownOption(ApiKeyId)
const decodeTenantId = Schema.decodeUnknownOption(TenantId)

export const parseApiKey = (key: Redacted.Redacted<string>): Option.Option<ParsedApiKey> => {
  const match = pattern.exec(Redacted.value(key))
  if (match === null) return Option.none()
  const [, environment, keyHex = "", tenantHex = "", secret = ""] = match
  return Option.all({
    environment: decodeEnvironment(environment),
    keyId: decodeKeyId(uuidOf(keyHex)),
    tenantId: decodeTenantId(uuidOf(tenantHex)),
    secret: Option.some(Redacted.make(secret))
  })
}

/**
 * The key names its tenant, so that checking it is one indexed read in that tenant's own table, behind the
 * tenant's walls, whatever the number of tenants; and no table holds the hashes of all.
 */
export const formatApiKey = (
  environment: Environment,
  keyId: ApiKeyId,
  tenantId: TenantId,
  secret: Redacted.Redacted<string>
): Redacted.Redacted<string> =>
  Redacted.make(
    `aa_${environment}_${keyId.replaceAll("-", "")}${tenantId.replaceAll("-", "")}_${Redacted.value(secret)}`
  )

/** What a person recognises a key by: its beginning, as far as it takes to tell keys of one moment apart. */
export const prefixOf = (environment: Environment, keyId: ApiKeyId): string =>
  `aa_${environment}_${keyId.replaceAll("-", "").slice(0, 20)}`
