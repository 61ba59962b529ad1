import { Context } from "effect"
import { HttpApiMiddleware } from "effect/http-api"
import { DependencyUnavailable, RateLimited } from "../domain/Problems.ts"
import type { CurrentPrincipal } from "./Authentication.ts"

/** What a call of an endpoint costs, in requests, as an annotation. One, unless it says otherwise. */
export const RateCost = Context.Reference<number>("agent-army/http/RateCost", { defaultValue: () => 1 })

/** Charges the principal for a request: its tenant's limit, and its own share of it. */
export class RateLimit extends HttpApiMiddleware.Service<
  RateLimit,
  {
    requires: CurrentPrincipal
  }
>()("agent-army/http/RateLimit", { error: [RateLimited, DependencyUnavailable] }) {}
