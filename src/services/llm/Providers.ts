import Anthropic from "@anthropic-ai/sdk"
import { Clock, Context, Duration, Effect, Equal, Hash, Layer, Option, RcMap, Redacted } from "effect"
import type { Scope } from "effect"
import { Sse } from "effect/encoding"
import { hash } from "node:crypto"
import OpenAI from "openai"
import type { Provider } from "../../domain/Llm.ts"
import { ProviderTime } from "../../domain/ProviderTime.ts"
import type { JsonObject, WireEvent } from "./Codec.ts"
import { faultOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import { isJsonObject, parseObject, stringAt } from "./JsonAt.ts"
import { post } from "./ProviderHttp.ts"
import type { ProviderResponse } from "./ProviderHttp.ts"

/** Clients of tenants' own keys: as many as there are, and gone when unused for so long. */
const IDLE = Duration.minutes(10)

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
const retryAfterOf = (headers: Readonly<Record<string, string>>, nowMillis: number): number | undefined => {
  const millis = headers["retry-after-ms"]
  if (millis !== undefined && Number.isFinite(Number(millis))) return Math.max(0, Number(millis))
  const after = headers["retry-after"]
  if (after === undefined || after.trim() === "") return undefined
  const seconds = Number(after)
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1000)
  const date = Date.parse(after)
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMillis)
}

/** The envelope's inside. */
const detailsOf = (body: JsonObject): JsonObject => (isJsonObject(body["error"]) ? body["error"] : body)

const requestIdOf = (headers: Readonly<Record<string, string>>): string | null =>
  headers["request-id"] ?? headers["x-request-id"] ?? null

/** An answer that tells of an error, in the vendor's own words but for the key. */
const toFault = (
  scrub: (text: string) => string,
  { headers, status }: ProviderResponse,
  body: JsonObject,
  nowMillis: number
): ProviderFault => {
  const clean = (text: string | undefined) => (text === undefined ? null : scrub(text))
  const details = detailsOf(body)
  return faultOf("Status", scrub(stringAt(details, "message") ?? "The provider gave no reason"), {
    status,
    type: clean(stringAt(details, "type")),
    code: clean(stringAt(details, "code") ?? stringAt(details, "details", "error_code")),
    param: clean(stringAt(details, "param")),
    retryAfterMillis: retryAfterOf(headers, nowMillis),
    final: headers["x-should-retry"] === "false",
    requestId: requestIdOf(headers)
  })
}

/** Where a path of the vendor's is, and the headers of every request to it. */
interface Address {
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
}

type AddressOf = (path: string) => Promise<Address>

interface BuiltRequest {
  readonly url: string
  readonly req: { readonly headers: Headers }
}

const addressOf = ({ req, url }: BuiltRequest): Address => ({
  url: new URL(url),
  headers: Object.fromEntries(req.headers)
})

const quiet = { logLevel: "off", maxRetries: 0 } as const

/**
 * The vendors' SDKs say where and with which headers: version, credentials, and who is calling. All that they would read
 * from the environment is given, so that nobody's variables send our key elsewhere.
 */
const addresses: Readonly<Record<Provider, (key: string, baseUrl: string | undefined) => AddressOf>> = {
  anthropic: (apiKey, baseURL) => {
    const client = new Anthropic({
      ...quiet,
      apiKey,
      webhookKey: null,
      baseURL: baseURL ?? "https://api.anthropic.com"
    })
    return (path) => client.buildRequest({ method: "post", path, body: {} }).then(addressOf)
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
    return (path) => client.buildRequest({ method: "post", path, body: {} }).then(addressOf)
  }
}

const headOf = ({ headers, status }: ProviderResponse): ProviderHead => ({
  status,
  headers,
  requestId: requestIdOf(headers)
})

/** The wait for a provider is not what the platform costs. */
const waiting = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const time = fiber.getRef(ProviderTime)
    if (time === undefined) return effect
    const from = performance.now()
    return Effect.onExit(effect, () => Effect.sync(() => void (time.millis += performance.now() - from)))
  })

const countCall = Effect.withFiber((fiber) => {
  const time = fiber.getRef(ProviderTime)
  if (time !== undefined) time.calls++
  return Effect.void
})

const readEvents = ({ read }: ProviderResponse): ProviderStream["read"] => {
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
  let isBegun = false
  // Comments keep a connection alive, and no answer.
  const readUntil = (end: number): ReturnType<ProviderStream["read"]> => {
    const reading = read(end - performance.now())
    // Nobody asks what comes after the head of our own answer.
    return Effect.flatMap(isBegun ? reading : waiting(reading), (chunks) => {
      if (chunks.length === 0) return Effect.succeed(undefined)
      for (const chunk of chunks) {
        if (parser.feed(decoder.decode(chunk, { stream: true })) !== undefined) {
          return Effect.fail(faultOf("Malformed", "An event that is too large"))
        }
      }
      if (events.length === 0) return readUntil(end)
      isBegun = true
      const batch = events
      events = []
      return Effect.succeed(batch)
    })
  }
  return (within) => Effect.suspend(() => readUntil(performance.now() + Duration.toMillis(within)))
}

const readJson = Effect.fnUntraced(function* ({ read }: ProviderResponse, within: Duration.Duration) {
  const pieces: Array<Buffer> = []
  let bytes = 0
  for (;;) {
    const chunks = yield* waiting(read(Duration.toMillis(within)))
    if (chunks.length === 0) break
    for (const chunk of chunks) bytes += chunk.length
    if (bytes > MOST_BYTES) return yield* faultOf("Malformed", "An answer that is too large")
    pieces.push(...chunks)
  }
  return parseObject(Buffer.concat(pieces, bytes).toString())
})

const makeClient = (
  provider: Provider,
  key: Redacted.Redacted<string>,
  options: { readonly baseUrl: string | undefined; readonly own: boolean; readonly keyDigest: string }
): ProviderClient => {
  const addressAt = addresses[provider](Redacted.value(key), options.baseUrl)
  const scrub = scrubber(Redacted.value(key))
  const known = new Map<string, Address>()

  const addressFor = (path: string) =>
    Effect.suspend(() => {
      const found = known.get(path)
      if (found !== undefined) return Effect.succeed(found)
      return Effect.tap(
        Effect.tryPromise({
          try: () => addressAt(path),
          catch: () => faultOf("Connection", "The vendor's client could not make a request")
        }),
        (address) => Effect.sync(() => known.set(path, address))
      )
    })

  const send = Effect.fnUntraced(function* ({ body, headers, path, timeout }: ProviderRequest) {
    const address = yield* addressFor(path)
    const text = JSON.stringify(body)
    yield* countCall
    const response = yield* waiting(post(address.url, { ...address.headers, ...headers }, text))
    if (response.status >= 200 && response.status < 300) return response
    const told = yield* Effect.orElseSucceed(readJson(response, timeout), () => undefined)
    return yield* toFault(scrub, response, told ?? {}, yield* Clock.currentTimeMillis)
  })

  return {
    provider,
    keyDigest: options.keyDigest,
    own: options.own,
    baseUrl: options.baseUrl,
    key,
    scrub,
    json: Effect.fnUntraced(function* (request) {
      const response = yield* send(request)
      const json = yield* readJson(response, request.timeout)
      if (json === undefined) return yield* faultOf("Malformed", "An answer that is no JSON object")
      return { ...headOf(response), json }
    }),
    stream: (request) =>
      Effect.map(send(request), (response) => ({ ...headOf(response), read: readEvents(response) }))
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
