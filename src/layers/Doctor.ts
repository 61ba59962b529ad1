import { PgClient } from "@effect/sql-pg"
import { Cause, Context, Duration, Effect, Exit, Layer, Option, Redacted, Schema } from "effect"
import { Reactivity } from "effect/reactivity"
import type { SqlError } from "effect/sql"
import { isHosted } from "../domain/Environment.ts"
import { Forbidden } from "../domain/Problems.ts"
import { checkAppLogin } from "../services/AppLogin.ts"
import { latestVersions, Migrations } from "../services/Migrations.ts"
import { PlatformDb } from "../services/PlatformDb.ts"
import { PlatformKeys } from "../services/PlatformKeys.ts"
import { Redis } from "../services/Redis.ts"
import { Installation } from "./Installation.ts"
import { ControlPlaneLayer, StorageLayer } from "./Platform.ts"
import { Settings } from "./Settings.ts"

/** How long a check may take. A server that answers slower is as good as away. */
const CHECK_WITHIN = Duration.seconds(3)
/** A little less, so that the reason is told rather than the limit. */
const CONNECT_WITHIN = Duration.millis(2_500)

/** The oldest Postgres with `GRANT … WITH INHERIT FALSE, SET TRUE`, which the walls between tenants stand on. */
const POSTGRES_AT_LEAST = 16

/** How many tenants a detail names. */
const NAMED = 5

/** One thing looked at, and in plain words what is there, or what is missing and what to do. */
export interface Check {
  readonly name: string
  readonly status: "ok" | "failed" | "skipped"
  readonly detail: string
}

/** Where the embedded servers are, with the passwords. `null` for one that is not embedded. */
export interface Urls {
  readonly app: string | null
  readonly migrator: string | null
  readonly superuser: string | null
  readonly redis: string | null
}

export interface Diagnosis {
  readonly ok: boolean
  readonly checks: ReadonlyArray<Check>
  readonly urls?: Urls
}

/** What a check fails with; the message is its detail. */
class Ailment extends Schema.TaggedError<Ailment>()("Ailment", { message: Schema.String }) {}

/** A check that there is no need for, and why. */
class Needless extends Schema.TaggedError<Needless>()("Needless", { message: Schema.String }) {}

const names = [
  "settings",
  "servers",
  "postgres_app",
  "app_login",
  "postgres_migrator",
  "registry",
  "claim_key",
  "tenants",
  "redis"
] as const
type Name = (typeof names)[number]

const failed = (name: Name, detail: string): Check => ({ name, status: "failed", detail })
const skipped = (name: Name, detail: string): Check => ({ name, status: "skipped", detail })

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Runs one check to its end, whatever that is, within the limit. */
const check = <E, R>(name: Name, detail: Effect.Effect<string, E, R>): Effect.Effect<Check, never, R> =>
  detail.pipe(
    Effect.timeoutOrElse({
      duration: CHECK_WITHIN,
      orElse: () => new Ailment({ message: `No answer within ${Duration.toSeconds(CHECK_WITHIN)} seconds` })
    }),
    Effect.map((text): Check => ({ name, status: "ok", detail: text })),
    Effect.catchCause((cause) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.interrupt
      const error = Cause.squash(cause)
      return Effect.succeed(
        error instanceof Needless ? skipped(name, error.message) : failed(name, messageOf(error))
      )
    })
  )

/** Where a URL points to, without its password. */
const placeOf = (url: Redacted.Redacted<string>): string => {
  const { host, pathname, username } = new URL(Redacted.value(url))
  return `${username === "" ? "" : `${decodeURIComponent(username)}@`}${host}${pathname}`
}

const adviceOf = (variable: string, { reason }: SqlError.SqlError): string => {
  switch (reason._tag) {
    case "ConnectionError":
      return `start Postgres there, or correct ${variable}`
    case "AuthenticationError":
      return `correct the user or password in ${variable}`
    default:
      return `correct ${variable}, or the server`
  }
}

/** The words of the innermost error: a driver wraps what the operating system or the server said. */
const rootOf = (error: unknown): string => {
  if (error instanceof AggregateError) return error.errors.map(rootOf).join(", ")
  return error instanceof Error && error.cause !== undefined ? rootOf(error.cause) : messageOf(error)
}

/** Asks a Postgres by a login of its own, so that the driver's reason is told and not the pool's "unavailable". */
const askPostgres = <A>(
  variable: string,
  url: Redacted.Redacted<string>,
  ask: (sql: PgClient.PgClient) => Effect.Effect<A, SqlError.SqlError | Ailment>
): Effect.Effect<A, Ailment> =>
  PgClient.make({
    url,
    maxConnections: 1,
    connectTimeout: CONNECT_WITHIN,
    applicationName: "agent-army-doctor"
  }).pipe(
    Effect.flatMap(ask),
    Effect.scoped,
    Effect.catchTag("SqlError", (error) =>
      Effect.fail(
        new Ailment({
          message: `Postgres can't be used as ${placeOf(url)} (${rootOf(error.reason.cause)}): ${adviceOf(variable, error)}`
        })
      )
    ),
    Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make)
  )

