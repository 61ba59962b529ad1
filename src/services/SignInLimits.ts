import { Context, Effect, Layer, Option } from "effect"
import { hash } from "node:crypto"
import type { ClientAddress } from "../domain/ClientAddress.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { RateLimits } from "./RateLimits.ts"
import type { Policy, Verdict } from "./RateLimits.ts"
import { Redis } from "./Redis.ts"
import { tenantPrefix } from "./TenantCache.ts"
import { Tenants } from "./Tenants.ts"

const MINUTE = 60
const HOUR = 60 * MINUTE

/** How many failures, and in how many seconds. */
export interface Budget {
  readonly limit: number
  readonly windowSeconds: number
}

/**
 * Failures that are allowed. `pair` is one account from one address: four windows of it are the hundred that NIST SP
 * 800-63B, 5.2.2 allows for an account. `account` and `tenant` count what strange addresses try, however many they are.
 */
export interface SignInBudgets {
  readonly pair: Budget
  readonly address: Budget
  readonly account: Budget
  readonly tenant: Budget
  /** An address that may be a proxy's stands for so many others. */
  readonly sharedAddressFactor: number
  /** Failed authentications of an address, by key or token. */
  readonly credentials: Budget
}

/** The budgets, as a reference, so that tests of other things can have larger ones. */
export const SignInBudgets = Context.Reference<SignInBudgets>("agent-army/services/SignInBudgets", {
  defaultValue: () => ({
    pair: { limit: 25, windowSeconds: 15 * MINUTE },
    address: { limit: 100, windowSeconds: 15 * MINUTE },
    account: { limit: 100, windowSeconds: HOUR },
    tenant: { limit: 1_000, windowSeconds: HOUR },
    sharedAddressFactor: 20,
    credentials: { limit: 120, windowSeconds: MINUTE }
  })
})

/** How long an address that has signed in to an account counts as known there. */
const KNOWN_SECONDS = 30 * 24 * HOUR
/** Such addresses that an instance remembers for the time when Redis is away. */
const REMEMBERED_KNOWN = 10_000

/** What is being tried. Each has counters of its own. */
export type SignInKind = "login" | "refresh" | "password"

export interface Attempt {
  /** What the caller calls the tenant: an id or a slug, existing or not. */
  readonly tenant: string
  /** What the caller calls the account, existing or not: an e-mail address, a user's or a session's id. */
  readonly account: string
  readonly address: ClientAddress
}

/** An attempt that was allowed: to be told how it ended, if it ended well. */
export interface Permit {
  readonly verdict: Verdict
  readonly succeeded: Effect.Effect<void>
}

/** No e-mail address stands in Redis. 128 bits are enough to tell accounts apart. */
const digest = (...parts: ReadonlyArray<string>): string =>
  hash("sha256", parts.join("\0"), "base64url").slice(0, 22)

/**
 * Limits on guessing passwords and tokens, asked before the work of checking them. Failures count, successes are given back.
 *
 * - An account from one address: a few tries. A success wipes them out (NIST SP 800-63B, 5.2.2).
 * - An address, whatever it tries; and then, for addresses that never signed in to the account, the account and the
 *   tenant as a whole. An address that did sign in to it within 30 days is not held to these two: a stranger who
 *   uses them up locks out other strangers, not the owner where they usually are (5.2.2 again, and OWASP's
 *   Authentication Cheat Sheet on lockout as denial of service). All windows are short, and end by themselves.
 *
 * Nothing here looks whether an account or a tenant exists: unknown ones are counted and refused alike. Callers are
 * told only of counters that they alone move: from those of an account one could read that its owner is at work.
 */
export class SignInLimits extends Context.Service<
  SignInLimits,
  {
    /** `allowed` in the verdict says whether the attempt may be made. */
    readonly guard: (kind: SignInKind, attempt: Attempt) => Effect.Effect<Permit, DependencyUnavailable>
    /** The policy on failed authentications of an address. */
    readonly credentials: (address: ClientAddress) => Policy
  }
>()("agent-army/services/SignInLimits") {
  static readonly layer = Layer.effect(
    SignInLimits,
    Effect.gen(function* () {
      const budgets = yield* SignInBudgets
      const limits = yield* RateLimits
      const redis = yield* Redis
      const tenants = yield* Tenants
      const remembered = new Set<string>()

      const ofAddress = (
        name: string,
        use: string,
        { address, shared }: ClientAddress,
        budget: Budget
      ): Policy => ({
        name,
        key: `p:rate:${use}:${digest(address)}`,
        limit: budget.limit * (shared ? budgets.sharedAddressFactor : 1),
        windowSeconds: budget.windowSeconds
      })

      const remember = (key: string) =>
        Effect.suspend(() => {
          remembered.delete(key)
          remembered.add(key)
          if (remembered.size > REMEMBERED_KNOWN) {
            const oldest = remembered.values().next()
            if (oldest.done !== true) remembered.delete(oldest.value)
          }
          return Effect.ignore(redis.use((client) => client.set(key, "1", "EX", KNOWN_SECONDS)))
        })

      const isKnown = (key: string) =>
        redis
          .use((client) => client.exists(key))
          .pipe(
            Effect.map((count) => count > 0),
            Effect.catch(() => Effect.sync(() => remembered.has(key)))
          )

      const guard = Effect.fn("SignInLimits.guard")(function* (kind: SignInKind, attempt: Attempt) {
        const found = yield* tenants.find(attempt.tenant)
        const prefix = Option.match(found, {
          onNone: () => `p:rate:${kind}:nobody:${digest(attempt.tenant.toLowerCase())}:`,
          onSome: ({ id }) => `${tenantPrefix(id)}rate:${kind}:`
        })
        const account = attempt.account.normalize("NFC").trim().toLowerCase()
        const { address } = attempt.address
        const pair: Policy = {
          name: "sign-in",
          key: `${prefix}pair:${digest(account, address)}`,
          ...budgets.pair
        }
        const byAddress = ofAddress("address", kind, attempt.address, budgets.address)
        const strangers: ReadonlyArray<Policy> = [
          { name: "sign-in", key: `${prefix}account:${digest(account)}`, ...budgets.account },
          { name: "sign-in", key: `${prefix}all`, ...budgets.tenant }
        ]
        const knownKey = `${prefix}known:${digest(account, address)}`

        const own = yield* limits.charge([pair, byAddress])
        if (!own.allowed) return { verdict: own, succeeded: Effect.void }
        const known = yield* isKnown(knownKey)
        const wide = known ? own : yield* limits.charge(strangers)
        const told: Verdict = wide.allowed ? own : { ...wide, quotas: [] }
        return {
          verdict: told,
          succeeded: Effect.all(
            [
              limits.reset(pair),
              limits.refund(known ? [byAddress] : [byAddress, ...strangers]),
              remember(knownKey)
            ],
            { concurrency: "unbounded", discard: true }
          )
        }
      })

      return SignInLimits.of({
        guard,
        credentials: (address) => ofAddress("address", "credentials", address, budgets.credentials)
      })
    })
  )
}
