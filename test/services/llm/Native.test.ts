import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { JsonObject, StreamEvent, Summary, WireEvent } from "../../../src/services/llm/Codec.ts"
import { parseObject } from "../../../src/services/llm/JsonAt.ts"
import { native } from "../../../src/services/llm/Native.ts"

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

const read = (frames: ReadonlyArray<WireEvent>): ReadonlyArray<StreamEvent> => {
  const reader = native.reader()
  return frames.flatMap((frame) => Result.getOrThrow(reader.read(frame)))
}

const bodies = (frames: ReadonlyArray<WireEvent>) => frames.map(({ data }) => parseObject(data) ?? data)

const refusedPaths = (body: JsonObject) =>
  Result.match(native.decodeRequest(body), {
    onSuccess: () => [],
    onFailure: ({ errors }) => (errors ?? []).map(({ path }) => path.join("."))
  })

const messages = [{ role: "user", content: "Hi" }]

describe("a request of our own endpoint", () => {
  it("becomes a conversation, with unknown fields left aside", () => {
    const conversation = Result.getOrThrow(
      native.decodeRequest({
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
    assert.deepStrictEqual(native.forModel(body, "gpt-5", true), { ...body, model: "gpt-5", stream: true })
    assert.deepStrictEqual(native.continueFrom(body, "so far"), {
      ...body,
      messages: [...messages, { role: "assistant", content: "so far" }]
    })
  })
})

describe("a stream of our own endpoint", () => {
  it("tells a failure as a problem, and nothing after it", () => {
    const writer = native.writer({ usage: true })
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
    assert.deepInclude(native.encodeProblem({ ...problem, status: 429, code: "slow_down" }), {
      type: "about:blank",
      title: "Too Many Requests",
      code: "slow_down"
    })
  })

  it("is dead after a frame that is no JSON", () => {
    assert.isTrue(Result.isFailure(native.reader().read({ event: undefined, data: "{" })))
  })
})
