import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import OpenAI, { APIError } from "openai"
import type { JsonObject, StreamEvent, Summary, WireEvent } from "../../../src/services/llm/Codec.ts"
import { listOf, numberOf, objectOf, parsed, textOf } from "../../../src/services/llm/Json.ts"
import { OpenAiResponses } from "../../../src/services/llm/OpenAiResponses.ts"

const usage = { input: 10, cachedRead: 5, cachedWrite: 3, output: 7, reasoning: 2 }

const summary: Summary = {
  answeredBy: { provider: "anthropic", model: "claude-opus-5-5" },
  usage,
  costUsd: "0.000123",
  resumed: false,
  tenantId: "t-1",
  requestId: "r-1",
  guard: { flagged: false, score: 0, categories: [] }
}

const wireUsage = {
  input_tokens: 18,
  input_tokens_details: { cached_tokens: 5, cache_write_tokens: 3 },
  output_tokens: 7,
  output_tokens_details: { reasoning_tokens: 2 },
  total_tokens: 25
}

const problem = {
  status: 502,
  code: "ProviderUnavailable",
  type: null,
  message: "openai: timed out",
  param: null,
  requestId: "r-1"
}

/** What a model does: it speaks, or calls tools, several of them at once in mixed pieces. */
const Step = Schema.Union([
  Schema.Struct({ texts: Schema.NonEmptyArray(Schema.NonEmptyString) }),
  Schema.Struct({ calls: Schema.NonEmptyArray(Schema.Array(Schema.NonEmptyString)) })
])

const Script = Schema.Struct({
  steps: Schema.Array(Step),
  stop: Schema.Literals(["stop", "length", "content_filter"]),
  cut: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))
})

const eventsOf = ({ steps, stop }: typeof Script.Type): ReadonlyArray<StreamEvent> => {
  let index = 0
  const told = steps.flatMap((step): ReadonlyArray<StreamEvent> => {
    if ("texts" in step) return step.texts.map((text) => ({ _tag: "Text", text }))
    const first = index
    index += step.calls.length
    const begun = step.calls.map((_, at): StreamEvent => ({
      _tag: "ToolCall",
      index: first + at,
      id: `call_${first + at}`,
      name: `tool_${at}`
    }))
    const longest = Math.max(...step.calls.map((pieces) => pieces.length))
    const pieces = Array.from({ length: longest }, (_, round) =>
      step.calls.flatMap((all, at): ReadonlyArray<StreamEvent> => {
        const json = all[round]
        return json === undefined ? [] : [{ _tag: "ToolArguments", index: first + at, json }]
      })
    )
    return [...begun, ...pieces.flat()]
  })
  const reason = stop === "stop" && index > 0 ? "tool_calls" : stop
  return [
    { _tag: "Started", id: "resp_1", model: "gpt-5" },
    ...told,
    { _tag: "Stopped", stop: { reason, raw: reason, sequence: undefined } },
    { _tag: "Usage", usage },
    { _tag: "Ended" }
  ]
}

/** What a caller has of a stream when it is over. */
const gathered = (events: ReadonlyArray<StreamEvent>) => {
  const calls = new Map<number, { id: string; name: string; arguments: string }>()
  let text = ""
  for (const event of events) {
    if (event._tag === "Text") text += event.text
    if (event._tag === "ToolCall") calls.set(event.index, { id: event.id, name: event.name, arguments: "" })
    if (event._tag === "ToolArguments") {
      const call = calls.get(event.index)
      assert.isDefined(call)
      call.arguments += event.json
    }
  }
  return {
    text,
    calls: [...calls.values()],
    stops: events.flatMap((event) => (event._tag === "Stopped" ? [event.stop.reason] : [])),
    usages: events.flatMap((event) => (event._tag === "Usage" ? [event.usage] : [])),
    ends: events.filter(({ _tag }) => _tag === "Ended").length
  }
}

