import { Duration, Effect, Schedule } from "effect"

/** Waits until what `look` finds satisfies `holds`, and gives it. Dies when it does not within the time. */
export const eventually = <A, E, R>(
  what: string,
  look: Effect.Effect<A, E, R>,
  holds: (found: A) => boolean,
  within: Duration.Input = Duration.seconds(10)
): Effect.Effect<A, E, R> =>
  look.pipe(
    Effect.repeat({ until: holds, schedule: Schedule.spaced(Duration.millis(10)) }),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () => Effect.die(new Error(`Waited in vain until ${what}`))
    })
  )
