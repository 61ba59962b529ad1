import { Effect, Option, Redacted, Schema, Stdio, Stream } from "effect"
import { Argument, CliError, Command, Flag, Prompt, TerminalCapabilities } from "effect/cli"
import { Email, NewPassword } from "../src/domain/User.ts"
import { MAX_LIMIT } from "../src/domain/Page.ts"
import { Tenant, TenantName, TenantSlug } from "../src/domain/Tenant.ts"
import { tenantSettingDefaults } from "../src/domain/TenantSettings.ts"
import { ProvisionedTenant } from "../src/http/TenantsApi.ts"
import { answered, asked, PlatformForCommands, print, run } from "../src/layers/CommandLine.ts"
import { details, table } from "../src/layers/Table.ts"
import { Provisioning } from "../src/services/Provisioning.ts"
import { Tenants } from "../src/services/Tenants.ts"

const encodeTenant = Schema.encodeSync(Tenant)
const encodeTenants = Schema.encodeSync(Schema.Struct({ items: Schema.Array(Tenant) }))
const encodeProvisioned = Schema.encodeSync(ProvisionedTenant)

const describe = (tenant: Tenant): ReadonlyArray<readonly [string, string]> => {
  const { created_at, id, name, placement, schema_name, slug, status, updated_at } = encodeTenant(tenant)
  return [
    ["slug", slug],
    ["name", name],
    ["id", id],
    ["status", status],
    ["schema", schema_name],
    ["placement", placement],
    ["created", created_at],
    ["updated", updated_at]
  ]
}

const printTenant = (tenant: Tenant) =>
  print(encodeTenant(tenant), (sheet) => details(describe(tenant), sheet))

const checkPassword = (flag: string, password: string) =>
  Schema.decodeEffect(Schema.RedactedFromValue(NewPassword))(password).pipe(
    Effect.mapError(
      () =>
        new CliError.ValidationError({
          message: `--${flag}: a password has 12 to 1024 characters, and is not a common one`
        })
    )
  )

/** All of standard input, without the line's end that `echo` adds; at a terminal it is asked for, unseen. */
const readPassword = Effect.gen(function* () {
  const { canPrompt } = yield* TerminalCapabilities.TerminalCapabilities
  if (canPrompt) {
    return Redacted.value(yield* answered(Prompt.Hidden({ message: "Password of the first admin" })))
  }
  const { stdin } = yield* Stdio.Stdio
  const text = yield* stdin.pipe(
    Stream.decodeText(),
    Stream.mkString,
    Effect.mapError(() => new CliError.ValidationError({ message: "Standard input can't be read" }))
  )
  return text.replace(/\r?\n$/, "")
})