const written = (events: ReadonlyArray<StreamEvent>): ReadonlyArray<WireEvent> => {
  const writer = OpenAiResponses.writer({ usage: true })
  return [...events.flatMap((event) => writer.write(event)), ...writer.end(summary)]
}

const read = (frames: ReadonlyArray<WireEvent>): ReadonlyArray<StreamEvent> => {
  const reader = OpenAiResponses.reader()
  return frames.flatMap((frame) => Result.getOrThrow(reader.read(frame)))
}

const bodies = (frames: ReadonlyArray<WireEvent>) => frames.map(({ data }) => objectOf(parsed(data)))

const types = (frames: ReadonlyArray<WireEvent>) =>
  bodies(frames).map(({ type }) => (textOf(type) ?? "").replace("response.", ""))

const toFrame = (body: JsonObject): WireEvent => ({ event: textOf(body["type"]), data: JSON.stringify(body) })

/** The final response of OpenAI's own client, which fails on a stream whose parts don't fit together. */
const finalResponse = (frames: ReadonlyArray<WireEvent>) =>
  Effect.tryPromise(() => {
    const text = frames.map(({ data, event }) => `event: ${event}\ndata: ${data}\n\n`).join("")
    const client = new OpenAI({
      apiKey: "none",
      maxRetries: 0,
      logLevel: "off",
      fetch: () => Promise.resolve(new Response(text, { headers: { "content-type": "text/event-stream" } }))
    })
    return client.responses.stream({ model: "gpt-5", input: "Hi" }).finalResponse()
  })

const assertFramed = (frames: ReadonlyArray<WireEvent>) => {
  assert.strictEqual(types(frames).filter((type) => type === "created").length, 1)
  bodies(frames).forEach((body, index) => {
    assert.strictEqual(body["sequence_number"], index)
    assert.strictEqual(body["type"], frames[index]?.event)
  })
}

/** The same stream as a provider would send it: ids that are none of ours, and a reasoning item before all others. */
const foreign = (frames: ReadonlyArray<WireEvent>): ReadonlyArray<WireEvent> => {
  const renamed = frames.map(({ data }) =>
    objectOf(parsed(data.replaceAll('"msg_1_', '"item-a-').replaceAll('"fc_1_', '"item-b-')))
  )
  const item = { id: "rs_1", type: "reasoning", summary: [] }
  const moved = renamed.map((body) => {
    const index = numberOf(body["output_index"])
    const response = objectOf(body["response"])
    const output = listOf(response["output"])
    return {
      ...body,
      ...(index === undefined ? undefined : { output_index: index + 1 }),
      ...(output.length === 0 ? undefined : { response: { ...response, output: [item, ...output] } })
    }
  })
  return [
    ...moved.slice(0, 2),
    { type: "response.output_item.added", output_index: 0, item },
    { type: "response.output_item.done", output_index: 0, item },
    ...moved.slice(2)
  ].map((body, sequence_number) => toFrame({ ...body, sequence_number }))
}

