import { Predicate, Result, Schema } from "effect"
import type { TokenUsage } from "../../domain/Llm.ts"
import { makeBlocks } from "./Blocks.ts"
import type { Block, BlockEvent } from "./Blocks.ts"
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
  Tool,
  ToolChoice,
  Turn,
  WireEvent,
  WireProblem
} from "./Codec.ts"
import { GO_ON, makeContinuation, takesPrefill } from "./Continuation.ts"
import { countAt, isJsonObject, jsonAt, listAt, numberAt, parseObject, present, stringAt } from "./JsonAt.ts"
import { mergedTurns } from "./MergedTurns.ts"
import { makeRequestFields } from "./RequestFields.ts"
import type { RequestFields } from "./RequestFields.ts"
import { withLine } from "./SystemLine.ts"

/** Anthropic's messages, version 2026-10-21, as `@anthropic-ai/sdk` 1.12 types them; 2023-06-01 is read as well. */

/** What an answer may be long where nobody said: Anthropic demands a number. */
const DEFAULT_MAX_TOKENS = 4096

/** The name of a schema, which Anthropic's wire has no place for. */
const SCHEMA_NAME = "answer"

/** Anthropic has no mode for any JSON at all, and OpenAI's asks for such a sentence anyway. */
const JSON_ONLY = "Answer with one JSON value and nothing else."

const JsonRecord = Schema.Record(Schema.String, Schema.Json)
const Content = Schema.Union([Schema.String, Schema.Array(JsonRecord)])

const Request = Schema.Struct({
  messages: Schema.Array(JsonRecord),
  max_tokens: Schema.optional(Schema.Finite.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0))),
  system: Schema.optional(Content),
  tools: Schema.optional(Schema.Array(JsonRecord)),
  tool_choice: Schema.optional(JsonRecord),
  temperature: Schema.optional(Schema.NullOr(Schema.Finite)),
  top_p: Schema.optional(Schema.NullOr(Schema.Finite)),
  stop_sequences: Schema.optional(Schema.NullOr(Schema.Array(Schema.String))),
  output_config: Schema.optional(
    Schema.NullOr(
      Schema.Struct({
        effort: Schema.optional(Schema.NullOr(Schema.String)),
        format: Schema.optional(Schema.NullOr(JsonRecord))
      })
    )
  ),
  output_format: Schema.optional(Schema.NullOr(JsonRecord)),
  container: Schema.optional(Schema.NullOr(Schema.Json)),
  mcp_servers: Schema.optional(Schema.NullOr(Schema.Array(Schema.Json)))
})

const Role = Schema.Literals(["user", "assistant", "system"])
const TextBlock = Schema.Struct({ text: Schema.String })
const Base64Source = Schema.Struct({ media_type: Schema.String, data: Schema.String })
const UrlSource = Schema.Struct({ url: Schema.String })
const ToolUse = Schema.Struct({ id: Schema.String, name: Schema.String, input: Schema.Json })
const ToolResult = Schema.Struct({
  tool_use_id: Schema.String,
  content: Schema.optional(Schema.NullOr(Content)),
  is_error: Schema.optional(Schema.NullOr(Schema.Boolean))
})
const CustomTool = Schema.Struct({
  name: Schema.String,
  description: Schema.optional(Schema.NullOr(Schema.String)),
  input_schema: JsonRecord,
  strict: Schema.optional(Schema.NullOr(Schema.Boolean))
})
const Choice = Schema.Struct({
  type: Schema.Literals(["auto", "any", "none", "tool"]),
  name: Schema.optional(Schema.String),
  disable_parallel_tool_use: Schema.optional(Schema.NullOr(Schema.Boolean))
})
const SchemaFormat = Schema.Struct({ type: Schema.String, schema: JsonRecord })

type Path = ReadonlyArray<string | number>

