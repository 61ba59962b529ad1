import Anthropic, {
  APIConnectionTimeoutError as AnthropicTimeout,
  APIError as AnthropicError
} from "@anthropic-ai/sdk"
import { Clock, Context, Duration, Effect, Equal, Hash, Layer, Option, RcMap, Redacted } from "effect"
import type { Scope } from "effect"
import { Sse } from "effect/encoding"
import { hash } from "node:crypto"
import OpenAI, { APIConnectionTimeoutError as OpenAiTimeout, APIError as OpenAiError } from "openai"
import type { Provider } from "../../domain/Llm.ts"
import type { JsonObject, WireEvent } from "./Codec.ts"
import { faultOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import { isObject, objectOf, parsed, textOf } from "./Json.ts"

/** Clients of tenants' own keys: as many as there are, and gone when unused for so long. */
const IDLE = Duration.minutes(10)

/** The SDK's own limit stands behind ours, for a call whose fiber is gone. */
const GRACE_MILLIS = 1000

/** An answer of a vendor's is megabytes at most; a text beyond is no answer. */
const MOST_BYTES = 64 * 1024 * 1024

export interface ProviderRequest {
  /** Under the vendor's base URL, such as `/chat/completions`. */
  readonly path: string
  readonly body: JsonObject
  readonly headers: Readonly<Record<string, string>>
  readonly timeout: Duration.Duration
}

export interface ProviderHead {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly requestId: string | null
}

export interface ProviderStream extends ProviderHead {
  /** The next events; `undefined` at the end of the connection. Fails with `Stalled` when none come in time. */
  readonly read: (
    within: Duration.Duration
  ) => Effect.Effect<ReadonlyArray<WireEvent> | undefined, ProviderFault>
}

/** A vendor's SDK with one key. The end of a call's scope closes its connection, in whatever phase it is. */
export interface ProviderClient {
  readonly provider: Provider
  /** Tells keys apart, and does not tell the key. */
  readonly keyDigest: string
  /** Whether the key is a tenant's own. */
  readonly own: boolean
  /** For what speaks to the vendor without its SDK; the vendor's own URL where none is given. */
  readonly baseUrl: string | undefined
  readonly key: Redacted.Redacted<string>
  /** A text of the provider's without the key. */
  readonly scrub: (text: string) => string
  readonly json: (
    request: ProviderRequest
  ) => Effect.Effect<ProviderHead & { readonly json: JsonObject }, ProviderFault, Scope.Scope>
  readonly stream: (request: ProviderRequest) => Effect.Effect<ProviderStream, ProviderFault, Scope.Scope>
}

/** How the platform reaches a vendor. */
export interface ProviderAccess {
  /** The vendor's own where none is given. */
  readonly baseUrl: string | undefined
  readonly key: Option.Option<Redacted.Redacted<string>>
}

export interface ProvidersOptions {
  readonly access: Readonly<Record<Provider, ProviderAccess>>
  /** Where the platform's own calls go in development without any key; a tenant's own key never goes there. */
  readonly simulator: Option.Option<{ readonly urls: Readonly<Record<Provider, string>> }>
}

/** As text, what looks like a key, and the key itself, taken out: providers repeat a wrong key in their error. */
const scrubber = (key: string) => (text: string) =>
  text.replaceAll(key, "[key]").replaceAll(/\b(?:sk|pk|rk)-[A-Za-z0-9_*.-]{4,}/g, "[key]")

/** RFC 9110, 10.2.3, and the vendors' own header in milliseconds, which goes first. */
const retryAfterOf = (headers: Headers, nowMillis: number): number | undefined => {
  const millis = headers.get("retry-after-ms")
  if (millis !== null && Number.isFinite(Number(millis))) return Math.max(0, Number(millis))
  const after = headers.get("retry-after")
  if (after === null || after.trim() === "") return undefined
  const seconds = Number(after)
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000)
  const date = Date.parse(after)
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMillis)
}

const jsonOf = (value: unknown): JsonObject => objectOf(parsed(JSON.stringify(value) ?? "null"))

/** The envelope's inside: OpenAI's SDK gives `error` of the body, Anthropic's the body. */
const detailsOf = (body: JsonObject): JsonObject => (isObject(body["error"]) ? body["error"] : body)

const requestIdOf = (headers: Headers): string | null =>
  headers.get("request-id") ?? headers.get("x-request-id")

