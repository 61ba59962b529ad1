import type { Schema } from "effect"
import { moneyOf } from "./Money.ts"
import type { Money } from "./Money.ts"
import type { Price } from "./Prices.ts"

/** What a call without a limit of its own may answer under a budget. */
export const UNBOUNDED_OUTPUT = 16_384

/** More than any vendor counts for one image. */
const TOKENS_PER_IMAGE = 6_000
/** What frames a request, whatever is in it. */
const TOKENS_PER_REQUEST = 64
const MILLION = 1_000_000n

/** The most that any model reads: what a request only refers to can be that much. */
export const LARGEST_CONTEXT = 1_000_000

const utf8 = new TextEncoder()

/** Parts of a message that are pictures. Only in them are bytes no tokens: anybody may begin a text as a picture's address does. */
const PICTURES: ReadonlySet<unknown> = new Set(["image_url", "input_image", "image"])
/** Members that hold what a caller made up, and a model reads as it stands: tools' schemas, and what tools were called with. */
const isVerbatim = (name: string, type: unknown): boolean =>
  name === "tools" || name === "arguments" || (name === "input" && type === "tool_use")

const isRecord = (json: Schema.Json | undefined): json is { readonly [name: string]: Schema.Json } =>
  typeof json === "object" && json !== null && !Array.isArray(json)

/** A document that the provider fetches. */
const isFetched = (json: { readonly [name: string]: Schema.Json }): boolean =>
  "file_url" in json ||
  (json["type"] === "document" && isRecord(json["source"]) && json["source"]["type"] === "url")

/** Where in a request something stands. */
type Place = "message" | "picture" | "verbatim"

const boundOf = (json: Schema.Json, place: Place): number => {
  if (typeof json === "string") return utf8.encode(json).length + 4
  if (typeof json !== "object" || json === null) return 8
  let bound = 4
  if (!isRecord(json)) {
    for (const item of json) bound += boundOf(item, place)
    return bound
  }
  const isPicture = place === "message" && PICTURES.has(json["type"])
  if (isPicture) bound += TOKENS_PER_IMAGE
  if (place === "message" && isFetched(json)) bound += LARGEST_CONTEXT
  const within: Place = isPicture ? "picture" : place
  for (const [name, value] of Object.entries(json)) {
    const isBytes =
      within === "picture" &&
      typeof value === "string" &&
      (name === "data" || ((name === "url" || name === "image_url") && value.startsWith("data:image/")))
    bound +=
      utf8.encode(name).length +
      (isBytes ? 0 : boundOf(value, isVerbatim(name, json["type"]) ? "verbatim" : within))
  }
  return bound
}

/**
 * The most tokens that a request can have: a token is one byte at least, and the names and signs of its JSON are more than what
 * vendors put in their place.
 */
export const inputBound = (body: Schema.Json): number => boundOf(body, "message") + TOKENS_PER_REQUEST

const dearest = (...perMillion: ReadonlyArray<string | undefined>): Money =>
  perMillion.reduce<Money>((most, price) => {
    const money = price === undefined ? 0n : moneyOf(price)
    return money > most ? money : most
  }, 0n)

/** The most that an attempt can cost, whatever its tokens turn out to be. */
export const costBound = (price: Price, inputTokens: number, outputTokens: number): Money => {
  const input = dearest(
    price.input,
    price.cached_input,
    price.cache_write,
    price.audio_input,
    price.audio_cached_input
  )
  const output = dearest(price.output, price.reasoning, price.audio_output)
  const total = BigInt(inputTokens) * input + BigInt(outputTokens) * output
  return (total + MILLION - 1n) / MILLION
}

/** The most audio that one buffer holds: OpenAI takes 15 MiB, which is 33 minutes at 8 bytes a millisecond (G.711). */
const LONGEST_AUDIO_MINUTES = 33n

/** The most that the transcription of one buffer of audio can cost. */
export const transcriptionBound = (price: Price): Money =>
  costBound(price, TRANSCRIBER.input, TRANSCRIBER.output) +
  LONGEST_AUDIO_MINUTES * moneyOf(price.audio_minute ?? "0")

/** What a model reads and says at most in one answer, in tokens. */
interface Reach {
  readonly input: number
  readonly output: number
}

/** Of OpenAI's transcribers. */
const TRANSCRIBER: Reach = { input: 16_000, output: 2_000 }
/** Of the first generation of realtime voice, and of the present one. */
const SMALL_VOICE: Reach = { input: 32_000, output: 4_096 }
const VOICE: Reach = { input: 128_000, output: 32_000 }
const smallVoices = new Set(["gpt-realtime", "gpt-realtime-mini", "gpt-realtime-1.5"])

/** The most that a response of realtime voice can cost: nobody knows before what it will have read. */
export const responseBound = (price: Price, model: string): Money => {
  const { input, output } = smallVoices.has(model) ? SMALL_VOICE : VOICE
  return costBound(price, input, output)
}
