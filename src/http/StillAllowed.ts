import { Clock, Context, Duration, Effect, Layer, Option, Redacted, Schedule } from "effect"
import type { Scope as LayerScope } from "effect"
import { hash } from "node:crypto"
import type { ClosedCode } from "../domain/Event.ts"
import { allows, scopesOf } from "../domain/Principal.ts"
import type { Scope } from "../domain/Principal.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { Authenticator } from "../services/Authenticator.ts"
import type { Credentials } from "../services/Authenticator.ts"
import { Health } from "../services/Health.ts"
import { Tenants } from "../services/Tenants.ts"

/** With the half second for which a credential is remembered, what is revoked ends within a second. */
const CHECK_EVERY = Duration.millis(400)

/** Checks that run at a time. */
const CHECKED_AT_ONCE = 16

/** How long a stream may stay open while nobody can tell whether it still may. */
const UNKNOWN_FOR = Duration.seconds(10)

/** What let a stream in. */
export interface Permission {
  readonly credentials: Credentials
  readonly tenantId: TenantId
  readonly scope: Scope
}

interface Watched extends Permission {
  readonly stops: Set<(code: ClosedCode) => void>
  knownAt: number
}

const keyOf = ({ credentials: { apiKey, bearer, maker }, scope, tenantId }: Permission): string => {
  const part = (value: Option.Option<Redacted.Redacted<string>>) =>
    Option.match(value, { onNone: () => null, onSome: Redacted.value })
  return hash("sha256", JSON.stringify([tenantId, scope, part(bearer), part(apiKey), maker ?? null]))
}

/**
 * Ends what stays open after its request was let in: when the credential no longer lets in, the tenant is suspended, or
 * the server shuts down. All that came in with one credential share its checks.
 */
export class StillAllowed extends Context.Service<
  StillAllowed,
  {
    /** Calls `stop`, once at the most, as long as the scope is open. */
    readonly watch: (
      permission: Permission,
      stop: (code: ClosedCode) => void
    ) => Effect.Effect<void, never, LayerScope.Scope>
  }
>()("agent-army/http/StillAllowed") {
  static readonly layer = Layer.effect(
    StillAllowed,
    Effect.gen(function* () {
      const authenticator = yield* Authenticator
      const tenants = yield* Tenants
      const health = yield* Health
      const watched = new Map<string, Watched>()
      let draining = false

      const stopAll = (key: string, found: Watched, code: ClosedCode) => {
        watched.delete(key)
        for (const stop of found.stops) stop(code)
      }

      /** Why it may not go on; undefined while it may. */
      const verdict = Effect.fnUntraced(function* ({
        credentials,
        scope,
        tenantId
      }: Permission): Effect.fn.Return<ClosedCode | undefined, DependencyUnavailable> {
        const principal = yield* Effect.option(
          Effect.catchTag(authenticator.authenticate(credentials), "DependencyUnavailable", Effect.die)
        )
        if (Option.isNone(principal) || principal.value._tag === "Operator") return "Unauthenticated"
        const tenant = yield* tenants.find(tenantId)
        if (Option.isNone(tenant) || principal.value.tenantId !== tenantId) return "Unauthenticated"
        if (tenant.value.status !== "active") return "TenantSuspended"
        return allows(scopesOf(principal.value), scope) ? undefined : "Forbidden"
      })

      const check = Effect.fnUntraced(function* (key: string, found: Watched) {
        const now = yield* Clock.currentTimeMillis
        // Whatever it fails with, nobody can tell.
        const outcome = yield* Effect.exit(verdict(found))
        if (outcome._tag === "Success") {
          found.knownAt = now
          if (outcome.value !== undefined) stopAll(key, found, outcome.value)
        } else if (now - found.knownAt > Duration.toMillis(UNKNOWN_FOR)) {
          stopAll(key, found, "DependencyUnavailable")
        }
      })

      yield* Effect.suspend(() =>
        Effect.forEach([...watched], ([key, found]) => check(key, found), {
          concurrency: CHECKED_AT_ONCE,
          discard: true
        })
      ).pipe(Effect.delay(CHECK_EVERY), Effect.repeat(Schedule.forever), Effect.forkScoped)

      yield* health.awaitDraining.pipe(
        Effect.andThen(
          Effect.sync(() => {
            draining = true
            for (const [key, found] of watched) stopAll(key, found, "ShuttingDown")
          })
        ),
        Effect.forkScoped
      )

      return StillAllowed.of({
        watch: Effect.fnUntraced(function* (permission, stop) {
          if (draining) return stop("ShuttingDown")
          const key = keyOf(permission)
          const knownAt = yield* Clock.currentTimeMillis
          yield* Effect.acquireRelease(
            Effect.sync(() => {
              const found = watched.get(key) ?? { ...permission, stops: new Set(), knownAt }
              found.stops.add(stop)
              watched.set(key, found)
              return found
            }),
            (found) =>
              Effect.sync(() => {
                found.stops.delete(stop)
                if (found.stops.size === 0 && watched.get(key) === found) watched.delete(key)
              })
          )
        })
      })
    })
  )
}
