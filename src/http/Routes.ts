import { ByteSize, Duration, Layer } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { Environment } from "../domain/Environment.ts"
import { AccessLayer } from "./AccessLayer.ts"
import { AnthropicHandlers } from "./AnthropicHandlers.ts"
import { Api } from "./Api.ts"
import { AuditHandlers } from "./AuditHandlers.ts"
import { AuthenticationLayer } from "./AuthenticationLayer.ts"
import { AuthHandlers, SignInHandlers } from "./AuthHandlers.ts"
import * as Docs from "./Docs.ts"
import { EventsHandlers } from "./EventsHandlers.ts"
import * as Face from "./Face.ts"
import { MetricsRoute } from "./HttpMetrics.ts"
import { IdempotentLayer } from "./IdempotentLayer.ts"
import { KeysHandlers } from "./KeysHandlers.ts"
import { LlmHandlers } from "./LlmHandlers.ts"
import { OpenAiHandlers } from "./OpenAiHandlers.ts"
import { ProblemsLayer } from "./ProblemsLayer.ts"
import { RateLimitLayer } from "./RateLimitLayer.ts"
import { RecordsHandlers } from "./RecordsHandlers.ts"
import { SecretsHandlers } from "./SecretsHandlers.ts"
import { StillAllowed } from "./StillAllowed.ts"
import { StateHandlers } from "./StateHandlers.ts"
import { SystemHandlers } from "./SystemHandlers.ts"
import { TenantScopeLayer } from "./TenantScopeLayer.ts"
import { TenantsHandlers } from "./TenantsHandlers.ts"
import { UsersHandlers } from "./UsersHandlers.ts"

/** Conversations with images in them. */
const LLM_BODY_SIZE = ByteSize.mebibytes(10)

/** Longer than any call of the gateway lasts, whose own limits have the better answer. */
const LLM_TIMEOUT = Duration.minutes(15)

const llmLimits = [
  { prefix: "/v1/realtime/" },
  // Open as long as somebody speaks; what comes before has its own limits.
  { prefix: "/v1/realtime", requestTimeout: Duration.infinity },
  ...["/v1/", "/api/v1/llm/"].map((prefix) => ({
    prefix,
    maxBodySize: LLM_BODY_SIZE,
    requestTimeout: LLM_TIMEOUT
  }))
]

export interface RoutesOptions extends Face.FaceOptions {
  readonly environment: Environment
  /** `/metrics` stands here too, unless it has a port of its own. */
  readonly metrics: boolean
}

/** Every route of the platform behind its face. */
export const Routes = (options: RoutesOptions) => {
  const api = HttpApiBuilder.layer(Api).pipe(
    Layer.provide([
      TenantsHandlers,
      SignInHandlers,
      AuthHandlers,
      UsersHandlers,
      RecordsHandlers,
      StateHandlers,
      SecretsHandlers,
      AuditHandlers,
      EventsHandlers,
      LlmHandlers,
      OpenAiHandlers,
      AnthropicHandlers,
      KeysHandlers,
      SystemHandlers("agent-army")
    ]),
    Layer.provide(StillAllowed.layer),
    Layer.provide([
      TenantScopeLayer({ environment: options.environment }),
      AuthenticationLayer,
      RateLimitLayer,
      IdempotentLayer,
      AccessLayer,
      ProblemsLayer
    ])
  )
  const routes = Layer.mergeAll(api, Docs.layer(Api))
  const limits = [...llmLimits, ...(options.limits ?? [])]
  return Face.around(options.metrics ? Layer.mergeAll(routes, MetricsRoute) : routes, { ...options, limits })
}
