import { Context, Effect, Layer } from "effect"
import { InvalidRequest, RateLimited } from "../../domain/Problems.ts"
import { RateLimits } from "../RateLimits.ts"
import type { Policy } from "../RateLimits.ts"

const WINDOW_SECONDS = 60

/** What somebody may ask of models in a minute. `key` is the beginning of their counters' names in Redis. */
export interface MinuteLimits {
  readonly key: string
  readonly requests: number | undefined
  readonly tokens: number | undefined
}

/** A call that was let in. */
export interface Admission {
  /** What an attempt of it came to, in tokens. */
  readonly use: (tokens: number) => void
  /** When it is over: what was charged for it and not used goes back, and what was used beyond is charged. */
  readonly settle: Effect.Effect<void>
}

const unlimited: Admission = { use: () => {}, settle: Effect.void }

/**
 * Limits per minute on calls of models and on their tokens, charged before a provider is asked. They are counted where all
 * limits are (`RateLimits`). Knows no tenant: whose limits they are is told with each call.
 */
export class LlmLimits extends Context.Service<
  LlmLimits,
  {
    /**
     * Charges all of the limits, or none, with one request and the most tokens that it may come to. What is refused costs nothing: `RateLimited` where the minute has
     * not so much left, `InvalidRequest` where no minute ever has.
     */
    readonly admit: (
      limits: ReadonlyArray<MinuteLimits>,
      tokens: number
    ) => Effect.Effect<Admission, RateLimited | InvalidRequest>
  }
>()("agent-army/services/llm/LlmLimits") {
  static readonly layer = Layer.effect(
    LlmLimits,
    Effect.gen(function* () {
      const limiter = yield* RateLimits

      const charge = Effect.fnUntraced(function* (policies: ReadonlyArray<Policy>, cost: number) {
        const { allowed, retryAfterSeconds } = yield* limiter.charge(policies, cost)
        if (allowed) return
        return yield* new RateLimited({
          detail: `A limit of ${policies[0]?.name} per minute is reached: ask again in ${retryAfterSeconds} s`,
          retry_after: retryAfterSeconds
        })
      })

      return LlmLimits.of({
        admit: Effect.fnUntraced(function* (limits, tokens) {
          const policies = (name: "requests" | "tokens"): ReadonlyArray<Policy> =>
            limits.flatMap(({ key, [name]: limit }) =>
              limit === undefined
                ? []
                : [{ name, key: `${key}:${name}`, limit, windowSeconds: WINDOW_SECONDS }]
            )
          const ofTokens = tokens > 0 ? policies("tokens") : []
          const tooSmall = ofTokens.find(({ limit }) => limit < tokens)
          if (tooSmall !== undefined) {
            return yield* new InvalidRequest({
              detail: `This call may come to ${tokens} tokens, which is more than the limit for a minute`,
              errors: [
                { path: [], message: `Expected at most ${tooSmall.limit} tokens, prompt and answer together` }
              ]
            })
          }
          const ofRequests = policies("requests")
          if (ofRequests.length === 0 && ofTokens.length === 0) return unlimited
          yield* charge(ofRequests, 1)
          yield* Effect.tapError(charge(ofTokens, tokens), () => limiter.refund(ofRequests))
          if (ofTokens.length === 0) return unlimited
          let used = 0
          return {
            use: (tokens) => {
              used += tokens
            },
            settle: Effect.suspend(() => {
              if (used === tokens) return Effect.void
              return used < tokens
                ? limiter.refund(ofTokens, tokens - used)
                : Effect.asVoid(limiter.charge(ofTokens, used - tokens))
            })
          }
        })
      })
    })
  )
}
