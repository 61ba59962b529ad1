import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ApiKey } from "../domain/ApiKey.ts"
import { pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { ApiKeyId, Scope } from "../domain/Principal.ts"
import {
  Forbidden,
  InvalidCredentials,
  InvalidRequest,
  NotFound,
  RateLimited,
  TenantSuspended
} from "../domain/Problems.ts"
import { Me } from "../domain/User.ts"
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
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromString),
  created_at: Schema.DateTimeUtcFromString
}) {}

/** Signing in: the one thing in a tenant that needs no credential. */
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
    }).annotateMerge(OpenApi.annotations({ summary: "Sign in with e-mail and password" }))
  )
  .prefix("/api/v1/auth")
  .annotateMerge(OpenApi.annotations({ title: "Sign in", description: "From a password to tokens" })) {}

export class AuthApi extends HttpApiGroup.make("auth")
  .add(
    HttpApiEndpoint.get("me", "/me", { success: Me, error: NotFound })
      .annotate(Access, { user: true })
      .annotateMerge(OpenApi.annotations({ summary: "Who is signed in" })),
    HttpApiEndpoint.post("createApiKey", "/api-keys", {
      payload: Schema.Struct({
        name: Schema.Trim.check(
          Schema.isMinLength(1),
          Schema.isMaxLength(100),
          Schema.isPattern(/^[^\p{Cc}\p{Cs}]*$/u)
        ),
        scopes: Schema.optionalKey(Schema.UniqueArray(Scope).check(Schema.isMinLength(1))),
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
