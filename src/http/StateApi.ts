import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { NotFound } from "../domain/Problems.ts"
import { StateEntry, StateKey, TtlSeconds } from "../domain/State.ts"
import { StorableJson } from "../domain/StorableJson.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const one = { key: StateKey }

/** A tenant's realtime state, in Redis. */
export class StateApi extends HttpApiGroup.make("state")
  .add(
    HttpApiEndpoint.put("put", "/:key", {
      params: one,
      payload: Schema.Struct({
        value: StorableJson,
        ttl_seconds: Schema.optionalKey(Schema.NullOr(TtlSeconds))
      }),
      success: HttpApiSchema.NoContent
    })
      .annotate(Access, { scope: "state:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Set a value, for a time or until it is deleted" })),
    HttpApiEndpoint.get("get", "/:key", { params: one, success: StateEntry, error: NotFound })
      .annotate(Access, { scope: "state:read" })
      .annotateMerge(OpenApi.annotations({ summary: "Read a value" })),
    HttpApiEndpoint.delete("remove", "/:key", {
      params: one,
      success: HttpApiSchema.NoContent,
      error: NotFound
    })
      .annotate(Access, { scope: "state:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Delete a value" }))
  )
  .prefix("/api/v1/state")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(OpenApi.annotations({ title: "State", description: "A tenant's realtime state" })) {}
