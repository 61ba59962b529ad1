import { Context, Effect, Option } from "effect"
import { HttpServerRequest } from "effect/http"
import { clientAddress } from "../domain/ClientAddress.ts"
import type { ClientAddress } from "../domain/ClientAddress.ts"

/** Whether the platform that the server runs on appends the client to `X-Forwarded-For` itself. */
export const PlatformForwards = Context.Reference<boolean>("agent-army/http/PlatformForwards", {
  // Cloud Run's own mark on its containers (its container runtime contract), and no setting of ours.
  // @effect-diagnostics-next-line processEnv:off
  defaultValue: () => process.env["K_SERVICE"] !== undefined
})

/** Where the current request comes from. */
export const currentAddress: Effect.Effect<ClientAddress, never, HttpServerRequest.HttpServerRequest> =
  Effect.gen(function* () {
    const request = yield* HttpServerRequest.HttpServerRequest
    return clientAddress(
      Option.getOrUndefined(request.remoteAddress),
      request.headers["x-forwarded-for"],
      yield* PlatformForwards
    )
  })
