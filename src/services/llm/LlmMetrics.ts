import { Effect, Metric } from "effect"
import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { isKnownModel, modelName } from "../../domain/ModelGroups.ts"

/** Seconds, from a cached word to a long answer. */
const BUCKETS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300]

const requests = Metric.counter("llm_requests_total", {
  description: "Attempts at LLM providers",
  incremental: true
})
const durations = Metric.histogram("llm_request_duration_seconds", {
  description: "Time of an attempt at an LLM provider, to the end of its answer",
  boundaries: Metric.boundariesFromIterable(BUCKETS)
})
const tokens = Metric.counter("llm_tokens_used_total", {
  description: "Tokens used at LLM providers, by kind",
  incremental: true
})
const alarms = Metric.counter("llm_provider_alarms_total", {
  description:
    "Refusals by LLM providers that somebody has to look at: a key, a bill, or a model that is gone",
  incremental: true
})
const endings = Metric.gauge("llm_model_ends_in_days", {
  description: "Days until a model's announced end, from 60 days before it"
})

/** Names that callers make up would be series without end. */
const labelOf = (ref: ModelRef): string => (isKnownModel(ref) ? modelName(ref) : "other")

export const countAttempt = Effect.fnUntraced(function* (
  ref: ModelRef,
  attempt: { readonly status: string; readonly latencyMillis: number; readonly usage: TokenUsage }
) {
  const labels = { model: labelOf(ref), provider: ref.provider }
  yield* Metric.update(Metric.withAttributes(requests, { ...labels, status: attempt.status }), 1)
  yield* Metric.update(Metric.withAttributes(durations, labels), attempt.latencyMillis / 1000)
  const { audioCachedRead, audioInput, audioOutput, cachedRead, cachedWrite, input, output, reasoning } =
    attempt.usage
  const kinds = {
    input,
    cached_read: cachedRead,
    cached_write: cachedWrite,
    output: Math.max(0, output - reasoning),
    reasoning,
    audio_input: audioInput ?? 0,
    audio_cached_read: audioCachedRead ?? 0,
    audio_output: audioOutput ?? 0
  }
  for (const [kind, count] of Object.entries(kinds)) {
    if (count > 0) yield* Metric.update(Metric.withAttributes(tokens, { ...labels, token_type: kind }), count)
  }
})

export const countAlarm = (ref: ModelRef, reason: string) =>
  Metric.update(Metric.withAttributes(alarms, { model: labelOf(ref), provider: ref.provider, reason }), 1)

const voices = Metric.gauge("llm_realtime_sessions", { description: "Open sessions of realtime voice" })

export const setRealtimeSessions = (count: number) => Metric.update(voices, count)

export const setModelEnd = (name: string, days: number) =>
  Metric.update(Metric.withAttributes(endings, { model: name }), days)
