import { Context, Effect, Layer, Option, References } from "effect"
import { HttpServerRequest } from "effect/http"
import type { Environment } from "../domain/Environment.ts"
import { scopesOf } from "../domain/Principal.ts"
import { CrossTenantAccess, Forbidden, TenantSuspended, Unauthenticated } from "../domain/Problems.ts"
import { RequestId } from "../domain/RequestId.ts"
import type { Tenant } from "../domain/Tenant.ts"
import { AuditLog } from "../services/AuditLog.ts"
import { EventReader } from "../services/EventReader.ts"
import { LlmGateway } from "../services/llm/LlmGateway.ts"
import { LlmBudgets } from "../services/llm/LlmBudgets.ts"
import { LlmLimits } from "../services/llm/LlmLimits.ts"
import { LlmUsage } from "../services/llm/LlmUsage.ts"
import { Providers } from "../services/llm/Providers.ts"
import { PromptGuard } from "../services/PromptGuard.ts"
import { Redis } from "../services/Redis.ts"
import { SecretVault } from "../services/SecretVault.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { TenantPool } from "../services/TenantPool.ts"
import { Tenants } from "../services/Tenants.ts"
import { TenantServicesLayer } from "../services/TenantServices.ts"
import { CurrentPrincipal } from "./Authentication.ts"
import { TenantScope } from "./TenantScope.ts"

/** What `X-Tenant-ID` may say: this tenant's id or slug, or nothing. It grants nothing; it must only agree. */
const agrees = (header: string | undefined, tenant: Tenant): boolean =>
  header === undefined || header === tenant.slug || header.toLowerCase() === tenant.id

/** The one place in `src/` that provides a layer: the tenant's services, for this request. */
export const TenantScopeLayer = (options: { readonly environment: Environment }) =>
  Layer.effect(
    TenantScope,
    Effect.gen(function* () {
      const tenants = yield* Tenants
      // Picked, because at run time a context holds everything: handing all of it to a request would replace the
      // request's own Scope and span by the server's.
      const shared = Context.pick(
        TenantPool,
        Redis,
        EventReader,
        SecretVault,
        AuditLog,
        LlmGateway,
        LlmUsage,
        LlmBudgets,
        LlmLimits,
        PromptGuard,
        Providers
      )(
        yield* Effect.context<
          | TenantPool
          | Redis
          | EventReader
          | SecretVault
          | AuditLog
          | LlmGateway
          | LlmUsage
          | LlmBudgets
          | LlmLimits
          | PromptGuard
          | Providers
        >()
      )

      return TenantScope.of(
        Effect.fnUntraced(function* (httpEffect) {
          const principal = yield* CurrentPrincipal
          if (principal._tag === "Operator") {
            return yield* new Forbidden({ detail: "An operator key does not open a tenant's data" })
          }
          const request = yield* HttpServerRequest.HttpServerRequest
          const found = yield* tenants.find(principal.tenantId)
          // A credential of a tenant that is no more.
          if (Option.isNone(found)) return yield* new Unauthenticated({})
          const tenant = found.value
          if (!agrees(request.headers["x-tenant-id"], tenant)) return yield* new CrossTenantAccess({})
          if (tenant.status !== "active") return yield* new TenantSuspended({})

          yield* Effect.annotateCurrentSpan({ "tenant.id": tenant.id })
          return yield* httpEffect.pipe(
            // `local`: a layer that an enclosing `provide` has built already is reused by reference, and a
            // tenant's services must never be the ones built for another.
            // @effect-diagnostics-next-line strictEffectProvide:off
            Effect.provide(TenantServicesLayer, { local: true }),
            // One context with all of it: each `provide` of its own would merge the request's context once more.
            Effect.provideContext(
              shared.pipe(
                Context.add(TenantContext, {
                  tenantId: tenant.id,
                  slug: tenant.slug,
                  schema: tenant.schema_name,
                  environment: options.environment,
                  settings: tenant.settings,
                  principal,
                  scopes: scopesOf(principal),
                  requestId: yield* RequestId
                }),
                Context.add(References.CurrentLogAnnotations, {
                  ...(yield* References.CurrentLogAnnotations),
                  tenant_id: tenant.id
                })
              )
            )
          )
        })
      )
    })
  )
