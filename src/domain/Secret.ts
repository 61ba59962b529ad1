import { Schema } from "effect"

const MAX_BYTES = 16 * 1024

const utf8 = new TextEncoder()

/** What a secret is called: 1 to 100 characters that need no escaping in a URL or a log. */
export const SecretName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9][a-z0-9_-]{0,99}$/, {
    message: "Expected 1 to 100 of a-z, 0-9, _ and -, a letter or digit first"
  })
).pipe(Schema.brand("SecretName"))
export type SecretName = typeof SecretName.Type

/** A secret's text: 1 byte to 16 KiB of UTF-8. The messages are our own, since none may repeat the value. */
export const SecretValue = Schema.String.check(
  Schema.isMinLength(1, { message: "Expected a value" }),
  Schema.isMaxLength(MAX_BYTES, { message: "Expected 16 KiB or less" }),
  Schema.makeFilter((value: string) => {
    // Half of a surrogate pair has no UTF-8: another text would be kept than was sent.
    if (!value.isWellFormed()) return "Expected well-formed text"
    return value.length <= MAX_BYTES && utf8.encode(value).length > MAX_BYTES
      ? "Expected 16 KiB or less"
      : undefined
  })
)

/** What is told of a secret: everything but its value. `version` counts up from 1 with each new value. */
export class SecretEntry extends Schema.Class<SecretEntry>("agent-army/domain/SecretEntry")({
  name: SecretName,
  version: Schema.Int,
  created_at: Schema.DateTimeUtcFromString,
  updated_at: Schema.DateTimeUtcFromString
}) {}
