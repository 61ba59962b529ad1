import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import type { Dialect, TokenUsage } from "../../../src/domain/Llm.ts"
import type { JsonObject, StreamEvent, WireEvent, WireProblem } from "../../../src/services/llm/Codec.ts"
import { codecOf } from "../../../src/services/llm/Codecs.ts"
import { makeContinuation } from "../../../src/services/llm/Continuation.ts"
import { withoutUsage } from "../../../src/services/llm/OpenAiChat.ts"
import { readAll, seenIn, summaryOf } from "./CodecStreams.ts"

/** Shapes that providers really send, the odd ones among them. */

const frame = (data: JsonObject | string, event?: string): WireEvent => ({
  event,
  data: Schema.is(Schema.String)(data) ? data : JSON.stringify(data)
})

const typed = (data: JsonObject & { readonly type: string }): WireEvent => frame(data, data.type)

const chat = (delta: JsonObject, rest: JsonObject = {}, finish: string | null = null): WireEvent =>
  frame({
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1,
    model: "gpt-5",
    choices: [{ index: 0, delta, finish_reason: finish }],
    ...rest
  })

const started = { type: "response.created", response: { id: "resp_1", model: "gpt-5" } }
const messageStart = {
  type: "message_start",
  message: {
    id: "msg_1",
    model: "claude",
    usage: {
      input_tokens: 25,
      cache_read_input_tokens: 100,
      cache_creation_input_tokens: 7,
      output_tokens: 1
    }
  }
}

const died = (dialect: Dialect, frames: ReadonlyArray<WireEvent>): string | undefined => {
  const reader = codecOf[dialect].reader()
  return frames.map((frame) => reader.read(frame)).find(Result.isFailure)?.failure
}

const usageOf = (events: ReadonlyArray<StreamEvent>): TokenUsage | undefined => seenIn(events).usage

describe("a reader of chat completions", () => {
  it("counts cached tokens once", () => {
    const usage = {
      prompt_tokens: 100,
      completion_tokens: 20,
      total_tokens: 120,
      prompt_tokens_details: { cached_tokens: 60, cache_write_tokens: 10 },
      completion_tokens_details: { reasoning_tokens: 5 }
    }
    const counted = { input: 30, cachedRead: 60, cachedWrite: 10, output: 20, reasoning: 5 }
    assert.deepStrictEqual(usageOf(readAll("openai-chat", [chat({}, { choices: [], usage })])), counted)
    // Some send it with the last words, in place of a chunk of its own.
    const last = readAll("openai-chat", [chat({ content: "bye" }, { usage }, "stop"), frame("[DONE]")])
    assert.deepStrictEqual(usageOf(last), counted)
    assert.deepStrictEqual(seenIn(last).said, [{ tag: "Text", text: "bye" }])
    assert.strictEqual(seenIn(last).reason, "stop")
    assert.isTrue(seenIn(last).ended)
  })

  it("tells calls apart where a provider gives all of them the same index, or none", () => {
    const call = (id: string, rest: JsonObject) => ({
      id,
      type: "function",
      function: { name: id, arguments: "{}" },
      ...rest
    })
    for (const rest of [{ index: 0 }, {}]) {
      const events = readAll("openai-chat", [
        chat({ role: "assistant", tool_calls: [call("a", rest)] }),
        chat({ tool_calls: [call("b", rest)] }, {}, "tool_calls")
      ])
      assert.deepStrictEqual(
        seenIn(events).calls.map(({ id }) => id),
        ["a", "b"]
      )
      assert.strictEqual(seenIn(events).reason, "tool_calls")
    }
  })

  it("hears an error in either form, and takes no enum for closed", () => {
    const error = {
      error: { message: "too much", type: "rate_limit_error", code: "rate_limit_exceeded", param: null }
    }
    const failed = {
      _tag: "Failed",
      type: "rate_limit_error",
      code: "rate_limit_exceeded",
      message: "too much"
    }
    assert.deepStrictEqual<unknown>(readAll("openai-chat", [frame(error)]), [failed])
    assert.deepStrictEqual<unknown>(readAll("openai-chat", [frame(error, "error")]), [failed])
    const [, stopped] = readAll("openai-chat", [chat({}, {}, "tired")])
    assert.deepStrictEqual(stopped, {
      _tag: "Stopped",
      stop: { reason: "other", raw: "tired", sequence: undefined }
    })
  })

  it("knows a broken frame, and says nothing of what was in it", () => {
    const said = died("openai-chat", [frame('{"choices": [{"delta": {"content": "secre')])
    assert.isString(said)
    assert.notInclude(said, "secre")
    assert.isString(died("openai-chat", [frame("5")]))
  })
})