describe("a stream of Responses", () => {
  it.effect.prop("gives back text, calls, usage and stop", { script: Script }, ({ script }) =>
    Effect.sync(() => {
      const events = eventsOf(script)
      const frames = written(events)
      assertFramed(frames)
      assert.deepStrictEqual(gathered(read(frames)), gathered(events))
    })
  )

  it.effect.prop(
    "gives OpenAI's client the same response",
    { script: Script },
    Effect.fnUntraced(function* ({ script }) {
      const events = eventsOf(script)
      const { calls, text } = gathered(events)
      const response = yield* finalResponse(written(events))
      assert.strictEqual(response.output_text, text)
      assert.deepStrictEqual(
        response.output.flatMap((item) =>
          item.type === "function_call"
            ? [{ id: item.call_id, name: item.name, arguments: item.arguments }]
            : []
        ),
        calls
      )
      assert.deepStrictEqual<unknown>(response.usage, wireUsage)
      assert.strictEqual(response.status, script.stop === "stop" ? "completed" : "incomplete")
      assert.strictEqual(
        response.incomplete_details?.reason,
        script.stop === "stop" ? undefined : script.stop === "length" ? "max_output_tokens" : "content_filter"
      )
    })
  )

  it.effect.prop(
    "is taken over at any frame: to go on, to end, to fail",
    { script: Script },
    Effect.fnUntraced(function* ({ script }) {
      const provider = foreign(written(eventsOf(script))).slice(0, -1)
      const passed = provider.slice(0, script.cut % (provider.length + 1))
      const takeOver = () => {
        const reader = OpenAiResponses.reader()
        const writer = OpenAiResponses.writer({ usage: true })
        const events = passed.flatMap((frame) => {
          const told = Result.getOrThrow(reader.read(frame))
          writer.adopt(told)
          return told
        })
        return { writer, before: gathered(events) }
      }

      const ended = takeOver()
      const whole = [...passed, ...ended.writer.end(summary)]
      assertFramed(whole)
      assert.deepInclude(gathered(read(whole)), {
        ...ended.before,
        stops: [ended.before.calls.length > 0 ? "tool_calls" : "stop"],
        usages: [usage],
        ends: 1
      })
      assert.strictEqual((yield* finalResponse(whole)).output_text, ended.before.text)

      const resumed = takeOver()
      const longer = [
        ...passed,
        ...[
          { _tag: "Started", id: "other", model: "claude-opus-5-5" } as const,
          { _tag: "Text", text: "and on" } as const,
          { _tag: "ToolCall", index: 0, id: "call_new", name: "tool" } as const,
          { _tag: "ToolArguments", index: 0, json: "{}" } as const
        ].flatMap((event) => resumed.writer.write(event)),
        ...resumed.writer.end(summary)
      ]
      assertFramed(longer)
      const response = yield* finalResponse(longer)
      assert.strictEqual(response.output_text, `${resumed.before.text}and on`)
      const { calls } = gathered(read(longer))
      assert.deepStrictEqual(calls, [
        ...resumed.before.calls,
        { id: "call_new", name: "tool", arguments: "{}" }
      ])

      const failed = takeOver()
      const broken = [...passed, ...failed.writer.fail(problem)]
      assert.deepStrictEqual(types(broken).at(-1), "error")
      assert.deepStrictEqual([...failed.writer.end(summary), ...failed.writer.fail(problem)], [])
      const error = yield* Effect.flip(finalResponse(broken))
      assert.instanceOf(error.cause, APIError)
      assert.deepInclude(error.cause, { code: "ProviderUnavailable" })
      assert.include(error.cause.message, "openai: timed out")
    })
  )

  it("has the whole order of events", () => {
    const frames = written(
      eventsOf({ steps: [{ texts: ["a", "b"] }, { calls: [["{", "}"]] }], stop: "stop", cut: 0 })
    )
    assert.deepStrictEqual(types(frames), [
      "created",
      "in_progress",
      "output_item.added",
      "content_part.added",
      "output_text.delta",
      "output_text.delta",
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "output_item.added",
      "function_call_arguments.delta",
      "function_call_arguments.delta",
      "function_call_arguments.done",
      "output_item.done",
      "completed"
    ])
  })

  it("goes on after events that were adopted without their frames", () => {
    const writer = OpenAiResponses.writer({ usage: true })
    const events = eventsOf({ steps: [{ texts: ["a"] }], stop: "stop", cut: 0 })
    writer.adopt(events.slice(0, 2).map((event) => ({ ...event })))
    assert.deepStrictEqual(types(writer.end(summary)), [
      "output_text.done",
      "content_part.done",
      "output_item.done",
      "completed"
    ])
  })

  it("adds nothing to one that ended by itself", () => {
    const reader = OpenAiResponses.reader()
    const writer = OpenAiResponses.writer({ usage: true })
    for (const frame of written(eventsOf({ steps: [], stop: "stop", cut: 0 }))) {
      writer.adopt(Result.getOrThrow(reader.read(frame)))
    }
    assert.deepStrictEqual([...writer.end(summary), ...writer.fail(problem)], [])
  })
})

