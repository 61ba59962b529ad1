import { Duration, Effect, FileSystem, Option, Schedule, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { createConnection, createServer } from "node:net"

/** One sentence: what failed, and what the operator can do about it. */
export class EmbeddedFailed extends Schema.TaggedError<EmbeddedFailed>()("EmbeddedFailed", {
  message: Schema.String
}) {}

export type Announce = (line: string) => Effect.Effect<void>

/** A server on this machine that does not answer for this long counts as not answering. */
const ANSWER_WITHIN = Duration.seconds(2)
/** Starting and stopping normally take well under a second; crash recovery of a big database takes longer. */
const SETTLE_WITHIN = Duration.minutes(1)
const POLL_EVERY = Duration.millis(25)

export interface Finished {
  readonly ok: boolean
  readonly output: string
}

/** Runs a program to its end. A program that cannot be started at all is one that failed. */
export const run = Effect.fn("Embedded.run")(
  function* (command: ReadonlyArray<string>, env: Record<string, string> = {}) {
    const [file = "", ...args] = command
    const handle = yield* ChildProcess.make(file, args, {
      // The present folder may be closed to the user that the program runs as.
      cwd: "/",
      env: { LC_ALL: "C", ...env },
      extendEnv: true,
      stdin: "ignore"
    })
    const output = yield* handle.all.pipe(Stream.decodeText(), Stream.mkString)
    const finished: Finished = { ok: Number(yield* handle.exitCode) === 0, output: output.trim() }
    return finished
  },
  Effect.scoped,
  Effect.catch((error) => Effect.succeed<Finished>({ ok: false, output: error.message }))
)

/** When a live process started, in the system's own words; none for one that is dead or a zombie. */
export const startedAt = Effect.fn("Embedded.startedAt")(function* (pid: number) {
  if (process.platform !== "linux") {
    const { ok, output } = yield* run(["ps", "-o", "lstart=", "-p", String(pid)])
    return ok && output !== "" ? Option.some(output.replaceAll(/\W+/g, "_")) : Option.none()
  }
  const fs = yield* FileSystem.FileSystem
  const stat = yield* Effect.option(fs.readFileString(`/proc/${pid}/stat`))
  return Option.flatMap(stat, (line) => {
    // The program's name, in parentheses, may itself hold spaces and parentheses.
    const fields = line.slice(line.lastIndexOf(")") + 2).split(" ")
    return fields[0] === "Z" || fields[0] === "X" ? Option.none() : Option.fromNullishOr(fields[19])
  })
})

/** The words a live process was started with, separated by spaces; empty for one that is dead. */
export const commandLine = Effect.fn("Embedded.commandLine")(function* (pid: number) {
  if (process.platform !== "linux") {
    return (yield* run(["ps", "-ww", "-o", "command=", "-p", String(pid)])).output
  }
  const fs = yield* FileSystem.FileSystem
  return yield* fs.readFileString(`/proc/${pid}/cmdline`).pipe(
    Effect.map((words) => words.replaceAll("\0", " ")),
    Effect.orElseSucceed(() => "")
  )
})

export const signal = (pid: number, name: NodeJS.Signals) =>
  Effect.ignore(Effect.try(() => process.kill(pid, name)))

/** Sends bytes to a local port and returns the reply once it is whole; none when nobody answers. */
export const ask = (
  port: number,
  request: string | Uint8Array,
  isWhole: (reply: string) => boolean
): Effect.Effect<Option.Option<string>> =>
  Effect.callback((resume) => {
    let reply = ""
    const socket = createConnection({ host: "127.0.0.1", port })
    const finish = () => {
      socket.destroy()
      resume(Effect.succeed(isWhole(reply) ? Option.some(reply) : Option.none()))
    }
    socket.setTimeout(Duration.toMillis(ANSWER_WITHIN), finish)
    socket.on("connect", () => socket.write(request))
    socket.on("data", (chunk) => {
      reply += chunk.toString("latin1")
      if (isWhole(reply)) finish()
    })
    socket.on("error", finish)
    socket.on("close", finish)
    return Effect.sync(() => socket.destroy())
  })

/** A port that is free now. Somebody may take it before it is used: callers retry with another. */
export const freePort: Effect.Effect<number, EmbeddedFailed> = Effect.callback((resume) => {
  const failed = new EmbeddedFailed({ message: "No free port on 127.0.0.1: check the loopback interface." })
  const server = createServer()
  server.on("error", () => resume(Effect.fail(failed)))
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() =>
      resume(
        typeof address === "object" && address !== null ? Effect.succeed(address.port) : Effect.fail(failed)
      )
    )
  })
})

