import { Layer } from "effect"
import { TenantCache } from "./TenantCache.ts"
import { TenantDb } from "./TenantDb.ts"

/** Everything that a request may use of its tenant: one type to look at, one layer to provide. */
export type TenantServices = TenantDb | TenantCache

export const TenantServicesLayer = Layer.mergeAll(TenantDb.layer, TenantCache.layer)