const decodeImage = (fields: RequestFields, source: unknown, path: Path): string | undefined => {
  const read = fields.read(JsonRecord, source, path)
  if (read === undefined) return undefined
  switch (fields.read(Schema.String, read["type"], [...path, "type"])) {
    case undefined:
      return undefined
    case "base64": {
      const base64 = fields.read(Base64Source, read, path)
      return base64 === undefined ? undefined : `data:${base64.media_type};base64,${base64.data}`
    }
    case "url":
      return fields.read(UrlSource, read, path)?.url
    default:
      fields.untranslatable(path, `a source of type ${String(read["type"])}`)
      return undefined
  }
}

/** The text of blocks that may be nothing else, as in `system` and in results of tools. */
const decodeTexts = (
  fields: RequestFields,
  content: typeof Content.Type,
  path: Path
): ReadonlyArray<string> => {
  if (Predicate.isString(content)) return content === "" ? [] : [content]
  return content.flatMap((block, index) => {
    const at = [...path, index]
    const type = fields.read(Schema.String, block["type"], [...at, "type"])
    if (type === undefined) return []
    if (type !== "text") {
      fields.untranslatable(at, `content of type ${type} here`)
      return []
    }
    const text = fields.read(TextBlock, block, at)?.text
    return text === undefined ? [] : [text]
  })
}

const decodeBlock = (fields: RequestFields, block: JsonObject, at: Path): ReadonlyArray<Part> => {
  switch (fields.read(Schema.String, block["type"], [...at, "type"])) {
    case undefined:
    // What Claude thought concerns no other model, and is not text of the conversation.
    case "thinking":
    case "redacted_thinking":
      return []
    case "text": {
      const text = fields.read(TextBlock, block, at)?.text
      return text === undefined || text === "" ? [] : [{ _tag: "Text", text }]
    }
    case "image": {
      const url = decodeImage(fields, block["source"], [...at, "source"])
      return url === undefined ? [] : [{ _tag: "Image", url, detail: undefined }]
    }
    case "tool_use": {
      const call = fields.read(ToolUse, block, at)
      if (call === undefined) return []
      return [{ _tag: "ToolCall", id: call.id, name: call.name, arguments: JSON.stringify(call.input) }]
    }
    case "tool_result": {
      const read = fields.read(ToolResult, block, at)
      if (read === undefined) return []
      const text = decodeTexts(fields, read.content ?? "", [...at, "content"]).join("\n")
      return [{ _tag: "ToolResult", id: read.tool_use_id, text, isError: read.is_error ?? false }]
    }
    case "document": {
      // A document of plain text is text, which the guard has to see as well.
      const text =
        stringAt(block, "source", "type") === "text" ? stringAt(block, "source", "data") : undefined
      if (text !== undefined) return [{ _tag: "Text", text }]
      fields.untranslatable(at, "a document")
      return []
    }
    default:
      fields.untranslatable(at, `content of type ${String(block["type"])}`)
      return []
  }
}

const decodeMessages = (fields: RequestFields, messages: ReadonlyArray<JsonObject>) => {
  const system: Array<string> = []
  const turns: Array<Turn> = []
  for (const [index, message] of messages.entries()) {
    const at = ["messages", index]
    const role = fields.read(Role, message["role"], [...at, "role"])
    const content = fields.read(Content, message["content"], [...at, "content"])
    if (role === undefined || content === undefined) continue
    if (role === "system") {
      system.push(decodeTexts(fields, content, [...at, "content"]).join("\n"))
      continue
    }
    const parts: ReadonlyArray<Part> = Predicate.isString(content)
      ? content === ""
        ? []
        : [{ _tag: "Text", text: content }]
      : content.flatMap((block, place) => decodeBlock(fields, block, [...at, "content", place]))
    turns.push({ role, parts })
  }
  return { system, turns }
}

