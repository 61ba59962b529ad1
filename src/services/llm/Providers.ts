import Anthropic from "@anthropic-ai/sdk"
import { Clock, Context, Effect, Layer, Option, Predicate, RcMap, Redacted, Schema } from "effect"
import type { Scope } from "effect"
import { Sse } from "effect/encoding"
import OpenAI from "openai"
import { hash } from "node:crypto"
import type { Dialect, Provider } from "../../domain/Llm.ts"
import type { JsonObject, WireEvent } from "./Codec.ts"
import { faultOf, ProviderFault } from "./Faults.ts"
import { isObject, objectOf, parsed, textOf } from "./Json.ts"

/** Where each kind of request goes, below the SDK's base URL. */
const paths = {
  "openai-chat": "/chat/completions",
  "openai-responses": "/responses",
  "openai-embeddings": "/embeddings",
  "anthropic-messages": "/v1/messages",
  "anthropic-count-tokens": "/v1/messages/count_tokens"
} as const
export type Route = keyof typeof paths

/** What a provider speaks to a caller of a dialect: the caller's own where it can. */
export const wireFor = (provider: Provider, dialect: Dialect): Exclude<Dialect, "native"> => {
  if (provider === "anthropic") return "anthropic-messages"
  return dialect === "openai-responses" ? dialect : "openai-chat"
}

/** A tenant's own client, and its connections, are given up when it was not used for so long. */
const IDLE = "5 minutes"

/** The SDKs' own clock never ends a call before ours does. */
const SDK_TIMEOUT_MILLIS = 3_600_000

/** The provider's headers that mean something to a caller: limits and its id of the request, never a cookie. */
const TOLD = /^(x-ratelimit-|anthropic-ratelimit-)|^(openai-processing-ms|openai-version)$/

export interface ProviderRequest {
  readonly provider: Provider
  readonly route: Route
  readonly key: Redacted.Redacted<string>
  readonly body: JsonObject
  readonly headers: Readonly<Record<string, string>>
}

export interface ProviderResponse {
  readonly headers: Readonly<Record<string, string>>
  readonly requestId: string | null
  readonly json: Effect.Effect<JsonObject, ProviderFault>
  /** The next events of the stream; none at its end, whether that is whole or not. */
  readonly pull: Effect.Effect<Option.Option<ReadonlyArray<WireEvent>>, ProviderFault>
}

export type BaseUrls = Readonly<Record<Provider, string | undefined>>

interface Client {
  readonly post: (
    path: string,
    options: { body: JsonObject; headers: Record<string, string>; signal: AbortSignal }
  ) => Promise<Response>
}

const numberIn = (headers: Headers, name: string): number | undefined => {
  const value = headers.get(name)
  return value === null || value.trim() === "" || Number.isNaN(Number(value)) ? undefined : Number(value)
}

/** `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3). */
const retryAfterMillis = (headers: Headers, now: number): number | null => {
  const millis = numberIn(headers, "retry-after-ms")
  if (millis !== undefined) return millis
  const seconds = numberIn(headers, "retry-after")
  if (seconds !== undefined) return seconds * 1000
  const date = Date.parse(headers.get("retry-after") ?? "")
  return Number.isNaN(date) ? null : Math.max(0, date - now)
}

const decodeJson = Schema.decodeUnknownOption(Schema.Json)

/**
 * What an SDK threw, in words of ours. Nothing of its object stays: it holds the request, and so the key. A provider
 * that refuses a key may repeat it, so of a 401 or 403 only the status is told.
 */
const faultFrom = (error: unknown, now: number): ProviderFault => {
  const status =
    Predicate.hasProperty(error, "status") && Predicate.isNumber(error.status) ? error.status : undefined
  if (status === undefined) return faultOf("connection", "The connection failed")
  const headers =
    Predicate.hasProperty(error, "headers") && error.headers instanceof Headers
      ? error.headers
      : new Headers()
  const body = Predicate.hasProperty(error, "error")
    ? objectOf(Option.getOrUndefined(decodeJson(error.error)))
    : {}
  // OpenAI's SDK gives what is inside of `error`, Anthropic's the whole body.
  const told = isObject(body["error"]) ? body["error"] : body
  const isSecret = status === 401 || status === 403
  return new ProviderFault({
    kind: "status",
    message: isSecret
      ? "The provider refused the key"
      : (textOf(told["message"]) ?? `The provider answered with status ${status}`),
    status,
    type: isSecret ? null : (textOf(told["type"]) ?? null),
    code: isSecret ? null : (textOf(told["code"]) ?? textOf(objectOf(told["details"])["error_code"]) ?? null),
    param: isSecret ? null : (textOf(told["param"]) ?? null),
    retryAfterMillis: retryAfterMillis(headers, now)
  })
}

const headersToTell = (headers: Headers): Record<string, string> =>
  Object.fromEntries([...headers].filter(([name]) => TOLD.test(name)))

