import { Duration, Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ApiKey, MAX_OVERLAP } from "../domain/ApiKey.ts"
import { pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { ApiKeyId, Scope } from "../domain/Principal.ts"
import {
  Conflict,
  CrossTenantAccess,
  Forbidden,
  InvalidCredentials,
  InvalidRequest,
  NotFound,
  RateLimited,
  TenantSuspended,
  Unauthenticated
} from "../domain/Problems.ts"
import { KeyLimits } from "../domain/TenantSettings.ts"
import { Me, NewPassword } from "../domain/User.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { Idempotent } from "./Idempotent.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

/** Anything a person can type; whether it is right is for the sign-in to say. No control characters. */
const Typed = Schema.String.check(Schema.isMaxLength(320), Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u))

/** RFC 6749, 5.1. */
export class TokenResponse extends Schema.Class<TokenResponse>("agent-army/http/TokenResponse")({
  access_token: Schema.String,
  refresh_token: Schema.String,
  token_type: Schema.Literal("bearer"),
  expires_in: Schema.Int
}) {}

/** A key just made: the only time that it is shown. */
export class NewApiKey extends Schema.Class<NewApiKey>("agent-army/http/NewApiKey")({
  id: ApiKeyId,
  name: Schema.String,
  key: Schema.String,
  prefix: Schema.String,
  scopes: Schema.Array(Scope),
  limits: KeyLimits,
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  created_at: Schema.DateTimeUtcFromString
}) {}

/** Signing in, and staying so: what in a tenant needs no credential. */
export class SignInApi extends HttpApiGroup.make("signIn")
  .add(
    HttpApiEndpoint.post("login", "/login", {
      headers: {
        "x-tenant-id": Schema.NonEmptyString.annotate({ description: "The tenant's id or slug" })
      },
      payload: Schema.Struct({
        email: Typed,
        password: Schema.RedactedFromValue(Schema.String.check(Schema.isMaxLength(1024)))
      }),
      success: TokenResponse,
      error: [InvalidCredentials, TenantSuspended, RateLimited]
    }).annotateMerge(OpenApi.annotations({ summary: "Sign in with e-mail and password" })),
    HttpApiEndpoint.post("refresh", "/refresh", {
      headers: {
        "x-tenant-id": Schema.optionalKey(
          Schema.String.annotate({
            description: "The tenant's id or slug: needless, since the token names it"
          })
        )
      },
      payload: Schema.Struct({
        refresh_token: Schema.RedactedFromValue(Schema.String.check(Schema.isMaxLength(1024)))
      }),
      success: TokenResponse,
      error: [Unauthenticated, CrossTenantAccess, TenantSuspended, RateLimited]
    }).annotateMerge(
      OpenApi.annotations({
        summary: "Get a new pair of tokens",
        description:
          "The refresh token is spent with this. One that is used again ends its session, except within 10 seconds while no token of the lost answer has been used."
      })
    )
  )
  .prefix("/api/v1/auth")
  .annotateMerge(OpenApi.annotations({ title: "Sign in", description: "From a password to tokens" })) {}

export class AuthApi extends HttpApiGroup.make("auth")
  .add(
    HttpApiEndpoint.get("me", "/me", { success: Me, error: NotFound })
      .annotate(Access, { user: true })
      .annotateMerge(OpenApi.annotations({ summary: "Who is signed in" })),
    HttpApiEndpoint.post("logout", "/logout", { success: HttpApiSchema.NoContent })
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({
          summary: "End this session: its tokens stop working everywhere within a second"
        })
      ),
    HttpApiEndpoint.post("changePassword", "/password", {
      payload: Schema.Struct({
        current_password: Schema.RedactedFromValue(Schema.String.check(Schema.isMaxLength(1024))),
        new_password: Schema.RedactedFromValue(NewPassword)
      }),
      success: HttpApiSchema.NoContent,
      error: [InvalidCredentials, InvalidRequest]
    })
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Change your password, and end all your other sessions",
          description:
            "12 characters or more; none of the common ones, no pattern, and more than the names that others know of you."
        })
      ),
    HttpApiEndpoint.post("createApiKey", "/api-keys", {
      payload: Schema.Struct({
        name: Schema.Trim.check(
          Schema.isMinLength(1),
          Schema.isMaxLength(100),
          Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u)
        ),
        scopes: Schema.optionalKey(Schema.UniqueArray(Scope).check(Schema.isMinLength(1))),
        limits: Schema.optionalKey(KeyLimits),
        expires_at: Schema.optionalKey(Schema.NullOr(Schema.DateTimeUtcFromString))
      }),
      success: NewApiKey.pipe(HttpApiSchema.status(201)),
      error: [Forbidden, InvalidRequest]
    })
      .middleware(Idempotent)
      .annotate(Access, { user: true })
      .annotateMerge(OpenApi.annotations({ summary: "Make an API key, with your own scopes at the most" })),
    HttpApiEndpoint.get("listApiKeys", "/api-keys", { query: pageByIdQuery, success: pageSchema(ApiKey) })
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({ summary: "List the API keys (an admin: the tenant's; a member: their own)" })
      ),
    HttpApiEndpoint.delete("revokeApiKey", "/api-keys/:id", {
      params: { id: ApiKeyId },
      success: HttpApiSchema.NoContent,
      error: NotFound
    })
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Revoke an API key: refused everywhere within a second",
          description: "An admin may revoke any key of the tenant, a member their own."
        })
      ),
    HttpApiEndpoint.post("rotateApiKey", "/api-keys/:id/rotate", {
      params: { id: ApiKeyId },
      payload: [
        Schema.Struct({
          overlap_seconds: Schema.optionalKey(
            Schema.Int.check(
              Schema.isBetween({ minimum: 0, maximum: Duration.toSeconds(MAX_OVERLAP) })
            ).annotate({
              description:
                "How long the old key works on beside the new one, in seconds. Without it, it ends at once."
            })
          )
        }),
        HttpApiSchema.NoContent
      ],
      success: NewApiKey.pipe(HttpApiSchema.status(201)),
      error: [Forbidden, NotFound, Conflict]
    })
      .middleware(Idempotent)
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Replace an API key by a new one with the same name, scopes and expiry",
          description: `The new key is shown in this answer and nowhere else. A key is rotated once: one that was rotated before, or has expired, is a Conflict.`
        })
      )
  )
  .prefix("/api/v1/auth")
  // The last middleware added is the outermost: authenticate, charge, enter the tenant, then look at the rule.
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({ title: "Account", description: "Who is signed in, and their API keys" })
  ) {}