describe("a reader of messages", () => {
  it("adds the counters of the end to those of the start, and counts none twice", () => {
    const events = readAll("anthropic-messages", [
      typed(messageStart),
      typed({ type: "ping" }),
      typed({
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { output_tokens: 15, input_tokens: null, output_tokens_details: { thinking_tokens: 4 } }
      }),
      typed({ type: "message_stop" })
    ])
    assert.deepStrictEqual(usageOf(events), {
      input: 25,
      cachedRead: 100,
      cachedWrite: 7,
      output: 15,
      reasoning: 4
    })
  })

  it("reads calls among blocks of other kinds, without arguments, and with all of them at once", () => {
    const block = (index: number, content_block: JsonObject) =>
      typed({ type: "content_block_start", index, content_block })
    const stop = (index: number) => typed({ type: "content_block_stop", index })
    const events = readAll("anthropic-messages", [
      typed(messageStart),
      block(0, { type: "thinking", thinking: "", signature: "" }),
      typed({ type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "hm" } }),
      typed({ type: "content_block_delta", index: 0, delta: { type: "signature_delta", signature: "x" } }),
      stop(0),
      block(1, { type: "server_tool_use", id: "srv", name: "web_search", input: {} }),
      typed({
        type: "content_block_delta",
        index: 1,
        delta: { type: "input_json_delta", partial_json: '{"q":1}' }
      }),
      stop(1),
      block(2, { type: "tool_use", id: "a", name: "none", input: {} }),
      typed({ type: "content_block_delta", index: 2, delta: { type: "input_json_delta", partial_json: "" } }),
      stop(2),
      block(3, { type: "tool_use", id: "b", name: "whole", input: { at: 1 } }),
      stop(3),
      block(4, { type: "novel", text: "?" }),
      typed({ type: "content_block_delta", index: 4, delta: { type: "novel_delta" } }),
      stop(4),
      typed({ type: "novel_event" })
    ])
    assert.deepStrictEqual(
      events.filter((event) => event._tag !== "Started" && event._tag !== "Usage"),
      [
        { _tag: "Reasoning", text: "hm" },
        { _tag: "ToolCall", index: 0, id: "a", name: "none" },
        { _tag: "ToolArguments", index: 0, json: "{}" },
        { _tag: "ToolCall", index: 1, id: "b", name: "whole" },
        { _tag: "ToolArguments", index: 1, json: '{"at":1}' }
      ]
    )
  })

  it("knows every reason to stop, and one it has never seen", () => {
    const reasons = {
      end_turn: "stop",
      max_tokens: "length",
      model_context_window_exceeded: "length",
      stop_sequence: "stop_sequence",
      tool_use: "tool_calls",
      refusal: "content_filter",
      pause_turn: "pause",
      tired: "other"
    }
    for (const [raw, reason] of Object.entries(reasons)) {
      const end = typed({
        type: "message_delta",
        delta: { stop_reason: raw, stop_sequence: null },
        usage: {}
      })
      const events = readAll("anthropic-messages", [typed(messageStart), end])
      assert.strictEqual(seenIn(events).reason, reason)
    }
  })

  it("refuses what is out of order, and hears an error at any time", () => {
    assert.include(
      died("anthropic-messages", [typed(messageStart), typed(messageStart)]),
      "second message_start"
    )
    assert.isString(died("anthropic-messages", [typed({ type: "message_stop" })]))
    const delta = { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "x" } }
    assert.isString(died("anthropic-messages", [typed(messageStart), typed(delta)]))
    const error = { type: "overloaded_error", message: "Overloaded", details: { error_code: "overloaded" } }
    assert.deepStrictEqual(readAll("anthropic-messages", [typed({ type: "error", error })]), [
      { _tag: "Failed", type: "overloaded_error", code: "overloaded", message: "Overloaded" }
    ])
  })
})

