import { Cause, Clock, Context, Deferred, Duration, Effect, Exit, Fiber, Layer, Option } from "effect"

/** How long a probe may take. A balancer that asks every few seconds must not wait for a stalled database. */
const PROBE_LIMIT = Duration.seconds(1)

/** How long a result is shared, so that many probers cost the dependencies no more than one. */
const RESULT_SHARED_FOR = Duration.millis(500)

/** One dependency, asked just now. The error is a word for a person, without names or addresses. */
export interface Check {
  readonly status: "ok" | "unavailable"
  readonly latency_ms: number
  readonly error?: string
}

export interface Report {
  readonly status: "ok" | "unavailable"
  readonly checks: Readonly<Record<string, Check>>
}

/** What is running here, as `/health` tells it. */
export const Build = Context.Reference<{ readonly environment: string; readonly version: string }>(
  "agent-army/services/Health/Build",
  { defaultValue: () => ({ environment: "development", version: "0.0.0" }) }
)

/** Whether this instance can serve: its own state, and what it depends on. None of it ever fails. */
export class Health extends Context.Service<
  Health,
  {
    /** Started, not draining, and every dependency answers. */
    readonly ready: Effect.Effect<Report>
    /** Started and not draining. An outage of a shared dependency must not take every instance out at once. */
    readonly instance: Effect.Effect<Report>
    /** Started, and every dependency has answered since; stays so. */
    readonly startup: Effect.Effect<Report>
    readonly markStarted: Effect.Effect<void>
    /** Called when the shutdown begins: from then on the instance is not ready. */
    readonly markDraining: Effect.Effect<void>
    /** Returns when the shutdown begins. An open stream ends itself by it, rather than hold the shutdown up. */
    readonly awaitDraining: Effect.Effect<void>
  }
>()("agent-army/services/Health") {
  static readonly layer = (probes: Readonly<Record<string, Effect.Effect<void, unknown>>>) =>
    Layer.effect(
      Health,
      Effect.gen(function* () {
        const draining = yield* Deferred.make<void>()
        let started = false
        let hasBeenReady = false

        // Whatever a probe fails with, it says the same.
        // @effect-diagnostics-next-line anyUnknownInErrorContext:off
        const watched = Object.entries(probes).map(([name, probe]) => [name, makeCheck(name, probe)] as const)
        const dependencies = yield* Effect.forEach(
          watched,
          ([name, check]) => Effect.map(check, (result) => [name, result] as const),
          { concurrency: "unbounded" }
        ).pipe(
          Effect.map((results): Readonly<Record<string, Check>> => Object.fromEntries(results)),
          Effect.cachedWithTTL(RESULT_SHARED_FOR)
        )

        const serves = () => started && !Deferred.isDoneUnsafe(draining)

        return Health.of({
          ready: Effect.map(dependencies, (checks) => {
            const now = report(serves(), checks)
            hasBeenReady ||= now.status === "ok"
            return now
          }),
          instance: Effect.sync(() => report(serves(), {})),
          startup: Effect.map(dependencies, (checks) => {
            const now = report(started, checks)
            hasBeenReady ||= now.status === "ok"
            return hasBeenReady ? { ...now, status: "ok" } : now
          }),
          markStarted: Effect.sync(() => {
            started = true
          }),
          markDraining: Effect.asVoid(Deferred.succeed(draining, undefined)),
          awaitDraining: Deferred.await(draining)
        })
      })
    )
}

const report = (ok: boolean, checks: Readonly<Record<string, Check>>): Report => ({
  status: ok && Object.values(checks).every((check) => check.status === "ok") ? "ok" : "unavailable",
  checks
})

/**
 * Asks one dependency, within the limit even if the probe cannot be interrupted by then. A probe that still
 * hangs is joined by the next call rather than piled upon.
 */
const makeCheck = (name: string, probe: Effect.Effect<void, unknown>): Effect.Effect<Check> => {
  let running: Fiber.Fiber<void, unknown> | undefined
  let wasOk = true

  const start = Effect.suspend(() => {
    if (running !== undefined && running.pollUnsafe() === undefined) return Effect.succeed(running)
    // @effect-diagnostics-next-line anyUnknownInErrorContext:off
    return Effect.tap(Effect.forkDetach(probe), (fiber) =>
      Effect.sync(() => {
        running = fiber
      })
    )
  })

  return Effect.gen(function* () {
    const startedAt = yield* Clock.currentTimeMillis
    const fiber = yield* start
    const outcome = yield* Effect.timeoutOption(Fiber.await(fiber), PROBE_LIMIT)
    const latency_ms = (yield* Clock.currentTimeMillis) - startedAt
    if (Option.isNone(outcome)) {
      fiber.interruptUnsafe()
    }
    const cause = Option.match(outcome, {
      onNone: () => Cause.fail("no answer in time"),
      onSome: (exit) => (Exit.isFailure(exit) ? exit.cause : undefined)
    })
    const isOk = cause === undefined
    // Once per change: probers ask every few seconds, and an outage is long.
    if (isOk !== wasOk) {
      wasOk = isOk
      yield* isOk
        ? Effect.logInfo(`${name} is available again`)
        : Effect.logWarning(`${name} is unavailable`, cause)
    }
    if (isOk) return { status: "ok", latency_ms }
    return {
      status: "unavailable",
      latency_ms,
      error: Option.isNone(outcome) ? "no answer in time" : "not reachable"
    }
  })
}
