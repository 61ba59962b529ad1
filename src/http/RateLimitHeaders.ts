import { Effect } from "effect"
import { HttpEffect, HttpServerResponse } from "effect/http"
import type { HttpServerRequest } from "effect/http"
import { RateLimited } from "../domain/Problems.ts"
import type { Verdict } from "../services/RateLimits.ts"

/**
 * `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11 of May 2026, a list of structured items): `q` a
 * window of `w` seconds allows, `r` is left, and `t` seconds from now all of it is there again.
 */
export const rateLimitHeaders = ({ quotas }: Verdict): Record<string, string> => {
  let policies = ""
  let limits = ""
  for (const { policy, remaining, resetSeconds } of quotas) {
    const comma = policies === "" ? "" : ", "
    policies += `${comma}"${policy.name}";q=${policy.limit};w=${policy.windowSeconds}`
    limits += `${comma}"${policy.name}";r=${remaining};t=${resetSeconds}`
  }
  return { "ratelimit-policy": policies, ratelimit: limits }
}

/** Puts headers on whatever this request is answered with, problems too. */
export const announce = (
  headers: Readonly<Record<string, string>>
): Effect.Effect<void, never, HttpServerRequest.HttpServerRequest> =>
  HttpEffect.appendPreResponseHandler((_request, response) =>
    Effect.succeed(HttpServerResponse.setHeaders(response, headers))
  )

/** Tells the limits, and fails with `RateLimited` where they are exceeded. */
export const enforce = (
  verdict: Verdict
): Effect.Effect<void, RateLimited, HttpServerRequest.HttpServerRequest> =>
  Effect.andThen(
    announce(rateLimitHeaders(verdict)),
    verdict.allowed
      ? Effect.void
      : Effect.fail(
          new RateLimited({
            detail: `Ask again in ${verdict.retryAfterSeconds} s`,
            retry_after: verdict.retryAfterSeconds
          })
        )
  )