describe("a reader of responses", () => {
  const call = { type: "function_call", id: "fc_1", call_id: "call_1", name: "look", arguments: "" }
  const at = { item_id: "fc_1", output_index: 0 }
  const called = {
    id: "call_1",
    name: "look",
    arguments: { at: 1 }
  }

  it("finds arguments wherever they are carried: deltas, their end, the item's end, or the end of all", () => {
    const added = typed({ type: "response.output_item.added", output_index: 0, item: call })
    const delta = typed({ type: "response.function_call_arguments.delta", ...at, delta: '{"at"' })
    const done = typed({ type: "response.function_call_arguments.done", ...at, arguments: '{"at":1}' })
    const item = { ...call, arguments: '{"at":1}' }
    const itemDone = typed({ type: "response.output_item.done", output_index: 0, item })
    const completed = typed({
      type: "response.completed",
      response: { status: "completed", output: [item], usage: { input_tokens: 5, output_tokens: 2 } }
    })
    for (const frames of [
      [added, delta, done, itemDone, completed],
      [added, done, itemDone, completed],
      [added, itemDone, completed],
      [added, delta, itemDone, completed],
      [itemDone, completed],
      [completed]
    ]) {
      const seen = seenIn(readAll("openai-responses", [typed(started), ...frames]))
      assert.deepStrictEqual(seen.calls, [called])
      assert.strictEqual(seen.reason, "tool_calls")
      assert.isTrue(seen.ended)
      assert.deepStrictEqual(seen.usage, { input: 5, cachedRead: 0, cachedWrite: 0, output: 2, reasoning: 0 })
    }
  })

  it("finds text that only an end carries, and doubles none", () => {
    const text = { item_id: "m", output_index: 0, content_index: 0 }
    const delta = typed({ type: "response.output_text.delta", ...text, delta: "hel" })
    const done = typed({ type: "response.output_text.done", ...text, text: "hello" })
    const item = { type: "message", id: "m", content: [{ type: "output_text", text: "hello" }] }
    const itemDone = typed({ type: "response.output_item.done", output_index: 0, item })
    for (const frames of [[delta, done, itemDone], [done, itemDone], [itemDone], [delta, itemDone]]) {
      const seen = seenIn(readAll("openai-responses", [typed(started), ...frames]))
      assert.deepStrictEqual(seen.said, [{ tag: "Text", text: "hello" }])
    }
  })

  it("tells a failed response from one that is incomplete", () => {
    const failed = typed({
      type: "response.failed",
      response: {
        status: "failed",
        error: { code: "server_error", message: "sorry" },
        usage: { output_tokens: 3 }
      }
    })
    const events = readAll("openai-responses", [typed(started), failed])
    assert.deepStrictEqual(events.at(-1), {
      _tag: "Failed",
      type: null,
      code: "server_error",
      message: "sorry"
    })
    assert.strictEqual(usageOf(events)?.output, 3)
    const incomplete = typed({
      type: "response.incomplete",
      response: { status: "incomplete", incomplete_details: { reason: "max_output_tokens" }, output: [] }
    })
    assert.strictEqual(seenIn(readAll("openai-responses", [typed(started), incomplete])).reason, "length")
    assert.isString(died("openai-responses", [typed(started), typed(started)]))
  })

  it("hears an error, flat or nested", () => {
    const failed = [{ _tag: "Failed", type: null, code: "c", message: "m" }]
    const flat = typed({ type: "error", code: "c", message: "m", param: null })
    const nested = typed({ type: "error", error: { code: "c", message: "m" } })
    assert.deepStrictEqual<unknown>(readAll("openai-responses", [flat]), failed)
    assert.deepStrictEqual<unknown>(readAll("openai-responses", [nested]), failed)
  })
})

describe("a stream in blocks", () => {
  it("goes on writing into the text that the first provider left open, under the provider's own numbers", () => {
    const writer = codecOf["anthropic-messages"].writer({ usage: true })
    const block = (index: number, type: string) =>
      typed({ type: "content_block_start", index, content_block: { type, text: "" } })
    for (const frame of [
      typed(messageStart),
      block(0, "redacted_thinking"),
      typed({ type: "content_block_stop", index: 0 }),
      block(1, "text")
    ]) {
      writer.adopt([], frame)
    }
    const written = writer.write({ _tag: "Text", text: "on" })
    assert.deepStrictEqual(
      written.map(({ data }) => data),
      ['{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"on"}}']
    )
  })
})

describe("a native stream", () => {
  it("is what the contract says, byte by byte", () => {
    const writer = codecOf.native.writer({ usage: false })
    const summary = {
      ...summaryOf({ input: 3, cachedRead: 2, cachedWrite: 1, output: 4, reasoning: 0 }),
      resumed: true
    }
    const frames = [
      ...writer.write({ _tag: "Started", id: "x", model: "y" }),
      ...writer.write({ _tag: "Text", text: "hi" }),
      ...writer.end(summary)
    ]
    assert.deepStrictEqual(
      frames.map(({ data }) => data),
      [
        '{"delta":"hi"}',
        '{"done":true,"model":"a-model","provider":"openai","usage":{"prompt_tokens":6,"completion_tokens":4,"total_tokens":10,"cost_usd":"0.00012"},"tenant_id":"00000000-0000-4000-8000-000000000001","request_id":"request-1","guard":{"flagged":false,"score":0,"categories":[]},"resumed":true}',
        "[DONE]"
      ]
    )
  })
})

