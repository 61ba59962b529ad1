import { Duration, Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { ApiKey, MAX_OVERLAP } from "../domain/ApiKey.ts"
import { pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { ApiKeyId, Scope } from "../domain/Principal.ts"
import {
  Conflict,
  Forbidden,
  InvalidCredentials,
  InvalidRequest,
  NotFound,
  TenantSuspended
} from "../domain/Problems.ts"
import { Me } from "../domain/User.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
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
      error: [InvalidCredentials, TenantSuspended]
    }).annotateMerge(OpenApi.annotations({ summary: "Sign in with e-mail and password" }))
  )
  .prefix("/api/v1/auth")
  .annotateMerge(OpenApi.annotations({ title: "Sign in" })) {}

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
      .annotate(Access, { user: true })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Replace an API key by a new one with the same name, scopes and expiry",
          description: `The new key is shown in this answer and nowhere else. A key is rotated once: one that was rotated before, or has expired, is a Conflict.`
        })
      )
  )
  .prefix("/api/v1/auth")
  // The last middleware added is the outermost: authenticate, enter the tenant, then look at the rule.
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(Authentication)
  .annotateMerge(OpenApi.annotations({ title: "Account" })) {}
