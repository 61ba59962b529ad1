import { Effect, Fiber, Redacted, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { eventually } from "./Eventually.ts"
import { TestServer } from "./Platform.ts"
import type { TestTenant } from "./Tenants.ts"

export const headersOf = (tenant: TestTenant) => ({ "x-api-key": Redacted.value(tenant.apiKey) })

/** An open subscription: its head, and what it has said until now. */
export const open = Effect.fnUntraced(function* (
  tenant: TestTenant,
  headers: Record<string, string> = {},
  stream = "tickets"
) {
  const { url } = yield* TestServer
  const request = HttpClientRequest.get(`${url}/api/v1/events/${stream}`, {
    headers: { ...headersOf(tenant), ...headers }
  })
  const response = yield* HttpClient.execute(request)
  let text = ""
  const said = Effect.sync(() => text)
  const reading = yield* response.stream.pipe(
    Stream.decodeText,
    Stream.runForEach((part) => Effect.sync(() => (text += part))),
    Effect.forkScoped
  )
  return {
    response,
    said,
    until: (part: string) => eventually(`the stream says ${part}`, said, (said) => said.includes(part)),
    ended: Fiber.await(reading)
  }
})
