import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { States } from "../services/States.ts"
import { Api } from "./Api.ts"

export const StateHandlers = HttpApiBuilder.group(
  Api,
  "state",
  Effect.fn(function* (handlers) {
    const states = yield* States
    return handlers.handleAll({
      put: ({ params, payload }) => states.put(params.key, payload.value, payload.ttl_seconds ?? undefined),
      get: ({ params }) => states.get(params.key),
      remove: ({ params }) => states.remove(params.key)
    })
  })
)
