import { Option, Redacted, Schema } from "effect"
import { uuidOf } from "./ApiKey.ts"
import { ApiKeyId, SessionId, UserId } from "./Principal.ts"
import { TenantId } from "./Tenant.ts"

/** Seconds that a client secret can be used for, as OpenAI has it. A session that it opened goes on. */
export const CLIENT_SECRET_LIFETIME = { least: 10, usual: 600, most: 7200 } as const

/** Who made a client secret: it can be used as long as that credential can. */
export const SecretMaker = Schema.Union([
  Schema.TaggedStruct("ApiKey", { tenantId: TenantId, keyId: ApiKeyId }),
  Schema.TaggedStruct("User", { tenantId: TenantId, userId: UserId, sessionId: SessionId })
])
export type SecretMaker = typeof SecretMaker.Type

const pattern = /^ek_([0-9a-f]{32})_[A-Za-z0-9]{43}$/

const decodeTenantId = Schema.decodeUnknownOption(TenantId)

/** The tenant that a client secret names: a claim, which the hash of the whole secret proves. */
export const tenantOfClientSecret = (secret: Redacted.Redacted<string>): Option.Option<TenantId> => {
  const match = pattern.exec(Redacted.value(secret))
  return match === null ? Option.none() : decodeTenantId(uuidOf(match[1] ?? ""))
}

/** Begins as OpenAI's do, which clients take for what a browser may have. */
export const isClientSecret = (secret: Redacted.Redacted<string>): boolean =>
  Redacted.value(secret).startsWith("ek_")

/** `ek_<tenant id>_<secret>`: the id says where to look, as an API key's does. */
export const formatClientSecret = (
  tenantId: TenantId,
  secret: Redacted.Redacted<string>
): Redacted.Redacted<string> => Redacted.make(`ek_${tenantId.replaceAll("-", "")}_${Redacted.value(secret)}`)
