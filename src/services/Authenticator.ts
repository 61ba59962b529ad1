import { Context, Effect, Layer, Option, Redacted } from "effect"
import { hash, timingSafeEqual } from "node:crypto"
import { parseApiKey } from "../domain/ApiKey.ts"
import { parseOperatorKey } from "../domain/OperatorKey.ts"
import type { SecretMaker } from "../domain/ClientSecret.ts"
import { OperatorPrincipal } from "../domain/Principal.ts"
import type { Principal } from "../domain/Principal.ts"
import { CrossTenantAccess, Unauthenticated } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { ApiKeys } from "./ApiKeys.ts"
import { OperatorKeys } from "./OperatorKeys.ts"
import { Sessions } from "./Sessions.ts"
import { Tokens } from "./Tokens.ts"

/** What a request presents: the value of `Authorization: Bearer`, and that of `X-API-Key`. */
export interface Credentials {
  readonly bearer: Option.Option<Redacted.Redacted<string>>
  readonly apiKey: Option.Option<Redacted.Redacted<string>>
  /** In the place of both: whoever made what was presented, a client secret. It holds as long as its maker's credential. */
  readonly maker?: SecretMaker
}

/**
 * From credentials to who is calling. Access token first, then API key; where both are given, both must hold and
 * name the same tenant (`CrossTenantAccess`). Whatever is wrong with a credential, the answer is `Unauthenticated`.
 */
export class Authenticator extends Context.Service<
  Authenticator,
  {
    readonly authenticate: (
      credentials: Credentials
    ) => Effect.Effect<Principal, Unauthenticated | CrossTenantAccess | DependencyUnavailable>
  }
>()("agent-army/services/Authenticator") {
  static readonly layer = (options: { readonly operatorKey: Redacted.Redacted<string> }) =>
    Layer.effect(
      Authenticator,
      Effect.gen(function* () {
        const tokens = yield* Tokens
        const apiKeys = yield* ApiKeys
        const sessions = yield* Sessions
        const operatorKeys = yield* OperatorKeys
        const digest = (value: string) => hash("sha256", value, "buffer")
        const operatorKey = digest(Redacted.value(options.operatorKey))

        const byToken = Effect.fnUntraced(function* (token: Redacted.Redacted<string>) {
          const claims = yield* tokens.verify(token)
          if (Option.isNone(claims)) return yield* new Unauthenticated({})
          const principal = yield* sessions.verify(claims.value)
          if (Option.isNone(principal)) return yield* new Unauthenticated({})
          return principal.value
        })

        const byApiKey = Effect.fnUntraced(function* (key: Redacted.Redacted<string>) {
          const parsed = parseApiKey(key)
          if (Option.isNone(parsed)) return yield* new Unauthenticated({})
          const principal = yield* apiKeys.verify(parsed.value)
          if (Option.isNone(principal)) return yield* new Unauthenticated({})
          return principal.value
        })

        const byBearer = Effect.fnUntraced(function* (bearer: Redacted.Redacted<string>) {
          const value = Redacted.value(bearer)
          // First what most requests come with: it is told apart by its form.
          const ofService = parseApiKey(bearer)
          if (Option.isSome(ofService)) {
            const service = yield* apiKeys.verify(ofService.value)
            if (Option.isSome(service)) return service.value
          }
          // Digests are of one length, and how long their comparison takes tells nothing of the key.
          if (timingSafeEqual(digest(value), operatorKey)) {
            return new OperatorPrincipal({ id: null, name: "operator" })
          }
          const ofOperator = parseOperatorKey(bearer)
          if (Option.isSome(ofOperator)) {
            const operator = yield* operatorKeys.verify(ofOperator.value)
            return Option.isSome(operator) ? operator.value : yield* new Unauthenticated({})
          }
          return yield* value.startsWith("aa_") ? new Unauthenticated({}) : byToken(bearer)
        })

        const byMaker = Effect.fnUntraced(function* (maker: SecretMaker) {
          const principal: Option.Option<Principal> =
            maker._tag === "ApiKey"
              ? yield* apiKeys.find(maker)
              : yield* sessions.verify({ sub: maker.userId, tenant_id: maker.tenantId, sid: maker.sessionId })
          return Option.isSome(principal) ? principal.value : yield* new Unauthenticated({})
        })

        return Authenticator.of({
          authenticate: Effect.fnUntraced(function* ({ apiKey, bearer, maker }) {
            if (maker !== undefined) return yield* byMaker(maker)
            if (Option.isNone(bearer)) {
              return Option.isNone(apiKey) ? yield* new Unauthenticated({}) : yield* byApiKey(apiKey.value)
            }
            const principal = yield* byBearer(bearer.value)
            if (Option.isNone(apiKey)) return principal
            const second = yield* byApiKey(apiKey.value)
            return principal._tag !== "Operator" && principal.tenantId === second.tenantId
              ? principal
              : yield* new CrossTenantAccess({})
          })
        })
      })
    )
}
