import { Effect } from "effect"
import { HttpApi, HttpApiBuilder } from "effect/http-api"
import { Build, Health } from "../services/Health.ts"
import { SystemApi } from "./SystemApi.ts"

/** Health may be served by more than one Api (the public one, and that of the metrics port): `id` is the Api's. */
export const SystemHandlers = <const Id extends string>(id: Id) =>
  HttpApiBuilder.group(
    HttpApi.make(id).add(SystemApi),
    "system",
    Effect.fn(function* (handlers) {
      const health = yield* Health
      const build = yield* Build
      return handlers.handleAll({
        health: () => Effect.succeed({ status: "ok" as const, ...build }),
        ready: ({ query }) => (query.scope === "instance" ? health.instance : health.ready),
        startup: () => health.startup
      })
    })
  )
