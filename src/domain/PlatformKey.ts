import { Schema } from "effect"

/** What the platform's own keys are for: signing access tokens, or the claims that row security believes. */
export const PlatformKeyKind = Schema.Literals(["signing", "claim"])
export type PlatformKeyKind = typeof PlatformKeyKind.Type

/** What a rotation did. The new key works from `active_from` on; the previous one still verifies what it signed. */
export class RotatedKey extends Schema.Class<RotatedKey>("agent-army/domain/RotatedKey")({
  rotated: PlatformKeyKind,
  kid: Schema.String,
  previous_kid: Schema.String,
  active_from: Schema.DateTimeUtcFromString,
  /** Data keys wrapped anew: none, but where the master key is rotated. */
  rewrapped: Schema.Int
}) {}
