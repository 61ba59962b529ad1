import { Context } from "effect"
import { HttpApiMiddleware, HttpApiSecurity } from "effect/http-api"
import type { Principal } from "../domain/Principal.ts"
import { CrossTenantAccess, DependencyUnavailable, RateLimited, Unauthenticated } from "../domain/Problems.ts"
import type { Credentials } from "../services/Authenticator.ts"

/**
 * Who is calling. Provided to a request by `Authentication`.
 *
 * @effect-leakable-service
 */
export class CurrentPrincipal extends Context.Service<CurrentPrincipal, Principal>()(
  "agent-army/http/CurrentPrincipal"
) {}

/**
 * What the caller let itself in with, for what stays open and asks again. Provided to a request by `Authentication`.
 *
 * @effect-leakable-service
 */
export class PresentedCredentials extends Context.Service<PresentedCredentials, Credentials>()(
  "agent-army/http/PresentedCredentials"
) {}

/**
 * Asks for a credential: an access token, an API key or an operator key as Bearer (RFC 6750), or an API key in
 * `X-API-Key`, which the OpenAPI document adds (`Api.ts`), since both are looked at together.
 */
export class Authentication extends HttpApiMiddleware.Service<
  Authentication,
  {
    provides: CurrentPrincipal | PresentedCredentials
  }
>()("agent-army/http/Authentication", {
  security: { bearer: HttpApiSecurity.bearer },
  error: [Unauthenticated, CrossTenantAccess, RateLimited, DependencyUnavailable]
}) {}
