import { Effect, FileSystem, Option, Path, Redacted } from "effect"
import { ChildProcess } from "effect/process"
import { ask, commandLine, EmbeddedFailed, freePort, giveTo, run, settle } from "./EmbeddedProcess.ts"
import type { Announce, RunAs } from "./EmbeddedProcess.ts"

/** Room for tests that take a database each. */
const DATABASES = 1024
/** Another program may take the chosen port before Redis does. */
const START_ATTEMPTS = 3

const POLICY = "/usr/sbin/policy-rc.d"

const linesOf = (reply: string) => reply.split("\r\n").slice(0, -1)

/** Says the password and one command to a Redis on this machine: its reply, if the password is its own. */
const command = (port: number, password: Redacted.Redacted<string>, words: string) =>
  ask(port, `AUTH ${Redacted.value(password)}\r\n${words}\r\n`, (reply) => {
    const lines = linesOf(reply)
    return lines.length >= 2 || (lines[0]?.startsWith("-") ?? false)
  }).pipe(
    Effect.map(
      Option.flatMap((reply) => {
        const [accepted, answer] = linesOf(reply)
        return accepted === "+OK" ? Option.fromNullishOr(answer) : Option.none()
      })
    )
  )

interface Home {
  readonly directory: string
  readonly password: Redacted.Redacted<string>
}

type State =
  | { readonly _tag: "Stopped" }
  | { readonly _tag: "Changing"; readonly pid: number; readonly port: number }
  | { readonly _tag: "Running"; readonly pid: number; readonly port: number }

/** The server says in its process title where it listens, which tells it from one that has its old id. */
const isServer = (pid: number, port: number) =>
  Effect.map(commandLine(pid), (line) => line.includes("redis-server") && line.includes(`:${port}`))

const inspect = Effect.fn("EmbeddedRedis.inspect")(function* ({ directory, password }: Home) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const read = (name: string) =>
    fs.readFileString(path.join(directory, name)).pipe(Effect.orElseSucceed(() => ""))
  const port = Number((yield* read("redis.conf")).match(/^port (\d+)$/m)?.[1])
  const pid = Number(yield* read("redis.pid"))
  const stopped: State = { _tag: "Stopped" }
  if (!(port > 0 && pid > 0)) return stopped
  if (Option.contains(yield* command(port, password, "PING"), "+PONG")) {
    const running: State = { _tag: "Running", pid, port }
    return running
  }
  const changing: State = { _tag: "Changing", pid, port }
  return (yield* isServer(pid, port)) ? changing : stopped
})

/** The port of the server that already runs in this folder; waits for one that loads its data or stops. */
export const join = Effect.fn("EmbeddedRedis.join")(function* (home: Home, announce: Announce) {
  const state = yield* settle(inspect(home), (state) => state._tag !== "Changing")
  if (Option.isNone(state)) {
    return yield* new EmbeddedFailed({
      message: `Redis in ${home.directory} runs but doesn't answer: see its log there, and end it.`
    })
  }
  if (state.value._tag !== "Running") return Option.none<number>()
  yield* announce(`Joining Redis that is already running on port ${state.value.port}`)
  return Option.some(state.value.port)
})

