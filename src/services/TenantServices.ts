import { Context, Effect, Layer } from "effect"
import { TenantCache } from "./TenantCache.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantEvents } from "./TenantEvents.ts"

/** Everything that a request may use of its tenant: one type to look at, one layer to provide. */
export type TenantServices = TenantDb | TenantCache | TenantEvents

/** One layer and not three merged: it is built for each request, and merging forks a fiber and a scope for each. */
export const TenantServicesLayer = Layer.effectContext(
  Effect.gen(function* () {
    return Context.make(TenantDb, yield* TenantDb.make).pipe(
      Context.add(TenantCache, yield* TenantCache.make),
      Context.add(TenantEvents, yield* TenantEvents.make)
    )
  })
)
