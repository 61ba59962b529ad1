import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import { TenantSecrets } from "../services/TenantSecrets.ts"
import { Api } from "./Api.ts"

export const SecretsHandlers = HttpApiBuilder.group(Api, "secrets", (handlers) =>
  handlers.handleAll({
    put: ({ params, payload }) => TenantSecrets.use((secrets) => secrets.put(params.name, payload.value)),
    list: ({ query }) => TenantSecrets.use((secrets) => secrets.list(pageRequest(query))),
    remove: ({ params }) => TenantSecrets.use((secrets) => secrets.remove(params.name))
  })
)
