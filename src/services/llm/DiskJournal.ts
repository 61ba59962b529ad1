import { Clock, Effect, Layer, Option, Result, Schedule, Schema } from "effect"
import { randomUUID } from "node:crypto"
import {
  appendFileSync,
  closeSync,
  fdatasync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync
} from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import { crashed, UsageJournal } from "./UsageJournal.ts"
import { JournalLine } from "./UsageEntry.ts"
import type { Opening, UsageRow } from "./UsageEntry.ts"

// A journal in files: `<root>/<instance>/000001.ndjson` and on, a line for each thing that happens. A line is written before
// what it tells of goes on, by a synchronous write to the page cache: some microseconds, and it outlives the process. The
// disk itself follows a few times a second. What was adopted is `<root>/<instance>~<number>`.

/** A segment is begun anew beyond this, and deleted when nothing in it is needed. */
const SEGMENT_BYTES = 8 * 1024 * 1024
const SYNC_EVERY = "250 millis"
const BEAT_EVERY = "5 seconds"
/** Who has not shown itself for so long is dead, whatever its process id says. */
const DEAD_AFTER_MILLIS = 60_000

const ALIVE = "alive"
const REJECTED = "rejected.ndjson"
const SEGMENT = /^\d{6}\.ndjson$/

/** The instances of this process. */
const living = new Set<string>()

/** Process ids mean something within one of these. */
const namespace = (): string => {
  try {
    return `${hostname()} ${readlinkSync("/proc/self/ns/pid")}`
  } catch {
    return hostname()
  }
}

const Owner = Schema.fromJsonString(Schema.Struct({ pid: Schema.Int, namespace: Schema.String }))
const encodeOwner = Schema.encodeSync(Owner)
const decodeOwner = Schema.decodeUnknownOption(Owner)
const encodeLine = Schema.encodeSync(Schema.fromJsonString(JournalLine))
const decodeLine = Schema.decodeUnknownResult(Schema.fromJsonString(JournalLine))

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM"
  }
}

/** Whether nobody will ever write to an instance's folder again. */
const isDead = (root: string, instance: string, nowMillis: number): boolean => {
  if (living.has(instance)) return false
  const alive = join(root, instance, ALIVE)
  try {
    if (nowMillis - statSync(alive).mtimeMs > DEAD_AFTER_MILLIS) return true
    const owner = decodeOwner(readFileSync(alive, "utf8"))
    if (Option.isNone(owner) || owner.value.namespace !== namespace()) return false
    // Ours, and none of the living: from an earlier process with the same id.
    return owner.value.pid === process.pid || !isRunning(owner.value.pid)
  } catch {
    // Not there any more, or not yet: the folder's own age says which.
    try {
      return nowMillis - statSync(join(root, instance)).mtimeMs > DEAD_AFTER_MILLIS
    } catch {
      return true
    }
  }
}

const segmentsOf = (folder: string): ReadonlyArray<string> =>
  readdirSync(folder)
    .filter((name) => SEGMENT.test(name))
    .toSorted()

interface Kept {
  readonly opening: Opening
  reached: number
  row: UsageRow | undefined
}

/** What the lines of a folder come to. A line that was cut off by the end of the process is passed over. */
const readFolder = (folder: string): ReadonlyMap<string, Kept> => {
  const kept = new Map<string, Kept>()
  for (const name of segmentsOf(folder)) {
    for (const text of readFileSync(join(folder, name), "utf8").split("\n")) {
      const decoded = text === "" ? undefined : decodeLine(text)
      if (decoded === undefined || Result.isFailure(decoded)) continue
      const line = decoded.success
      if ("opened" in line) {
        kept.set(line.opened.id, { opening: line.opened, reached: line.opened.reached, row: undefined })
        continue
      }
      const entry = kept.get(line.id)
      if (entry === undefined) continue
      if ("closed" in line) entry.row = { ...entry.opening, ...line.closed }
      else entry.reached = Math.max(entry.reached, line.reached)
    }
  }
  return kept
}

