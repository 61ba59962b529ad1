import { Clock, DateTime, Duration, Effect, Schedule } from "effect"
import type { Scope } from "effect"
import type { DependencyUnavailable } from "../domain/Problems.ts"

/** A key that is in use all the time is written down this often. */
const NOTED_EVERY = Duration.minutes(1)
/** How long a use waits in memory to be written together with others. */
const FLUSHED_EVERY = Duration.seconds(2)
/** Keys remembered at most, and keys that wait at most; while Postgres is away for long, the uses of more are lost. */
const KEPT = 50_000
/** How long a shutdown waits for the last of them to be written. */
const LAST_FLUSH_WITHIN = Duration.seconds(2)

/** When keys of one group were last used: milliseconds since 1970, by the key's id. */
export type Uses = ReadonlyMap<string, number>

export interface LastUses {
  /** Notes that a key was used now. Only memory: never waits, never fails. */
  readonly note: (group: string, id: string) => Effect.Effect<void>
  /** Writes what waits. What can't be written now goes on waiting. */
  readonly flush: Effect.Effect<void>
}

/** Uses as rows for `jsonb_to_recordset(…) AS u(id uuid, at timestamptz)`. */
export const rowsOfUses = (uses: Uses): Array<{ readonly id: string; readonly at: string }> =>
  Array.from(uses, ([id, at]) => ({ id, at: DateTime.formatIso(DateTime.makeUnsafe(at)) }))

/**
 * Gathers when keys were used, and has `write` write them, one call for each group (a tenant) every few seconds and
 * at shutdown, off the path of any request. `write` must let no older use overwrite a newer one: instances write
 * in any order. A use that could not be written is tried again.
 */
export const makeLastUses = Effect.fnUntraced(function* (
  write: (group: string, uses: Uses) => Effect.Effect<void, DependencyUnavailable>
): Effect.fn.Return<LastUses, never, Scope.Scope> {
  /** When a key was noted last; the oldest goes first. */
  const noted = new Map<string, number>()
  let waiting = new Map<string, Map<string, number>>()
  let count = 0

  const put = (group: string, id: string, at: number) => {
    const uses = waiting.get(group) ?? new Map<string, number>()
    const before = uses.get(id)
    if (before === undefined) {
      if (count >= KEPT) return
      count++
    }
    uses.set(id, Math.max(at, before ?? 0))
    waiting.set(group, uses)
  }

  const note = (group: string, id: string, now: number) => {
    const before = noted.get(id)
    if (before !== undefined && now - before < Duration.toMillis(NOTED_EVERY)) return
    noted.delete(id)
    noted.set(id, now)
    if (noted.size > KEPT) {
      const oldest = noted.keys().next()
      if (oldest.done !== true) noted.delete(oldest.value)
    }
    put(group, id, now)
  }

  const flush = Effect.suspend(() => {
    const taken = waiting
    waiting = new Map()
    count = 0
    return Effect.forEach(
      taken,
      ([group, uses]) =>
        write(group, uses).pipe(
          Effect.onError(() =>
            Effect.sync(() => {
              for (const [id, at] of uses) put(group, id, at)
            })
          ),
          Effect.catchTag("DependencyUnavailable", () => Effect.void),
          Effect.catchDefect((defect) => Effect.logError("The last use of keys could not be written", defect))
        ),
      { discard: true }
    )
  })

  yield* Effect.addFinalizer(() => flush.pipe(Effect.timeout(LAST_FLUSH_WITHIN), Effect.ignore))
  yield* flush.pipe(Effect.schedule(Schedule.spaced(FLUSHED_EVERY)), Effect.forkScoped)

  return {
    note: (group, id) =>
      Clock.clockWith((clock) => Effect.sync(() => note(group, id, clock.currentTimeMillisUnsafe()))),
    flush
  }
})
