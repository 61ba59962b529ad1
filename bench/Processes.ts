import { Deferred, Duration, Effect, FileSystem, Path, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

/** A measurement that can't be made: one sentence that says why. */
export class BenchFailed extends Schema.TaggedError<BenchFailed>()("BenchFailed", {
  message: Schema.String
}) {}

/** A server that does not get ready within this has failed; the first start makes a database cluster. */
const READY_WITHIN = Duration.minutes(2)
/** The platform lets running requests finish, and stops Postgres and Redis. */
const STOPPED_WITHIN = Duration.seconds(30)

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

export const programs = {
  server: here("../bin/serve.ts"),
  peer: here("./peer.ts"),
  load: here("./load.ts"),
  llmProvider: here("./llmProvider.ts"),
  llmProxy: here("./llmProxy.ts"),
  llmLoad: here("./llmLoad.ts"),
  mutableFetch: here("./mutableFetch.ts")
} as const

// @effect-diagnostics-next-line processEnv:off
const PATH = process.env["PATH"] ?? ""

const start = (program: string, args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) =>
  ChildProcess.make(process.execPath, [...process.execArgv, program, ...args], {
    env: { PATH, ...env },
    // None of the settings that may be around here.
    extendEnv: false,
    stdin: "ignore",
    forceKillAfter: STOPPED_WITHIN
  })

/** Runs a program to its end; gives what it wrote to standard output. */
export const run = Effect.fn("run")(function* (program: string, args: ReadonlyArray<string>) {
  const handle = yield* start(program, args, {})
  const [output, errors] = yield* Effect.forEach(
    [handle.stdout, handle.stderr],
    (stream) => stream.pipe(Stream.decodeText(), Stream.mkString),
    { concurrency: "unbounded" }
  )
  if (Number(yield* handle.exitCode) !== 0) {
    return yield* new BenchFailed({ message: `${program} failed: ${errors ?? ""}` })
  }
  return output ?? ""
}, Effect.scoped)

/** Starts a server and waits until it says where it listens. It stops when the scope closes. */
export const serve = (program: string, env: Readonly<Record<string, string>>) =>
  Effect.map(launch(program, env), ({ url }) => url)

/** Starts a server and waits until it says where it listens; and its process. */
export const launch = Effect.fn("launch")(function* (program: string, env: Readonly<Record<string, string>>) {
  const handle = yield* start(program, [], env)
  const ready = yield* Deferred.make<URL, BenchFailed>()
  const said: Array<string> = []
  // Read on to the end: a server whose pipe is full would wait.
  yield* handle.all.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      const url = /^Ready on (\S+)$/.exec(line)?.[1]
      if (url !== undefined) return Deferred.succeed(ready, new URL(url))
      if (said.length < 100) said.push(line)
      return Effect.void
    }),
    Effect.ensuring(
      Effect.suspend(() =>
        Deferred.fail(ready, new BenchFailed({ message: `${program} ended:\n${said.join("\n")}` }))
      )
    ),
    Effect.forkScoped
  )
  const url = yield* Deferred.await(ready).pipe(
    Effect.timeoutOrElse({
      duration: READY_WITHIN,
      orElse: () =>
        Effect.fail(new BenchFailed({ message: `${program} did not get ready:\n${said.join("\n")}` }))
    })
  )
  return { url, pid: Number(handle.pid) }
})

/** The platform on a data directory, with Postgres and Redis of its own there; and its process. */
export const launchPlatform = (dataDir: string, env: Readonly<Record<string, string>> = {}) =>
  launch(programs.server, {
    ENVIRONMENT: "testing",
    HOST: "127.0.0.1",
    PORT: "0",
    DATA_DIR: dataDir,
    LOG_LEVEL: "warning",
    ...env
  })

export const servePlatform = (dataDir: string, env?: Readonly<Record<string, string>>) =>
  Effect.map(launchPlatform(dataDir, env), ({ url }) => url)

/** A folder for one run, removed with the scope. */
export const temporaryFolder = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-bench-" })
  // Open to be passed through: under root the servers run as another user.
  yield* fs.chmod(folder, 0o711)
  return { folder, dataDir: path.join(folder, "data") }
})