const decodeTools = (fields: RequestFields, tools: ReadonlyArray<JsonObject>): ReadonlyArray<Tool> =>
  tools.flatMap((tool, index): ReadonlyArray<Tool> => {
    const at = ["tools", index]
    const type = fields.read(Schema.optional(Schema.NullOr(Schema.String)), tool["type"], [...at, "type"])
    if (type !== undefined && type !== null && type !== "custom") {
      fields.untranslatable(at, `a tool of type ${type}`)
      return []
    }
    const read = fields.read(CustomTool, tool, at)
    if (read === undefined) return []
    return [
      {
        name: read.name,
        description: read.description ?? undefined,
        parameters: read.input_schema,
        strict: read.strict ?? undefined
      }
    ]
  })

const decodeToolChoice = (fields: RequestFields, choice: typeof Choice.Type): ToolChoice | undefined => {
  switch (choice.type) {
    case "auto":
      return { _tag: "Auto" }
    case "none":
      return { _tag: "None" }
    case "any":
      return { _tag: "Required" }
    case "tool": {
      const name = fields.read(Schema.String, choice.name, ["tool_choice", "name"])
      return name === undefined ? undefined : { _tag: "Tool", name }
    }
  }
}

const decodeFormat = (
  fields: RequestFields,
  format: JsonObject | null | undefined,
  path: Path
): Conversation["format"] => {
  if (format === undefined || format === null) return undefined
  const read = fields.read(SchemaFormat, format, path)
  return read === undefined
    ? undefined
    : { _tag: "Schema", name: SCHEMA_NAME, schema: read.schema, strict: true }
}

const decodeRequest: Codec["decodeRequest"] = (body) => {
  const fields = makeRequestFields()
  const read = fields.read(Request, body, [])
  if (read === undefined) return fields.refused()
  if (read.container !== undefined && read.container !== null)
    fields.untranslatable(["container"], "a container")
  if (read.mcp_servers !== undefined && read.mcp_servers !== null)
    fields.untranslatable(["mcp_servers"], "MCP servers")
  const { system, turns } = decodeMessages(fields, read.messages)
  const choice =
    read.tool_choice === undefined ? undefined : fields.read(Choice, read.tool_choice, ["tool_choice"])
  const parallel = choice?.disable_parallel_tool_use ?? undefined
  return fields.result({
    system: [...(read.system === undefined ? [] : decodeTexts(fields, read.system, ["system"])), ...system],
    turns,
    tools: decodeTools(fields, read.tools ?? []),
    toolChoice: choice === undefined ? undefined : decodeToolChoice(fields, choice),
    parallelToolCalls: parallel === undefined ? undefined : !parallel,
    maxTokens: read.max_tokens,
    temperature: read.temperature ?? undefined,
    topP: read.top_p ?? undefined,
    stop: read.stop_sequences ?? [],
    format:
      decodeFormat(fields, read.output_config?.format, ["output_config", "format"]) ??
      decodeFormat(fields, read.output_format, ["output_format"]),
    reasoningEffort: read.output_config?.effort ?? undefined
  })
}

const DATA_URL = /^data:([^;,]+);base64,/

const encodeImage = (url: string): JsonObject => {
  const mediaType = DATA_URL.exec(url)
  return mediaType?.[1] === undefined
    ? { type: "image", source: { type: "url", url } }
    : {
        type: "image",
        source: { type: "base64", media_type: mediaType[1], data: url.slice(mediaType[0].length) }
      }
}

/** `input` has to be an object. What a model wrote instead, cut off perhaps, is kept as what it is. */
const inputOf = (json: string): JsonObject => (json === "" ? {} : (parseObject(json) ?? { arguments: json }))

const isBlank = (text: string): boolean => text.trim() === ""

const encodePart = (part: Part): ReadonlyArray<JsonObject> => {
  switch (part._tag) {
    case "Text":
    case "Refusal":
      // Blank text is refused.
      return isBlank(part.text) ? [] : [{ type: "text", text: part.text }]
    case "Image":
      return [encodeImage(part.url)]
    case "ToolCall":
      return [{ type: "tool_use", id: part.id, name: part.name, input: inputOf(part.arguments) }]
    case "ToolResult":
      return [
        present({
          type: "tool_result",
          tool_use_id: part.id,
          content: isBlank(part.text) ? undefined : part.text,
          is_error: part.isError ? true : undefined
        })
      ]
  }
}

