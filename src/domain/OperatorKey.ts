import { Option, Redacted, Schema } from "effect"
import { uuidOf } from "./ApiKey.ts"

export const OperatorKeyId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("OperatorKeyId"))
export type OperatorKeyId = typeof OperatorKeyId.Type

/** What an operator key is called: shown in lists and in the audit log. */
export const OperatorKeyName = Schema.Trim.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(100),
  Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u)
)

/** An operator key as it may be shown. The key itself is told once, when it is made, and stored only as a hash. */
export class OperatorKey extends Schema.Class<OperatorKey>("agent-army/domain/OperatorKey")({
  id: OperatorKeyId,
  name: Schema.String,
  created_at: Schema.DateTimeUtcFromString,
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  revoked_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  /** About when, to the minute: uses are gathered, and written in batches. */
  last_used_at: Schema.NullOr(Schema.DateTimeUtcFromString)
}) {}

/** An operator key taken apart: `aa_op_<key id>_<secret>`, the id as 32 hex digits. */
export interface ParsedOperatorKey {
  readonly id: OperatorKeyId
  readonly secret: Redacted.Redacted<string>
}

const pattern = /^aa_op_([0-9a-f]{32})_([A-Za-z0-9]{43})$/
const decodeId = Schema.decodeUnknownOption(OperatorKeyId)

export const parseOperatorKey = (key: Redacted.Redacted<string>): Option.Option<ParsedOperatorKey> => {
  const match = pattern.exec(Redacted.value(key))
  if (match === null) return Option.none()
  const [, idHex = "", secret = ""] = match
  return Option.map(decodeId(uuidOf(idHex)), (id) => ({ id, secret: Redacted.make(secret) }))
}

export const formatOperatorKey = (
  id: OperatorKeyId,
  secret: Redacted.Redacted<string>
): Redacted.Redacted<string> => Redacted.make(`aa_op_${id.replaceAll("-", "")}_${Redacted.value(secret)}`)
