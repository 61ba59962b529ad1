import { Layer } from "effect"
import { TenantCache } from "./TenantCache.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantEvents } from "./TenantEvents.ts"

/** Everything that a request may use of its tenant: one type to look at, one layer to provide. */
export type TenantServices = TenantDb | TenantCache | TenantEvents

export const TenantServicesLayer = Layer.mergeAll(TenantDb.layer, TenantCache.layer, TenantEvents.layer)
