import { Context, Effect, Layer } from "effect"
import { TenantCache } from "./TenantCache.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantEvents } from "./TenantEvents.ts"
import { TenantLlm } from "./TenantLlm.ts"
import { TenantSecrets } from "./TenantSecrets.ts"

/** Everything that a request may use of its tenant: one type to look at, one layer to provide. */
export type TenantServices = TenantDb | TenantCache | TenantEvents | TenantSecrets | TenantLlm

/** One layer and not five merged: it is built for each request, and merging forks a fiber and a scope for each. */
export const TenantServicesLayer = Layer.effectContext(
  Effect.gen(function* () {
    const db = yield* TenantDb.make
    const secrets = yield* Effect.provideService(TenantSecrets.make, TenantDb, db)
    const own = Context.make(TenantDb, db).pipe(Context.add(TenantSecrets, secrets))
    return own.pipe(
      Context.add(TenantCache, yield* TenantCache.make),
      Context.add(TenantEvents, yield* TenantEvents.make),
      Context.add(TenantLlm, yield* Effect.provideContext(TenantLlm.make, own))
    )
  })
)
