import { Effect, Option, Redacted, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { OperatorKey, OperatorKeyName } from "../src/domain/OperatorKey.ts"
import type { PlatformKeyKind } from "../src/domain/PlatformKey.ts"
import { RotatedKey } from "../src/domain/PlatformKey.ts"
import { PlatformForCommands, print, run } from "../src/layers/CommandLine.ts"
import { details, table } from "../src/layers/Table.ts"
import { OperatorKeys } from "../src/services/OperatorKeys.ts"
import { PlatformKeys } from "../src/services/PlatformKeys.ts"

const encodeKey = Schema.encodeSync(OperatorKey)
const encodeKeys = Schema.encodeSync(Schema.Struct({ items: Schema.Array(OperatorKey) }))
const encodeRotated = Schema.encodeSync(RotatedKey)

const day = (time: string | null): string => (time === null ? "never" : time.slice(0, 10))

const describe = (key: OperatorKey): ReadonlyArray<readonly [string, string]> => {
  const { created_at, expires_at, id, last_used_at, name, revoked_at } = encodeKey(key)
  return [
    ["name", name],
    ["id", id],
    ["created", created_at],
    ["expires", expires_at ?? "never"],
    ["last used", last_used_at ?? "never"],
    ...(revoked_at === null ? [] : [["revoked", revoked_at] as const])
  ]
}

const create = Command.make(
  "create",
  {
    name: Flag.String("name").pipe(
      Flag.withDescription("Whose key it is, or what for: the audit log shows it"),
      Flag.withSchema(OperatorKeyName)
    ),
    expiresAt: Flag.String("expires-at").pipe(
      Flag.withMetavar("time"),
      Flag.withDescription("When it stops working, such as 2027-01-31T00:00:00Z; without it, never"),
      Flag.withSchema(Schema.DateTimeUtcFromString),
      Flag.optional
    )
  },
  ({ expiresAt, name }) =>
    Effect.gen(function* () {
      const { key, operatorKey } = yield* OperatorKeys.use((keys) =>
        keys.create({ name, expiresAt: Option.getOrUndefined(expiresAt) })
      )
      yield* print({ ...encodeKey(operatorKey), key: Redacted.value(key) }, (sheet) =>
        details([...describe(operatorKey), ["key", `${Redacted.value(key)} (shown this once)`]], sheet)
      )
      // Interrupted on the way, it is finished first: a key that was made must not be lost.
    }).pipe(Effect.uninterruptible)
).pipe(
  Command.withDescription("Make an operator key: it is shown this once"),
  Command.withExamples([
    { command: "keys operator create --name maria" },
    {
      command: "keys operator create --name ci --expires-at 2027-01-31T00:00:00Z --json | jq -r .key",
      description: "The key alone, for a script"
    }
  ]),
  Command.provide(PlatformForCommands)
)

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const items = yield* OperatorKeys.use((keys) => keys.list)
    yield* print(encodeKeys({ items }), (sheet) =>
      items.length === 0
        ? "There are none beside OPERATOR_API_KEY: keys operator create --help"
        : table(
            items.map((key) => encodeKey(key)),
            [
              { header: "NAME", value: ({ name }) => name, elastic: true },
              { header: "ID", value: ({ id }) => id },
              { header: "CREATED", value: ({ created_at }) => day(created_at) },
              { header: "EXPIRES", value: ({ expires_at }) => day(expires_at) },
              { header: "LAST USED", value: ({ last_used_at }) => day(last_used_at) },
              { header: "REVOKED", value: ({ revoked_at }) => (revoked_at === null ? "no" : day(revoked_at)) }
            ],
            sheet
          )
    )
  })
).pipe(
  Command.withDescription("List the operator keys, never the secrets"),
  Command.withExamples([{ command: "keys operator list" }]),
  Command.provide(PlatformForCommands)
)

const revoke = Command.make(
  "revoke",
  { key: Argument.String("key").pipe(Argument.withDescription("The key's name, or its id")) },
  Effect.fnUntraced(function* ({ key }) {
    const revoked = yield* OperatorKeys.use((keys) => keys.revoke(key))
    yield* print(encodeKey(revoked), (sheet) => details(describe(revoked), sheet))
  })
).pipe(
  Command.withDescription("Revoke an operator key: within a second it is refused everywhere"),
  Command.withExamples([{ command: "keys operator revoke maria" }]),
  Command.provide(PlatformForCommands)
)

const rotation = <const Kind extends PlatformKeyKind>(kind: Kind, description: string) =>
  Command.make(
    kind,
    {},
    Effect.fnUntraced(function* () {
      const rotated = yield* PlatformKeys.use((keys) => keys.rotate(kind))
      const encoded = encodeRotated(rotated)
      yield* print(encoded, (sheet) =>
        details(
          [
            ["new key", encoded.kid],
            ["signs from", encoded.active_from],
            ["previous key", encoded.previous_kid]
          ],
          sheet
        )
      )
    })
  ).pipe(
    Command.withDescription(description),
    Command.withExamples([{ command: `keys rotate ${kind}` }]),
    Command.provide(PlatformForCommands)
  )

const operator = Command.make("operator").pipe(
  Command.withDescription("Operator keys: they open the control plane, and no tenant's data"),
  Command.withExamples([
    { command: "keys operator create --name maria" },
    { command: "keys operator list" },
    { command: "keys operator revoke maria" }
  ]),
  Command.withSubcommands([create, list, revoke])
)

const rotate = Command.make("rotate").pipe(
  Command.withDescription("Rotate the platform's own keys while it runs; no request is refused for it"),
  Command.withExamples([{ command: "keys rotate signing" }, { command: "keys rotate claim" }]),
  Command.withSubcommands([
    rotation(
      "signing",
      "Sign access tokens with a new key; the old one verifies until its tokens have expired"
    ),
    rotation(
      "claim",
      "Sign tenants' claims with a new key; the old one is forgotten when its claims have expired"
    )
  ])
)

run(
  Command.make("keys").pipe(
    Command.withDescription("Operator keys, and the rotation of the platform's own keys"),
    Command.withExamples([
      { command: "keys operator create --name maria" },
      { command: "keys rotate signing" },
      { command: "keys rotate claim" }
    ]),
    Command.withSubcommands([operator, rotate])
  )
)
