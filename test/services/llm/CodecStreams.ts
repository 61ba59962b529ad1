import { Result, Schema } from "effect"
import type { Dialect, TokenUsage } from "../../../src/domain/Llm.ts"
import type { JsonObject, Stop, StreamEvent, Summary, WireEvent } from "../../../src/services/llm/Codec.ts"
import { codecOf } from "../../../src/services/llm/Codecs.ts"
import { parseObject } from "../../../src/services/llm/JsonAt.ts"

/** Streams made up from schemas, and what a reader makes of them. */

const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 }))
const Pieces = Schema.Array(Schema.String).check(Schema.isMaxLength(4))

const Say = Schema.Struct({ kind: Schema.Literals(["Text", "Refusal", "Reasoning"]), pieces: Pieces })
const Call = Schema.Struct({
  kind: Schema.Literal("Call"),
  arguments: Schema.Record(Schema.String.check(Schema.isPattern(/^[a-z]{1,5}$/)), Schema.String),
  cuts: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 }))
})

/** What an answer says, how it comes in pieces, and how it ends. */
export const Plan = Schema.Struct({
  steps: Schema.Array(Schema.Union([Say, Call])).check(Schema.isMaxLength(6)),
  /** Calls that follow each other begin together and take turns with their arguments, as chat completions may. */
  together: Schema.Boolean,
  reason: Schema.Literals(["stop", "length", "stop_sequence", "content_filter", "pause", "other"]),
  usage: Schema.Struct({
    input: Count,
    cachedRead: Count,
    cachedWrite: Count,
    output: Count,
    reasoning: Count
  })
})
export type Plan = typeof Plan.Type

const RAW: Record<Stop["reason"], string> = {
  stop: "stop",
  length: "length",
  stop_sequence: "stop_sequence",
  tool_calls: "tool_calls",
  content_filter: "content_filter",
  pause: "pause_turn",
  other: "novel_reason"
}

const chunks = (text: string, size: number): ReadonlyArray<string> => {
  const pieces: Array<string> = []
  for (let at = 0; at < text.length; at += size) pieces.push(text.slice(at, at + size))
  return pieces
}

/** The events of a plan, in the order in which a provider would tell them. */
export const eventsOf = (plan: Plan): ReadonlyArray<StreamEvent> => {
  const events: Array<StreamEvent> = [{ _tag: "Started", id: "answer-1", model: "a-model" }]
  let calls = 0
  let waiting: Array<Array<StreamEvent>> = []
  const flush = () => {
    while (waiting.some((queue) => queue.length > 0)) {
      for (const queue of waiting) {
        const next = queue.shift()
        if (next !== undefined) events.push(next)
      }
    }
    waiting = []
  }
  for (const step of plan.steps) {
    if (step.kind === "Call") {
      const index = calls++
      const json = JSON.stringify(step.arguments)
      events.push({ _tag: "ToolCall", index, id: `call-${index}`, name: `tool_${index}` })
      waiting.push(chunks(json, step.cuts).map((json) => ({ _tag: "ToolArguments", index, json })))
      if (!plan.together) flush()
    } else {
      flush()
      for (const text of step.pieces) if (text !== "") events.push({ _tag: step.kind, text })
    }
  }
  flush()
  const reason = calls > 0 && plan.reason === "stop" ? "tool_calls" : plan.reason
  events.push(
    {
      _tag: "Stopped",
      stop: { reason, raw: RAW[reason], sequence: reason === "stop_sequence" ? "###" : undefined }
    },
    { _tag: "Usage", usage: plan.usage },
    { _tag: "Ended" }
  )
  return events
}

/** What a stream amounts to. Runs of one kind are one, however they were cut. */
export interface Seen {
  readonly id: string
  readonly model: string
  readonly said: ReadonlyArray<{ readonly tag: "Text" | "Refusal"; readonly text: string }>
  readonly calls: ReadonlyArray<{
    readonly id: string
    readonly name: string
    readonly arguments: JsonObject | string
  }>
  readonly reason: Stop["reason"] | undefined
  readonly usage: TokenUsage | undefined
  readonly ended: boolean
}

