import { Duration, Effect, Layer, Option, Redacted, Result, Stream } from "effect"
import { randomUUID } from "node:crypto"
import type { Dialect, ModelRef } from "../../src/domain/Llm.ts"
import { parseModel } from "../../src/domain/ModelGroups.ts"
import { costOf, priceOf } from "../../src/domain/Prices.ts"
import type { AttemptRecord } from "../../src/services/llm/Attempt.ts"
import type { JsonObject, WireEvent } from "../../src/services/llm/Codec.ts"
import { codecOf } from "../../src/services/llm/Codecs.ts"
import { isJsonObject, listAt, objectAt, parseObject, stringAt } from "../../src/services/llm/JsonAt.ts"
import { asksForUsage, LlmGateway } from "../../src/services/llm/LlmGateway.ts"
import type { Candidate, GatewayCall, GatewayTimeouts, LeakWatch } from "../../src/services/llm/LlmGateway.ts"
import { Providers } from "../../src/services/llm/Providers.ts"

export const platformKey = "key-of-the-platform-0123456789"

/** Short, so that a silent provider does not hold up the suite. */
export const timeouts: GatewayTimeouts = {
  answer: Duration.seconds(2),
  firstToken: Duration.millis(700),
  chunk: Duration.millis(500),
  maxRetries: 2
}

/** The vendors' real SDKs, pointed at a fake vendor. */
export const providersAt = (url: string, key = platformKey) =>
  Providers.layer({
    access: {
      anthropic: { baseUrl: url, key: Option.some(Redacted.make(key)) },
      openai: { baseUrl: `${url}/v1`, key: Option.some(Redacted.make(key)) }
    },
    simulator: Option.none()
  })

export const gatewayAt = (url: string, given: Partial<GatewayTimeouts> = {}) =>
  Layer.merge(LlmGateway.layer({ ...timeouts, ...given }), providersAt(url))

export const question = { role: "user", content: "Count, please" } as const

export const bodyFor = (dialect: Dialect, members: JsonObject = {}): JsonObject => ({
  model: "a-group",
  ...(dialect === "openai-responses" ? { input: "Count, please" } : { messages: [question] }),
  ...(dialect === "anthropic-messages" ? { max_tokens: 1000 } : undefined),
  ...members
})

interface Given {
  readonly dialect?: Dialect
  readonly body?: JsonObject
  readonly resume?: boolean
  readonly watch?: LeakWatch
  readonly deadline?: Duration.Duration
  /** Each call's own where it is not given, so that no test meets another's failures. */
  readonly circuit?: string
}

/** A call of nobody in particular, whose attempts are kept in `records`. */
export const callOf = Effect.fnUntraced(function* (models: ReadonlyArray<string>, given: Given = {}) {
  const providers = yield* Providers
  const records: Array<AttemptRecord> = []
  const dialect = given.dialect ?? "openai-chat"
  const body = given.body ?? bodyFor(dialect)
  const candidates = models.flatMap((name): ReadonlyArray<Candidate> => {
    const ref = parseModel(name)
    if (ref === undefined) return []
    const client = Option.getOrThrow(providers.platform(ref.provider))
    return [{ ref, client }]
  })
  const [first, ...rest] = candidates
  if (first === undefined) return yield* Effect.die(new Error("No models"))
  const price = (ref: ModelRef) => priceOf(ref, undefined, Date.UTC(2026, 10))
  const call: GatewayCall = {
    asked: "a-group",
    candidates: [first, ...rest],
    dialect,
    conversation: Result.getOrThrow(codecOf[dialect].decodeRequest(body)),
    body,
    usageAsked: asksForUsage(dialect, body),
    headers: {},
    deadline: given.deadline,
    circuit: given.circuit ?? randomUUID(),
    resume: given.resume ?? false,
    watch: given.watch,
    requestId: "0190c9a0-1111-7aaa-8bbb-123456789abc",
    identify: (body) => body,
    open: () =>
      Effect.succeed({
        reach: () => undefined,
        close: (record) => Effect.sync(() => void records.push(record))
      }),
    costOf: (ref, usage) => costOf(usage, price(ref)),
    summary: (known) => ({
      ...known,
      tenantId: "0190c9a0-2222-7aaa-8bbb-123456789abc",
      requestId: "0190c9a0-1111-7aaa-8bbb-123456789abc",
      guard: { flagged: false, score: 0, categories: [] }
    })
  }
  return { call, records }
})

/** What the fake vendor says: `tok01 tok02 …`. */
export const words = (count: number) =>
  Array.from({ length: count }, (_, index) => `tok${String(index + 1).padStart(2, "0")}`).join(" ")

/** A stream as a client reads it. */
export interface Told {
  readonly text: string
  readonly error: string | undefined
  readonly ended: boolean
  readonly usage: JsonObject | undefined
  readonly events: ReadonlyArray<WireEvent>
}

export const listen = (dialect: Dialect, stream: Stream.Stream<WireEvent>) =>
  Effect.map(Stream.runCollect(stream), (events): Told => {
    let text = ""
    let error: string | undefined
    let ended = false
    let usage: JsonObject | undefined
    for (const { data } of events) {
      if (data === "[DONE]") {
        ended = true
        continue
      }
      const body = parseObject(data) ?? {}
      if (isJsonObject(body["error"])) error = stringAt(body, "error", "message")
      if (isJsonObject(body["usage"])) usage = body["usage"]
      if (body["type"] === "message_stop" || body["type"] === "response.completed") ended = true
      if (dialect === "openai-chat") {
        const delta = objectAt(listAt(body, "choices")[0], "delta")
        text += stringAt(delta, "content") ?? ""
      } else if (dialect === "anthropic-messages") {
        text += stringAt(body, "delta", "text") ?? ""
      } else {
        text += stringAt(body, "delta") ?? ""
      }
    }
    return { text, error, ended, usage, events }
  })

/** Asks for a stream and reads it to its end. */
export const streamed = (models: ReadonlyArray<string>, given: Given = {}) =>
  Effect.gen(function* () {
    const gateway = yield* LlmGateway
    const { call, records } = yield* callOf(models, given)
    const answer = yield* gateway.stream(call)
    const told = yield* listen(call.dialect, answer.events)
    return { ...told, answeredBy: answer.answeredBy, headers: answer.headers, records }
  }).pipe(Effect.scoped)

export const completed = Effect.fnUntraced(function* (models: ReadonlyArray<string>, given: Given = {}) {
  const gateway = yield* LlmGateway
  const { call, records } = yield* callOf(models, given)
  const result = yield* Effect.result(gateway.complete(call))
  return { result, records }
})
