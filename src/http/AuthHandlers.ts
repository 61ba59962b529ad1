import { Duration, Effect, Redacted } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import type { UserPrincipal } from "../domain/Principal.ts"
import { Forbidden } from "../domain/Problems.ts"
import { Me } from "../domain/User.ts"
import { ApiKeys } from "../services/ApiKeys.ts"
import { Sessions } from "../services/Sessions.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { Users } from "../services/Users.ts"
import { Api } from "./Api.ts"
import { NewApiKey, TokenResponse } from "./AuthApi.ts"

export const SignInHandlers = HttpApiBuilder.group(
  Api,
  "signIn",
  Effect.fn(function* (handlers) {
    const sessions = yield* Sessions
    return handlers.handleAll({
      login: Effect.fnUntraced(function* ({ headers, payload }) {
        const pair = yield* sessions.signIn({
          tenant: headers["x-tenant-id"],
          email: payload.email,
          password: payload.password
        })
        return new TokenResponse({
          access_token: Redacted.value(pair.accessToken),
          refresh_token: Redacted.value(pair.refreshToken),
          token_type: "bearer",
          expires_in: Math.floor(Duration.toSeconds(pair.expiresIn))
        })
      })
    })
  })
)

/** The person who signed in. `AccessControl` lets nobody else come here; the type does not know that. */
const currentUser: Effect.Effect<UserPrincipal, Forbidden, TenantContext> = Effect.flatMap(
  TenantContext,
  ({ principal }) => (principal._tag === "User" ? Effect.succeed(principal) : Effect.fail(new Forbidden({})))
)

export const AuthHandlers = HttpApiBuilder.group(
  Api,
  "auth",
  Effect.fn(function* (handlers) {
    const users = yield* Users
    const apiKeys = yield* ApiKeys
    return handlers.handleAll({
      me: Effect.fnUntraced(function* () {
        const principal = yield* currentUser
        const user = yield* users.get(principal.userId)
        return new Me({ ...user, tenant_id: principal.tenantId, tenant_slug: principal.tenantSlug })
      }),
      createApiKey: Effect.fnUntraced(function* ({ payload }) {
        const { apiKey, key } = yield* apiKeys.create(yield* currentUser, {
          name: payload.name,
          scopes: payload.scopes,
          expiresAt: payload.expires_at ?? undefined
        })
        return new NewApiKey({ ...apiKey, key: Redacted.value(key) })
      }),
      listApiKeys: Effect.fnUntraced(function* ({ query }) {
        return yield* apiKeys.list(yield* currentUser, pageRequest(query))
      }),
      revokeApiKey: Effect.fnUntraced(function* ({ params }) {
        yield* apiKeys.revoke(yield* currentUser, params.id)
      }),
      rotateApiKey: Effect.fnUntraced(function* ({ params, payload }) {
        const overlap = Duration.seconds(payload?.overlap_seconds ?? 0)
        const { apiKey, key } = yield* apiKeys.rotate(yield* currentUser, params.id, overlap)
        return new NewApiKey({ ...apiKey, key: Redacted.value(key) })
      })
    })
  })
)
