import { Effect, FileSystem, Option, Path, Redacted, Schema } from "effect"
import type { Scope } from "effect"
import type { ChildProcessSpawner } from "effect/process"
import { randomBytes } from "node:crypto"
import * as Lease from "./EmbeddedLease.ts"
import * as Postgres from "./EmbeddedPostgres.ts"
import { EmbeddedFailed, runAs } from "./EmbeddedProcess.ts"
import type { Announce } from "./EmbeddedProcess.ts"
import * as Redis from "./EmbeddedRedis.ts"

export { EmbeddedFailed }

/** Where the servers of one data directory are to be reached. Redis may be missing from the machine. */
export interface EmbeddedServers {
  readonly postgres: {
    readonly host: string
    readonly port: number
    readonly superuser: string
    readonly password: Redacted.Redacted<string>
  }
  readonly redis: Option.Option<{
    readonly host: string
    readonly port: number
    readonly password: Redacted.Redacted<string>
  }>
}

type Platform = FileSystem.FileSystem | Path.Path | ChildProcessSpawner.ChildProcessSpawner

const HOST = "127.0.0.1"

const Passwords = Schema.Struct({
  postgres: Schema.RedactedFromValue(Schema.String),
  redis: Schema.RedactedFromValue(Schema.String)
})
const PasswordsFile = Schema.fromJsonString(Passwords)

/**
 * Starts Postgres and Redis for a data directory, or joins those that run already. Any number of processes
 * may hold them at once; they stop when the last one's scope closes. A holder that is killed leaves them
 * running for whoever comes next.
 *
 * `durable: false` trades the safety of committed data in a crash of the machine for speed: tests only.
 */
export const acquire = (options: {
  readonly dataDir: string
  readonly durable?: boolean
  readonly announce: Announce
}): Effect.Effect<EmbeddedServers, EmbeddedFailed, Scope.Scope | Platform> =>
  Effect.gen(function* () {
    const { announce, durable = true } = options
    const path = yield* Path.Path
    const dataDir = path.resolve(options.dataDir)
    const pgdata = path.join(dataDir, "postgres")
    const redisDirectory = path.join(dataDir, "redis")
    if (process.platform !== "linux" && process.platform !== "darwin") {
      return yield* new EmbeddedFailed({
        message: "Embedded servers run on Linux and macOS only: set DATABASE_URL and REDIS_URL."
      })
    }
    yield* makeDataDirectory(dataDir)
    const exclusively = Lease.withLock(dataDir, announce)

    // The lease comes first: from here on no other process stops the servers, and whatever happens below
    // the last one to leave does.
    yield* Effect.acquireRelease(Lease.take(dataDir), (lease) =>
      Effect.gen(function* () {
        if ((yield* Lease.giveUp(lease)) > 0) return
        const passwords = yield* readPasswords(dataDir)
        if (Option.isNone(passwords)) return
        yield* Redis.stop({ directory: redisDirectory, password: passwords.value.redis }, announce)
        yield* Postgres.stop(pgdata, announce)
      }).pipe(
        exclusively,
        Effect.catch((error) => announce(`Could not stop the servers in ${dataDir}: ${error.message}`))
      )
    )

    return yield* Effect.gen(function* () {
      const passwords = yield* getPasswords(dataDir)
      const binaries = yield* Postgres.binaries
      // Only asked when something has to be started: joining needs no user and changes nothing.
      const as = yield* Effect.cached(
        Effect.flatMap(ownerOf(pgdata), (dataOwner) =>
          runAs({ program: binaries.postgres, dataDir, dataOwner, announce })
        )
      )

      const postgresPort = yield* Postgres.join(pgdata, announce)
      const postgres = Option.isSome(postgresPort)
        ? postgresPort.value
        : yield* Postgres.start({
            binaries,
            as: yield* as,
            dataDir,
            password: passwords.postgres,
            durable,
            announce
          })

      const home = { directory: redisDirectory, password: passwords.redis }
      const redisPort = yield* Redis.join(home, announce)
      const redis = Option.isSome(redisPort)
        ? redisPort
        : (yield* Redis.isInstalled(announce))
          ? Option.some(yield* Redis.start({ ...home, as: yield* as, durable, announce }))
          : Option.none()

      return {
        postgres: {
          host: HOST,
          port: postgres,
          superuser: Postgres.SUPERUSER,
          password: passwords.postgres
        },
        redis: Option.map(redis, (port) => ({ host: HOST, port, password: passwords.redis }))
      }
    }).pipe(exclusively)
  }).pipe(
    Effect.catchTags({
      PlatformError: (error) =>
        Effect.fail(
          new EmbeddedFailed({
            message:
              `Cannot use the data directory ${options.dataDir} (${error.message}): start as the user it ` +
              `belongs to, or set DATA_DIR to another folder.`
          })
        )
    }),
    Effect.withSpan("Embedded.acquire")
  )

/** Root's is open to be passed through, no more: the servers run as another user. */
const makeDataDirectory = Effect.fn("Embedded.makeDataDirectory")(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  if (yield* fs.exists(dataDir)) return
  yield* fs.makeDirectory(dataDir, { recursive: true })
  yield* fs.chmod(dataDir, process.getuid?.() === 0 ? 0o711 : 0o700)
})

const ownerOf = Effect.fn("Embedded.ownerOf")(function* (pgdata: string) {
  const fs = yield* FileSystem.FileSystem
  if (!(yield* fs.exists(pgdata))) return Option.none()
  const { gid, uid } = yield* fs.stat(pgdata)
  return Option.filter(Option.all({ uid, gid }), (owner) => owner.uid !== 0)
})

const passwordsFile = (dataDir: string) =>
  Effect.map(Path.Path, (path) => path.join(dataDir, "passwords.json"))

const newPassword = () => Redacted.make(randomBytes(24).toString("hex"))

const readPasswords = Effect.fn("Embedded.readPasswords")(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  const file = yield* passwordsFile(dataDir)
  if (!(yield* fs.exists(file))) return Option.none()
  return yield* fs.readFileString(file).pipe(
    Effect.flatMap(Schema.decodeEffect(PasswordsFile)),
    Effect.catchTag("SchemaError", () =>
      Effect.fail(new EmbeddedFailed({ message: `${file} is damaged: restore it, or remove ${dataDir}.` }))
    ),
    Effect.asSome
  )
})

const getPasswords = Effect.fn("Embedded.getPasswords")(function* (dataDir: string) {
  const present = yield* readPasswords(dataDir)
  if (Option.isSome(present)) return present.value

  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = yield* passwordsFile(dataDir)
  if (yield* fs.exists(path.join(dataDir, "postgres"))) {
    return yield* new EmbeddedFailed({
      message:
        `${file} is missing, and without it nobody gets into the database there: ` +
        `restore it, or remove ${dataDir}.`
    })
  }
  const passwords = Passwords.make({ postgres: newPassword(), redis: newPassword() })
  // Whole or not at all: a start that is cut off must not leave half a file.
  const unfinished = `${file}.new`
  yield* fs.writeFileString(unfinished, yield* Effect.orDie(Schema.encodeEffect(PasswordsFile)(passwords)), {
    mode: 0o600
  })
  yield* fs.rename(unfinished, file)
  return passwords
})
