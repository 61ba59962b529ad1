import { Clock, DateTime, Effect } from "effect"
import { HttpEffect, HttpServerResponse } from "effect/http"
import type { HttpServerRequest } from "effect/http"
import type { Dialect } from "../domain/Llm.ts"
import { RateLimited } from "../domain/Problems.ts"
import type { Verdict } from "../services/RateLimits.ts"
import { CallerDialect } from "./CallerDialect.ts"

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

/** The quota that a caller comes to the end of first. */
const tightest = ({ quotas }: Verdict) =>
  quotas.toSorted((a, b) => a.remaining - b.remaining || b.resetSeconds - a.resetSeconds).at(0)

/**
 * The same in the words of the vendor whose client asks: `x-ratelimit-*-requests` with a duration like `42s` (OpenAI),
 * `anthropic-ratelimit-requests-*` with a time in RFC 3339 (Anthropic). Both know one limit of requests: the tightest.
 */
const vendorRateLimitHeaders = (
  verdict: Verdict,
  dialect: Dialect,
  nowMillis: number
): Record<string, string> | undefined => {
  const quota = dialect === "native" ? undefined : tightest(verdict)
  if (quota === undefined) return undefined
  const limit = String(quota.policy.limit)
  const remaining = String(quota.remaining)
  return dialect === "anthropic-messages"
    ? {
        "anthropic-ratelimit-requests-limit": limit,
        "anthropic-ratelimit-requests-remaining": remaining,
        "anthropic-ratelimit-requests-reset": DateTime.formatIso(
          DateTime.makeUnsafe(nowMillis + quota.resetSeconds * 1000)
        )
      }
    : {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": `${quota.resetSeconds}s`
      }
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
    Effect.withFiber((fiber) =>
      announce({
        ...rateLimitHeaders(verdict),
        ...vendorRateLimitHeaders(
          verdict,
          fiber.getRef(CallerDialect),
          fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
        )
      })
    ),
    verdict.allowed
      ? Effect.void
      : Effect.fail(
          new RateLimited({
            detail: `Ask again in ${verdict.retryAfterSeconds} s`,
            retry_after: verdict.retryAfterSeconds
          })
        )
  )
