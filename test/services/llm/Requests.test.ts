import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { Dialect } from "../../../src/domain/Llm.ts"
import type { Conversation, JsonObject, Part, Turn } from "../../../src/services/llm/Codec.ts"
import { codecOf } from "../../../src/services/llm/Codecs.ts"
import { GO_ON, takesPrefill } from "../../../src/services/llm/Continuation.ts"
import { jsonAt, listAt, parseObject } from "../../../src/services/llm/JsonAt.ts"
import { mergedTurns } from "../../../src/services/llm/MergedTurns.ts"

const Word = Schema.String.check(Schema.isPattern(/^[a-z]{1,8}$/))
const Saying = Schema.Union([
  Schema.TaggedStruct("Text", { text: Word }),
  Schema.TaggedStruct("Image", { kind: Schema.Literals(["https", "data"]) })
])
const Exchange = Schema.Struct({
  asked: Schema.Array(Saying).check(Schema.isMinLength(1), Schema.isMaxLength(3)),
  answered: Schema.Array(Word).check(Schema.isMaxLength(2)),
  calls: Schema.Array(Schema.Struct({ value: Word, failed: Schema.Boolean })).check(Schema.isMaxLength(2))
})
const Asked = Schema.Struct({
  system: Schema.Array(Word).check(Schema.isMaxLength(3)),
  exchanges: Schema.Array(Exchange).check(Schema.isMinLength(1), Schema.isMaxLength(3)),
  tools: Schema.Array(
    Schema.Struct({ description: Schema.optional(Word), strict: Schema.optional(Schema.Boolean) })
  ).check(Schema.isMaxLength(2)),
  choice: Schema.Literals(["Auto", "None", "Required", "Tool", "unsaid"]),
  parallel: Schema.optional(Schema.Boolean),
  maxTokens: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9999 }))),
  temperature: Schema.optional(Schema.Literals([0, 0.5, 1])),
  topP: Schema.optional(Schema.Literals([0.1, 1])),
  stop: Schema.Array(Word).check(Schema.isMaxLength(3)),
  format: Schema.Literals(["Json", "Schema", "unsaid"]),
  effort: Schema.optional(Schema.Literals(["low", "medium", "high", "xhigh", "max"]))
})

const PIXEL = "data:image/png;base64,iVBORw0KGgo="

const conversationOf = (asked: typeof Asked.Type): Conversation => {
  const turns: Array<Turn> = []
  let calls = 0
  for (const exchange of asked.exchanges) {
    const user = exchange.asked.map((part): Part =>
      part._tag === "Text"
        ? part
        : { _tag: "Image", url: part.kind === "data" ? PIXEL : "https://a.example/b.png", detail: undefined }
    )
    turns.push({ role: "user", parts: user })
    const made = exchange.calls.map((call) => ({ ...call, id: `call_${calls++}` }))
    const assistant = [
      ...exchange.answered.map((text): Part => ({ _tag: "Text", text })),
      ...made.map(({ id, value }): Part => ({
        _tag: "ToolCall",
        id,
        name: "tool_0",
        arguments: JSON.stringify({ value })
      }))
    ]
    if (assistant.length > 0) turns.push({ role: "assistant", parts: assistant })
    if (made.length > 0) {
      turns.push({
        role: "user",
        parts: made.map(({ failed, id, value }): Part => ({
          _tag: "ToolResult",
          id,
          text: value,
          isError: failed
        }))
      })
    }
  }
  const tools = asked.tools.map(({ description, strict }, index) => ({
    name: `tool_${index}`,
    description,
    strict,
    parameters: { type: "object", properties: { value: { type: "string" } } }
  }))
  const choice = asked.choice === "unsaid" || tools.length === 0 ? undefined : asked.choice
  return {
    system: asked.system,
    turns: mergedTurns(turns),
    tools,
    toolChoice:
      choice === undefined
        ? undefined
        : choice === "Tool"
          ? { _tag: "Tool", name: "tool_0" }
          : { _tag: choice },
    parallelToolCalls: tools.length === 0 ? undefined : asked.parallel,
    maxTokens: asked.maxTokens,
    temperature: asked.temperature,
    topP: asked.topP,
    stop: asked.stop,
    format:
      asked.format === "unsaid"
        ? undefined
        : asked.format === "Json"
          ? { _tag: "Json" }
          : { _tag: "Schema", name: "answer", schema: { type: "object" }, strict: true },
    reasoningEffort: asked.effort
  }
}

const withParts = (
  conversation: Conversation,
  change: (part: Part) => ReadonlyArray<Part>
): ReadonlyArray<Turn> =>
  mergedTurns(
    conversation.turns
      .map((turn) => ({ ...turn, parts: turn.parts.flatMap(change) }))
      .filter((turn) => turn.parts.length > 0)
  )