/** Reads a body's events as they come. */
const eventsOf = (response: Response, signal: AbortSignal) => {
  /** Locks the body: only when the first event is asked for, since an answer that is no stream is read otherwise. */
  let reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  const decoder = new TextDecoder()
  let read: Array<WireEvent> = []
  const parser = Sse.makeParser((event) => {
    if (event._tag === "Event") {
      read.push({ event: event.event === "message" ? undefined : event.event, data: event.data })
    }
  })
  const pull: ProviderResponse["pull"] = Effect.gen(function* () {
    if (response.body === null) return Option.none()
    const from = (reader ??= response.body.getReader())
    const chunk = yield* Effect.tryPromise({
      try: () => from.read(),
      catch: () => faultOf(signal.aborted ? "connection" : "cut", "The stream broke off")
    })
    if (chunk.done) return Option.none()
    const failure = parser.feed(decoder.decode(chunk.value, { stream: true }))
    if (failure !== undefined) return yield* faultOf("malformed", "An event is too large")
    const events = read
    read = []
    return Option.some(events)
  })
  return pull
}

/**
 * The vendors, through their own SDKs: addresses, keys, versions and headers are theirs. Retries and timeouts are ours
 * (`LlmGateway`), and so is the reading of streams, so that what an SDK does not know passes untouched.
 */
export class Providers extends Context.Service<
  Providers,
  {
    /** Answers when the head of the answer is there. The scope's end cancels the call, in each of its phases. */
    readonly send: (request: ProviderRequest) => Effect.Effect<ProviderResponse, ProviderFault, Scope.Scope>
  }
>()("agent-army/services/llm/Providers") {
  static readonly layer = (options: {
    /** The SDKs' defaults where there is none. */
    readonly baseUrls: BaseUrls
    /** Who answers for its own key, instead of the vendors. */
    readonly simulator?: { readonly key: Redacted.Redacted<string>; readonly baseUrls: BaseUrls } | undefined
  }) =>
    Layer.effect(
      Providers,
      Effect.gen(function* () {
        const { simulator } = options
        const make = (provider: Provider, key: string): Client => {
          const isSimulated = simulator !== undefined && key === Redacted.value(simulator.key)
          const baseUrls = isSimulated ? simulator.baseUrls : options.baseUrls
          if (provider === "anthropic") {
            const client = new Anthropic({
              apiKey: key,
              authToken: null,
              baseURL: baseUrls.anthropic ?? null,
              maxRetries: 0,
              timeout: SDK_TIMEOUT_MILLIS,
              logLevel: "off"
            })
            return { post: (path, request) => client.post(path, request).asResponse() }
          }
          const client = new OpenAI({
            apiKey: key,
            organization: null,
            project: null,
            baseURL: baseUrls.openai ?? null,
            maxRetries: 0,
            timeout: SDK_TIMEOUT_MILLIS,
            logLevel: "off"
          })
          return { post: (path, request) => client.post(path, request).asResponse() }
        }

        /** By a hash of the key, which a dump of the map may show. */
        const known = new Map<string, Redacted.Redacted<string>>()
        const clients = yield* RcMap.make({
          lookup: (id: string) =>
            Effect.acquireRelease(
              Effect.sync(() => {
                const key = known.get(id)
                return make(
                  id.startsWith("anthropic") ? "anthropic" : "openai",
                  key === undefined ? "" : Redacted.value(key)
                )
              }),
              () => Effect.sync(() => known.delete(id))
            ),
          idleTimeToLive: IDLE
        })
        const clientOf = (provider: Provider, key: Redacted.Redacted<string>) =>
          Effect.suspend(() => {
            const id = `${provider}:${hash("sha256", Redacted.value(key), "hex")}`
            known.set(id, key)
            return RcMap.get(clients, id)
          })

        return Providers.of({
          send: Effect.fnUntraced(function* ({ body, headers, key, provider, route }) {
            const clock = yield* Clock.Clock
            const client = yield* clientOf(provider, key)
            const controller = yield* Effect.acquireRelease(
              Effect.sync(() => new AbortController()),
              (controller) => Effect.sync(() => controller.abort())
            )
            const { signal } = controller
            const response = yield* Effect.tryPromise({
              try: () => client.post(paths[route], { body, headers: { ...headers }, signal }),
              catch: (error) => faultFrom(error, clock.currentTimeMillisUnsafe())
            })
            return {
              headers: headersToTell(response.headers),
              requestId: response.headers.get("x-request-id") ?? response.headers.get("request-id"),
              json: Effect.tryPromise({
                try: () => response.text(),
                catch: () => faultOf("cut", "The answer broke off")
              }).pipe(
                Effect.flatMap((text) => {
                  const json = parsed(text)
                  return isObject(json)
                    ? Effect.succeed(json)
                    : Effect.fail(faultOf("malformed", "The answer is no JSON object"))
                })
              ),
              pull: eventsOf(response, signal)
            }
          })
        })
      })
    )
}