const encodeTurn = (turn: Turn, isLast: boolean): ReadonlyArray<JsonObject> => {
  // Results come first in a turn, or they are not taken as the answers to the calls.
  const results = turn.parts.filter((part) => part._tag === "ToolResult")
  const rest = turn.parts.filter((part) => part._tag !== "ToolResult")
  const content = [...results, ...rest].flatMap(encodePart)
  const last = content.at(-1)
  const text = stringAt(last, "text")
  // A last turn of the assistant's that ends with white space is refused.
  if (isLast && turn.role === "assistant" && text !== undefined) {
    content[content.length - 1] = { type: "text", text: text.trimEnd() }
  }
  return content.length === 0 ? [] : [{ role: turn.role, content }]
}

const encodeToolChoice = (conversation: Conversation): JsonObject | undefined => {
  const { toolChoice, parallelToolCalls, tools } = conversation
  if (tools.length === 0) return undefined
  const parallel = parallelToolCalls === undefined ? undefined : !parallelToolCalls
  switch (toolChoice?._tag) {
    case undefined:
      return parallel === undefined ? undefined : { type: "auto", disable_parallel_tool_use: parallel }
    case "None":
      return { type: "none" }
    case "Auto":
      return present({ type: "auto", disable_parallel_tool_use: parallel })
    case "Required":
      return present({ type: "any", disable_parallel_tool_use: parallel })
    case "Tool":
      return present({ type: "tool", name: toolChoice.name, disable_parallel_tool_use: parallel })
  }
}

/** OpenAI's words for effort, as far as Anthropic has them. */
const EFFORTS: Readonly<Record<string, string>> = {
  minimal: "low",
  low: "low",
  medium: "medium",
  high: "high",
  xhigh: "xhigh",
  max: "max"
}

const encodeSystem = (conversation: Conversation): Schema.Json | undefined => {
  const system = conversation.system.filter((text) => !isBlank(text))
  const texts = conversation.format?._tag === "Json" ? [...system, JSON_ONLY] : system
  if (texts.length === 0) return undefined
  return texts.length === 1 ? texts.join("") : texts.map((text) => ({ type: "text", text }))
}

/** Never `temperature`, `top_p` or `top_k`: version 2026-10-21 refuses them, at their defaults even. */
const encodeRequest: Codec["encodeRequest"] = (conversation, model, stream) => {
  const effort =
    conversation.reasoningEffort === undefined ? undefined : EFFORTS[conversation.reasoningEffort]
  const format =
    conversation.format?._tag === "Schema"
      ? { type: "json_schema", schema: conversation.format.schema }
      : undefined
  const turns = mergedTurns(conversation.turns)
  return present({
    model,
    max_tokens: conversation.maxTokens ?? DEFAULT_MAX_TOKENS,
    system: encodeSystem(conversation),
    messages: turns.flatMap((turn, index) => encodeTurn(turn, index === turns.length - 1)),
    tools:
      conversation.tools.length === 0
        ? undefined
        : conversation.tools.map((tool) =>
            present({
              name: tool.name,
              description: tool.description,
              input_schema: tool.parameters,
              strict: tool.strict
            })
          ),
    tool_choice: encodeToolChoice(conversation),
    stop_sequences: conversation.stop.length === 0 ? undefined : conversation.stop,
    output_config: effort === undefined && format === undefined ? undefined : present({ effort, format }),
    stream: stream ? true : undefined
  })
}

