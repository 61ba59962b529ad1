import { Duration, Effect, Fiber, Stream } from "effect"
import { Sse } from "effect/encoding"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { BEGINNING } from "../domain/Event.ts"
import type { Notice } from "../domain/Event.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { TenantEvents } from "../services/TenantEvents.ts"
import type { Happening } from "../services/TenantEvents.ts"
import { Api } from "./Api.ts"
import { PresentedCredentials } from "./Authentication.ts"
import { StillAllowed } from "./StillAllowed.ts"

/** How soon a client that lost its connection should come back. */
const RETRY = Duration.seconds(1)

/** How long a subscriber that was told that it is the end may take to read so, before its connection is cut. */
const FAREWELL = Duration.seconds(2)

const HEARTBEAT = ":\n\n"
const HELLO = HEARTBEAT + Sse.encoder.write(new Sse.Retry({ duration: RETRY, lastEventId: undefined }))

const notice = (event: Notice, data: Readonly<Record<string, string | null>>, id?: string) =>
  Sse.encoder.write({ _tag: "Event", id, event, data: JSON.stringify(data) })

const render = (happening: Happening): string => {
  switch (happening._tag) {
    case "Event": {
      const { data, id, type } = happening.event
      return Sse.encoder.write({ _tag: "Event", id, event: type, data })
    }
    case "Reset":
      // With an id: who is cut off now goes on from here, and is not told again.
      return notice("reset", { oldest_id: happening.oldestId }, happening.position)
    case "Heartbeat":
      return HEARTBEAT
    case "Dropped":
      return notice("dropped", { reason: "The reader was too slow" })
    case "Closed":
      return notice("closed", { code: happening.code })
  }
}

export const EventsHandlers = HttpApiBuilder.group(
  Api,
  "events",
  Effect.fn(function* (handlers) {
    const stillAllowed = yield* StillAllowed
    return handlers.handleAll({
      publish: Effect.fnUntraced(function* ({ params, payload }) {
        const events = yield* TenantEvents
        return { id: yield* events.publish(params.stream, payload) }
      }),
      subscribe: Effect.fnUntraced(function* ({ headers, params }) {
        const events = yield* TenantEvents
        const { tenantId } = yield* TenantContext
        const given = headers["last-event-id"]
        const subscription = yield* events.subscribe(params.stream, given === "0" ? BEGINNING : given)
        yield* stillAllowed.watch(
          { credentials: yield* PresentedCredentials, tenantId, scope: "events:read" },
          subscription.close
        )
        // Who does not read is not waiting for the end either: its request is interrupted, which cuts the connection.
        const request = Fiber.getCurrent()
        yield* subscription.ended.pipe(
          Effect.andThen(Effect.sleep(FAREWELL)),
          Effect.andThen(Effect.sync(() => request?.interruptUnsafe())),
          Effect.forkScoped
        )
        return HttpServerResponse.stream(
          Stream.concat(Stream.succeed(HELLO), Stream.map(subscription.happenings, render)).pipe(
            Stream.encodeText
          ),
          {
            contentType: "text/event-stream",
            headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
          }
        )
      })
    })
  })
)
