import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { pageQuery, pageSchema } from "../domain/Page.ts"
import { Conflict, InvalidRequest, NotFound } from "../domain/Problems.ts"
import { Tenant, TenantName, TenantSlug } from "../domain/Tenant.ts"
import { TenantSettingsPatch } from "../domain/TenantSettings.ts"
import { Email, NewPassword } from "../domain/User.ts"
import { OperatorOnly } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { IdempotentOperation } from "./Idempotent.ts"
import { RateLimit } from "./RateLimit.ts"

/** A tenant just made, with its first admin. `password` is there where it was made here: this once. */
export class ProvisionedTenant extends Schema.Class<ProvisionedTenant>("agent-army/http/ProvisionedTenant")({
  ...Tenant.fields,
  admin: Schema.NullOr(Schema.Struct({ email: Schema.String, password: Schema.optionalKey(Schema.String) }))
}) {}

export const NewTenant = Schema.Struct({
  slug: TenantSlug,
  name: TenantName,
  admin_email: Schema.optionalKey(Email),
  admin_password: Schema.optionalKey(Schema.RedactedFromValue(NewPassword))
}).check(
  Schema.makeFilter((tenant) =>
    tenant.admin_password !== undefined && tenant.admin_email === undefined
      ? { path: ["admin_email"], issue: "Expected an e-mail address to go with the password" }
      : undefined
  )
)

const idOrSlug = { tenant: Schema.String }

export class TenantsApi extends HttpApiGroup.make("tenants")
  .add(
    HttpApiEndpoint.post("provision", "/", {
      payload: NewTenant,
      success: ProvisionedTenant.pipe(HttpApiSchema.status(201)),
      error: Conflict
    })
      .middleware(IdempotentOperation)
      .annotateMerge(OpenApi.annotations({ summary: "Provision a tenant" })),
    HttpApiEndpoint.get("list", "/", { query: pageQuery, success: pageSchema(Tenant) }).annotateMerge(
      OpenApi.annotations({ summary: "List the tenants, by slug" })
    ),
    HttpApiEndpoint.get("get", "/:tenant", {
      params: idOrSlug,
      success: Tenant,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({ summary: "A tenant by id or slug" })),
    HttpApiEndpoint.patch("update", "/:tenant", {
      params: idOrSlug,
      payload: Schema.Struct({
        name: Schema.optionalKey(TenantName),
        settings: Schema.optionalKey(TenantSettingsPatch)
      }),
      success: Tenant,
      error: [NotFound, InvalidRequest]
    }).annotateMerge(OpenApi.annotations({ summary: "Rename a tenant, or merge settings (RFC 7396)" })),
    HttpApiEndpoint.post("suspend", "/:tenant/suspend", {
      params: idOrSlug,
      success: Tenant,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({ summary: "Suspend a tenant, everywhere within a second" })),
    HttpApiEndpoint.post("activate", "/:tenant/activate", {
      params: idOrSlug,
      success: Tenant,
      error: NotFound
    }).annotateMerge(OpenApi.annotations({ summary: "Activate a suspended tenant" }))
  )
  .prefix("/api/v1/tenants")
  // The last middleware added is the outermost: authenticate, charge, then ask for an operator.
  .middleware(OperatorOnly)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({ title: "Tenants", description: "The control plane: operators only" })
  ) {}