const decodeUsage = (usage: Schema.Json | undefined): TokenUsage => ({
  input: countAt(usage, "input_tokens"),
  cachedRead: countAt(usage, "cache_read_input_tokens"),
  cachedWrite: countAt(usage, "cache_creation_input_tokens"),
  output: countAt(usage, "output_tokens"),
  reasoning: countAt(usage, "output_tokens_details", "thinking_tokens")
})

const NO_USAGE: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

/** The counters of a `message_delta`. */
const encodeDeltaUsage = (usage: TokenUsage): JsonObject => ({
  input_tokens: usage.input,
  cache_creation_input_tokens: usage.cachedWrite,
  cache_read_input_tokens: usage.cachedRead,
  output_tokens: usage.output,
  output_tokens_details: usage.reasoning === 0 ? null : { thinking_tokens: usage.reasoning },
  server_tool_use: null
})

const encodeUsage = (usage: TokenUsage): JsonObject => ({
  ...encodeDeltaUsage(usage),
  cache_creation: null,
  inference_geo: null,
  service_tier: null,
  speed: null
})

const decodeStop = (raw: string, sequence: string | undefined): Stop => {
  const stop = (reason: Stop["reason"]): Stop => ({ reason, raw, sequence })
  switch (raw) {
    case "end_turn":
      return stop("stop")
    case "max_tokens":
    case "model_context_window_exceeded":
      return stop("length")
    case "stop_sequence":
      return stop("stop_sequence")
    case "tool_use":
      return stop("tool_calls")
    case "refusal":
      return stop("content_filter")
    case "pause_turn":
      return stop("pause")
    default:
      return stop("other")
  }
}

const encodeStopReason = (stop: Stop): string => {
  switch (stop.reason) {
    case "stop":
      return "end_turn"
    case "length":
      return stop.raw === "model_context_window_exceeded" ? stop.raw : "max_tokens"
    case "stop_sequence":
      return "stop_sequence"
    case "tool_calls":
      return "tool_use"
    case "content_filter":
      return "refusal"
    case "pause":
      return "pause_turn"
    case "other":
      return stop.raw === "" ? "end_turn" : stop.raw
  }
}

const encodeStop = (stop: Stop): JsonObject => ({
  stop_reason: encodeStopReason(stop),
  stop_sequence: stop.sequence ?? null,
  stop_details:
    stop.reason === "content_filter" ? { type: "refusal", category: null, explanation: null } : null
})

const decodeAnswer: Codec["decodeAnswer"] = (body) => {
  if (!Array.isArray(body["content"])) return Result.fail("an answer without content")
  const parts = listAt(body, "content").flatMap((block): ReadonlyArray<Part> => {
    switch (stringAt(block, "type")) {
      case "text": {
        const text = stringAt(block, "text") ?? ""
        return text === "" ? [] : [{ _tag: "Text", text }]
      }
      case "tool_use":
        return [
          {
            _tag: "ToolCall",
            id: stringAt(block, "id") ?? "",
            name: stringAt(block, "name") ?? "",
            arguments: JSON.stringify(jsonAt(block, "input") ?? {})
          }
        ]
      default:
        return []
    }
  })
  const answer: Answer = {
    id: stringAt(body, "id") ?? "",
    model: stringAt(body, "model") ?? "",
    parts,
    stop: decodeStop(stringAt(body, "stop_reason") ?? "", stringAt(body, "stop_sequence")),
    usage: isJsonObject(body["usage"]) ? decodeUsage(body["usage"]) : undefined
  }
  return Result.succeed(answer)
}

const encodeAnswerPart = (part: Part): ReadonlyArray<JsonObject> => {
  switch (part._tag) {
    case "Text":
    case "Refusal":
      return part.text === "" ? [] : [{ type: "text", text: part.text, citations: null }]
    case "ToolCall":
      return [toolUse(part.id, part.name, inputOf(part.arguments))]
    case "Image":
    case "ToolResult":
      return []
  }
}

const toolUse = (id: string, name: string, input: JsonObject): JsonObject => ({
  type: "tool_use",
  id,
  name,
  input,
  caller: { type: "direct" }
})