const checkApp = (url: Redacted.Redacted<string>) =>
  askPostgres("DATABASE_URL", url, (sql) => Effect.as(sql`SELECT 1`, placeOf(url)))

const checkMigrator = (url: Redacted.Redacted<string>) =>
  askPostgres("DATABASE_ADMIN_URL", url, (sql) =>
    Effect.gen(function* () {
      const [row] = yield* sql<{
        version: string
        number: number
        makes_roles: boolean
        becomes_owner: boolean
      }>`
        SELECT current_setting('server_version') AS version,
          current_setting('server_version_num')::int AS number,
          rolcreaterole AS makes_roles,
          EXISTS (SELECT FROM pg_roles o WHERE o.rolname = 'aa_owner' AND pg_has_role(current_user, o.oid, 'SET'))
            AS becomes_owner
        FROM pg_roles WHERE rolname = current_user`
      if (row === undefined) return yield* Effect.die(new Error("current_user is no role"))
      const { becomes_owner, makes_roles, number, version } = row
      if (number < POSTGRES_AT_LEAST * 10_000) {
        return yield* new Ailment({
          message: `Postgres ${version} at ${placeOf(url)} is too old: ${POSTGRES_AT_LEAST} or newer is needed`
        })
      }
      if (!makes_roles || !becomes_owner) {
        const missing = makes_roles ? "may not take on the role aa_owner" : "may not make roles"
        return yield* new Ailment({
          message: `The login ${placeOf(url)} ${missing}: set up the logins as docs/operations.md has it`
        })
      }
      return `Postgres ${version} as ${placeOf(url)}`
    })
  )

const checkRedis = (url: Option.Option<Redacted.Redacted<string>>, redis: typeof Redis.Service) =>
  Effect.gen(function* () {
    if (Option.isNone(url)) {
      return yield* new Ailment({
        message: "There is no redis-server on this machine: install Redis, or set REDIS_URL"
      })
    }
    const place = Redacted.value(url.value)
      .split(",")
      .map((part) => new URL(part.trim()).host)
      .join(", ")
    const info = yield* redis
      .use((client) => client.info("server"))
      .pipe(
        Effect.mapError(
          () =>
            new Ailment({
              message: `Redis does not answer at ${place}: start it there, or correct the host, port or password in REDIS_URL`
            })
        )
      )
    return `Redis ${/^redis_version:(\S+)/m.exec(info)?.[1] ?? "of an unknown version"} at ${place}`
  })

const checkRegistry = Effect.fnUntraced(function* (hosted: boolean) {
  const version = yield* Migrations.use((migrations) => migrations.sharedVersion)
  const { shared } = latestVersions
  if (version === 0 && !hosted) {
    return yield* new Needless({ message: `There is none yet: "npm start" makes it` })
  }
  if (version < shared) {
    return yield* new Ailment({
      message: `It is at version ${version}, this build needs ${shared}: run "npm run migrate"`
    })
  }
  return version > shared ? `Version ${version}, newer than this build's ${shared}` : `Version ${version}`
})

/** With a key that the registry does not know, every row is hidden, and no error says why. */
const checkClaimKey = Effect.gen(function* () {
  yield* PlatformKeys.use((keys) => keys.refresh)
  const [row] = yield* PlatformDb.use((db) =>
    db.query((sql) => sql<{ known: boolean }>`SELECT shared.is_platform() AS known`)
  )
  if (row?.known !== true) {
    return yield* new Ailment({
      message: `The registry does not know this TENANT_CLAIM_KEY, so that all rows are hidden: correct it, or run "npm run migrate" to install it`
    })
  }
  return "The registry knows TENANT_CLAIM_KEY"
})

const checkTenants = Effect.gen(function* () {
  const tenants = yield* Migrations.use((migrations) => migrations.versions)
  const behind = tenants.filter(({ version }) => version < latestVersions.tenant).map(({ slug }) => slug)
  if (behind.length > 0) {
    const more = behind.length > NAMED ? `, and ${behind.length - NAMED} more` : ""
    return yield* new Ailment({
      message: `${behind.length} of ${tenants.length} are behind version ${latestVersions.tenant} (${behind.slice(0, NAMED).join(", ")}${more}): run "npm run migrate"`
    })
  }
  return `${tenants.length}, all at version ${latestVersions.tenant}`
})

