import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import type { JsonObject, StreamEvent, Summary, WireEvent } from "../../../src/services/llm/Codec.ts"
import { objectOf, parsed } from "../../../src/services/llm/Json.ts"
import { Native } from "../../../src/services/llm/Native.ts"

const summary: Summary = {
  answeredBy: { provider: "anthropic", model: "claude-opus-5-5" },
  usage: { input: 10, cachedRead: 5, cachedWrite: 3, output: 7, reasoning: 2 },
  costUsd: "0.000123",
  resumed: false,
  tenantId: "t-1",
  requestId: "r-1",
  guard: { flagged: true, score: 0.5, categories: ["override"] }
}

const problem = {
  status: 502,
  code: "ProviderUnavailable",
  type: null,
  message: "openai: timed out",
  param: null,
  requestId: "r-1"
}

const told = {
  model: "claude-opus-5-5",
  provider: "anthropic",
  usage: { prompt_tokens: 18, completion_tokens: 7, total_tokens: 25, cost_usd: "0.000123" },
  tenant_id: "t-1",
  request_id: "r-1",
  guard: { flagged: true, score: 0.5, categories: ["override"] }
}

const read = (frames: ReadonlyArray<WireEvent>): ReadonlyArray<StreamEvent> => {
  const reader = Native.reader()
  return frames.flatMap((frame) => Result.getOrThrow(reader.read(frame)))
}

const bodies = (frames: ReadonlyArray<WireEvent>) => frames.map(({ data }) => parsed(data) ?? data)

const refusedPaths = (body: JsonObject) =>
  Result.match(Native.decodeRequest(body), {
    onSuccess: () => [],
    onFailure: ({ errors }) => (errors ?? []).map(({ path }) => path.join("."))
  })

const messages = [{ role: "user", content: "Hi" }]

describe("a request of our own endpoint", () => {
  it("becomes a conversation, with unknown fields left aside", () => {
    const conversation = Result.getOrThrow(
      Native.decodeRequest({
        messages: [
          { role: "system", content: "Be brief" },
          ...messages,
          { role: "assistant", content: "Yes" }
        ],
        max_tokens: 16_384,
        temperature: 2,
        metadata: { run: 1 },
        resume: true,
        new_field: {}
      })
    )
    assert.deepStrictEqual(conversation.system, ["Be brief"])
    assert.deepStrictEqual(conversation.turns, [
      { role: "user", parts: [{ _tag: "Text", text: "Hi" }] },
      { role: "assistant", parts: [{ _tag: "Text", text: "Yes" }] }
    ])
    assert.strictEqual(conversation.maxTokens, 16_384)
    assert.strictEqual(conversation.temperature, 2)
  })

  it("is refused field by field", () => {
    assert.deepStrictEqual(refusedPaths({ messages, max_tokens: 16_385, temperature: 2.1 }), [
      "max_tokens",
      "temperature"
    ])
    assert.deepStrictEqual(refusedPaths({ messages, max_tokens: 0, temperature: -0.1 }), [
      "max_tokens",
      "temperature"
    ])
    assert.deepStrictEqual(refusedPaths({ messages: [] }), ["messages"])
    assert.deepStrictEqual(refusedPaths({ messages: [{ role: "tool", content: "x" }] }), ["messages.0.role"])
    assert.deepStrictEqual(refusedPaths({}), ["messages"])
  })

  it("goes to another model, or on from a text, untouched otherwise", () => {
    const body = { messages, metadata: { run: 1 } }
    assert.deepStrictEqual(Native.forModel(body, "gpt-5", true), { ...body, model: "gpt-5", stream: true })
    assert.deepStrictEqual(Native.continueFrom(body, "so far"), {
      ...body,
      messages: [...messages, { role: "assistant", content: "so far" }]
    })
  })
})

describe("an answer of our own endpoint", () => {
  it("says who answered and what it cost; cached tokens count as the prompt's", () => {
    const answer = {
      id: "x",
      model: "asked-for",
      parts: [{ _tag: "Text", text: "Hello" }],
      stop: { reason: "stop", raw: "stop", sequence: undefined },
      usage: undefined
    } as const
    assert.deepStrictEqual(Native.encodeAnswer(answer, summary), { content: "Hello", ...told })
    const resumed = Native.encodeAnswer(answer, { ...summary, resumed: true })
    assert.strictEqual(resumed["resumed"], true)
    assert.deepInclude(Result.getOrThrow(Native.decodeAnswer(resumed)), {
      id: "r-1",
      parts: [{ _tag: "Text", text: "Hello" }]
    })
  })
})

describe("a stream of our own endpoint", () => {
  it.effect.prop(
    "gives back each text and the usage, and ends once",
    { texts: Schema.Array(Schema.NonEmptyString) },
    ({ texts }) =>
      Effect.sync(() => {
        const writer = Native.writer({ usage: true })
        const frames = [
          ...writer.write({ _tag: "Started", id: "x", model: "m" }),
          ...texts.flatMap((text) => writer.write({ _tag: "Text", text })),
          ...writer.end(summary)
        ]
        assert.deepStrictEqual(bodies(frames), [
          ...texts.map((delta) => ({ delta })),
          { done: true, ...told },
          "[DONE]"
        ])
        assert.deepStrictEqual(read(frames), [
          ...texts.map((text) => ({ _tag: "Text", text }) as const),
          { _tag: "Stopped", stop: { reason: "stop", raw: "stop", sequence: undefined } },
          { _tag: "Usage", usage: { input: 18, cachedRead: 0, cachedWrite: 0, output: 7, reasoning: 0 } },
          { _tag: "Ended" }
        ])
        assert.deepStrictEqual([...writer.end(summary), ...writer.fail(problem)], [])
      })
  )

  it("tells a failure as a problem, and nothing after it", () => {
    const writer = Native.writer({ usage: true })
    const frames = [
      ...writer.write({ _tag: "Text", text: "a" }),
      ...writer.fail(problem),
      ...writer.write({ _tag: "Text", text: "b" }),
      ...writer.end(summary)
    ]
    assert.deepStrictEqual(bodies(frames), [
      { delta: "a" },
      {
        error: {
          type: "urn:agent-army:problem:provider-unavailable",
          title: "No LLM provider could answer",
          status: 502,
          detail: "openai: timed out",
          code: "ProviderUnavailable",
          request_id: "r-1"
        }
      }
    ])
    assert.deepStrictEqual(read(frames).at(-1), {
      _tag: "Failed",
      type: "urn:agent-army:problem:provider-unavailable",
      code: "ProviderUnavailable",
      message: "openai: timed out"
    })
  })

  it("titles a code that is none of ours by its status", () => {
    assert.deepInclude(objectOf(Native.encodeProblem({ ...problem, status: 429, code: "slow_down" })), {
      type: "about:blank",
      title: "Too Many Requests",
      code: "slow_down"
    })
  })

  it("is dead after a frame that is no JSON", () => {
    assert.isTrue(Result.isFailure(Native.reader().read({ event: undefined, data: "{" })))
  })
})