const provision = Command.make(
  "provision",
  {
    slug: Flag.String("slug").pipe(
      Flag.withDescription("Name in URLs: 3 to 50 of a-z, 0-9 and -"),
      Flag.withFallbackPrompt(asked("Slug", TenantSlug)),
      Flag.withSchema(TenantSlug)
    ),
    name: Flag.String("name").pipe(
      Flag.withDescription("Name for people"),
      Flag.withFallbackPrompt(asked("Name", TenantName)),
      Flag.withSchema(TenantName)
    ),
    email: Flag.String("admin-email").pipe(
      Flag.withDescription("The first admin; without a password one is made and shown this once"),
      Flag.withSchema(Email),
      Flag.optional
    ),
    password: Flag.Redacted("admin-password").pipe(
      Flag.withDescription("Their password. Others can see it in the list of processes"),
      Flag.mapEffect((given) => checkPassword("admin-password", Redacted.value(given))),
      Flag.optional
    ),
    // Last, so that all else has been checked before anybody types.
    passwordFromStdin: Flag.Boolean("admin-password-stdin").pipe(
      Flag.withDescription("Read their password from standard input"),
      Flag.withoutNegation,
      Flag.withDefault(false),
      Flag.mapEffect((isAsked) =>
        isAsked
          ? readPassword.pipe(
              Effect.flatMap((given) => checkPassword("admin-password-stdin", given)),
              Effect.asSome
            )
          : Effect.succeedNone
      )
    )
  },
  ({ email, name, password, passwordFromStdin, slug }) =>
    Effect.gen(function* () {
      const { admin, tenant } = yield* Provisioning.use((provisioning) =>
        provisioning.provision({
          slug,
          name,
          adminEmail: Option.getOrUndefined(email),
          adminPassword: Option.getOrUndefined(Option.orElse(password, () => passwordFromStdin))
        })
      )
      const made = admin === null ? Option.none() : Option.map(admin.password, Redacted.value)
      const provisioned = new ProvisionedTenant({
        ...tenant,
        admin:
          admin === null
            ? null
            : { email: admin.email, ...(Option.isSome(made) ? { password: made.value } : {}) }
      })
      yield* print(encodeProvisioned(provisioned), (sheet) =>
        details(
          [
            ...describe(tenant),
            ...(admin === null ? [] : [["admin", admin.email] as const]),
            ...(Option.isSome(made) ? [["password", `${made.value} (shown this once)`] as const] : [])
          ],
          sheet
        )
      )
      // Interrupted on the way, it is finished first: a password that was made must not be lost.
    }).pipe(Effect.uninterruptible)
).pipe(
  Command.validate(({ email, password, passwordFromStdin }) =>
    Option.isSome(password) && Option.isSome(passwordFromStdin)
      ? new CliError.ValidationError({ message: "Give one of --admin-password and --admin-password-stdin" })
      : Option.isNone(email) && (Option.isSome(password) || Option.isSome(passwordFromStdin))
        ? new CliError.ValidationError({ message: "A password needs --admin-email to go with it" })
        : Effect.void
  ),
  Command.withDescription("Provision a tenant: its schema, role, tables and first admin, or nothing at all"),
  Command.withExamples([
    { command: "tenants provision --slug skyvera --name Skyvera", description: "A tenant without users" },
    {
      command: "tenants provision --slug skyvera --name Skyvera --admin-email admin@skyvera.example",
      description: "With a first admin, whose password is made and shown"
    },
    {
      command:
        "pass show skyvera | tenants provision --slug skyvera --name Skyvera --admin-email admin@skyvera.example --admin-password-stdin",
      description: "With a password of yours, that no process list shows"
    }
  ]),
  Command.provide(PlatformForCommands)
)

const list = Command.make(
  "list",
  {},
  Effect.fnUntraced(function* () {
    const tenants = yield* Tenants
    const items: Array<Tenant> = []
    let isLast = false
    while (!isLast) {
      const page = yield* tenants.list({ after: items.at(-1)?.slug, limit: MAX_LIMIT })
      items.push(...page.items)
      isLast = page.next_cursor === null
    }
    yield* print(encodeTenants({ items }), (sheet) =>
      items.length === 0
        ? "There are no tenants yet: tenants provision --help"
        : table(
            items,
            [
              { header: "SLUG", value: (tenant) => tenant.slug },
              { header: "NAME", value: (tenant) => tenant.name, elastic: true },
              { header: "STATUS", value: (tenant) => tenant.status },
              { header: "PLACEMENT", value: (tenant) => tenant.placement },
              { header: "CREATED", value: (tenant) => encodeTenant(tenant).created_at.slice(0, 10) }
            ],
            sheet
          )
    )
  })
).pipe(
  Command.withDescription("List all tenants, by slug"),
  Command.withExamples([
    { command: "tenants list" },
    { command: "tenants list --json | jq -r '.items[].slug'", description: "The slugs, for a script" }
  ]),
  Command.provide(PlatformForCommands)
)

const slug = Argument.String("slug").pipe(Argument.withDescription("The tenant's slug, or its id"))

const show = Command.make("show", { slug }, ({ slug }) =>
  Effect.flatMap(
    Tenants.use((tenants) => tenants.get(slug)),
    printTenant
  )
).pipe(
  Command.withDescription("Show a tenant"),
  Command.withExamples([{ command: "tenants show skyvera" }]),
  Command.provide(PlatformForCommands)
)

