import { Duration, Effect, Option, Redacted } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import type { UserPrincipal } from "../domain/Principal.ts"
import { Forbidden } from "../domain/Problems.ts"
import { parseRefreshToken } from "../domain/RefreshToken.ts"
import { Me } from "../domain/User.ts"
import { ApiKeys } from "../services/ApiKeys.ts"
import { Sessions } from "../services/Sessions.ts"
import type { TokenPair } from "../services/Sessions.ts"
import { SignInLimits } from "../services/SignInLimits.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { Users } from "../services/Users.ts"
import { Api } from "./Api.ts"
import { NewApiKey, TokenResponse } from "./AuthApi.ts"
import { limited } from "./SignInLimit.ts"

const tokenResponse = (pair: TokenPair) =>
  new TokenResponse({
    access_token: Redacted.value(pair.accessToken),
    refresh_token: Redacted.value(pair.refreshToken),
    token_type: "bearer",
    expires_in: Math.floor(Duration.toSeconds(pair.expiresIn))
  })

export const SignInHandlers = HttpApiBuilder.group(
  Api,
  "signIn",
  Effect.fn(function* (handlers) {
    const sessions = yield* Sessions
    const limits = yield* SignInLimits
    return handlers.handleAll({
      login: ({ headers, payload }) => {
        const tenant = headers["x-tenant-id"]
        return sessions
          .signIn({ tenant, email: payload.email, password: payload.password })
          .pipe(limited(limits, "login", { tenant, account: payload.email }), Effect.map(tokenResponse))
      },
      refresh: ({ headers, payload }) => {
        // What the token says of itself: of a made-up one, what its maker made up.
        const named = Option.getOrUndefined(parseRefreshToken(payload.refresh_token))
        return sessions
          .refresh({ refreshToken: payload.refresh_token, tenant: headers["x-tenant-id"] })
          .pipe(
            limited(limits, "refresh", { tenant: named?.tenantId ?? "", account: named?.sessionId ?? "" }),
            Effect.map(tokenResponse)
          )
      }
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
    const sessions = yield* Sessions
    const limits = yield* SignInLimits
    return handlers.handleAll({
      me: Effect.fnUntraced(function* () {
        const principal = yield* currentUser
        const user = yield* users.get(principal.userId)
        return new Me({ ...user, tenant_id: principal.tenantId, tenant_slug: principal.tenantSlug })
      }),
      logout: Effect.fnUntraced(function* () {
        yield* sessions.end(yield* currentUser)
      }),
      changePassword: Effect.fnUntraced(function* ({ payload }) {
        const principal = yield* currentUser
        yield* sessions
          .changePassword(principal, { current: payload.current_password, next: payload.new_password })
          .pipe(limited(limits, "password", { tenant: principal.tenantId, account: principal.userId }))
      }),
      createApiKey: Effect.fnUntraced(function* ({ payload }) {
        const { apiKey, key } = yield* apiKeys.create(yield* currentUser, {
          name: payload.name,
          scopes: payload.scopes,
          limits: payload.limits,
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