/** Looks again until the value settles; none when it has not within a minute. */
export const settle = <A, E, R>(look: Effect.Effect<A, E, R>, settled: (value: A) => boolean) =>
  look.pipe(
    Effect.repeat({ until: settled, schedule: Schedule.spaced(POLL_EVERY) }),
    Effect.timeoutOption(SETTLE_WITHIN)
  )

/** How a server is started: the words before its own command line, and whom its files belong to. */
export interface RunAs {
  readonly prefix: ReadonlyArray<string>
  readonly owner: Option.Option<{ readonly uid: number; readonly gid: number }>
}

const self: RunAs = { prefix: [], owner: Option.none() }

/**
 * Postgres refuses to run as root, and Redis has no need to. Root gets the user that the data belongs to
 * already, or the system user `postgres`; anybody else runs the servers as themselves.
 *
 * That user may be unable to reach the program or the data: below /root, in a 0700 folder, in a clone made
 * under umask 077. Only then the servers keep a capability, the weakest that does: to read and search past
 * permissions, else to pass them (which containers have more often). `no_setuid_fixup` lets access(2)
 * honour it too; Postgres' search for its own executable fails otherwise.
 */
export const runAs = Effect.fn("Embedded.runAs")(function* (options: {
  readonly program: string
  readonly dataDir: string
  readonly dataOwner: Option.Option<{ readonly uid: number; readonly gid: number }>
  readonly announce: Announce
}) {
  if (process.getuid?.() !== 0) return self
  const { announce, dataDir, program } = options

  const owner = Option.isSome(options.dataOwner) ? options.dataOwner.value : yield* postgresUser(announce)
  const base = ["setpriv", `--reuid=${owner.uid}`, `--regid=${owner.gid}`, "--clear-groups"]
  const keeping = (capability: string) =>
    base.concat(`--inh-caps=+${capability}`, `--ambient-caps=+${capability}`, "--securebits=+no_setuid_fixup")
  for (const prefix of [base, keeping("dac_read_search"), keeping("dac_override")]) {
    const check = ["sh", "-c", `"$0" --version && cd "$1"`, program, dataDir]
    if ((yield* run([...prefix, ...check])).ok) {
      const as: RunAs = { prefix, owner: Option.some(owner) }
      return as
    }
  }
  return yield* new EmbeddedFailed({
    message:
      `Postgres does not run as root, and user ${owner.uid} cannot run ${program} on ${dataDir}: ` +
      `start as an ordinary user, or set DATABASE_URL and REDIS_URL to servers of your own.`
  })
})

const postgresUser = Effect.fn("Embedded.postgresUser")(function* (announce: Announce) {
  const find = Effect.all([run(["id", "-u", "postgres"]), run(["id", "-g", "postgres"])]).pipe(
    Effect.map(([uid, gid]) =>
      uid.ok && gid.ok ? Option.some({ uid: Number(uid.output), gid: Number(gid.output) }) : Option.none()
    )
  )
  const present = yield* find
  if (Option.isSome(present)) return present.value

  yield* announce(`Postgres refuses to run as root: creating the system user "postgres" for it …`)
  yield* run(["groupadd", "--system", "--force", "postgres"])
  const created = yield* run(
    ["useradd", "--system", "--gid", "postgres", "--no-create-home"].concat(
      "--home-dir",
      "/nonexistent",
      "--shell",
      "/usr/sbin/nologin",
      "postgres"
    )
  )
  // Asked again even after a failure: another start may have created the user meanwhile.
  return yield* Effect.fromOption(yield* find).pipe(
    Effect.mapError(
      () =>
        new EmbeddedFailed({
          message:
            `Postgres does not run as root and the system user "postgres" could not be created ` +
            `(${created.output}): start as an ordinary user.`
        })
    )
  )
})

/** Gives a path to the user that the servers run as. */
export const giveTo = Effect.fn("Embedded.giveTo")(function* (as: RunAs, path: string, mode: number) {
  const fs = yield* FileSystem.FileSystem
  if (Option.isSome(as.owner)) yield* fs.chown(path, as.owner.value.uid, as.owner.value.gid)
  yield* fs.chmod(path, mode)
})