export const start = Effect.fn("EmbeddedRedis.start")(function* (
  options: Home & { readonly as: RunAs; readonly durable: boolean; readonly announce: Announce }
) {
  const { announce, as, directory, durable, password } = options
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = path.join(directory, "redis.conf")
  yield* announce("Starting Redis …")
  yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 })
  yield* giveTo(as, directory, 0o700)

  for (let attempt = 1; attempt <= START_ATTEMPTS; attempt++) {
    const port = yield* freePort
    const settings = [
      "bind 127.0.0.1",
      `port ${port}`,
      `requirepass ${Redacted.value(password)}`,
      `dir "${directory}"`,
      `logfile "${path.join(directory, "redis.log")}"`,
      `pidfile "${path.join(directory, "redis.pid")}"`,
      `databases ${DATABASES}`,
      // Every write is in the append-only file: snapshots would only be a second copy.
      `save ""`,
      "appendonly yes",
      `appendfsync ${durable ? "everysec" : "no"}`
    ]
    yield* fs.remove(path.join(directory, "redis.pid"), { force: true })
    yield* fs.writeFileString(file, settings.join("\n") + "\n", { mode: 0o600 })
    yield* giveTo(as, file, 0o600)
    const started = yield* Effect.scoped(
      Effect.gen(function* () {
        const [program = "", ...words] = [...as.prefix, "redis-server", file]
        // Detached, it is the leader of a session of its own, which Ctrl-C in the terminal doesn't reach.
        const server = yield* ChildProcess.make(program, words, {
          cwd: "/",
          detached: true,
          stdin: "ignore",
          stdout: "ignore",
          stderr: "ignore"
        })
        // Neither the end of this scope nor of this process shall end it.
        yield* Effect.asVoid(server.unref)
        const state = Effect.all({ state: inspect(options), alive: server.isRunning })
        return yield* settle(state, ({ alive, state }) => !alive || state._tag === "Running")
      })
    )
    if (Option.isNone(started)) {
      // It may be loading a great deal of data. A second server on the same files would ruin them.
      return yield* new EmbeddedFailed({
        message: `Redis doesn't answer yet: see ${path.join(directory, "redis.log")}, then start again.`
      })
    }
    if (started.value.alive) return port
  }
  return yield* new EmbeddedFailed({
    message: `Redis did not start: see ${path.join(directory, "redis.log")}.`
  })
}, Effect.uninterruptible)

/** Redis writes out what it has and ends; its connection closes without a word. */
export const stop = Effect.fn("EmbeddedRedis.stop")(function* (home: Home, announce: Announce) {
  const state = yield* inspect(home)
  if (state._tag === "Stopped") return
  yield* announce("Stopping Redis …")
  const refusal = yield* command(state.port, home.password, "SHUTDOWN")
  if (Option.isSome(refusal)) yield* announce(`Redis refuses to stop: ${refusal.value}`)
  else yield* settle(isServer(state.pid, state.port), (alive) => !alive)
})

/** Whether there is a redis-server to start. Root on Debian or Ubuntu gets it installed. */
export const isInstalled = Effect.fn("EmbeddedRedis.isInstalled")(function* (announce: Announce) {
  const fs = yield* FileSystem.FileSystem
  const present = run(["redis-server", "--version"]).pipe(Effect.map(({ ok }) => ok))
  if (yield* present) return true

  const debian = process.platform === "linux" && (yield* fs.exists("/etc/debian_version"))
  if (debian && process.getuid?.() === 0) {
    yield* announce(
      "There is no redis-server on this machine: installing it (apt-get install -y redis-server) …"
    )
    const output = yield* install
    if (yield* present) return true
    yield* announce(`apt-get could not install it: ${output.split("\n").at(-1) ?? ""}`)
  }
  const line =
    process.platform === "darwin"
      ? "brew install redis"
      : debian
        ? "sudo apt-get install redis-server"
        : "install the package redis-server"
  yield* announce(`Going on without Redis. To have it: ${line}`)
  return false
})

const aptGet = (...words: ReadonlyArray<string>) =>
  run(["apt-get", "-o", "DPkg::Lock::Timeout=120", ...words], {
    DEBIAN_FRONTEND: "noninteractive",
    RUNLEVEL: "1"
  })

/** The package would start a server of its own on port 6379, now and at every boot: neither is wanted. */
const install = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const packages = aptGet("install", "-y", "--no-install-recommends", "redis-server")
  if (!(yield* Effect.orElseSucceed(fs.exists(POLICY), () => true))) {
    yield* Effect.acquireRelease(
      Effect.ignore(fs.writeFileString(POLICY, "#!/bin/sh\nexit 101\n", { flag: "wx", mode: 0o755 })),
      () => Effect.ignore(fs.remove(POLICY, { force: true }))
    )
  }
  const first = yield* packages
  const last = first.ok ? first : yield* Effect.andThen(aptGet("update"), packages)
  if (last.ok) yield* run(["update-rc.d", "redis-server", "disable"])
  return last.output
}).pipe(Effect.scoped)
