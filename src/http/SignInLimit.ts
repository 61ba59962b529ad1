import { Effect } from "effect"
import type { HttpServerRequest } from "effect/http"
import type { DependencyUnavailable, RateLimited } from "../domain/Problems.ts"
import type { Attempt, SignInKind, SignInLimits } from "../services/SignInLimits.ts"
import { currentAddress } from "./ClientAddress.ts"
import { enforce } from "./RateLimitHeaders.ts"

/**
 * Holds an attempt to sign in to its limits: `limited(limits, "login", { tenant, account })(sessions.signIn(…))`. Add
 * `RateLimited` to the endpoint's errors.
 */
export const limited =
  (limits: SignInLimits["Service"], kind: SignInKind, who: Omit<Attempt, "address">) =>
  <A, E, R>(
    attempt: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | RateLimited | DependencyUnavailable, R | HttpServerRequest.HttpServerRequest> =>
    Effect.gen(function* () {
      const { succeeded, verdict } = yield* limits.guard(kind, { ...who, address: yield* currentAddress })
      yield* enforce(verdict)
      return yield* Effect.tap(attempt, () => succeeded)
    })
