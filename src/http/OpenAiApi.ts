import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { TakesClientSecrets } from "./ClientSecret.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"
import { CLIENT_SECRET_LIFETIME } from "../domain/ClientSecret.ts"
import { VendorBody, vendorAnswer, vendorErrors } from "./VendorEndpoint.ts"

const models =
  "Groups and models that the tenant may name; with an `anthropic-version`, in Anthropic's words."

const lifetime = Schema.Int.check(
  Schema.isBetween({ minimum: CLIENT_SECRET_LIFETIME.least, maximum: CLIENT_SECRET_LIFETIME.most })
)

/** OpenAI's, as far as it is ours to judge: the session is the provider's. */
const NewClientSecret = Schema.Struct({
  expires_after: Schema.optionalKey(
    Schema.Struct({
      anchor: Schema.optionalKey(Schema.Literal("created_at")),
      seconds: Schema.optionalKey(lifetime)
    })
  ),
  session: Schema.optionalKey(VendorBody)
})

const MadeClientSecret = Schema.Struct({
  value: Schema.String,
  expires_at: Schema.Int,
  session: VendorBody
})

/** What OpenAI's clients call. */
export class OpenAiApi extends HttpApiGroup.make("openai")
  .add(
    HttpApiEndpoint.post("chat", "/chat/completions", {
      payload: VendorBody,
      success: vendorAnswer,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "OpenAI's chat completions" })),
    HttpApiEndpoint.post("responses", "/responses", {
      payload: VendorBody,
      success: vendorAnswer,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "OpenAI's responses" })),
    HttpApiEndpoint.post("embeddings", "/embeddings", {
      payload: VendorBody,
      success: VendorBody,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "OpenAI's embeddings" })),
    HttpApiEndpoint.get("models", "/models", { success: VendorBody, error: vendorErrors })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "List the models", description: models })),
    HttpApiEndpoint.get("model", "/models/:model", {
      params: { model: Schema.String },
      success: VendorBody,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "Read a model", description: models })),
    HttpApiEndpoint.get("realtime", "/realtime", {
      query: { model: Schema.optionalKey(Schema.String) },
      success: HttpApiSchema.Empty(101),
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotate(TakesClientSecrets, true)
      // OpenAPI has no words for a WebSocket.
      .annotate(OpenApi.Exclude, true),
    HttpApiEndpoint.post("clientSecret", "/realtime/client_secrets", {
      payload: NewClientSecret,
      success: MadeClientSecret,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Make a client secret for realtime voice",
          description:
            "For browsers: it opens the WebSocket `/v1/realtime` here, and nothing else, as long as its maker's credential holds."
        })
      )
  )
  .prefix("/v1")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({
      title: "OpenAI",
      description:
        "OpenAI's API, for its own clients: with this installation's `/v1` as the base URL and a key of the platform's in the place of OpenAI's. `X-LLM-Resume: true` lets the next provider go on with a stream that died midway."
    })
  ) {}
