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

const utf8 = new TextEncoder()

/** An image in the request itself: its bytes are no tokens. */
const isData = (text: string): boolean => text.startsWith("data:image/")

/**
 * The most tokens that a request can have: a token is one byte at least, and the names and signs of its JSON are more than what
 * vendors put in their place.
 */
export const inputBound = (body: Schema.Json): number => {
  const boundOf = (json: Schema.Json): number => {
    if (typeof json === "string") return isData(json) ? TOKENS_PER_IMAGE : utf8.encode(json).length + 4
    if (typeof json !== "object" || json === null) return 8
    let bound = 4
    if (Array.isArray(json)) {
      for (const item of json) bound += boundOf(item)
      return bound
    }
    const isSource = "media_type" in json && String(json["media_type"]).startsWith("image/")
    for (const [name, value] of Object.entries(json)) {
      bound += name.length + (isSource && name === "data" ? TOKENS_PER_IMAGE : boundOf(value))
    }
    return bound
  }
  return boundOf(body) + TOKENS_PER_REQUEST
}

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