/** A result comes first in its turn, where a dialect says it before all else. */
const resultsFirst = (turns: ReadonlyArray<Turn>): ReadonlyArray<Turn> =>
  turns.map((turn) => ({
    ...turn,
    parts: [
      ...turn.parts.filter((part) => part._tag === "ToolResult"),
      ...turn.parts.filter((part) => part._tag !== "ToolResult")
    ]
  }))

const unfailed = (part: Part): ReadonlyArray<Part> => [
  part._tag === "ToolResult" ? { ...part, isError: false } : part
]

/** What each dialect can say of a conversation. */
const sayable: Readonly<Record<Dialect, (conversation: Conversation) => Conversation>> = {
  "openai-chat": (conversation) => ({
    ...conversation,
    turns: resultsFirst(withParts(conversation, unfailed))
  }),
  "openai-responses": (conversation) => ({
    ...conversation,
    // An image has a detail here, always.
    turns: withParts(conversation, (part) =>
      part._tag === "Image" ? [{ ...part, detail: "auto" }] : unfailed(part)
    ),
    tools: conversation.tools.map((tool) => ({ ...tool, strict: tool.strict ?? false })),
    stop: []
  }),
  "anthropic-messages": (conversation) => ({
    ...conversation,
    system:
      conversation.format?._tag === "Json"
        ? [...conversation.system, "Answer with one JSON value and nothing else."]
        : conversation.system,
    turns: resultsFirst(conversation.turns),
    toolChoice:
      conversation.toolChoice ??
      (conversation.parallelToolCalls === undefined ? undefined : { _tag: "Auto" }),
    parallelToolCalls: conversation.toolChoice?._tag === "None" ? undefined : conversation.parallelToolCalls,
    maxTokens: conversation.maxTokens ?? 4096,
    temperature: undefined,
    topP: undefined,
    format: conversation.format?._tag === "Json" ? undefined : conversation.format
  }),
  native: (conversation) => ({
    ...conversation,
    turns: conversation.turns.map(({ parts, role }) => {
      const text = parts.map((part) => (part._tag === "Text" ? part.text : "")).join("")
      return { role, parts: text === "" ? [] : [{ _tag: "Text", text }] }
    }),
    tools: [],
    toolChoice: undefined,
    parallelToolCalls: undefined,
    topP: undefined,
    stop: [],
    format: undefined,
    reasoningEffort: undefined
  })
}

const decode = (dialect: Dialect, body: JsonObject): Conversation =>
  Result.getOrThrow(codecOf[dialect].decodeRequest(body))

const refusedPaths = (dialect: Dialect, body: JsonObject): ReadonlyArray<string> =>
  Result.match(codecOf[dialect].decodeRequest(body), {
    onSuccess: () => [],
    onFailure: (problem) => (problem.errors ?? []).map((error) => error.path.join("."))
  })

