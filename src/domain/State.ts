import { Schema } from "effect"

/** A key of realtime state: 1 to 200 characters that need no escaping in a URL, a log or Redis. */
export const StateKey = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9._:@-]{1,200}$/, {
    message: "Expected 1 to 200 of letters, digits and . _ : @ -"
  })
).pipe(Schema.brand("StateKey"))
export type StateKey = typeof StateKey.Type

/** Seconds until a value is gone: up to one year. */
export const TtlSeconds = Schema.Int.check(
  Schema.isGreaterThanOrEqualTo(1),
  Schema.isLessThanOrEqualTo(31_536_000)
)

/** A value of realtime state. `ttl_seconds` is `null` where it does not expire. */
export class StateEntry extends Schema.Class<StateEntry>("agent-army/domain/StateEntry")({
  key: StateKey,
  value: Schema.Json,
  ttl_seconds: Schema.NullOr(Schema.Int)
}) {}