const encodeMessage = (
  id: string,
  model: string,
  content: ReadonlyArray<JsonObject>,
  stop: Stop | undefined,
  usage: TokenUsage
): JsonObject => ({
  id,
  type: "message",
  role: "assistant",
  model,
  content,
  ...(stop === undefined ? { stop_reason: null, stop_sequence: null, stop_details: null } : encodeStop(stop)),
  container: null,
  diagnostics: null,
  usage: encodeUsage(usage)
})

const failedOf = (error: Schema.Json | undefined): StreamEvent => ({
  _tag: "Failed",
  type: stringAt(error, "type") ?? null,
  code: stringAt(error, "details", "error_code") ?? null,
  message: stringAt(error, "message") ?? "The provider failed without a reason"
})

/** A block that the provider has open. `call` counts the tool calls. */
interface OpenBlock {
  readonly call: number | undefined
  readonly input: JsonObject
  hasArguments: boolean
}

const makeReader = (): StreamReader => {
  let started = false
  let ended = false
  let nextCall = 0
  /** `message_delta` repeats only the counters that apply. */
  let usage: Record<string, Schema.Json> = {}
  const open = new Map<number, OpenBlock>()

  const readUsage = (json: Schema.Json | undefined): ReadonlyArray<StreamEvent> => {
    if (!isJsonObject(json)) return []
    for (const [name, value] of Object.entries(json)) if (value !== null) usage[name] = value
    return [{ _tag: "Usage", usage: decodeUsage(usage) }]
  }

  const startBlock = (event: JsonObject): ReadonlyArray<StreamEvent> => {
    const block = jsonAt(event, "content_block")
    const index = numberAt(event, "index") ?? open.size
    const type = stringAt(block, "type")
    const input = jsonAt(block, "input")
    const call = type === "tool_use" ? nextCall++ : undefined
    open.set(index, { call, input: isJsonObject(input) ? input : {}, hasArguments: false })
    if (call !== undefined) {
      return [
        {
          _tag: "ToolCall",
          index: call,
          id: stringAt(block, "id") ?? "",
          name: stringAt(block, "name") ?? ""
        }
      ]
    }
    const text = type === "text" ? (stringAt(block, "text") ?? "") : ""
    return text === "" ? [] : [{ _tag: "Text", text }]
  }

  const readDelta = (delta: Schema.Json | undefined, block: OpenBlock): ReadonlyArray<StreamEvent> => {
    switch (stringAt(delta, "type")) {
      case "text_delta": {
        const text = stringAt(delta, "text") ?? ""
        return text === "" ? [] : [{ _tag: "Text", text }]
      }
      case "thinking_delta": {
        const text = stringAt(delta, "thinking") ?? ""
        return text === "" ? [] : [{ _tag: "Reasoning", text }]
      }
      case "input_json_delta": {
        const json = stringAt(delta, "partial_json") ?? ""
        if (block.call === undefined || json === "") return []
        block.hasArguments = true
        return [{ _tag: "ToolArguments", index: block.call, json }]
      }
      default:
        return []
    }
  }

  const stopBlock = (index: number): ReadonlyArray<StreamEvent> => {
    const block = open.get(index)
    open.delete(index)
    if (block?.call === undefined || block.hasArguments) return []
    // A tool without arguments, or arguments that came as a whole with the start.
    return [{ _tag: "ToolArguments", index: block.call, json: JSON.stringify(block.input) }]
  }

  const readEvent = (event: JsonObject): Result.Result<ReadonlyArray<StreamEvent>, string> => {
    const type = stringAt(event, "type")
    if (type === "error") return Result.succeed([failedOf(jsonAt(event, "error"))])
    if (ended) return Result.succeed([])
    if (type === "message_start") {
      if (started) return Result.fail("a second message_start")
      started = true
      const message = jsonAt(event, "message")
      return Result.succeed([
        { _tag: "Started", id: stringAt(message, "id") ?? "", model: stringAt(message, "model") ?? "" },
        ...readUsage(jsonAt(message, "usage"))
      ])
    }
    switch (type) {
      case "content_block_start":
        return started ? Result.succeed(startBlock(event)) : Result.fail(`${type} before message_start`)
      case "content_block_delta": {
        const block = open.get(numberAt(event, "index") ?? 0)
        return block === undefined
          ? Result.fail("content_block_delta outside of a block")
          : Result.succeed(readDelta(jsonAt(event, "delta"), block))
      }
      case "content_block_stop":
        return Result.succeed(stopBlock(numberAt(event, "index") ?? 0))
      case "message_delta": {
        if (!started) return Result.fail(`${type} before message_start`)
        const raw = stringAt(event, "delta", "stop_reason")
        const sequence = stringAt(event, "delta", "stop_sequence")
        return Result.succeed([
          ...(raw === undefined ? [] : [{ _tag: "Stopped" as const, stop: decodeStop(raw, sequence) }]),
          ...readUsage(jsonAt(event, "usage"))
        ])
      }
      case "message_stop":
        if (!started) return Result.fail(`${type} before message_start`)
        ended = true
        return Result.succeed([{ _tag: "Ended" }])
      default:
        return Result.succeed([])
    }
  }

  return {
    read: (event) => {
      if (event.data === "" || event.data.trim() === "[DONE]") return Result.succeed([])
      const json = parseObject(event.data)
      if (json === undefined) return Result.fail("a frame that is no JSON object")
      return readEvent(json)
    }
  }
}

