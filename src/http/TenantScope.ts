import { HttpApiMiddleware } from "effect/http-api"
import {
  CrossTenantAccess,
  DependencyUnavailable,
  Forbidden,
  TenantSuspended,
  Unauthenticated
} from "../domain/Problems.ts"
import type { TenantContext } from "../services/TenantContext.ts"
import type { TenantServices } from "../services/TenantServices.ts"
import type { CurrentPrincipal } from "./Authentication.ts"

/** Turns a principal into a `TenantContext`, and provides the services that hang off it. */
export class TenantScope extends HttpApiMiddleware.Service<
  TenantScope,
  {
    requires: CurrentPrincipal
    provides: TenantContext | TenantServices
  }
>()("agent-army/http/TenantScope", {
  error: [CrossTenantAccess, Forbidden, TenantSuspended, Unauthenticated, DependencyUnavailable]
}) {}
