import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"

const Check = Schema.Struct({
  status: Schema.Literals(["ok", "unavailable"]),
  latency_ms: Schema.Finite,
  error: Schema.optionalKey(Schema.String)
})

const checks = Schema.Record(Schema.String, Check)

/** 200 or 503, by the status in the body. */
const reports = [
  Schema.Struct({ status: Schema.Literal("ok"), checks }),
  Schema.Struct({ status: Schema.Literal("unavailable"), checks }).pipe(HttpApiSchema.status(503))
] as const

/** What balancers and people ask. Needs no credential, and names no tenant, host or error of a driver. */
export class SystemApi extends HttpApiGroup.make("system", { topLevel: true })
  .add(
    HttpApiEndpoint.get("health", "/health", {
      success: Schema.Struct({
        status: Schema.Literal("ok"),
        environment: Schema.String,
        version: Schema.String
      })
    }).annotate(OpenApi.Summary, "Alive, and which build"),
    HttpApiEndpoint.get("ready", "/health/ready", {
      query: { scope: Schema.optionalKey(Schema.Literal("instance")) },
      success: reports
    }).annotate(OpenApi.Summary, "Ready for traffic; with `scope=instance`, without asking the dependencies"),
    HttpApiEndpoint.get("startup", "/health/startup", { success: reports }).annotate(
      OpenApi.Summary,
      "Started, and the dependencies have answered"
    )
  )
  .annotateMerge(OpenApi.annotations({ title: "System", description: "Health of this instance" })) {}
