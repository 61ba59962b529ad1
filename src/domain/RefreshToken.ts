import { Option, Redacted, Schema } from "effect"
import { uuidOf } from "./ApiKey.ts"
import { SessionId } from "./Principal.ts"
import { TenantId } from "./Tenant.ts"

/**
 * A refresh token taken apart: `aa_rt_<session id><tenant id>_<family><secret>`, both ids as 32 hex digits, family and
 * secret as 32 random bytes each in base64url. As an API key it names its tenant, so that finding its session is one
 * indexed read behind that tenant's walls.
 *
 * The family is the same for all tokens of a session, the secret another in each: whoever knows the family has held a
 * token of the session, so that a spent one is known for what it is, without a list of all that were spent.
 */
export interface RefreshToken {
  readonly sessionId: SessionId
  /** The tenant whose table holds the session. A claim to be checked there, not a fact. */
  readonly tenantId: TenantId
  readonly family: Redacted.Redacted<string>
  readonly secret: Redacted.Redacted<string>
}

const pattern = /^aa_rt_([0-9a-f]{32})([0-9a-f]{32})_([A-Za-z0-9_-]{43})([A-Za-z0-9_-]{43})$/

const decodeSessionId = Schema.decodeUnknownOption(SessionId)
const decodeTenantId = Schema.decodeUnknownOption(TenantId)

export const parseRefreshToken = (token: Redacted.Redacted<string>): Option.Option<RefreshToken> => {
  const match = pattern.exec(Redacted.value(token))
  if (match === null) return Option.none()
  const [, sessionHex = "", tenantHex = "", family = "", secret = ""] = match
  return Option.all({
    sessionId: decodeSessionId(uuidOf(sessionHex)),
    tenantId: decodeTenantId(uuidOf(tenantHex)),
    family: Option.some(Redacted.make(family)),
    secret: Option.some(Redacted.make(secret))
  })
}

const hexOf = (id: string): string => id.toLowerCase().replaceAll("-", "")

export const formatRefreshToken = (token: RefreshToken): Redacted.Redacted<string> =>
  Redacted.make(
    `aa_rt_${hexOf(token.sessionId)}${hexOf(token.tenantId)}_${Redacted.value(token.family)}${Redacted.value(token.secret)}`
  )
