import { Duration, Effect, FileSystem, Option, Path, Schedule, Schema } from "effect"
import { randomUUID } from "node:crypto"
import { DatabaseSync } from "node:sqlite"
import { EmbeddedFailed, startedAt } from "./EmbeddedProcess.ts"
import type { Announce } from "./EmbeddedProcess.ts"

/** Long enough for another process to install Redis or to wait for a crash recovery. */
const LOCK_WITHIN = Duration.minutes(5)
const LOCK_POLL = Duration.millis(25)
/** About three seconds: waits shorter than this are not worth a word. */
const SAY_AFTER_POLLS = 120
const SQLITE_BUSY = 5

class LockBusy extends Schema.TaggedError<LockBusy>()("LockBusy", {}) {}

const isBusy = (cause: unknown) =>
  cause instanceof Error && "errcode" in cause && cause.errcode === SQLITE_BUSY

/**
 * Runs one effect at a time per data directory, over all processes. An exclusive SQLite transaction on an
 * empty file is the one portable lock in Node that the kernel takes back when its holder dies, so that
 * there is no stale lock to recognise.
 */
export const withLock =
  (dataDir: string, announce: Announce) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.gen(function* () {
      const path = yield* Path.Path
      const file = path.join(dataDir, "lock")
      const attempt = Effect.acquireRelease(
        Effect.try({
          try: () => {
            const db = new DatabaseSync(file, { timeout: 0 })
            try {
              db.exec("BEGIN EXCLUSIVE")
              return db
            } catch (cause) {
              db.close()
              throw cause
            }
          },
          catch: (cause) =>
            isBusy(cause)
              ? new LockBusy()
              : new EmbeddedFailed({
                  message: `Cannot lock ${file} (${String(cause)}): is it yours to write?`
                })
        }),
        (db) => Effect.sync(() => db.close())
      )
      let polls = 0
      yield* attempt.pipe(
        Effect.tapError((error) => {
          polls += 1
          return error._tag === "LockBusy" && polls === SAY_AFTER_POLLS
            ? announce(`Waiting for another process that is starting or stopping the servers in ${dataDir} …`)
            : Effect.void
        }),
        Effect.retry({
          while: (error) => error._tag === "LockBusy",
          schedule: Schedule.spaced(LOCK_POLL).pipe(Schedule.upTo({ duration: LOCK_WITHIN }))
        }),
        Effect.catchTag("LockBusy", () =>
          Effect.fail(
            new EmbeddedFailed({
              message: `Another process has held ${file} for too long: find it and end it.`
            })
          )
        )
      )
      return yield* effect
    }).pipe(Effect.scoped)

/** Says that this process uses the servers. The name holds all there is to know: it appears as a whole. */
export const take = Effect.fn("EmbeddedLease.take")(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const directory = path.join(dataDir, "leases")
  yield* fs.makeDirectory(directory, { recursive: true, mode: 0o700 })
  const started = Option.getOrElse(yield* startedAt(process.pid), () => "unknown")
  const lease = path.join(directory, `${process.pid}-${started}-${randomUUID()}`)
  yield* fs.writeFileString(lease, "", { flag: "wx", mode: 0o600 })
  return lease
})

/** Gives up one lease and says how many of live processes remain; those of dead ones are removed. */
export const giveUp = Effect.fn("EmbeddedLease.giveUp")(function* (lease: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* fs.remove(lease, { force: true })
  const directory = path.dirname(lease)
  let alive = 0
  for (const name of yield* fs.readDirectory(directory)) {
    const [pid, started] = name.split("-")
    // A process id comes round again; together with its start time it doesn't.
    if (Option.contains(yield* startedAt(Number(pid)), started)) alive += 1
    else yield* fs.remove(path.join(directory, name), { force: true })
  }
  return alive
})
