import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Provider } from "../domain/Llm.ts"
import { UsageGrouping, UsageReport } from "../domain/LlmUsage.ts"
import {
  BudgetExceeded,
  InvalidRequest,
  PromptInjectionBlocked,
  ProviderNotConfigured,
  ProviderUnavailable,
  RateLimited,
  RefusedByProvider
} from "../domain/Problems.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const Message = Schema.Struct({
  role: Schema.Literals(["system", "user", "assistant"]),
  content: Schema.String
})

const Tokens = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** Dollars as a decimal string, so that no sum is ever rounded; `null` for a model without a price. */
const CostUsd = Schema.NullOr(Schema.String).annotate({ examples: ["0.00042"] })

export const CompletionRequest = Schema.Struct({
  messages: Schema.NonEmptyArray(Message),
  model: Schema.optionalKey(
    Schema.String.annotate({
      description:
        "A group (`reasoning`, `fast`, or one of the tenant's), `provider/model`, or a vendor's model name"
    })
  ),
  max_tokens: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0))),
  temperature: Schema.optionalKey(
    Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0), Schema.isLessThanOrEqualTo(2)).annotate({
      description: "Not told to models that take none"
    })
  ),
  metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json)),
  resume: Schema.optionalKey(
    Schema.Boolean.annotate({ description: "Let the next provider go on with a stream that died midway" })
  )
})

export const Completion = Schema.Struct({
  content: Schema.String,
  model: Schema.String.annotate({ description: "Who answered, whoever was asked for" }),
  provider: Provider,
  usage: Schema.Struct({
    prompt_tokens: Tokens,
    completion_tokens: Tokens,
    total_tokens: Tokens,
    cost_usd: CostUsd
  }),
  tenant_id: Schema.String,
  request_id: Schema.String,
  guard: Schema.Struct({
    flagged: Schema.Boolean,
    score: Schema.Finite,
    categories: Schema.Array(Schema.String)
  })
})

/** Says whether another provider may go on with a stream that died midway. */
export const resumeHeader = {
  "x-llm-resume": Schema.optionalKey(
    Schema.String.annotate({
      description: "`true` lets the next provider go on with a stream that died midway; the answer says so"
    })
  )
}

const errors = [
  RateLimited,
  PromptInjectionBlocked,
  BudgetExceeded,
  ProviderUnavailable,
  ProviderNotConfigured,
  RefusedByProvider
] as const

const streamDescription = `Server-sent events (WHATWG HTML, 9.2), each \`data\` one line of JSON:
- \`{"delta": "…"}\`, as the text comes,
- \`{"done": true, "model", "provider", "usage"}\` and then \`[DONE]\` at the end,
- \`{"error": {problem}}\`, the last one, where no provider could finish what was begun. Never followed by \`[DONE]\`.

What fails before the first token is answered as a problem. Comments come every 15 seconds.`

/** The platform's own way to the models. */
export class LlmApi extends HttpApiGroup.make("llm")
  .add(
    HttpApiEndpoint.post("complete", "/completion", {
      headers: resumeHeader,
      payload: CompletionRequest,
      success: Completion,
      error: errors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(OpenApi.annotations({ summary: "Ask a model" })),
    HttpApiEndpoint.post("stream", "/completion/stream", {
      headers: resumeHeader,
      payload: CompletionRequest,
      success: HttpApiSchema.StreamUint8Array({ contentType: "text/event-stream" }),
      error: errors
    })
      .annotate(Access, { scope: "llm:use" })
      .annotateMerge(
        OpenApi.annotations({ summary: "Ask a model, and read as it writes", description: streamDescription })
      ),
    HttpApiEndpoint.get("usage", "/usage", {
      query: {
        from: Schema.optionalKey(
          Schema.DateTimeUtcFromString.annotate({ description: "The month's beginning where none is given" })
        ),
        to: Schema.optionalKey(
          Schema.DateTimeUtcFromString.annotate({ description: "Not included; now where none is given" })
        ),
        group_by: Schema.optionalKey(UsageGrouping.annotate({ description: "`model` where none is given" }))
      },
      success: UsageReport,
      error: InvalidRequest
    })
      .annotate(Access, { scope: "llm:usage" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "What was used, and what it cost",
          description: "Of all of the tenant's calls, whoever made them. 400 days at most."
        })
      )
  )
  .prefix("/api/v1/llm")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({
      title: "LLM",
      description: "Language models, whichever provider is up. `model` says which one answered."
    })
  ) {}