const suspend = Command.make("suspend", { slug }, ({ slug }) =>
  Effect.flatMap(
    Tenants.use((tenants) => tenants.suspend(slug)),
    printTenant
  )
).pipe(
  Command.withDescription("Suspend a tenant: within a second no request of it is served anywhere"),
  Command.withExamples([{ command: "tenants suspend skyvera" }]),
  Command.provide(PlatformForCommands)
)

const activate = Command.make("activate", { slug }, ({ slug }) =>
  Effect.flatMap(
    Tenants.use((tenants) => tenants.activate(slug)),
    printTenant
  )
).pipe(
  Command.withDescription("Activate a suspended tenant"),
  Command.withExamples([{ command: "tenants activate skyvera" }]),
  Command.provide(PlatformForCommands)
)

const decodeJson = Schema.decodeEffect(Schema.fromJsonString(Schema.Unknown))

/** `name=json`, split at the first `=`. */
const assignment = (given: string) => {
  const at = given.indexOf("=")
  const name = given.slice(0, at)
  return at < 1
    ? Effect.fail(
        new CliError.ValidationError({ message: `--set takes name=json, such as 'guard.level="strict"'` })
      )
    : decodeJson(given.slice(at + 1)).pipe(
        Effect.map((value) => [name, value] as const),
        Effect.mapError(
          () =>
            new CliError.ValidationError({
              message: `--set ${name}=…: the value is no JSON. A string stands in quotes: '${name}="text"'`
            })
        )
      )
}

const settings = Command.make(
  "settings",
  {
    slug,
    changes: Flag.String("set").pipe(
      Flag.withMetavar("name=json"),
      Flag.withDescription("Set one, or remove it with null; may be repeated"),
      Flag.atLeast(0),
      Flag.mapEffect((given) => Effect.forEach(given, assignment))
    )
  },
  Effect.fnUntraced(function* ({ changes, slug }) {
    const tenants = yield* Tenants
    const tenant = yield* changes.length === 0
      ? tenants.get(slug)
      : tenants.update(slug, { settings: Object.fromEntries(changes) })
    const ofTenant = Object.entries(tenant.settings)
    const defaults = Object.entries(tenantSettingDefaults).filter(([name]) => !(name in tenant.settings))
    const rows = [
      ...ofTenant.map(([name, value]) => ({ name, value: JSON.stringify(value), from: "tenant" })),
      ...defaults.map(([name, value]) => ({ name, value: JSON.stringify(value), from: "default" }))
    ].toSorted((one, other) => (one.name < other.name ? -1 : 1))
    yield* print(encodeTenant(tenant), (sheet) =>
      table(
        rows,
        [
          { header: "SETTING", value: ({ name }) => name },
          { header: "VALUE", value: ({ value }) => value, wraps: true },
          { header: "FROM", value: ({ from }) => from }
        ],
        sheet
      )
    )
  })
).pipe(
  Command.withDescription("Show a tenant's settings, or change them: in force everywhere within a second"),
  Command.withExamples([
    { command: "tenants settings skyvera" },
    {
      command: `tenants settings skyvera --set 'guard.level="strict"' --set rate.requests_per_minute=600`,
      description: "Each value is JSON, hence the quotes of a string"
    },
    { command: "tenants settings skyvera --set guard.level=null", description: "Back to the default" }
  ]),
  Command.provide(PlatformForCommands)
)

run(
  Command.make("tenants").pipe(
    Command.withDescription("Provision and manage tenants"),
    Command.withExamples([
      { command: "tenants provision --slug skyvera --name Skyvera --admin-email admin@skyvera.example" },
      { command: "tenants list" },
      { command: "tenants settings skyvera --set rate.requests_per_minute=600" },
      { command: "tenants suspend skyvera" }
    ]),
    Command.withSubcommands([provision, list, show, suspend, activate, settings])
  )
)
