import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { Context, Deferred, Effect, Layer, Redacted } from "effect"
import type { SqlClient } from "effect/sql"
import { Redis as RedisClient } from "ioredis"
import { randomBytes } from "node:crypto"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { inject } from "vitest"
import { ensureRoles, hardenDatabase, superuserClient } from "../../src/layers/DatabaseRoles.ts"
import { Announcer, Installation } from "../../src/layers/Installation.ts"
import { PlatformLayer } from "../../src/layers/Platform.ts"
import { ServerLayer } from "../../src/layers/Server.ts"
import { Settings } from "../../src/layers/Settings.ts"
import { SignInBudgets } from "../../src/services/SignInLimits.ts"
import { StartupLayer } from "../../src/layers/Startup.ts"

/** Roles belong to the whole cluster: every file of a run gives them the same passwords. */
const passwords = {
  app: Redacted.make("app-password-of-the-tests"),
  migrator: Redacted.make("migrator-password-of-the-tests"),
  backup: Redacted.make("backup-password-of-the-tests")
}

/** Files that run at one time don't see each other's keys. */
// @effect-diagnostics-next-line processEnv:off
const redisDatabase = process.env["VITEST_POOL_ID"] ?? "0"

export const operatorKey = "aa_op_the-operator-key-of-the-tests"

/** A database of the file's own in the run's Postgres, with the platform's roles. Dropped at the end. */
export class TestDatabase extends Context.Service<
  TestDatabase,
  {
    readonly name: string
    /** A folder of the file's own. Dropped at the end. */
    readonly dataDir: string
    readonly appUrl: Redacted.Redacted<string>
    readonly migratorUrl: Redacted.Redacted<string>
    /** A superuser's session in the database. For looking, and for breaking things on purpose. */
    readonly superuser: SqlClient.SqlClient
    readonly redisUrl: Redacted.Redacted<string>
    /** A client that sees every key. */
    readonly redis: RedisClient
  }
>()("test/TestDatabase") {
  static readonly layer = Layer.effect(
    TestDatabase,
    Effect.gen(function* () {
      const { folder, postgres, redis } = inject("servers")
      const name = `aa_test_${randomBytes(6).toString("hex")}`
      const url = (user: string, password: string, database: string) =>
        Redacted.make(
          `postgres://${user}:${encodeURIComponent(password)}@${postgres.host}:${postgres.port}/${database}`
        )
      const server = yield* superuserClient(url(postgres.superuser, postgres.password, "postgres"))
      yield* ensureRoles(server, passwords)
      yield* Effect.acquireRelease(server`CREATE DATABASE ${server(name)}`, () =>
        Effect.ignore(server`DROP DATABASE ${server(name)} WITH (FORCE)`)
      )
      const superuser = yield* superuserClient(url(postgres.superuser, postgres.password, name))
      yield* hardenDatabase(superuser, name)

      const dataDir = yield* Effect.acquireRelease(
        Effect.sync(() => join(folder, name)),
        (dataDir) => Effect.sync(() => rmSync(dataDir, { recursive: true, force: true }))
      )
      const redisUrl = Redacted.make(
        redis.password === ""
          ? `redis://${redis.host}:${redis.port}/${redisDatabase}`
          : `redis://:${encodeURIComponent(redis.password)}@${redis.host}:${redis.port}/${redisDatabase}`
      )
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => new RedisClient(Redacted.value(redisUrl))),
        (client) => Effect.promise(() => client.quit())
      )
      return TestDatabase.of({
        name,
        dataDir,
        appUrl: url("aa_app", Redacted.value(passwords.app), name),
        migratorUrl: url("aa_migrator", Redacted.value(passwords.migrator), name),
        superuser,
        redisUrl,
        redis: client
      })
    })
  )
}

/** Keys that all instances of one file share, as those of one installation do. */
const claimKey = randomBytes(32).toString("base64")
const masterKey = randomBytes(32).toString("base64")

/** The environment of an instance on the file's database. */
export const environmentOf = (
  database: TestDatabase["Service"],
  env: Readonly<Record<string, string>> = {}
): Record<string, string> => ({
  ENVIRONMENT: "testing",
  HOST: "127.0.0.1",
  PORT: "0",
  DATA_DIR: database.dataDir,
  DATABASE_URL: Redacted.value(database.appUrl),
  DATABASE_ADMIN_URL: Redacted.value(database.migratorUrl),
  REDIS_URL: Redacted.value(database.redisUrl),
  OPERATOR_API_KEY: operatorKey,
  TOKEN_SIGNING_KEYS: signingKeys,
  TENANT_CLAIM_KEY: claimKey,
  SECRETS_MASTER_KEY: masterKey,
  LOG_LEVEL: "error",
  ...env
})

const settingsOf = (env: Readonly<Record<string, string>> = {}) =>
  Layer.unwrap(Effect.map(TestDatabase, (database) => Settings.layerFrom(environmentOf(database, env))))

const signingKeys = JSON.stringify({
  keys: [
    {
      kty: "OKP",
      crv: "Ed25519",
      // The key pair of RFC 8037, appendix A: public, and good for tests only.
      x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
      d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
    }
  ]
})

/** The suite signs in, and fails to, far more often than people do. Tests of the limits give their own. */
const generous: SignInBudgets = {
  pair: { limit: 100_000, windowSeconds: 60 },
  address: { limit: 100_000, windowSeconds: 60 },
  account: { limit: 100_000, windowSeconds: 60 },
  tenant: { limit: 100_000, windowSeconds: 60 },
  sharedAddressFactor: 1,
  credentials: { limit: 100_000, windowSeconds: 60 }
}
const budgetsOf = (budgets: SignInBudgets = generous) => Layer.succeed(SignInBudgets, budgets)

/** A running server, by its address. */
export class TestServer extends Context.Service<TestServer, { readonly url: string }>()("test/TestServer") {}

/** One more instance of the platform, over a real socket, on the file's database. */
export const startServer = (env?: Readonly<Record<string, string>>, budgets?: SignInBudgets) =>
  Effect.gen(function* () {
    const ready = yield* Deferred.make<string>()
    const announcer = Layer.succeed(Announcer, (line: string) => {
      const match = /^Ready on http:\/\/localhost:(\d+)$/.exec(line)
      return match === null
        ? Effect.void
        : Effect.asVoid(Deferred.succeed(ready, `http://127.0.0.1:${match[1]}`))
    })
    yield* Layer.build(
      Layer.fresh(ServerLayer).pipe(
        Layer.provide(Layer.mergeAll(settingsOf(env), announcer, NodeServices.layer, budgetsOf(budgets)))
      )
    )
    return { url: yield* Deferred.await(ready) }
  })

/** The platform's services on the file's database, without HTTP. */
export const TestPlatform = StartupLayer.pipe(
  Layer.provideMerge(PlatformLayer),
  Layer.provideMerge(Installation.layer),
  Layer.provideMerge(Layer.succeed(Announcer, () => Effect.void)),
  Layer.provideMerge(settingsOf()),
  Layer.provide(budgetsOf()),
  Layer.provide(NodeServices.layer),
  Layer.provideMerge(TestDatabase.layer)
)

/** A server on a real socket, the platform's services beside it as a second instance, and a client's transport. */
export const TestApp = Layer.effect(TestServer, startServer()).pipe(
  Layer.provideMerge(TestPlatform),
  Layer.provideMerge(NodeHttpClient.layerUndici)
)

/** For `layer(…)`: real servers keep real time, so that a claim signed at the test clock's 1970 would have expired. */
export const onRealClock = { timeout: 60_000, excludeTestServices: true } as const