/** What an SDK throws, made small at once: nothing of the object itself is kept. */
const toFault = (key: string, nowMillis: number) => {
  const scrub = scrubber(key)
  const clean = (text: string | undefined) => (text === undefined ? null : scrub(text))
  return (thrown: unknown): ProviderFault => {
    if (thrown instanceof AnthropicTimeout || thrown instanceof OpenAiTimeout) {
      return faultOf("Silent", "Nothing came in time")
    }
    if (thrown instanceof AnthropicError || thrown instanceof OpenAiError) {
      const { headers, status } = thrown
      if (status === undefined || headers === undefined) return faultOf("Connection", "No connection")
      const details = detailsOf(jsonOf(thrown.error))
      return faultOf("Status", scrub(textOf(details["message"]) ?? "The provider gave no reason"), {
        status,
        type: clean(textOf(details["type"])),
        code: clean(textOf(details["code"]) ?? textOf(objectOf(details["details"])["error_code"])),
        param: clean(textOf(details["param"])),
        retryAfterMillis: retryAfterOf(headers, nowMillis),
        final: headers.get("x-should-retry") === "false",
        requestId: requestIdOf(headers)
      })
    }
    return faultOf("Connection", "No connection")
  }
}

type Post = (
  path: string,
  options: {
    readonly body: JsonObject
    readonly headers: Readonly<Record<string, string>>
    readonly signal: AbortSignal
    readonly timeout: number
    readonly maxRetries: 0
  }
) => Promise<Response>

const quiet = { logLevel: "off", maxRetries: 0 } as const

/** All that the SDKs would read from the environment is given, so that nobody's variables send our key elsewhere. */
const posts: Readonly<Record<Provider, (key: string, baseUrl: string | undefined) => Post>> = {
  anthropic: (apiKey, baseURL) => {
    const client = new Anthropic({
      ...quiet,
      apiKey,
      webhookKey: null,
      baseURL: baseURL ?? "https://api.anthropic.com"
    })
    return (path, options) => client.post(path, { ...options, body: { ...options.body } }).asResponse()
  },
  openai: (apiKey, baseURL) => {
    const client = new OpenAI({
      ...quiet,
      apiKey,
      adminAPIKey: null,
      organization: null,
      project: null,
      webhookSecret: null,
      baseURL: baseURL ?? "https://api.openai.com/v1"
    })
    return (path, options) => client.post(path, { ...options, body: { ...options.body } }).asResponse()
  }
}

const cut = () => faultOf("Cut", "The connection ended in the middle of an answer")

const headOf = (response: Response): ProviderHead => ({
  status: response.status,
  headers: Object.fromEntries(response.headers),
  requestId: requestIdOf(response.headers)
})

const stalled = () => faultOf("Stalled", "Nothing more came in time")

type NextChunk = (withinMillis: number) => Effect.Effect<Uint8Array | undefined, ProviderFault>

/** The body's chunks. Closed with the scope: what is not read closes the connection. */
const bodyOf = Effect.fnUntraced(function* (response: Response) {
  const { body } = response
  if (body === null) {
    const none: NextChunk = () => Effect.succeed<Uint8Array | undefined>(undefined)
    return none
  }
  const reader = yield* Effect.acquireRelease(
    Effect.sync(() => body.getReader()),
    (reader) => Effect.sync(() => void reader.cancel().catch(() => undefined))
  )
  const next: NextChunk = (withinMillis) =>
    Effect.callback((resume) => {
      // A timer and not `Effect.timeout`, whose two fibers for each chunk are most of a stream's cost.
      const timer = setTimeout(() => resume(Effect.fail(stalled())), Math.max(0, withinMillis))
      reader.read().then(
        ({ value }) => {
          clearTimeout(timer)
          resume(Effect.succeed(value))
        },
        () => {
          clearTimeout(timer)
          resume(Effect.fail(cut()))
        }
      )
      return Effect.sync(() => clearTimeout(timer))
    })
  return next
})

const readEvents = Effect.fnUntraced(function* (response: Response) {
  const next = yield* bodyOf(response)
  const decoder = new TextDecoder()
  let events: Array<WireEvent> = []
  const parser = Sse.makeParser(
    (event) => {
      if (event._tag === "Event") {
        events.push({ event: event.event === "message" ? undefined : event.event, data: event.data })
      }
    },
    { maxEventSize: MOST_BYTES }
  )
  // Comments keep a connection alive, and no answer.
  const readUntil = (end: number): ReturnType<ProviderStream["read"]> =>
    Effect.flatMap(next(end - performance.now()), (chunk) => {
      if (chunk === undefined) return Effect.succeed(undefined)
      if (parser.feed(decoder.decode(chunk, { stream: true })) !== undefined) {
        return Effect.fail(faultOf("Malformed", "An event that is too large"))
      }
      if (events.length === 0) return readUntil(end)
      const batch = events
      events = []
      return Effect.succeed(batch)
    })
  const read: ProviderStream["read"] = (within) =>
    Effect.suspend(() => readUntil(performance.now() + Duration.toMillis(within)))
  return read
})