describe("an error", () => {
  const problem = (status: number): WireProblem => ({
    status,
    code: "BudgetExceeded",
    type: null,
    message: "spent",
    param: "model",
    requestId: "r"
  })

  it("stands in each vendor's own envelope", () => {
    const openai = {
      error: { message: "spent", type: "insufficient_quota", param: "model", code: "BudgetExceeded" }
    }
    assert.deepStrictEqual<unknown>(codecOf["openai-chat"].encodeProblem(problem(402)), openai)
    assert.deepStrictEqual<unknown>(codecOf["openai-responses"].encodeProblem(problem(402)), openai)
    assert.deepStrictEqual<unknown>(codecOf["anthropic-messages"].encodeProblem(problem(402)), {
      type: "error",
      error: { type: "billing_error", message: "spent", details: { error_code: "BudgetExceeded" } },
      request_id: "r"
    })
    assert.deepStrictEqual<unknown>(codecOf.native.encodeProblem(problem(402)), {
      type: "urn:agent-army:problem:budget-exceeded",
      title: "The monthly budget is spent",
      status: 402,
      detail: "spent",
      code: "BudgetExceeded",
      request_id: "r"
    })
  })

  const types: ReadonlyArray<readonly [number, string, string]> = [
    [400, "invalid_request_error", "invalid_request_error"],
    [401, "authentication_error", "authentication_error"],
    [403, "permission_error", "permission_error"],
    [404, "not_found_error", "invalid_request_error"],
    [409, "conflict_error", "invalid_request_error"],
    [413, "request_too_large", "invalid_request_error"],
    [422, "invalid_request_error", "invalid_request_error"],
    [429, "rate_limit_error", "rate_limit_error"],
    [502, "api_error", "server_error"],
    [504, "timeout_error", "server_error"],
    [529, "overloaded_error", "server_error"]
  ]
  for (const [status, anthropic, openai] of types) {
    it(`of status ${status} has each vendor's class`, () => {
      const told = (dialect: Dialect) => JSON.stringify(codecOf[dialect].encodeProblem(problem(status)))
      assert.include(told("anthropic-messages"), `"type":"${anthropic}"`)
      assert.include(told("openai-chat"), `"type":"${openai}"`)
    })
  }
})

describe("a frame without usage", () => {
  it("is the frame itself where it had none, though its text may speak of it", () => {
    const plain = chat({ content: 'the "usage" of words' })
    assert.strictEqual(withoutUsage(plain), plain)
    const done = frame("[DONE]")
    assert.strictEqual(withoutUsage(done), done)
  })

  it("keeps its words where they came together with usage", () => {
    const kept = withoutUsage(chat({ content: "bye" }, { usage: { prompt_tokens: 1 } }))
    assert.deepStrictEqual(kept, chat({ content: "bye" }))
    assert.isUndefined(withoutUsage(chat({}, { choices: [], usage: { prompt_tokens: 1 } })))
  })
})

describe("a continuation", () => {
  const joined = (text: string, pieces: ReadonlyArray<string>) => {
    const { join } = makeContinuation(text)
    return text + pieces.map(join).join("")
  }
  const table: ReadonlyArray<readonly [string, ReadonlyArray<string>, string]> = [
    ["one ", [" two"], "one two"],
    ["one ", ["two"], "one two"],
    ["one", [" two"], "one two"],
    ["on", ["e two"], "one two"],
    ["a:\n", ["\n", "  b"], "a:\n  b"],
    ["a:\n ", ["\n  b"], "a:\n  b"],
    ["one\n\n", ["", "\n", "\n", "\n"], "one\n\n\n"]
  ]
  for (const [text, pieces, whole] of table) {
    it(`of ${JSON.stringify(text)} by ${JSON.stringify(pieces)} loses and doubles nothing`, () => {
      assert.strictEqual(joined(text, pieces), whole)
    })
  }

  it.prop(
    "never sends white space last, and never loses a word",
    [Schema.String, Schema.String],
    ([text, rest]) => {
      const { sent } = makeContinuation(text)
      assert.strictEqual(sent, sent.trimEnd())
      assert.isTrue(joined(text, [rest]).startsWith(text))
      assert.isTrue(joined(text, [rest]).endsWith(rest.trimStart()))
    }
  )
})
