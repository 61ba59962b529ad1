import { Context, Effect, Layer, Option } from "effect"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { Redis } from "./Redis.ts"
import { TenantContext } from "./TenantContext.ts"

/** The braces keep a tenant's keys in one slot of a Redis Cluster (Redis Cluster specification, "hash tags"). */
export const tenantPrefix = (tenantId: TenantId): string => `t:{${tenantId}}:`

/** Beneath a tenant's prefix these are the streams of `TenantEvents`. */
export const EVENTS = "events:"

/**
 * The tenant's own part of Redis. Its layer asks for `TenantContext`; a key given to it is always put behind the
 * tenant's prefix, and no command of it takes a pattern.
 *
 * Fails with `DependencyUnavailable` within half a second when Redis is away.
 *
 * @effect-leakable-service
 */
export class TenantCache extends Context.Service<
  TenantCache,
  {
    /** A value, with the seconds it has left: `null` for one that does not expire. */
    readonly get: (
      key: string
    ) => Effect.Effect<
      Option.Option<{ readonly value: string; readonly ttlSeconds: number | null }>,
      DependencyUnavailable
    >
    readonly set: (
      key: string,
      value: string,
      options?: { readonly ttlSeconds?: number | undefined }
    ) => Effect.Effect<void, DependencyUnavailable>
    /** True where there was one. */
    readonly remove: (key: string) => Effect.Effect<boolean, DependencyUnavailable>
  }
>()("agent-army/services/TenantCache") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<TenantCache["Service"], never, TenantContext | Redis> = Effect.gen(
    function* () {
      const redis = yield* Redis
      const { tenantId } = yield* TenantContext
      const prefix = tenantPrefix(tenantId)
      /** Whoever names its keys so would overwrite events: a mistake of ours, and never a caller's doing. */
      const keyOf = (key: string): string => {
        if (key.startsWith(EVENTS)) throw new Error(`Keys that begin with ${EVENTS} belong to TenantEvents`)
        return prefix + key
      }
      return TenantCache.of({
        get: (key) =>
          redis
            .use((client) => Promise.all([client.get(keyOf(key)), client.pttl(keyOf(key))]))
            .pipe(
              Effect.map(([value, ttlMillis]) =>
                value === null
                  ? Option.none()
                  : Option.some({ value, ttlSeconds: ttlMillis < 0 ? null : Math.ceil(ttlMillis / 1000) })
              )
            ),
        set: (key, value, options) =>
          redis.use((client) =>
            options?.ttlSeconds === undefined
              ? client.set(keyOf(key), value)
              : client.set(keyOf(key), value, "EX", options.ttlSeconds)
          ),
        remove: (key) => redis.use((client) => client.del(keyOf(key))).pipe(Effect.map((count) => count > 0))
      })
    }
  )
  static readonly layer = Layer.effect(TenantCache, this.make)
}