const readJson = Effect.fnUntraced(function* (response: Response, within: Duration.Duration) {
  const next = yield* bodyOf(response)
  const decoder = new TextDecoder()
  let text = ""
  let bytes = 0
  for (;;) {
    const chunk = yield* next(Duration.toMillis(within))
    if (chunk === undefined) break
    bytes += chunk.length
    if (bytes > MOST_BYTES) return yield* faultOf("Malformed", "An answer that is too large")
    text += decoder.decode(chunk, { stream: true })
  }
  const json = parsed(text)
  return isObject(json) ? json : yield* faultOf("Malformed", "An answer that is no JSON object")
})

const makeClient = (
  provider: Provider,
  key: Redacted.Redacted<string>,
  options: { readonly baseUrl: string | undefined; readonly own: boolean; readonly keyDigest: string }
): ProviderClient => {
  const post = posts[provider](Redacted.value(key), options.baseUrl)

  const send = Effect.fnUntraced(function* ({ body, headers, path, timeout }: ProviderRequest) {
    const clock = yield* Clock.Clock
    const controller = yield* Effect.acquireRelease(
      Effect.sync(() => new AbortController()),
      (controller) => Effect.sync(() => controller.abort())
    )
    return yield* Effect.tryPromise({
      try: () =>
        post(path, {
          body,
          headers,
          signal: controller.signal,
          timeout: Duration.toMillis(timeout) + GRACE_MILLIS,
          maxRetries: 0
        }),
      catch: (thrown) => toFault(Redacted.value(key), clock.currentTimeMillisUnsafe())(thrown)
    })
  })

  return {
    provider,
    keyDigest: options.keyDigest,
    own: options.own,
    baseUrl: options.baseUrl,
    key,
    scrub: scrubber(Redacted.value(key)),
    json: (request) =>
      Effect.flatMap(send(request), (response) =>
        Effect.map(readJson(response, Duration.times(request.timeout, 2)), (json) => ({
          ...headOf(response),
          json
        }))
      ),
    stream: (request) =>
      Effect.flatMap(send(request), (response) =>
        Effect.map(readEvents(response), (read) => ({ ...headOf(response), read }))
      )
  }
}

const digestOf = (provider: Provider, key: Redacted.Redacted<string>): string =>
  hash("sha256", `${provider}:${Redacted.value(key)}`, "base64url")

/** A tenant's own key, found by its digest: equal where that is, and a map's hash tells nothing of it. */
class OwnKey implements Equal.Equal {
  readonly digest: string
  readonly provider: Provider
  readonly key: Redacted.Redacted<string>

  constructor(provider: Provider, key: Redacted.Redacted<string>) {
    this.digest = digestOf(provider, key)
    this.provider = provider
    this.key = key
  }

  [Equal.symbol](that: Equal.Equal): boolean {
    return that instanceof OwnKey && that.digest === this.digest
  }

  [Hash.symbol](): number {
    return Hash.string(this.digest)
  }
}

/** The vendors' SDKs: one client for each vendor and key. */
export class Providers extends Context.Service<
  Providers,
  {
    /** With the platform's key; none where it has none. */
    readonly platform: (provider: Provider) => Option.Option<ProviderClient>
    /** With a tenant's own key, kept while it is used. */
    readonly own: (
      provider: Provider,
      key: Redacted.Redacted<string>
    ) => Effect.Effect<ProviderClient, never, Scope.Scope>
  }
>()("agent-army/services/Providers") {
  static readonly layer = ({ access, simulator }: ProvidersOptions) =>
    Layer.effect(
      Providers,
      Effect.gen(function* () {
        const platformClient = (provider: Provider) => {
          if (Option.isSome(simulator)) {
            const key = Redacted.make("simulator")
            const baseUrl = simulator.value.urls[provider]
            return Option.some(
              makeClient(provider, key, { baseUrl, own: false, keyDigest: digestOf(provider, key) })
            )
          }
          const { baseUrl, key } = access[provider]
          return Option.map(key, (key) =>
            makeClient(provider, key, { baseUrl, own: false, keyDigest: digestOf(provider, key) })
          )
        }
        const platform: Readonly<Record<Provider, Option.Option<ProviderClient>>> = {
          anthropic: platformClient("anthropic"),
          openai: platformClient("openai")
        }

        const clients = yield* RcMap.make({
          lookup: ({ digest, key, provider }: OwnKey) =>
            Effect.succeed(
              makeClient(provider, key, {
                baseUrl: access[provider].baseUrl,
                own: true,
                keyDigest: digest
              })
            ),
          idleTimeToLive: IDLE
        })

        return Providers.of({
          platform: (provider) => platform[provider],
          own: (provider, key) => RcMap.get(clients, new OwnKey(provider, key))
        })
      })
    )
}
