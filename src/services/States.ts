import { Context, Effect, Layer, Option, Schema } from "effect"
import { NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { StateEntry } from "../domain/State.ts"
import type { StateKey } from "../domain/State.ts"
import { TenantCache } from "./TenantCache.ts"

const Value = Schema.fromJsonString(Schema.Json)
const decodeValue = Schema.decodeEffect(Value)

const keyOf = (key: StateKey): string => `state:${key}`

/** A tenant's realtime state: JSON values in Redis, gone when their time is up. */
export class States extends Context.Service<
  States,
  {
    readonly get: (key: StateKey) => Effect.Effect<StateEntry, NotFound | DependencyUnavailable, TenantCache>
    /** Without a time to live the value stays; either way what stood there is replaced. */
    readonly put: (
      key: StateKey,
      value: Schema.Json,
      ttlSeconds: number | undefined
    ) => Effect.Effect<void, DependencyUnavailable, TenantCache>
    readonly remove: (key: StateKey) => Effect.Effect<void, NotFound | DependencyUnavailable, TenantCache>
  }
>()("agent-army/services/States") {
  static readonly layer = Layer.succeed(
    States,
    States.of({
      get: Effect.fn("States.get")(function* (key) {
        const cache = yield* TenantCache
        const found = yield* cache.get(keyOf(key))
        if (Option.isNone(found)) return yield* new NotFound({ detail: "No such key" })
        const value = yield* Effect.orDie(decodeValue(found.value.value))
        return new StateEntry({ key, value, ttl_seconds: found.value.ttlSeconds })
      }),
      put: Effect.fn("States.put")(function* (key, value, ttlSeconds) {
        const cache = yield* TenantCache
        yield* cache.set(keyOf(key), JSON.stringify(value), { ttlSeconds })
      }),
      remove: Effect.fn("States.remove")(function* (key) {
        const cache = yield* TenantCache
        if (!(yield* cache.remove(keyOf(key)))) return yield* new NotFound({ detail: "No such key" })
      })
    })
  )
}