describe("a reader of Responses", () => {
  const call = { id: "fc_x", type: "function_call", call_id: "c", name: "f", arguments: '{"a":1}' }
  const message = { id: "m", type: "message", content: [{ type: "output_text", text: "whole" }] }
  const toldOf = (...frames: ReadonlyArray<JsonObject>) => gathered(read(frames.map(toFrame)))
  const called = [{ id: "c", name: "f", arguments: '{"a":1}' }]

  it("takes arguments and texts that come only with the end of a part, of an item or of all, once", () => {
    const added = { type: "response.output_item.added", output_index: 0, item: { ...call, arguments: "" } }
    const argued = { type: "response.function_call_arguments.done", output_index: 0, arguments: '{"a":1}' }
    const done = { type: "response.output_item.done", output_index: 0, item: call }
    const completed = {
      type: "response.completed",
      response: { status: "completed", output: [message, call] }
    }
    assert.deepStrictEqual(toldOf(added, argued, done).calls, called)
    assert.deepStrictEqual(toldOf(added, done).calls, called)
    assert.deepStrictEqual(toldOf(done).calls, called)
    assert.deepInclude(toldOf(completed), { calls: called, text: "whole", stops: ["tool_calls"] })
    const texts = { type: "response.output_text.done", output_index: 1, content_index: 0, text: "whole" }
    const messaged = { type: "response.output_item.done", output_index: 1, item: message }
    const half = { type: "response.output_text.delta", output_index: 1, content_index: 0, delta: "wh" }
    assert.strictEqual(toldOf(texts, messaged).text, "whole")
    assert.strictEqual(toldOf(messaged).text, "whole")
    assert.deepInclude(toldOf(added, done, half, texts, messaged, completed), {
      calls: called,
      text: "whole"
    })
  })

  it("passes over what it does not know, and tells failures", () => {
    assert.deepStrictEqual(read([toFrame({ type: "response.of_tomorrow", output_index: "x" })]), [])
    const expected = { _tag: "Failed", type: null, code: "server_error", message: "Overloaded" } as const
    const error = { code: "server_error", message: "Overloaded" }
    assert.deepStrictEqual(read([toFrame({ type: "error", ...error, param: null })]), [expected])
    assert.deepStrictEqual(read([{ event: "error", data: JSON.stringify({ error }) }]), [expected])
    const failed = { type: "response.failed", response: { id: "r", model: "m", error } }
    assert.deepStrictEqual(read([toFrame(failed)]).at(-1), expected)
    assert.isTrue(Result.isFailure(OpenAiResponses.reader().read({ event: undefined, data: "{" })))
  })
})

