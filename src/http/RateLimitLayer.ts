import { Context, Effect, Layer, Option } from "effect"
import type { Principal } from "../domain/Principal.ts"
import { tenantSettingDefaults } from "../domain/TenantSettings.ts"
import { RateLimits } from "../services/RateLimits.ts"
import type { Policy } from "../services/RateLimits.ts"
import { tenantPrefix } from "../services/TenantCache.ts"
import { Tenants } from "../services/Tenants.ts"
import { CurrentPrincipal } from "./Authentication.ts"
import { RateCost, RateLimit } from "./RateLimit.ts"
import { enforce } from "./RateLimitHeaders.ts"

const WINDOW_SECONDS = 60

/** Requests a minute of one operator key. */
const OPERATOR_LIMIT = 6_000

/** A key or user gets half of its tenant's limit, so that one that runs wild leaves the other half to the rest … */
const OWN_SHARE = 0.5
/** … but never less than this: a small limit is not worth dividing. */
const OWN_LIMIT_AT_LEAST = 600

/** The share of a tenant's limit that one key or user may use up. */
export const ownLimit = (limit: number): number =>
  Math.min(limit, Math.max(OWN_LIMIT_AT_LEAST, Math.ceil(limit * OWN_SHARE)))

const policiesOf = (principal: Principal, limit: number): ReadonlyArray<Policy> => {
  if (principal._tag === "Operator") {
    const key = `p:rate:operator:${principal.id ?? ""}`
    return [{ name: "operator", key, limit: OPERATOR_LIMIT, windowSeconds: WINDOW_SECONDS }]
  }
  const prefix = `${tenantPrefix(principal.tenantId)}rate:`
  const [name, id] = principal._tag === "User" ? ["user", principal.userId] : ["key", principal.keyId]
  return [
    { name: "tenant", key: `${prefix}all`, limit, windowSeconds: WINDOW_SECONDS },
    { name, key: `${prefix}${name}:${id}`, limit: ownLimit(limit), windowSeconds: WINDOW_SECONDS }
  ]
}

export const RateLimitLayer = Layer.effect(
  RateLimit,
  Effect.gen(function* () {
    const limits = yield* RateLimits
    const tenants = yield* Tenants

    const limitOf = (principal: Principal) =>
      principal._tag === "Operator"
        ? Effect.succeed(OPERATOR_LIMIT)
        : Effect.map(
            tenants.find(principal.tenantId),
            (found) =>
              Option.getOrUndefined(found)?.settings["rate.requests_per_minute"] ??
              tenantSettingDefaults["rate.requests_per_minute"]
          )

    return RateLimit.of(
      Effect.fnUntraced(function* (httpEffect, { endpoint }) {
        const principal = yield* CurrentPrincipal
        const policies = policiesOf(principal, yield* limitOf(principal))
        yield* enforce(yield* limits.charge(policies, Context.get(endpoint.annotations, RateCost)))
        return yield* httpEffect
      })
    )
  })
)
