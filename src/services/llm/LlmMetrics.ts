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

/** What a model's attempts are counted with. A metric with fixed attributes is cheap to update and dear to make. */
const makeMeters = (labels: { readonly model: string; readonly provider: string }) => {
  const byStatus = new Map<string, typeof requests>()
  const byKind = new Map<string, typeof tokens>()
  const memo = <A>(known: Map<string, A>, key: string, make: () => A): A => {
    const found = known.get(key) ?? make()
    known.set(key, found)
    return found
  }
  return {
    duration: Metric.withAttributes(durations, labels),
    requests: (status: string) =>
      memo(byStatus, status, () => Metric.withAttributes(requests, { ...labels, status })),
    tokens: (kind: string) =>
      memo(byKind, kind, () => Metric.withAttributes(tokens, { ...labels, token_type: kind }))
  }
}

const meters = new Map<string, ReturnType<typeof makeMeters>>()

const metersOf = (ref: ModelRef) => {
  const model = labelOf(ref)
  const key = `${ref.provider} ${model}`
  const made = meters.get(key) ?? makeMeters({ model, provider: ref.provider })
  meters.set(key, made)
  return made
}

export const countAttempt = (
  ref: ModelRef,
  {
    latencyMillis,
    status,
    usage
  }: { readonly status: string; readonly latencyMillis: number; readonly usage: TokenUsage }
): Effect.Effect<void> =>
  Effect.withFiber(({ context }) => {
    const { duration, requests, tokens } = metersOf(ref)
    requests(status).updateUnsafe(1, context)
    duration.updateUnsafe(latencyMillis / 1000, context)
    const count = (kind: string, number: number | undefined) => {
      if (number !== undefined && number > 0) tokens(kind).updateUnsafe(number, context)
    }
    count("input", usage.input)
    count("cached_read", usage.cachedRead)
    count("cached_write", usage.cachedWrite)
    count("output", usage.output - usage.reasoning)
    count("reasoning", usage.reasoning)
    count("audio_input", usage.audioInput)
    count("audio_cached_read", usage.audioCachedRead)
    count("audio_output", usage.audioOutput)
    return Effect.void
  })

export const countAlarm = (ref: ModelRef, reason: string) =>
  Metric.update(Metric.withAttributes(alarms, { model: labelOf(ref), provider: ref.provider, reason }), 1)

const voices = Metric.gauge("llm_realtime_sessions", { description: "Open sessions of realtime voice" })

export const setRealtimeSessions = (count: number) => Metric.update(voices, count)

export const setModelEnd = (name: string, days: number) =>
  Metric.update(Metric.withAttributes(endings, { model: name }), days)
