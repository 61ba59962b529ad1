import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Cursor, pageQuery, pageSchema } from "../domain/Page.ts"
import { NotFound } from "../domain/Problems.ts"
import { SecretEntry, SecretName, SecretValue } from "../domain/Secret.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const one = { name: SecretName }

/** A tenant's own secrets, which go in and never come out. */
export class SecretsApi extends HttpApiGroup.make("secrets")
  .add(
    HttpApiEndpoint.put("put", "/:name", {
      params: one,
      payload: Schema.Struct({ value: Schema.RedactedFromValue(SecretValue) }),
      success: HttpApiSchema.NoContent
    })
      .annotate(Access, { scope: "secrets:write" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Set a secret, or give it another value",
          description:
            "Kept encrypted, and never shown again. `anthropic_api_key` and `openai_api_key` take the place of the platform's keys for this tenant, on every instance within a second."
        })
      ),
    HttpApiEndpoint.get("list", "/", {
      query: {
        limit: pageQuery.limit,
        cursor: Schema.optionalKey(Cursor.check(Schema.makeFilter(Schema.is(SecretName))))
      },
      success: pageSchema(SecretEntry)
    })
      .annotate(Access, { scope: "secrets:read" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "List the secrets by name, with their versions, without their values"
        })
      ),
    HttpApiEndpoint.delete("remove", "/:name", {
      params: one,
      success: HttpApiSchema.NoContent,
      error: NotFound
    })
      .annotate(Access, { scope: "secrets:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Delete a secret" }))
  )
  .prefix("/api/v1/secrets")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({ title: "Secrets", description: "A tenant's own secrets, encrypted at rest" })
  ) {}
