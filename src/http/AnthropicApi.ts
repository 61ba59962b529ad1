import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"
import { VendorBody, vendorAnswer, vendorErrors } from "./VendorEndpoint.ts"

/** What Anthropic's clients call, beside `/v1/models`. */
export class AnthropicApi extends HttpApiGroup.make("anthropic")
  .add(
    HttpApiEndpoint.post("messages", "/messages", {
      payload: VendorBody,
      success: vendorAnswer,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "Anthropic's messages" })),
    HttpApiEndpoint.post("countTokens", "/messages/count_tokens", {
      payload: VendorBody,
      success: VendorBody,
      error: vendorErrors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "Count the tokens of a message" }))
  )
  .prefix("/v1")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({
      title: "Anthropic",
      description:
        "Anthropic's API, for its own clients: with this installation as the base URL and a key of the platform's in the place of Anthropic's, as `x-api-key` or Bearer."
    })
  ) {}
