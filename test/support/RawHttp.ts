import { Effect, Redacted } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import type { HttpMethod } from "effect/http"
import { TestServer } from "./Platform.ts"
import type { TestTenant } from "./Tenants.ts"

/** A request as bytes: nothing is encoded, checked or left out on its way, as the typed client would. */
export interface Call {
  readonly method: HttpMethod.HttpMethod
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: unknown
}

export interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly text: string
}

export const send = Effect.fnUntraced(function* (call: Call, baseUrl?: string) {
  const client = yield* HttpClient.HttpClient
  const url = (baseUrl ?? (yield* TestServer).url) + call.path
  const bare = HttpClientRequest.make(call.method)(url, { headers: call.headers ?? {} })
  const request =
    call.body === undefined
      ? bare
      : HttpClientRequest.bodyText(bare, JSON.stringify(call.body), "application/json")
  const response = yield* client.execute(request)
  const answer: Answer = {
    status: response.status,
    headers: { ...response.headers },
    text: yield* response.text
  }
  return answer
})

/** The three ways in which a tenant's credentials travel. */
export const credentialsOf = (
  tenant: TestTenant
): Readonly<Record<string, Readonly<Record<string, string>>>> => ({
  "access token": { authorization: `Bearer ${Redacted.value(tenant.accessToken)}` },
  "API key": { "x-api-key": Redacted.value(tenant.apiKey) },
  "API key as Bearer": { authorization: `Bearer ${Redacted.value(tenant.apiKey)}` }
})

const newEachTime: ReadonlySet<string> = new Set([
  "date",
  "x-request-id",
  "request-id",
  "ratelimit",
  "x-ratelimit-remaining-requests",
  "x-ratelimit-reset-requests",
  "anthropic-ratelimit-requests-remaining",
  "anthropic-ratelimit-requests-reset"
])

/** An answer without what is new in every answer: its date, the id of the request, and what is left of the limits. */
export const comparable = ({ headers, status, text }: Answer): string => {
  const requestId = headers["x-request-id"] ?? ""
  const kept = Object.entries(headers)
    .filter(([name]) => !newEachTime.has(name))
    .toSorted()
  return JSON.stringify({ status, headers: kept, text: text.replaceAll(requestId, "<request id>") })
}

/** All that a caller gets to see. */
export const everything = ({ headers, text }: Answer): string => JSON.stringify(headers) + text
