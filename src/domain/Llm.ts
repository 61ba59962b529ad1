import { Schema } from "effect"

/** Whose models there are. */
export const Provider = Schema.Literals(["anthropic", "openai"])
export type Provider = typeof Provider.Type

/** A model of a provider, as `provider/model` names it. */
export interface ModelRef {
  readonly provider: Provider
  readonly model: string
}

/** The wire that a caller or a provider speaks. `native` is our own endpoint's. */
export const Dialect = Schema.Literals(["native", "openai-chat", "openai-responses", "anthropic-messages"])
export type Dialect = typeof Dialect.Type

/**
 * Tokens of one attempt, each counted once: `input` is what was neither read from a cache nor written to one, and
 * `output` includes `reasoning`. (OpenAI's `prompt_tokens` include the cached ones, Anthropic's `input_tokens` don't.)
 * Audio is counted apart: where it is, the others are text and images.
 */
export interface TokenUsage {
  readonly input: number
  readonly cachedRead: number
  readonly cachedWrite: number
  readonly output: number
  readonly reasoning: number
  readonly audioInput?: number
  readonly audioCachedRead?: number
  readonly audioOutput?: number
  /** Of audio that is billed by its length. */
  readonly audioSeconds?: number
}

/** What the guard says of an input. `score` goes from 0 to 1. */
export interface GuardVerdict {
  readonly flagged: boolean
  readonly score: number
  readonly categories: ReadonlyArray<string>
}

/**
 * What a provider refused and no other provider should be asked for: the caller's fault, or the provider's policy.
 * `message`, `type`, `code` and `param` are the provider's own words.
 */
export class ProviderRefused extends Schema.TaggedError<ProviderRefused>()("ProviderRefused", {
  status: Schema.Int,
  provider: Provider,
  message: Schema.String,
  type: Schema.NullOr(Schema.String),
  code: Schema.NullOr(Schema.String),
  param: Schema.NullOr(Schema.String)
}) {}
