import { Schema } from "effect"

/** An escape that Postgres' `jsonb` refuses: NUL, or half of a surrogate pair (RFC 8259, 8.2). */
const unstorable = /(?:^|[^\\])(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/

/**
 * JSON that can be kept: everything but NUL and lone surrogates in its strings, which neither `jsonb` nor a
 * well-formed answer can carry. `JSON.stringify` writes both as escapes, and nothing else so.
 */
export const StorableJson = Schema.Json.check(
  Schema.makeFilter((value: Schema.Json) =>
    unstorable.test(JSON.stringify(value)) ? "Expected text without NUL and lone surrogates" : undefined
  )
)
