import { Effect, Option, Redacted } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import { Provisioning } from "../services/Provisioning.ts"
import { Tenants } from "../services/Tenants.ts"
import { Api } from "./Api.ts"
import { withDigest } from "./ETag.ts"
import { ProvisionedTenant } from "./TenantsApi.ts"

export const TenantsHandlers = HttpApiBuilder.group(
  Api,
  "tenants",
  Effect.fn(function* (handlers) {
    const tenants = yield* Tenants
    const provisioning = yield* Provisioning
    return handlers.handleAll({
      provision: Effect.fnUntraced(function* ({ payload }) {
        const { admin, tenant } = yield* provisioning
          .provision({
            slug: payload.slug,
            name: payload.name,
            adminEmail: payload.admin_email,
            adminPassword: payload.admin_password
          })
          .pipe(Effect.catchTag("MigrationFailed", Effect.die))
        return new ProvisionedTenant({
          ...tenant,
          admin:
            admin === null
              ? null
              : {
                  email: admin.email,
                  ...(Option.isSome(admin.password) ? { password: Redacted.value(admin.password.value) } : {})
                }
        })
      }),
      list: ({ query }) => withDigest(tenants.list(pageRequest(query))),
      get: ({ params }) => withDigest(tenants.get(params.tenant)),
      update: ({ params, payload }) => tenants.update(params.tenant, payload),
      suspend: ({ params }) => tenants.suspend(params.tenant),
      activate: ({ params }) => tenants.activate(params.tenant)
    })
  })
)
