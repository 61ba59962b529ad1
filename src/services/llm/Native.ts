import { Result, Schema } from "effect"
import { STATUS_CODES } from "node:http"
import type { TokenUsage } from "../../domain/Llm.ts"
import {
  BudgetExceeded,
  DependencyUnavailable,
  Forbidden,
  InternalError,
  InvalidRequest,
  PromptInjectionBlocked,
  ProviderNotConfigured,
  ProviderUnavailable,
  RateLimited,
  RequestTimeout
} from "../../domain/Problems.ts"
import type {
  Answer,
  Codec,
  JsonObject,
  Part,
  StreamReader,
  StreamWriter,
  Summary,
  WireEvent,
  WireProblem
} from "./Codec.ts"
import { makeContinuation } from "./Continuation.ts"
import { countAt, isJsonObject, jsonAt, listAt, parseObject, present, stringAt } from "./JsonAt.ts"
import { mergedTurns } from "./MergedTurns.ts"
import { makeRequestFields } from "./RequestFields.ts"
import { withSystemLine } from "./SystemLine.ts"

/** Our own `POST /api/v1/llm/completion`: text in, text out, and what it cost. */

const Request = Schema.Struct({
  messages: Schema.Array(
    Schema.Struct({ role: Schema.Literals(["system", "user", "assistant"]), content: Schema.String })
  ).check(Schema.isMinLength(1)),
  max_tokens: Schema.optional(
    Schema.NullOr(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 16_384 })))
  ),
  temperature: Schema.optional(
    Schema.NullOr(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 2 })))
  )
})

const decodeRequest: Codec["decodeRequest"] = (body) => {
  const fields = makeRequestFields()
  const read = fields.read(Request, body, [])
  if (read === undefined) return fields.refused()
  return fields.result({
    system: read.messages.filter((message) => message.role === "system").map((message) => message.content),
    turns: read.messages.flatMap(({ content, role }) =>
      role === "system"
        ? []
        : [{ role, parts: content === "" ? [] : [{ _tag: "Text" as const, text: content }] }]
    ),
    tools: [],
    toolChoice: undefined,
    parallelToolCalls: undefined,
    maxTokens: read.max_tokens ?? undefined,
    temperature: read.temperature ?? undefined,
    topP: undefined,
    stop: [],
    format: undefined,
    reasoningEffort: undefined
  })
}

const textOf = (parts: ReadonlyArray<Part>): string =>
  parts.map((part) => (part._tag === "Text" || part._tag === "Refusal" ? part.text : "")).join("")

const encodeUsage = ({ costUsd, usage }: Summary): JsonObject => {
  const prompt = usage.input + usage.cachedRead + usage.cachedWrite
  return {
    prompt_tokens: prompt,
    completion_tokens: usage.output,
    total_tokens: prompt + usage.output,
    cost_usd: costUsd
  }
}

/** The native dialect tells sums only: what was cached, and what was reasoning, it does not say. */
const decodeUsage = (usage: Schema.Json | undefined): TokenUsage | undefined =>
  isJsonObject(usage)
    ? {
        input: countAt(usage, "prompt_tokens"),
        cachedRead: 0,
        cachedWrite: 0,
        output: countAt(usage, "completion_tokens"),
        reasoning: 0
      }
    : undefined

/** What a whole answer and the last event of a stream say alike. */
const encodeSummary = (model: string, summary: Summary): JsonObject => ({
  model,
  provider: summary.answeredBy.provider,
  usage: encodeUsage(summary),
  tenant_id: summary.tenantId,
  request_id: summary.requestId,
  guard: {
    flagged: summary.guard.flagged,
    score: summary.guard.score,
    categories: summary.guard.categories
  },
  ...(summary.resumed ? { resumed: true } : {})
})

