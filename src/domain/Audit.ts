import { Schema } from "effect"
import { Actor } from "./Actor.ts"

/** What a security-relevant act is called: its object, and what became of it. */
export const AuditAction = Schema.Literals([
  "tenant.provisioned",
  "tenant.updated",
  "tenant.suspended",
  "tenant.activated",
  "session.created",
  "session.ended",
  "session.revoked",
  "password.changed",
  "user.created",
  "user.updated",
  "user.deleted",
  "api_key.created",
  "api_key.rotated",
  "api_key.revoked",
  "secret.set",
  "secret.removed",
  "operator_key.created",
  "operator_key.revoked",
  "signing_key.rotated",
  "claim_key.rotated",
  "guard.flagged",
  "guard.blocked",
  "guard.leak_detected"
])
export type AuditAction = typeof AuditAction.Type

/** What an act was done to. */
export const AuditTarget = Schema.Struct({ type: Schema.String, id: Schema.String })
export type AuditTarget = typeof AuditTarget.Type

/** An act, before it has its place in the log. `details` hold no secret: what they say, every admin may read. */
export interface Act {
  readonly action: AuditAction
  readonly target?: AuditTarget | undefined
  readonly details?: Readonly<Record<string, Schema.Json>> | undefined
}

/**
 * An entry of the log. `seq` counts without a gap; `hash` is over the entry and the hash before it, so that one that
 * was changed or taken out shows. Hashes are SHA-256, in hex.
 */
export class AuditEntry extends Schema.Class<AuditEntry>("agent-army/domain/AuditEntry")({
  id: Schema.String.check(Schema.isUUID()),
  seq: Schema.Int,
  action: AuditAction,
  actor: Actor,
  target: Schema.NullOr(AuditTarget),
  details: Schema.Record(Schema.String, Schema.Json),
  request_id: Schema.NullOr(Schema.String),
  created_at: Schema.DateTimeUtcFromString,
  previous_hash: Schema.NullOr(Schema.String),
  hash: Schema.String
}) {}
