import { Array as Arr, BigDecimal, DateTime } from "effect"
import type { ModelRef, TokenUsage } from "./Llm.ts"
import { modelName } from "./ModelGroups.ts"
import type { TenantSettings } from "./TenantSettings.ts"

/** USD per million tokens (`audio_minute`: per minute), decimal strings. What has no price of its own costs what `input` or `output` does. */
export type Price = NonNullable<TenantSettings["llm.prices"]>[string]

/** A price from a day on (UTC), as the vendor's list says it. */
export interface DatedPrice extends Price {
  readonly from: string
}

/**
 * What the vendors' lists say. A model that is not here is counted in tokens and has no cost: a guess would look like money.
 * `cache_write` is Anthropic's for five minutes. The prices of Claude 5.5 are those of its class since 4.5, until read from a later
 * list; a tenant's `llm.prices` go before all of these. A new price goes before the old one of its model, which stays for the calls of its time.
 */
const prices: Readonly<Record<string, Arr.NonEmptyReadonlyArray<DatedPrice>>> = {
  "anthropic/claude-opus-5-5": [
    {
      input: "5",
      output: "25",
      cached_input: "0.5",
      cache_write: "6.25",
      from: "2026-03-21"
    }
  ],
  "anthropic/claude-sonnet-5-5": [
    {
      input: "3",
      output: "15",
      cached_input: "0.3",
      cache_write: "3.75",
      from: "2026-03-21"
    }
  ],
  "anthropic/claude-haiku-5-5": [
    {
      input: "1",
      output: "5",
      cached_input: "0.1",
      cache_write: "1.25",
      from: "2026-03-21"
    }
  ],
  "anthropic/claude-sonnet-4-5": [
    {
      input: "3",
      output: "15",
      cached_input: "0.3",
      cache_write: "3.75",
      from: "2025-10-01"
    }
  ],
  "anthropic/claude-haiku-4-5": [
    {
      input: "1",
      output: "5",
      cached_input: "0.1",
      cache_write: "1.25",
      from: "2025-10-15"
    }
  ],
  "openai/gpt-5.4": [{ input: "2.5", output: "15", cached_input: "0.25", from: "2026-03-17" }],
  "openai/gpt-5.4-mini": [{ input: "0.75", output: "4.5", cached_input: "0.075", from: "2026-03-17" }],
  "openai/gpt-5.4-nano": [{ input: "0.2", output: "1.25", cached_input: "0.02", from: "2026-03-17" }],
  "openai/text-embedding-3-small": [{ input: "0.02", output: "0", from: "2025-01-01" }],
  "openai/text-embedding-3-large": [{ input: "0.13", output: "0", from: "2025-01-01" }],
  "openai/gpt-realtime-2.1": [
    {
      input: "4",
      output: "24",
      cached_input: "0.4",
      audio_input: "32",
      audio_cached_input: "0.4",
      audio_output: "64",
      from: "2026-07-01"
    }
  ],
  "openai/gpt-realtime-2.1-mini": [
    {
      input: "0.6",
      output: "2.4",
      cached_input: "0.06",
      audio_input: "10",
      audio_cached_input: "0.3",
      audio_output: "20",
      from: "2026-07-01"
    }
  ],
  "openai/gpt-realtime-2": [
    {
      input: "4",
      output: "24",
      cached_input: "0.4",
      audio_input: "32",
      audio_cached_input: "0.4",
      audio_output: "64",
      from: "2026-05-07"
    }
  ],
  "openai/gpt-realtime": [
    {
      input: "4",
      output: "16",
      cached_input: "0.4",
      audio_input: "32",
      audio_cached_input: "0.4",
      audio_output: "64",
      from: "2025-08-28"
    }
  ],
  "openai/gpt-realtime-mini": [
    {
      input: "0.6",
      output: "2.4",
      cached_input: "0.06",
      audio_input: "10",
      audio_cached_input: "0.3",
      audio_output: "20",
      from: "2025-10-06"
    }
  ],
  "openai/gpt-4o-transcribe": [{ input: "2.5", output: "10", from: "2025-03-20" }],
  "openai/gpt-4o-mini-transcribe": [{ input: "1.25", output: "5", from: "2025-03-20" }],
  "openai/gpt-realtime-whisper": [{ input: "0", output: "0", audio_minute: "0.017", from: "2026-05-07" }],
  "openai/whisper-1": [{ input: "0", output: "0", audio_minute: "0.006", from: "2025-01-01" }]
}

/** Of a model's prices, the newest first, the one of a moment (milliseconds since 1970); the first known one before all of them. */
export const priceAt = (dated: Arr.NonEmptyReadonlyArray<DatedPrice>, at: number): Price => {
  const day = DateTime.formatIsoDateUtc(DateTime.makeUnsafe(at))
  return dated.find(({ from }) => from <= day) ?? Arr.lastNonEmpty(dated)
}

/** A model's price at a moment (milliseconds since 1970): the tenant's own before the platform's table. */
export const priceOf = (ref: ModelRef, own: TenantSettings["llm.prices"], at: number): Price | undefined => {
  const name = modelName(ref)
  if (own !== undefined && Object.hasOwn(own, name)) return own[name]
  const dated = Object.hasOwn(prices, name) ? prices[name] : undefined
  return dated === undefined ? undefined : priceAt(dated, at)
}

/** Whether a model has a price: one that has, has had it always. */
export const isPriced = (ref: ModelRef, own: TenantSettings["llm.prices"]): boolean =>
  priceOf(ref, own, 0) !== undefined

const PER_MILLION_SCALE = 6

const decimal = (text: string): BigDecimal.BigDecimal => BigDecimal.fromStringUnsafe(text)

/** All digits and no exponent, which `BigDecimal.format` has from 16 decimals on. */
const plain = (amount: BigDecimal.BigDecimal): string => {
  const { scale, value } = BigDecimal.normalize(amount)
  if (scale <= 0) return String(value * 10n ** BigInt(-scale))
  const digits = String(value).padStart(scale + 1, "0")
  return `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}

/** What an attempt cost in USD, exact, as a decimal string; `null` without a price. */
export const costOf = (usage: TokenUsage, price: Price | undefined): string | null => {
  if (price === undefined) return null
  const part = (tokens: number, perMillion: string) =>
    BigDecimal.multiply(BigDecimal.fromBigInt(BigInt(Math.trunc(tokens))), decimal(perMillion))
  const total = BigDecimal.sumAll([
    part(usage.input, price.input),
    part(usage.cachedRead, price.cached_input ?? price.input),
    part(usage.cachedWrite, price.cache_write ?? price.input),
    part(Math.max(0, usage.output - usage.reasoning), price.output),
    part(Math.min(usage.output, usage.reasoning), price.reasoning ?? price.output),
    part(usage.audioInput ?? 0, price.audio_input ?? price.input),
    // Where a list has one price for what is in the cache, it is for text and audio alike.
    part(
      usage.audioCachedRead ?? 0,
      price.audio_cached_input ?? price.cached_input ?? price.audio_input ?? price.input
    ),
    part(usage.audioOutput ?? 0, price.audio_output ?? price.output),
    // Per minute, in the terms of the others: a million of them.
    part(Math.ceil(((usage.audioSeconds ?? 0) * 1_000_000) / 60), price.audio_minute ?? "0")
  ])
  return plain(BigDecimal.make(total.value, total.scale + PER_MILLION_SCALE))
}

/** The sum of two costs; unknown where one of them is. */
export const sumCosts = (a: string | null, b: string | null): string | null =>
  a === null || b === null ? null : plain(BigDecimal.sum(decimal(a), decimal(b)))
