import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { EventId, NewEvent, StreamName } from "../domain/Event.ts"
import { RateLimited } from "../domain/Problems.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { Idempotent } from "./Idempotent.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const one = { stream: StreamName }

/** `0` is how Redis' own commands say it. */
const LastEventId = Schema.Union([EventId, Schema.Literal("0")]).annotate({
  description: "The id of the last event that was received; `0-0` stands before all of them"
})

const description = `Server-sent events (WHATWG HTML, 9.2). Each has \`id\`, \`event\` (its type) and \`data\` (one line of JSON).
Without \`Last-Event-ID\` only what is published from now on; with it everything after that event. Comments come
every 15 seconds.

The platform's own events:
- \`reset\`, data \`{"oldest_id"}\`: events since \`Last-Event-ID\` are gone. The stream goes on with the oldest one kept (\`null\`: none).
- \`dropped\`, data \`{"reason"}\`, the last one: the reader was too slow. Connect again with the last id received.
- \`closed\`, data \`{"code"}\`, the last one: \`Unauthenticated\`, \`Forbidden\`, \`TenantSuspended\`, \`DependencyUnavailable\` (nobody could
  tell whether the credential still holds) or \`ShuttingDown\` (connect again).`

/** A tenant's events, in streams. */
export class EventsApi extends HttpApiGroup.make("events")
  .add(
    HttpApiEndpoint.post("publish", "/:stream", {
      params: one,
      payload: NewEvent,
      success: Schema.Struct({ id: EventId }).pipe(HttpApiSchema.status(202))
    })
      .middleware(Idempotent)
      .annotate(Access, { scope: "events:write" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Publish an event",
          description:
            "A stream keeps its latest events, as many as the tenant's setting `events.max_length` says."
        })
      ),
    // As bytes: effect's own SSE schema knows neither comments nor `retry`, and tells the client the causes of failures.
    HttpApiEndpoint.get("subscribe", "/:stream", {
      params: one,
      headers: { "last-event-id": Schema.optionalKey(LastEventId) },
      success: HttpApiSchema.StreamUint8Array({ contentType: "text/event-stream" }),
      error: RateLimited
    })
      .annotate(Access, { scope: "events:read" })
      .annotateMerge(OpenApi.annotations({ summary: "Subscribe to a stream of events", description }))
  )
  .prefix("/api/v1/events")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({ title: "Events", description: "A tenant's events, as they happen" })
  ) {}