const wire = (event: string, data: JsonObject): WireEvent => ({
  // The official client drops a frame without its `event` line unsaid.
  event,
  data: JSON.stringify({ type: event, ...data })
})

const startOf = (block: Block): JsonObject =>
  block.kind === "Tool" ? toolUse(block.id, block.name, {}) : { type: "text", text: "", citations: null }

const writeBlock = (event: BlockEvent): WireEvent => {
  const { index, kind } = event.block
  switch (event._tag) {
    case "Open":
      return wire("content_block_start", { index, content_block: startOf(event.block) })
    case "Delta":
      return wire("content_block_delta", {
        index,
        delta:
          kind === "Tool"
            ? { type: "input_json_delta", partial_json: event.text }
            : { type: "text_delta", text: event.text }
      })
    case "Close":
      return wire("content_block_stop", { index })
  }
}

const makeWriter: Codec["writer"] = (): StreamWriter => {
  const blocks = makeBlocks()
  let started = false
  let hasTools = false
  let stop: Stop | undefined
  /** The `message_delta` with the stop reason is out: no block may follow. */
  let stopTold = false
  let over = false
  let openBlock: Block | undefined
  let nextIndex = 0

  const begin = (id: string, model: string): ReadonlyArray<WireEvent> => {
    if (started) return []
    started = true
    // How many tokens came in, other vendors tell at the end only: `message_delta` repeats the counters, cumulatively.
    return [wire("message_start", { message: encodeMessage(id, model, [], undefined, NO_USAGE) })]
  }

  const adoptFrame = (frame: WireEvent) => {
    const json = parseObject(frame.data)
    const index = numberAt(json, "index") ?? 0
    switch (stringAt(json, "type")) {
      case "content_block_start": {
        const type = stringAt(json, "content_block", "type")
        const kind = type === "text" ? "Text" : type === "tool_use" ? "Tool" : "Other"
        // What it holds already does not matter, but that it is not empty: no arguments are to be made up for it.
        openBlock = { kind, index, id: "", name: "", text: "{}" }
        nextIndex = Math.max(nextIndex, index + 1)
        blocks.adopt(openBlock, nextIndex)
        break
      }
      case "content_block_stop":
        openBlock = undefined
        blocks.adopt(undefined, nextIndex)
        break
      case "message_start":
        started = true
        break
      case "message_delta":
        stopTold = stringAt(json, "delta", "stop_reason") !== undefined
        break
      case "message_stop":
      case "error":
        over = true
        break
      default:
        break
    }
  }

  return {
    adopt: (events, frame) => {
      if (events.some((event) => event._tag === "ToolCall")) hasTools = true
      // Deltas are the many, and change nothing that counts.
      if (frame.event !== "content_block_delta") adoptFrame(frame)
    },
    write: (event) => {
      if (over || stopTold) return []
      switch (event._tag) {
        case "Started":
          return begin(event.id, event.model)
        case "Text":
        case "ToolCall":
        case "ToolArguments":
          return [...begin("", ""), ...blocks.push(event).map(writeBlock)]
        case "Refusal":
          // Claude refuses in plain text, and says so in the stop reason.
          return [...begin("", ""), ...blocks.push({ _tag: "Text", text: event.text }).map(writeBlock)]
        case "Stopped":
          stop = event.stop
          return []
        default:
          return []
      }
    },
    end: (summary) => {
      if (over) return []
      over = true
      const events: Array<WireEvent> = [
        ...begin("", summary.answeredBy.model),
        ...blocks.close().map(writeBlock)
      ]
      if (!stopTold) {
        const tools = hasTools || blocks.hasTools()
        const otherwise: Stop = { reason: tools ? "tool_calls" : "stop", raw: "", sequence: undefined }
        events.push(
          wire("message_delta", {
            delta: { ...encodeStop(stop ?? otherwise), container: null },
            usage: encodeDeltaUsage(summary.usage)
          })
        )
      }
      events.push(wire("message_stop", {}))
      return events
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [wire("error", anthropicError(problem))]
    }
  }
}