/** A journal under a folder that is this installation's, which instances share one after the other or side by side. */
export const DiskJournal = (root: string): Layer.Layer<UsageJournal> =>
  Layer.effect(
    UsageJournal,
    Effect.gen(function* () {
      const instance = `${process.pid}-${randomUUID()}`
      const folder = join(root, instance)
      const alive = join(folder, ALIVE)

      /** The segments that an attempt has lines in; they stay until it is settled. */
      const places = new Map<string, Set<number>>()
      /** How many attempts need a segment. */
      const needed = new Map<number, number>()
      /** Attempts of dead instances, and the folders that they stand in. */
      const adopted = new Map<string, string>()
      const adoptedIn = new Map<string, number>()
      let adoptions = 0
      let segment = 0
      let bytes = 0
      let file: number | undefined
      let isWritten = false
      let isBroken = false

      const pathOf = (number: number) => join(folder, `${String(number).padStart(6, "0")}.ndjson`)

      const drop = (number: number) => {
        if (number !== segment && (needed.get(number) ?? 0) === 0) {
          needed.delete(number)
          rmSync(pathOf(number), { force: true })
        }
      }

      const begin = (): number => {
        if (file !== undefined) closeSync(file)
        const before = segment
        segment++
        bytes = 0
        file = openSync(pathOf(segment), "a", 0o600)
        if (before > 0) drop(before)
        return file
      }

      const write = (id: string, line: JournalLine): void => {
        const text = `${encodeLine(line)}\n`
        const to = file === undefined || bytes > SEGMENT_BYTES ? begin() : file
        bytes += writeSync(to, text)
        isWritten = true
        const segments = places.get(id) ?? new Set()
        places.set(id, segments)
        if (!segments.has(segment)) {
          segments.add(segment)
          needed.set(segment, (needed.get(segment) ?? 0) + 1)
        }
      }

      /** The first failure is logged, and the first success after it: a full disk must not fill the log. */
      const attempt = (what: () => void): Effect.Effect<void> =>
        Effect.suspend(() => {
          const was = isBroken
          const failure = tried(what)
          isBroken = failure !== undefined
          if (was === isBroken) return Effect.void
          return isBroken
            ? Effect.logError(`The journal of LLM usage can't be written to ${folder}: ${failure}`)
            : Effect.logInfo("The journal of LLM usage is written again")
        })

      const settle = (ids: ReadonlyArray<string>): void => {
        for (const id of ids) {
          const segments = places.get(id)
          places.delete(id)
          for (const number of segments ?? []) {
            needed.set(number, (needed.get(number) ?? 1) - 1)
            drop(number)
          }
          const from = adopted.get(id)
          if (from === undefined) continue
          adopted.delete(id)
          const left = (adoptedIn.get(from) ?? 1) - 1
          adoptedIn.set(from, left)
          if (left > 0) continue
          adoptedIn.delete(from)
          rmSync(from, { recursive: true, force: true })
        }
      }

      const adoptFolder = (name: string): ReadonlyArray<UsageRow> => {
        const own = join(root, `${instance}~${++adoptions}`)
        try {
          // Of several who find it, one gets it.
          renameSync(join(root, name), own)
        } catch {
          return []
        }
        const rows = [...readFolder(own).values()].map(
          ({ opening, reached, row }) => row ?? crashed(opening, reached)
        )
        for (const { id } of rows) adopted.set(id, own)
        if (rows.length === 0) rmSync(own, { recursive: true, force: true })
        else adoptedIn.set(own, rows.length)
        return rows
      }

      const adopt = (nowMillis: number): ReadonlyArray<UsageRow> =>
        readdirSync(root, { withFileTypes: true })
          .filter((entry) => entry.isDirectory())
          .map(({ name }) => name)
          .filter((name) => {
            const owner = name.split("~")[0] ?? name
            return owner !== instance && isDead(root, owner, nowMillis)
          })
          // A dead one's own folder last: it says whose the others are.
          .toSorted((a, b) => Number(b.includes("~")) - Number(a.includes("~")))
          .flatMap(adoptFolder)

      yield* attempt(() => {
        mkdirSync(folder, { recursive: true, mode: 0o700 })
        writeFileSync(alive, encodeOwner({ pid: process.pid, namespace: namespace() }), { mode: 0o600 })
        living.add(instance)
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          if (file !== undefined) closeSync(file)
          // What is not settled stays, for the next who looks.
          if (places.size === 0 && !isBroken) rmSync(folder, { recursive: true, force: true })
          living.delete(instance)
        })
      )
      const beat = Effect.flatMap(Clock.currentTimeMillis, (now) =>
        attempt(() => utimesSync(alive, now / 1000, now / 1000))
      )
      yield* Effect.forkScoped(Effect.repeat(beat, Schedule.spaced(BEAT_EVERY)))
      const sync = Effect.sync(() => {
        if (!isWritten || file === undefined) return
        isWritten = false
        fdatasync(file, () => undefined)
      })
      yield* Effect.forkScoped(Effect.repeat(sync, Schedule.spaced(SYNC_EVERY)))

      return UsageJournal.of({
        open: (opening) => attempt(() => write(opening.id, { opened: opening })),
        reach: (id, reached) => void tried(() => write(id, { reached, id })),
        close: (id, closed) => attempt(() => write(id, { closed, id })),
        settle: (ids) => Effect.sync(() => settle(ids)),
        reject: (row, reason) =>
          attempt(() =>
            appendFileSync(join(root, REJECTED), `${JSON.stringify({ reason, ...row })}\n`, { mode: 0o600 })
          ),
        unsettled: Effect.sync(() =>
          [...readFolder(folder).values()].flatMap(({ opening, row }) =>
            row !== undefined && places.has(opening.id) ? [row] : []
          )
        ),
        adopt: Effect.flatMap(Clock.currentTimeMillis, (now) =>
          Effect.suspend(() => {
            let rows: ReadonlyArray<UsageRow> = []
            return Effect.map(
              attempt(() => (rows = adopt(now))),
              () => rows
            )
          })
        )
      })
    })
  )

/** Why it failed; undefined where it did not. */
const tried = (what: () => void): string | undefined => {
  try {
    what()
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : "unknown reason"
  }
}
