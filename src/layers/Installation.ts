import { Context, Effect, Layer, Option, Path, Redacted, Schema } from "effect"
import type { FileSystem } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import type { SigningKeys } from "../domain/SigningKey.ts"
import { ensureRoles, hardenDatabase, superuserClient } from "./DatabaseRoles.ts"
import type { DatabasePasswords } from "./DatabaseRoles.ts"
import { developmentSecrets, masterKeyOf } from "./DevelopmentSecrets.ts"
import { acquire } from "./Embedded.ts"
import type { EmbeddedFailed, EmbeddedServers } from "./Embedded.ts"
import { Settings } from "./Settings.ts"

/** The installation can't be put together: one line that says why, and what to do. */
export class InstallationFailed extends Schema.TaggedError<InstallationFailed>()("InstallationFailed", {
  message: Schema.String
}) {}

/** The embedded Postgres' database. */
const DATABASE = "agent_army"

/** Says what is being done, while it is done. */
export class Announcer extends Context.Service<Announcer, (line: string) => Effect.Effect<void>>()(
  "agent-army/layers/Announcer"
) {}

const urlOf = (
  server: EmbeddedServers["postgres"],
  user: string,
  password: Redacted.Redacted<string>,
  database = DATABASE
): Redacted.Redacted<string> =>
  Redacted.make(
    `postgres://${user}:${encodeURIComponent(Redacted.value(password))}@${server.host}:${server.port}/${database}`
  )

/**
 * What one installation consists of: where its Postgres and Redis are, and its secrets. From the settings; what they
 * don't give, development starts or makes for itself, in `DATA_DIR`.
 */
export class Installation extends Context.Service<
  Installation,
  {
    readonly databaseUrl: Redacted.Redacted<string>
    readonly databaseAdminUrl: Redacted.Redacted<string>
    /** Of the embedded Postgres only. */
    readonly superuserUrl: Option.Option<Redacted.Redacted<string>>
    /** None where no Redis is to be had. */
    readonly redisUrl: Option.Option<Redacted.Redacted<string>>
    readonly operatorApiKey: Redacted.Redacted<string>
    /** The operator key was made here, so that it has to be told. */
    readonly operatorApiKeyMade: boolean
    readonly tokenSigningKeys: Redacted.Redacted<SigningKeys>
    readonly tenantClaimKey: Redacted.Redacted<Uint8Array>
    readonly secretsMasterKey: Redacted.Redacted<Uint8Array>
  }
>()("agent-army/layers/Installation") {
  static readonly layer: Layer.Layer<
    Installation,
    InstallationFailed | EmbeddedFailed,
    Settings | Announcer | FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner
  > = Layer.effect(
    Installation,
    Effect.gen(function* () {
      const settings = yield* Settings
      const announce = yield* Announcer
      const path = yield* Path.Path
      const dataDir = path.resolve(settings.dataDir)

      const secrets = yield* Effect.cached(
        developmentSecrets(dataDir).pipe(
          Effect.mapError(
            () =>
              new InstallationFailed({
                message: `${path.join(dataDir, "secrets.json")} can't be read or made`
              })
          )
        )
      )
      const given = <A>(
        value: Option.Option<A>,
        otherwise: Effect.Effect<A, InstallationFailed, FileSystem.FileSystem | Path.Path>
      ) => Option.match(value, { onNone: () => otherwise, onSome: Effect.succeed })

      const needsPostgres = Option.isNone(settings.databaseUrl)
      const embedded =
        needsPostgres || Option.isNone(settings.redisUrl)
          ? Option.some(yield* acquire({ dataDir, announce }))
          : Option.none()
      const redisUrl = Option.orElse(settings.redisUrl, () =>
        Option.map(
          Option.flatMap(embedded, (servers) => servers.redis),
          ({ host, password, port }) =>
            Redacted.make(`redis://default:${encodeURIComponent(Redacted.value(password))}@${host}:${port}`)
        )
      )

      const urls =
        Option.isSome(settings.databaseUrl) && Option.isSome(settings.databaseAdminUrl)
          ? {
              databaseUrl: settings.databaseUrl.value,
              databaseAdminUrl: settings.databaseAdminUrl.value,
              superuserUrl: Option.none()
            }
          : yield* embeddedUrls(
              Option.map(embedded, (servers) => servers.postgres),
              (yield* secrets).database_passwords
            )

      return Installation.of({
        ...urls,
        redisUrl,
        operatorApiKey: yield* given(
          settings.operatorApiKey,
          Effect.map(secrets, (made) => made.operator_api_key)
        ),
        operatorApiKeyMade: Option.isNone(settings.operatorApiKey),
        tokenSigningKeys: yield* given(
          settings.tokenSigningKeys,
          Effect.map(secrets, (made) => made.token_signing_keys)
        ),
        tenantClaimKey: yield* given(
          settings.tenantClaimKey,
          Effect.map(secrets, (made) => made.tenant_claim_key)
        ),
        secretsMasterKey: yield* given(settings.secretsMasterKey, Effect.map(secrets, masterKeyOf))
      })
    })
  )
}

/** How the embedded Postgres is logged in to, once its roles and its database are there. */
const embeddedUrls = Effect.fnUntraced(function* (
  postgres: Option.Option<EmbeddedServers["postgres"]>,
  passwords: DatabasePasswords
) {
  if (Option.isNone(postgres)) return yield* Effect.die(new Error("The embedded Postgres was not started"))
  const server = postgres.value
  const superuserUrl = (database: string) => urlOf(server, server.superuser, server.password, database)
  yield* prepareDatabase(superuserUrl, passwords).pipe(
    Effect.mapError(
      (error) =>
        new InstallationFailed({ message: `The embedded database can't be prepared: ${error.message}` })
    )
  )
  return {
    databaseUrl: urlOf(server, "aa_app", passwords.app),
    databaseAdminUrl: urlOf(server, "aa_migrator", passwords.migrator),
    superuserUrl: Option.some(superuserUrl(DATABASE))
  }
})

/** Roles and database of the embedded Postgres: made at the first start, mended at every other. */
const prepareDatabase = (
  superuserUrl: (database: string) => Redacted.Redacted<string>,
  passwords: DatabasePasswords
) =>
  Effect.scoped(
    Effect.gen(function* () {
      const server = yield* superuserClient(superuserUrl("postgres"))
      yield* ensureRoles(server, passwords)
      // CREATE DATABASE knows no transaction: of two that find none, the second is told that there is one.
      const [found] = yield* server`SELECT 1 FROM pg_database WHERE datname = ${DATABASE}`
      if (found === undefined) {
        yield* server`CREATE DATABASE ${server(DATABASE)} ENCODING 'UTF8'`.pipe(
          Effect.catchIf(
            (error) => error.reason._tag === "UniqueViolation" || error.reason._tag === "SqlSyntaxError",
            () => Effect.void
          )
        )
      }
      const database = yield* superuserClient(superuserUrl(DATABASE))
      yield* hardenDatabase(database, DATABASE)
    })
  )