describe("a request of Responses", () => {
  const tool = { name: "f", description: "d", parameters: { type: "object" }, strict: true }
  const body = {
    model: "gpt-5",
    instructions: "Be brief",
    input: [
      { role: "developer", content: "In French" },
      {
        type: "message",
        role: "user",
        content: [
          { type: "input_text", text: "See" },
          { type: "input_image", image_url: "https://a/b.png", detail: "low" }
        ]
      },
      { type: "reasoning", id: "rs", summary: [] },
      { role: "assistant", content: [{ type: "output_text", text: "Calling" }] },
      { type: "function_call", call_id: "c1", name: "f", arguments: "{}" },
      { type: "function_call", call_id: "c2", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "c1", output: "1" },
      { type: "function_call_output", call_id: "c2", output: [{ type: "input_text", text: "2" }] }
    ],
    tools: [{ type: "function", ...tool }],
    tool_choice: { type: "function", name: "f" },
    parallel_tool_calls: false,
    max_output_tokens: 100,
    text: { format: { type: "json_schema", name: "s", schema: { type: "object" } }, verbosity: "low" },
    reasoning: { effort: "high", summary: "auto" },
    of_tomorrow: true
  }

  it("becomes a conversation, and is the same one after it was written again", () => {
    const conversation = Result.getOrThrow(OpenAiResponses.decodeRequest(body))
    assert.deepStrictEqual(conversation, {
      system: ["Be brief", "In French"],
      turns: [
        {
          role: "user",
          parts: [
            { _tag: "Text", text: "See" },
            { _tag: "Image", url: "https://a/b.png", detail: "low" }
          ]
        },
        {
          role: "assistant",
          parts: [
            { _tag: "Text", text: "Calling" },
            { _tag: "ToolCall", id: "c1", name: "f", arguments: "{}" },
            { _tag: "ToolCall", id: "c2", name: "f", arguments: "{}" }
          ]
        },
        {
          role: "user",
          parts: [
            { _tag: "ToolResult", id: "c1", text: "1", isError: false },
            { _tag: "ToolResult", id: "c2", text: "2", isError: false }
          ]
        }
      ],
      tools: [tool],
      toolChoice: { _tag: "Tool", name: "f" },
      parallelToolCalls: false,
      maxTokens: 100,
      temperature: undefined,
      topP: undefined,
      stop: [],
      format: { _tag: "Schema", name: "s", schema: { type: "object" } },
      reasoningEffort: "high"
    })
    const again = OpenAiResponses.encodeRequest(conversation, "gpt-5", true)
    assert.deepInclude(again, { model: "gpt-5", stream: true, store: false })
    assert.deepStrictEqual(Result.getOrThrow(OpenAiResponses.decodeRequest(again)), {
      ...conversation,
      system: ["Be brief\n\nIn French"]
    })
  })

  it("is refused where it is wrong", () => {
    const refused = OpenAiResponses.decodeRequest({ input: "Hi", max_output_tokens: "many" })
    assert.isTrue(Result.isFailure(refused))
    if (Result.isFailure(refused)) {
      assert.deepStrictEqual(
        refused.failure.errors?.map(({ path }) => path),
        [["max_output_tokens"]]
      )
    }
  })

  it("goes to another model, or on from a text, untouched otherwise", () => {
    assert.deepStrictEqual(OpenAiResponses.forModel(body, "gpt-6", false), { ...body, model: "gpt-6" })
    assert.deepStrictEqual(OpenAiResponses.forModel(body, "gpt-6", true), {
      ...body,
      model: "gpt-6",
      stream: true
    })
    assert.deepStrictEqual(OpenAiResponses.continueFrom({ ...body, input: "Hi" }, "so far"), {
      ...body,
      input: [
        { role: "user", content: "Hi" },
        { role: "assistant", content: "so far" }
      ]
    })
  })
})

describe("an answer of Responses", () => {
  it("is the same one after it was written and read", () => {
    const answer = {
      id: "resp_1",
      model: "gpt-5",
      parts: [
        { _tag: "Text", text: "Hello" },
        { _tag: "Refusal", text: "No" },
        { _tag: "ToolCall", id: "c", name: "f", arguments: "{}" }
      ],
      stop: { reason: "tool_calls", raw: "completed", sequence: undefined },
      usage
    } as const
    const body = OpenAiResponses.encodeAnswer(answer, summary)
    assert.deepStrictEqual(body["usage"], wireUsage)
    assert.deepStrictEqual(Result.getOrThrow(OpenAiResponses.decodeAnswer(body)), answer)
    const cut = {
      ...answer,
      stop: { reason: "length", raw: "max_output_tokens", sequence: undefined }
    } as const
    const short = OpenAiResponses.encodeAnswer(cut, summary)
    assert.strictEqual(short["status"], "incomplete")
    assert.deepStrictEqual(Result.getOrThrow(OpenAiResponses.decodeAnswer(short)), cut)
  })

  it("fails where the response failed or is none", () => {
    const failed = { status: "failed", output: [], error: { code: "server_error", message: "Overloaded" } }
    assert.deepStrictEqual(OpenAiResponses.decodeAnswer(failed), Result.fail("Overloaded"))
    assert.isTrue(Result.isFailure(OpenAiResponses.decodeAnswer({})))
  })
})
