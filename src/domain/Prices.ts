import { BigDecimal, Option } from "effect"
import type { ModelRef, TokenUsage } from "./Llm.ts"

/** USD per million tokens, as decimal strings. What has no price of its own costs what an input token costs. */
export interface Price {
  readonly input: string
  readonly output: string
  readonly cached_input?: string
  readonly cache_write?: string
  readonly reasoning?: string
}

/** The vendors' list prices, as of the day that the table names. A tenant's `llm.prices` go before it. */
export const prices: {
  readonly asOf: string
  readonly table: Readonly<Record<string, Price>>
} = {
  asOf: "2026-11-01",
  table: {
    "anthropic/claude-sonnet-5-5": { input: "3", output: "15", cached_input: "0.3", cache_write: "3.75" },
    "anthropic/claude-haiku-5-5": { input: "1", output: "5", cached_input: "0.1", cache_write: "1.25" },
    "openai/gpt-5.4": { input: "2.5", output: "15", cached_input: "0.25" },
    "openai/gpt-5.4-mini": { input: "0.75", output: "4.5", cached_input: "0.075" },
    "openai/text-embedding-3-small": { input: "0.02", output: "0" }
  }
}

const MILLION = 6

const decimal = (text: string): BigDecimal.BigDecimal =>
  Option.getOrElse(BigDecimal.fromString(text), () => BigDecimal.make(0n, 0))

/** USD of so many tokens: exact, since nothing is divided but by moving the point. */
const costing = (tokens: number, perMillion: string): BigDecimal.BigDecimal => {
  const product = BigDecimal.multiply(BigDecimal.make(BigInt(tokens), 0), decimal(perMillion))
  return BigDecimal.make(product.value, product.scale + MILLION)
}

/** The exact cost of an attempt in USD, as a decimal string; `null` for a model that has no price. */
export const costOf = (
  { model, provider }: ModelRef,
  usage: TokenUsage,
  own: Readonly<Record<string, Price>> = {}
): string | null => {
  const price = own[`${provider}/${model}`] ?? prices.table[`${provider}/${model}`]
  if (price === undefined) return null
  const told = Math.min(usage.reasoning, usage.output)
  const sum = [
    costing(usage.input, price.input),
    costing(usage.cachedRead, price.cached_input ?? price.input),
    costing(usage.cachedWrite, price.cache_write ?? price.input),
    costing(usage.output - told, price.output),
    costing(told, price.reasoning ?? price.output)
  ].reduce((left, right) => BigDecimal.sum(left, right))
  return plain(BigDecimal.normalize(sum))
}

/** Without an exponent, which JSON clients and `numeric` would both rather not see. */
const plain = ({ scale, value }: BigDecimal.BigDecimal): string => {
  if (scale <= 0) return `${value}${"0".repeat(value === 0n ? 0 : -scale)}`
  const digits = value.toString().padStart(scale + 1, "0")
  return `${digits.slice(0, -scale)}.${digits.slice(-scale)}`
}
