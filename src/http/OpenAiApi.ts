import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"
import { VendorBody, vendorAnswer, vendorErrors } from "./VendorEndpoint.ts"

const models =
  "Groups and models that the tenant may name; with an `anthropic-version`, in Anthropic's words."

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
      .annotateMerge(OpenApi.annotations({ summary: "Read a model", description: models }))
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