describe("a request", () => {
  it.prop(
    "is the same after encoding and decoding, for all that the dialect can say",
    [Asked, Dialect],
    ([asked, dialect]) => {
      const conversation = conversationOf(asked)
      const decoded = decode(dialect, codecOf[dialect].encodeRequest(conversation, "m", true))
      assert.deepStrictEqual(
        { ...decoded, turns: mergedTurns(decoded.turns) },
        sayable[dialect](conversation)
      )
    },
    { arbitrary: { runs: 500 } }
  )

  it.prop("to Anthropic keeps to the wire of 2026-10-21", [Asked], ([asked]) => {
    const body = codecOf["anthropic-messages"].encodeRequest(conversationOf(asked), "claude", false)
    for (const name of ["temperature", "top_p", "top_k", "stream"]) assert.notProperty(body, name)
    const roles = listAt(body, "messages").map((message) => jsonAt(message, "role"))
    for (const [index, role] of roles.entries()) assert.notStrictEqual(role, roles[index + 1])
    assert.isNumber(body["max_tokens"])
  })

  const text = { role: "user", content: "hello" }
  const part = (content: Schema.Json) => ({ messages: [{ role: "user", content: [content] }] })
  const refusals: ReadonlyArray<readonly [Dialect, JsonObject, string]> = [
    ["openai-chat", {}, "messages"],
    ["openai-chat", { messages: "hello" }, "messages"],
    ["openai-chat", { messages: [text, { role: "robot", content: "" }] }, "messages.1.role"],
    ["openai-chat", { messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
    ["openai-chat", { messages: [{ role: "user" }] }, "messages.0.content"],
    ["openai-chat", part({ type: "text", text: 5 }), "messages.0.content.0.text"],
    ["openai-chat", part({ text: "no type" }), "messages.0.content.0.type"],
    ["openai-chat", part({ type: "image_url", image_url: {} }), "messages.0.content.0.image_url.url"],
    ["openai-chat", { messages: [{ role: "tool", content: "x" }] }, "messages.0.tool_call_id"],
    [
      "openai-chat",
      { messages: [{ role: "assistant", tool_calls: [{ id: "a", function: {} }] }] },
      "messages.0.tool_calls.0.function.name"
    ],
    ["openai-chat", { messages: [text], max_tokens: "many" }, "max_tokens"],
    [
      "openai-chat",
      { messages: [text], tools: [{ type: "function", function: {} }] },
      "tools.0.function.name"
    ],
    ["openai-chat", { messages: [text], tool_choice: "maybe" }, "tool_choice"],
    [
      "openai-chat",
      { messages: [text], response_format: { type: "json_schema", json_schema: {} } },
      "response_format.json_schema.name"
    ],
    ["openai-responses", { input: 5 }, "input"],
    ["openai-responses", { input: [{ role: "robot", content: "" }] }, "input.0.role"],
    [
      "openai-responses",
      { input: [{ type: "function_call", call_id: "a", name: "b" }] },
      "input.0.arguments"
    ],
    [
      "openai-responses",
      { input: [{ role: "user", content: [{ type: "input_text" }] }] },
      "input.0.content.0.text"
    ],
    ["anthropic-messages", { max_tokens: 1 }, "messages"],
    ["anthropic-messages", { messages: [{ role: "tool", content: "" }] }, "messages.0.role"],
    ["anthropic-messages", { messages: [{ role: "user" }] }, "messages.0.content"],
    ["anthropic-messages", part({ type: "tool_result" }), "messages.0.content.0.tool_use_id"],
    [
      "anthropic-messages",
      part({ type: "image", source: { type: "url" } }),
      "messages.0.content.0.source.url"
    ],
    ["anthropic-messages", { messages: [text], tools: [{ name: "a" }] }, "tools.0.input_schema"],
    ["anthropic-messages", { messages: [text], tool_choice: { type: "maybe" } }, "tool_choice.type"],
    ["native", { messages: [{ role: "tool", content: "" }] }, "messages.0.role"],
    ["native", { messages: [{ role: "user", content: [] }] }, "messages.0.content"],
    ["native", { messages: [text], max_tokens: 0 }, "max_tokens"]
  ]
  for (const [dialect, body, path] of refusals) {
    it(`of ${dialect} that is wrong at ${path} is refused there: ${JSON.stringify(body)}`, () => {
      assert.include(refusedPaths(dialect, body), path)
    })
  }

  const foreign: ReadonlyArray<readonly [Dialect, JsonObject, string]> = [
    ["openai-chat", part({ type: "input_audio", input_audio: {} }), "messages.0.content.0"],
    ["openai-chat", { messages: [text], n: 2 }, "n"],
    ["openai-chat", { messages: [text], tools: [{ type: "novel" }] }, "tools.0"],
    ["openai-responses", { input: "hello", previous_response_id: "resp_1" }, "previous_response_id"],
    ["openai-responses", { input: "hello", tools: [{ type: "web_search" }] }, "tools.0"],
    ["openai-responses", { input: [{ type: "item_reference", id: "x" }] }, "input.0"],
    ["anthropic-messages", part({ type: "document", source: { type: "base64" } }), "messages.0.content.0"],
    [
      "anthropic-messages",
      { messages: [text], tools: [{ type: "web_search_20260101", name: "web_search" }] },
      "tools.0"
    ]
  ]
  for (const [dialect, body, path] of foreign) {
    it(`of ${dialect} says that no other dialect can say ${path}: ${JSON.stringify(body)}`, () => {
      const paths = decode(dialect, body).untranslatable?.map((field) => field.path.join("."))
      assert.deepStrictEqual(paths, [path])
    })
  }

  it("with fields that nobody knows is read, and passes on untouched", () => {
    const body = { messages: [text], novel: { deep: [1] }, model: "mine", temperature: 1, top_k: 5 }
    for (const dialect of ["openai-chat", "anthropic-messages", "native"] as const) {
      assert.isUndefined(decode(dialect, body).untranslatable)
      const passed = codecOf[dialect].forModel(body, "yours", false)
      const { temperature, top_k, ...rest } = body
      assert.deepStrictEqual(
        passed,
        dialect === "anthropic-messages"
          ? { ...rest, model: "yours" }
          : { ...rest, temperature, top_k, model: "yours" }
      )
    }
  })

  it("for a stream of chat completions is asked for its usage, whatever else it asks for", () => {
    const body = {
      messages: [text],
      stream: true,
      stream_options: { include_usage: false, include_obfuscation: false }
    }
    assert.deepStrictEqual(codecOf["openai-chat"].forModel(body, "m", true)["stream_options"], {
      include_usage: true,
      include_obfuscation: false
    })
    assert.notProperty(codecOf["openai-chat"].forModel(body, "m", false), "stream_options")
  })

  it("goes on from the text so far as the assistant's turn, without its trailing space", () => {
    const last = { role: "assistant", content: "so far" }
    const goOn = { role: "user", content: GO_ON }
    for (const dialect of ["openai-chat", "anthropic-messages"] as const) {
      const body = codecOf[dialect].continueFrom({ model: "newer-5-5", messages: [text] }, "so far \n")
      assert.deepStrictEqual(body["messages"], [text, last, goOn])
    }
    const prefilled = codecOf["anthropic-messages"].continueFrom(
      { model: "claude-sonnet-4-5", messages: [text] },
      "so far "
    )
    assert.deepStrictEqual(prefilled["messages"], [text, last])
    const responses = codecOf["openai-responses"]
    assert.deepStrictEqual(responses.continueFrom({ input: "hello" }, "so far ")["input"], [
      { type: "message", role: "user", content: "hello" },
      { type: "message", ...last },
      { type: "message", ...goOn }
    ])
    const turns = decode("openai-responses", responses.continueFrom({ input: "hello" }, "so far ")).turns
    assert.deepStrictEqual(turns.at(-2), { role: "assistant", parts: [{ _tag: "Text", text: "so far" }] })
  })

  it("is asked to go on where the model would refuse to go on by itself", () => {
    const yes = [
      "claude-3-haiku-20240307",
      "claude-3-7-sonnet-latest",
      "claude-opus-4-20250514",
      "claude-opus-4-1"
    ]
    const no = [
      "claude-opus-4-6",
      "claude-sonnet-4-6-20260401",
      "claude-sonnet-5",
      "claude-haiku-5-5",
      "claude-fable-5-2"
    ]
    for (const model of [...yes, "claude-haiku-4-5", "claude-haiku-4-5-20251001"]) {
      assert.isTrue(takesPrefill(model), model)
    }
    for (const model of [...no, "claude-opus-40", "gpt-5.4"]) assert.isFalse(takesPrefill(model), model)
  })

  it("of tools reaches Anthropic whole: adjacent calls in one turn, all results first in the next", () => {
    const call = (id: string) => ({ id, type: "function", function: { name: "look", arguments: '{"at":1}' } })
    const conversation = decode("openai-chat", {
      messages: [
        text,
        { role: "assistant", content: null, tool_calls: [call("a"), call("b")] },
        { role: "tool", tool_call_id: "a", content: "one" },
        { role: "tool", tool_call_id: "b", content: "two" },
        { role: "user", content: "go on" }
      ],
      tools: [{ type: "function", function: { name: "look" } }],
      parallel_tool_calls: false,
      stop: "END",
      max_completion_tokens: 9
    })
    const body = codecOf["anthropic-messages"].encodeRequest(conversation, "claude", true)
    const use = (id: string) => ({ type: "tool_use", id, name: "look", input: { at: 1 } })
    assert.deepStrictEqual(body, {
      model: "claude",
      max_tokens: 9,
      messages: [
        { role: "user", content: [{ type: "text", text: "hello" }] },
        { role: "assistant", content: [use("a"), use("b")] },
        {
          role: "user",
          content: [
            { type: "tool_result", tool_use_id: "a", content: "one" },
            { type: "tool_result", tool_use_id: "b", content: "two" },
            { type: "text", text: "go on" }
          ]
        }
      ],
      tools: [{ name: "look", input_schema: { type: "object", properties: {} } }],
      tool_choice: { type: "auto", disable_parallel_tool_use: true },
      stop_sequences: ["END"],
      stream: true
    })
  })

  it("carries structured output and effort from OpenAI to Anthropic", () => {
    const schema = { type: "object", properties: {}, additionalProperties: false }
    const conversation = decode("openai-responses", {
      input: "hello",
      reasoning: { effort: "minimal" },
      text: { format: { type: "json_schema", name: "it", schema } }
    })
    const body = codecOf["anthropic-messages"].encodeRequest(conversation, "claude", false)
    assert.deepStrictEqual(body["output_config"], { effort: "low", format: { type: "json_schema", schema } })
  })

  it("keeps arguments that are no JSON, as a model cut off in the middle writes them", () => {
    const conversation = decode("openai-responses", {
      input: [{ type: "function_call", call_id: "a", name: "look", arguments: '{"at":' }]
    })
    const body = codecOf["anthropic-messages"].encodeRequest(conversation, "claude", false)
    const [message] = listAt(body, "messages")
    assert.deepStrictEqual(jsonAt(listAt(message, "content")[0], "input"), { arguments: '{"at":' })
    assert.isUndefined(parseObject('{"at":'))
  })
})