const makeReader = (): StreamReader => {
  let started = false
  return {
    read: (event) => {
      if (event.data === "") return Result.succeed([])
      if (event.data.trim() === "[DONE]") return Result.succeed([{ _tag: "Ended" }])
      const json = parseObject(event.data)
      if (json === undefined) return Result.fail("a frame that is no JSON object")
      const error = jsonAt(json, "error")
      if (isJsonObject(error)) {
        return Result.succeed([
          {
            _tag: "Failed",
            type: stringAt(error, "type") ?? null,
            code: stringAt(error, "code") ?? null,
            message: stringAt(error, "detail") ?? stringAt(error, "title") ?? "The stream failed"
          }
        ])
      }
      // A stream of ours names its model and its request at the end only.
      const start = started ? [] : [{ _tag: "Started" as const, id: "", model: "" }]
      started = true
      if (jsonAt(json, "done") !== true) {
        const text = stringAt(json, "delta") ?? ""
        return Result.succeed([...start, ...(text === "" ? [] : [{ _tag: "Text" as const, text }])])
      }
      const usage = decodeUsage(jsonAt(json, "usage"))
      return Result.succeed([
        ...start,
        { _tag: "Stopped", stop: { reason: "stop", raw: "done", sequence: undefined } },
        ...(usage === undefined ? [] : [{ _tag: "Usage" as const, usage }])
      ])
    }
  }
}

const wire = (data: JsonObject): WireEvent => ({ event: undefined, data: JSON.stringify(data) })

const makeWriter: Codec["writer"] = (): StreamWriter => {
  let doneTold = false
  let over = false
  return {
    adopt: (events) => {
      for (const event of events) {
        if (event._tag === "Stopped") doneTold = true
        if (event._tag === "Ended" || event._tag === "Failed") over = true
      }
    },
    write: (event) =>
      (event._tag === "Text" || event._tag === "Refusal") && event.text !== "" && !over && !doneTold
        ? [wire({ delta: event.text })]
        : [],
    end: (summary) => {
      if (over) return []
      over = true
      return [
        ...(doneTold ? [] : [wire({ done: true, ...encodeSummary(summary.answeredBy.model, summary) })]),
        { event: undefined, data: "[DONE]" }
      ]
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [wire({ error: encodeProblem(problem) })]
    }
  }
}

const catalogue = [
  new BudgetExceeded(),
  new DependencyUnavailable(),
  new Forbidden(),
  new InternalError(),
  new InvalidRequest(),
  new PromptInjectionBlocked({}),
  new ProviderNotConfigured(),
  new ProviderUnavailable(),
  new RateLimited(),
  new RequestTimeout()
]

/** RFC 9457. What is in no catalogue of ours, as a provider's own code, is `about:blank` with the status's title (4.2.1). */
const encodeProblem = (problem: WireProblem): JsonObject => {
  const ours = catalogue.find(({ code }) => code === problem.code)
  return present({
    type: ours?.type ?? "about:blank",
    title: ours?.title ?? STATUS_CODES[problem.status] ?? "Error",
    status: problem.status,
    detail: problem.message,
    code: problem.code ?? undefined,
    request_id: problem.requestId
  })
}

export const native: Codec = {
  decodeRequest,
  encodeRequest: (conversation, model, stream) =>
    present({
      model,
      messages: [
        ...conversation.system.map((content) => ({ role: "system", content })),
        ...mergedTurns(conversation.turns).map((turn) => ({ role: turn.role, content: textOf(turn.parts) }))
      ],
      max_tokens: conversation.maxTokens,
      temperature: conversation.temperature,
      stream: stream ? true : undefined
    }),
  decodeAnswer: (body) => {
    const content = stringAt(body, "content")
    if (content === undefined) return Result.fail("an answer without content")
    const answer: Answer = {
      id: stringAt(body, "request_id") ?? "",
      model: stringAt(body, "model") ?? "",
      parts: content === "" ? [] : [{ _tag: "Text", text: content }],
      stop: { reason: "stop", raw: "", sequence: undefined },
      usage: decodeUsage(jsonAt(body, "usage"))
    }
    return Result.succeed(answer)
  },
  encodeAnswer: (answer, summary) => ({
    content: textOf(answer.parts),
    ...encodeSummary(answer.model, summary)
  }),
  reader: makeReader,
  writer: makeWriter,
  encodeProblem,
  addSystem: (body, line) => ({ ...body, messages: withSystemLine(listAt(body, "messages"), line) }),
  forModel: (body, model, stream) => present({ ...body, model, stream: stream ? true : undefined }),
  continueFrom: (body, text) => ({
    ...body,
    messages: [...listAt(body, "messages"), { role: "assistant", content: makeContinuation(text).sent }]
  })
}
