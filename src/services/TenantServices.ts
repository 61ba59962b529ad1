import { Context, Effect, Layer } from "effect"
import { TenantCache } from "./TenantCache.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantEvents } from "./TenantEvents.ts"
import { TenantLlm } from "./TenantLlm.ts"
import { TenantSecrets } from "./TenantSecrets.ts"

/** Everything that a request may use of its tenant: one type to look at, one layer to provide. */
export type TenantServices = TenantDb | TenantCache | TenantEvents | TenantLlm | TenantSecrets

/** One layer and not four merged: it is built for each request, and merging forks a fiber and a scope for each. */
export const TenantServicesLayer = Layer.effectContext(
  Effect.gen(function* () {
    const db = yield* TenantDb.make
    return Context.make(TenantDb, db).pipe(
      Context.add(TenantCache, yield* TenantCache.make),
      Context.add(TenantEvents, yield* TenantEvents.make),
      Context.add(TenantLlm, TenantLlm.unconfigured),
      Context.add(TenantSecrets, yield* Effect.provideService(TenantSecrets.make, TenantDb, db))
    )
  })
)
