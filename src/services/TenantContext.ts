import { Context } from "effect"
import type { Environment } from "../domain/Environment.ts"
import type { Scope, TenantPrincipal } from "../domain/Principal.ts"
import type { SchemaName, TenantId, TenantSlug } from "../domain/Tenant.ts"
import type { TenantSettings } from "../domain/TenantSettings.ts"

/**
 * The tenant that the current request acts for. It exists only inside a request: nothing in `layers/` provides
 * it, so a service that needs it cannot be built at boot, and a program that forgets it does not compile.
 *
 * @effect-leakable-service
 */
export class TenantContext extends Context.Service<
  TenantContext,
  {
    readonly tenantId: TenantId
    readonly slug: TenantSlug
    readonly schema: SchemaName
    readonly environment: Environment
    readonly settings: TenantSettings
    readonly principal: TenantPrincipal
    readonly scopes: ReadonlyArray<Scope>
    readonly requestId: string
  }
>()("agent-army/services/TenantContext") {}
