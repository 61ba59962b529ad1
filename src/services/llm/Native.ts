import { Result, Schema } from "effect"
import { STATUS_CODES } from "node:http"
import {
  BudgetExceeded,
  InternalError,
  PromptInjectionBlocked,
  ProviderNotConfigured,
  ProviderUnavailable
} from "../../domain/Problems.ts"
import type { TokenUsage } from "../../domain/Llm.ts"
import type { InvalidRequest } from "../../domain/Problems.ts"
import type {
  Answer,
  Codec,
  Conversation,
  JsonObject,
  Part,
  Stop,
  StreamEvent,
  StreamReader,
  StreamWriter,
  Summary,
  WireEvent,
  WireProblem
} from "./Codec.ts"
import {
  compact,
  countOf,
  frame,
  isObject,
  listOf,
  numberOf,
  parsed,
  requestDecoder,
  textOf
} from "./Json.ts"

// Our own endpoint: text in, text out, and who answered at what cost. No provider speaks it.

const DONE: WireEvent = { event: undefined, data: "[DONE]" }

const Request = Schema.Struct({
  messages: Schema.Array(
    Schema.Struct({ role: Schema.Literals(["system", "user", "assistant"]), content: Schema.String })
  ).check(Schema.isMinLength(1)),
  model: Schema.optionalKey(Schema.String),
  max_tokens: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 16_384 }))),
  temperature: Schema.optionalKey(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 2 }))),
  metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json)),
  stream: Schema.optionalKey(Schema.Boolean),
  resume: Schema.optionalKey(Schema.Boolean)
})

const decode = requestDecoder(Request)

const decodeRequest = (body: JsonObject): Result.Result<Conversation, InvalidRequest> =>
  Result.map(decode(body), ({ max_tokens, messages, temperature }) => ({
    system: messages.flatMap(({ content, role }) => (role === "system" ? [content] : [])),
    turns: messages.flatMap(({ content, role }) =>
      role === "system" ? [] : [{ role, parts: [{ _tag: "Text", text: content }] }]
    ),
    tools: [],
    toolChoice: undefined,
    parallelToolCalls: undefined,
    maxTokens: max_tokens,
    temperature,
    topP: undefined,
    stop: [],
    format: undefined,
    reasoningEffort: undefined
  }))

const plainText = (parts: ReadonlyArray<Part>): string =>
  parts.map((part) => (part._tag === "Text" || part._tag === "Refusal" ? part.text : "")).join("")

const encodeRequest = (conversation: Conversation, model: string, stream: boolean): JsonObject =>
  compact({
    messages: [
      ...conversation.system.map((content) => ({ role: "system", content })),
      ...conversation.turns.map(({ parts, role }) => ({ role, content: plainText(parts) }))
    ],
    model,
    max_tokens: conversation.maxTokens,
    temperature: conversation.temperature,
    stream: stream ? true : undefined
  })

/** It tells no reason: an answer that came is one that stopped. */
const STOP: Stop = { reason: "stop", raw: "stop", sequence: undefined }

/** Which of the prompt's tokens were cached it does not tell. */
const usageOf = (json: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isObject(json) || numberOf(json["prompt_tokens"]) === undefined) return undefined
  return {
    input: countOf(json["prompt_tokens"]),
    cachedRead: 0,
    cachedWrite: 0,
    output: countOf(json["completion_tokens"]),
    reasoning: 0
  }
}

/** What an answer and the last event of a stream have in common. */
const encodeSummary = ({ answeredBy, costUsd, guard, requestId, resumed, tenantId, usage }: Summary) => {
  const prompt = usage.input + usage.cachedRead + usage.cachedWrite
  return {
    model: answeredBy.model,
    provider: answeredBy.provider,
    usage: {
      prompt_tokens: prompt,
      completion_tokens: usage.output,
      total_tokens: prompt + usage.output,
      cost_usd: costUsd
    },
    tenant_id: tenantId,
    request_id: requestId,
    guard: { flagged: guard.flagged, score: guard.score, categories: guard.categories },
    ...(resumed ? { resumed } : undefined)
  }
}

const decodeAnswer = (body: JsonObject): Result.Result<Answer, string> => {
  const text = textOf(body["content"])
  if (text === undefined) return Result.fail("An answer without content")
  return Result.succeed({
    id: textOf(body["request_id"]) ?? "",
    model: textOf(body["model"]) ?? "",
    parts: [{ _tag: "Text", text }],
    stop: STOP,
    usage: usageOf(body["usage"])
  })
}

const encodeAnswer: Codec["encodeAnswer"] = (answer, summary) => ({
  content: plainText(answer.parts),
  ...encodeSummary(summary)
})

/** The problems that a call can end with, for the names and titles which the catalogue gives them. */
const PROBLEMS = [
  BudgetExceeded,
  InternalError,
  PromptInjectionBlocked,
  ProviderNotConfigured,
  ProviderUnavailable
].map((Problem) => new Problem({}))

/** RFC 9457; a code that is none of ours has `about:blank`, whose title is that of the status (4.2.1). */
const encodeProblem = ({ code, message, requestId, status }: WireProblem): JsonObject => {
  const known = PROBLEMS.find((problem) => problem.code === code)
  return {
    type: known?.type ?? "about:blank",
    title: known?.title ?? STATUS_CODES[status] ?? "Error",
    status,
    detail: message,
    code,
    request_id: requestId
  }
}

const reader = (): StreamReader => ({
  read: ({ data }) => {
    if (data === "[DONE]") return Result.succeed([{ _tag: "Ended" }])
    const told = parsed(data)
    if (!isObject(told)) return Result.fail("A frame that is no JSON object")
    const error = told["error"]
    if (isObject(error)) {
      return Result.succeed([
        {
          _tag: "Failed",
          type: textOf(error["type"]) ?? null,
          code: textOf(error["code"]) ?? null,
          message: textOf(error["detail"]) ?? textOf(error["title"]) ?? "The call failed"
        }
      ])
    }
    const text = textOf(told["delta"])
    if (text !== undefined && text !== "") return Result.succeed([{ _tag: "Text", text }])
    if (told["done"] !== true) return Result.succeed([])
    const usage = usageOf(told["usage"])
    return Result.succeed<ReadonlyArray<StreamEvent>>([
      { _tag: "Stopped", stop: STOP },
      ...(usage === undefined ? [] : [{ _tag: "Usage", usage } as const])
    ])
  }
})

const writer = (): StreamWriter => {
  let over = false
  return {
    adopt: (events) => {
      over ||= events.some(({ _tag }) => _tag === "Ended" || _tag === "Failed")
    },
    write: (event) =>
      event._tag === "Text" && event.text !== "" && !over ? [frame(undefined, { delta: event.text })] : [],
    end: (summary) => {
      if (over) return []
      over = true
      return [frame(undefined, { done: true, ...encodeSummary(summary) }), DONE]
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [frame(undefined, { error: encodeProblem(problem) })]
    }
  }
}

/** Our own endpoint's dialect. */
export const Native: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer,
  reader,
  writer,
  encodeProblem,
  forModel: (body, model, stream) => ({ ...body, model, stream }),
  continueFrom: (body, text) => ({
    ...body,
    messages: [...listOf(body["messages"]), { role: "assistant", content: text }]
  })
}
