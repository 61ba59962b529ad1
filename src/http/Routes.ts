import { Layer } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import type { Environment } from "../domain/Environment.ts"
import { AccessLayer } from "./AccessLayer.ts"
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
  return Face.around(options.metrics ? Layer.mergeAll(routes, MetricsRoute) : routes, options)
}
