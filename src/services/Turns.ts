import { Duration, Effect, Exit } from "effect"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { unavailable } from "./DbErrors.ts"

/** How long a request waits for a connection before it is told that the database is busy. */
const ACQUIRE_TIMEOUT = Duration.seconds(2)

/** One that waits for its turn. `granted` tells a turn that was given from one that was given up. */
interface Waiter {
  granted: boolean
  readonly proceed: () => void
}

/**
 * Lets so many effects run at a time. The others wait for their turn, in the order of their coming, and are told
 * after `ACQUIRE_TIMEOUT` that the database is busy. A timer each, where `Effect.timeout` would run two more fibers.
 */
export const makeTurns = (size: number) =>
  Effect.sync(() => {
    let free = size
    const waiting = new Set<Waiter>()

    const pass = Effect.sync(() => {
      const [next] = waiting
      if (next === undefined) {
        free++
      } else {
        waiting.delete(next)
        next.granted = true
        next.proceed()
      }
    })

    const wait = Effect.suspend(() => {
      let given: Waiter | undefined
      return Effect.callback<void, DependencyUnavailable>((resume) => {
        const timer = setTimeout(() => {
          waiting.delete(waiter)
          resume(Effect.fail(unavailable()))
        }, Duration.toMillis(ACQUIRE_TIMEOUT))
        const waiter: Waiter = {
          granted: false,
          proceed: () => {
            clearTimeout(timer)
            resume(Effect.void)
          }
        }
        given = waiter
        waiting.add(waiter)
        return Effect.sync(() => {
          clearTimeout(timer)
          waiting.delete(waiter)
        })
      }).pipe(
        // Interrupted between being given the turn and taking it: it goes on to the next, or it would be lost.
        Effect.onExit((exit) => (Exit.isFailure(exit) && given?.granted === true ? pass : Effect.void))
      )
    })

    return <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | DependencyUnavailable, R> =>
      Effect.uninterruptibleMask((restore) => {
        const run = Effect.ensuring(restore(effect), pass)
        if (free === 0) return Effect.andThen(restore(wait), run)
        free--
        return run
      })
  })