export const mergedRuns = (said: Seen["said"]): Seen["said"] => {
  const runs: Array<{ readonly tag: "Text" | "Refusal"; text: string }> = []
  for (const { tag, text } of said) {
    const last = runs.at(-1)
    if (last?.tag === tag) last.text += text
    else runs.push({ tag, text })
  }
  return runs
}

export const seenIn = (events: ReadonlyArray<StreamEvent>): Seen => {
  const said: Array<{ tag: "Text" | "Refusal"; text: string }> = []
  const calls = new Map<number, { id: string; name: string; json: string }>()
  let started = { id: "", model: "" }
  let reason: Stop["reason"] | undefined
  let usage: TokenUsage | undefined
  for (const event of events) {
    if (event._tag === "Started") started = { id: event.id, model: event.model }
    if (event._tag === "Text" || event._tag === "Refusal") said.push({ tag: event._tag, text: event.text })
    if (event._tag === "ToolCall") calls.set(event.index, { id: event.id, name: event.name, json: "" })
    if (event._tag === "ToolArguments") {
      const call = calls.get(event.index)
      if (call !== undefined) call.json += event.json
    }
    if (event._tag === "Stopped") reason = event.stop.reason
    if (event._tag === "Usage") usage = event.usage
  }
  return {
    ...started,
    said: mergedRuns(said),
    calls: [...calls.values()].map(({ id, name, json }) => ({
      id,
      name,
      arguments: parseObject(json) ?? json
    })),
    reason,
    usage,
    ended: events.some((event) => event._tag === "Ended")
  }
}

export const summaryOf = (usage: TokenUsage): Summary => ({
  answeredBy: { provider: "openai", model: "a-model" },
  usage,
  costUsd: "0.00012",
  resumed: false,
  tenantId: "00000000-0000-4000-8000-000000000001",
  requestId: "request-1",
  guard: { flagged: false, score: 0, categories: [] },
  created: 1_790_000_000
})

/** A whole stream, as it leaves. */
export const writeAll = (
  dialect: Dialect,
  events: ReadonlyArray<StreamEvent>,
  usage: TokenUsage,
  asked = true
): ReadonlyArray<WireEvent> => {
  const writer = codecOf[dialect].writer({ usage: asked, created: 1_790_000_000 })
  return [...events.flatMap((event) => writer.write(event)), ...writer.end(summaryOf(usage))]
}

/** All that a reader tells of frames; throws where it says that the stream is dead. */
export const readAll = (dialect: Dialect, frames: ReadonlyArray<WireEvent>): ReadonlyArray<StreamEvent> => {
  const reader = codecOf[dialect].reader()
  return frames.flatMap((frame) => Result.getOrThrow(reader.read(frame)))
}

/** What is left of an answer that went through a dialect. */
export const through: Readonly<Record<Dialect, (seen: Seen) => Seen>> = {
  "openai-chat": (seen) => ({ ...seen, reason: openAiReason(seen.reason) }),
  // Has no word for calls as the reason: they stand in the output.
  "openai-responses": (seen) => {
    const reason = openAiReason(seen.reason)
    return { ...seen, reason: reason === "stop" && seen.calls.length > 0 ? "tool_calls" : reason }
  },
  "anthropic-messages": (seen) => ({
    ...seen,
    said: mergedRuns(seen.said.map(({ text }) => ({ tag: "Text", text })))
  }),
  native: (seen) => ({
    ...seen,
    id: "",
    model: "",
    said: mergedRuns(seen.said.map(({ text }) => ({ tag: "Text", text }))),
    calls: [],
    reason: "stop",
    usage:
      seen.usage === undefined
        ? undefined
        : {
            input: seen.usage.input + seen.usage.cachedRead + seen.usage.cachedWrite,
            cachedRead: 0,
            cachedWrite: 0,
            output: seen.usage.output,
            reasoning: 0
          }
  })
}

const openAiReason = (reason: Stop["reason"] | undefined): Stop["reason"] | undefined => {
  if (reason === "stop_sequence") return "stop"
  return reason === "pause" ? "length" : reason
}

/** Frames as bytes of `text/event-stream` (WHATWG HTML, 9.2). */
export const sse = (frames: ReadonlyArray<WireEvent>): string =>
  frames
    .map(({ data, event }) => `${event === undefined ? "" : `event: ${event}\n`}data: ${data}\n\n`)
    .join("")