/** The check, unless the one that it stands on has not come out well. */
const after = <R>(
  first: Check,
  name: Name,
  next: Effect.Effect<Check, never, R>
): Effect.Effect<Check, never, R> =>
  first.status === "ok" ? next : Effect.succeed(skipped(name, `Needs ${first.name}`))

const restSkipped = (done: ReadonlyArray<Check>): ReadonlyArray<Check> => {
  const last = done.at(-1)?.name ?? ""
  return [...done, ...names.slice(done.length).map((name) => skipped(name, `Needs ${last}`))]
}

const urlsOf = (settings: typeof Settings.Service, installation: typeof Installation.Service): Urls => {
  const isPostgresEmbedded = Option.isNone(settings.databaseUrl)
  const embedded = (url: Redacted.Redacted<string>) => (isPostgresEmbedded ? Redacted.value(url) : null)
  const valueOrNull = (url: Option.Option<Redacted.Redacted<string>>) =>
    Option.match(url, { onNone: () => null, onSome: Redacted.value })
  return {
    app: embedded(installation.databaseUrl),
    migrator: embedded(installation.databaseAdminUrl),
    superuser: valueOrNull(installation.superuserUrl),
    redis: Option.isNone(settings.redisUrl) ? valueOrNull(installation.redisUrl) : null
  }
}

/**
 * Looks at everything an installation stands on, and never fails for what it finds: to tell that is its purpose.
 * Changes nothing, but that it starts the embedded servers for its own duration, as all programs do.
 */
export const diagnose = Effect.fn("diagnose")(function* (options: { readonly showUrls: boolean }) {
  const foundSettings = yield* Effect.exit(Layer.build(Settings.layer))
  if (Exit.isFailure(foundSettings)) {
    const checks = restSkipped([failed("settings", messageOf(Cause.squash(foundSettings.cause)))])
    return { ok: false, checks } satisfies Diagnosis
  }
  const settings = Context.get(foundSettings.value, Settings)
  const { environment } = settings
  if (options.showUrls && environment !== "development") {
    return yield* new Forbidden({ detail: `--show-urls is for development, and this is ${environment}` })
  }
  const settingsCheck: Check = { name: "settings", status: "ok", detail: `The environment is ${environment}` }

  const foundInstallation = yield* Layer.build(Installation.layer).pipe(
    Effect.provideContext(foundSettings.value),
    Effect.exit
  )
  if (Exit.isFailure(foundInstallation)) {
    if (Cause.hasInterruptsOnly(foundInstallation.cause)) return yield* Effect.interrupt
    const serversCheck = failed("servers", messageOf(Cause.squash(foundInstallation.cause)))
    return { ok: false, checks: restSkipped([settingsCheck, serversCheck]) } satisfies Diagnosis
  }
  const installation = Context.get(foundInstallation.value, Installation)
  const sourceOf = (url: Option.Option<unknown>) =>
    Option.isSome(url) ? "given by the settings" : `embedded in ${settings.dataDir}`
  const serversCheck: Check = {
    name: "servers",
    status: "ok",
    detail: `Postgres ${sourceOf(settings.databaseUrl)}, Redis ${sourceOf(settings.redisUrl)}`
  }

  const services = yield* ControlPlaneLayer.pipe(
    Layer.provideMerge(StorageLayer),
    Layer.build,
    Effect.provideContext(Context.merge(foundSettings.value, foundInstallation.value))
  )
  const byApp = Effect.gen(function* () {
    const app = yield* check("postgres_app", checkApp(installation.databaseUrl))
    const login = yield* after(
      app,
      "app_login",
      check("app_login", Effect.as(checkAppLogin, "It can get around no wall"))
    )
    return { app, login }
  })
  const byMigrator = Effect.gen(function* () {
    const migrator = yield* check("postgres_migrator", checkMigrator(installation.databaseAdminUrl))
    const registry = yield* after(
      migrator,
      "registry",
      check("registry", checkRegistry(isHosted(environment)))
    )
    return { migrator, registry }
  })
  const checks = yield* Effect.gen(function* () {
    const [{ app, login }, { migrator, registry }, redis] = yield* Effect.all(
      [byApp, byMigrator, check("redis", checkRedis(installation.redisUrl, Context.get(services, Redis)))],
      { concurrency: "unbounded" }
    )
    const claimKey = yield* after(
      app,
      "claim_key",
      after(registry, "claim_key", check("claim_key", checkClaimKey))
    )
    const tenants = yield* after(claimKey, "tenants", check("tenants", checkTenants))
    return [settingsCheck, serversCheck, app, login, migrator, registry, claimKey, tenants, redis]
  }).pipe(Effect.provideContext(services))

  return {
    ok: checks.every(({ status }) => status !== "failed"),
    checks,
    ...(options.showUrls ? { urls: urlsOf(settings, installation) } : {})
  } satisfies Diagnosis
}, Effect.scoped)