const errorTypeOf = (status: number): string => {
  switch (status) {
    case 401:
      return "authentication_error"
    case 402:
      return "billing_error"
    case 403:
      return "permission_error"
    case 404:
      return "not_found_error"
    case 409:
      return "conflict_error"
    case 413:
      return "request_too_large"
    case 429:
      return "rate_limit_error"
    case 504:
      return "timeout_error"
    case 529:
      return "overloaded_error"
    default:
      return status >= 500 ? "api_error" : "invalid_request_error"
  }
}

const anthropicError = (problem: WireProblem): JsonObject => ({
  type: "error",
  error: {
    type: problem.type ?? errorTypeOf(problem.status),
    message: problem.message,
    details: problem.code === null ? null : { error_code: problem.code }
  },
  request_id: problem.requestId
})

/** Anthropic's `POST /v1/messages`. */
export const anthropicMessages: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer: (answer, summary) =>
    encodeMessage(
      answer.id,
      answer.model,
      answer.parts.flatMap(encodeAnswerPart),
      answer.stop,
      summary.usage
    ),
  reader: makeReader,
  writer: makeWriter,
  encodeProblem: anthropicError,
  /**
   * Without `temperature`, `top_p` and `top_k`, which version 2026-10-21 refuses and older callers still send. The
   * gateway pins what it sends to that version; with 2023-06-01 they would have to stay.
   */
  addSystem: (body, line) => {
    const { system } = body
    if (Array.isArray(system)) return { ...body, system: [...system, { type: "text", text: line }] }
    return typeof system === "string" ? { ...body, system: withLine(system, line) } : body
  },
  forModel: (body, model, stream) =>
    present({
      ...body,
      model,
      stream: stream ? true : undefined,
      temperature: undefined,
      top_p: undefined,
      top_k: undefined
    }),
  /** As a prefill: Claude goes on within its last turn. Models that take none answer 400. */
  continueFrom: (body, text) => ({
    ...body,
    messages: [
      ...listAt(body, "messages"),
      { role: "assistant", content: makeContinuation(text).sent },
      ...(takesPrefill(stringAt(body, "model") ?? "") ? [] : [{ role: "user", content: GO_ON }])
    ]
  })
}
