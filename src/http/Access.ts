import { Context } from "effect"
import { HttpApiMiddleware } from "effect/http-api"
import type { Scope } from "../domain/Principal.ts"
import { Forbidden } from "../domain/Problems.ts"
import type { TenantContext } from "../services/TenantContext.ts"
import type { CurrentPrincipal } from "./Authentication.ts"

/** Who may call an endpoint of a tenant: holders of a scope, or people who signed in themselves. */
export type AccessRule = { readonly scope: Scope } | { readonly user: true }

/** The rule of an endpoint, as an annotation, so that the document and the check can't drift apart. */
export class Access extends Context.Service<Access, AccessRule>()("agent-army/http/Access") {}

/** Holds every endpoint of a tenant to its `Access`. One that has none is refused to everybody. */
export class AccessControl extends HttpApiMiddleware.Service<
  AccessControl,
  {
    requires: TenantContext
  }
>()("agent-army/http/AccessControl", { error: Forbidden }) {}

/** Lets only operators through. */
export class OperatorOnly extends HttpApiMiddleware.Service<
  OperatorOnly,
  {
    requires: CurrentPrincipal
  }
>()("agent-army/http/OperatorOnly", { error: Forbidden }) {}
