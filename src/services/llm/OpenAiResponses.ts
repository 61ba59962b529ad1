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
  WireEvent
} from "./Codec.ts"
import { GO_ON, makeContinuation } from "./Continuation.ts"
import { countAt, isJsonObject, jsonAt, listAt, numberAt, parseObject, present, stringAt } from "./JsonAt.ts"
import { mergedTurns } from "./MergedTurns.ts"
import { openAiError } from "./OpenAiError.ts"
import { makeRequestFields } from "./RequestFields.ts"
import type { RequestFields } from "./RequestFields.ts"
import { withLine, withSystemLine } from "./SystemLine.ts"

/** OpenAI's responses, as `openai` 7.57 types them. */

const JsonRecord = Schema.Record(Schema.String, Schema.Json)
const NullOrString = Schema.optional(Schema.NullOr(Schema.String))
const NullOrNumber = Schema.optional(Schema.NullOr(Schema.Finite))
const NullOrBoolean = Schema.optional(Schema.NullOr(Schema.Boolean))
const Foreign = Schema.optional(Schema.NullOr(Schema.Json))

const Request = Schema.Struct({
  input: Schema.optional(Schema.Union([Schema.String, Schema.Array(JsonRecord)])),
  instructions: NullOrString,
  tools: Schema.optional(Schema.NullOr(Schema.Array(JsonRecord))),
  tool_choice: Schema.optional(Schema.NullOr(Schema.Union([Schema.String, JsonRecord]))),
  parallel_tool_calls: NullOrBoolean,
  max_output_tokens: Schema.optional(
    Schema.NullOr(Schema.Finite.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(1)))
  ),
  temperature: NullOrNumber,
  top_p: NullOrNumber,
  text: Schema.optional(Schema.NullOr(Schema.Struct({ format: Schema.optional(Schema.NullOr(JsonRecord)) }))),
  reasoning: Schema.optional(Schema.NullOr(Schema.Struct({ effort: NullOrString }))),
  previous_response_id: Foreign,
  conversation: Foreign,
  prompt: Foreign,
  background: NullOrBoolean
})

/** What refers to something that only OpenAI keeps. */
const KEPT_BY_OPENAI = ["previous_response_id", "conversation", "prompt"] as const

const Role = Schema.Literals(["system", "developer", "user", "assistant"])
const Content = Schema.Union([Schema.String, Schema.Array(JsonRecord)])
const TextPart = Schema.Struct({ text: Schema.String })
const RefusalPart = Schema.Struct({ refusal: Schema.String })
const ImagePart = Schema.Struct({ image_url: NullOrString, detail: NullOrString })
const FunctionCall = Schema.Struct({ call_id: Schema.String, name: Schema.String, arguments: Schema.String })
const FunctionOutput = Schema.Struct({ call_id: Schema.String, output: Content })
const FunctionTool = Schema.Struct({
  name: Schema.String,
  description: NullOrString,
  parameters: Schema.optional(Schema.NullOr(JsonRecord)),
  strict: NullOrBoolean
})
const NamedFunction = Schema.Struct({ name: Schema.String })
const JsonSchemaFormat = Schema.Struct({ name: Schema.String, schema: JsonRecord, strict: NullOrBoolean })

type Path = ReadonlyArray<string | number>

const decodeContent = (
  fields: RequestFields,
  content: typeof Content.Type,
  path: Path
): ReadonlyArray<Part> => {
  if (Predicate.isString(content)) return content === "" ? [] : [{ _tag: "Text", text: content }]
  const parts: Array<Part> = []
  for (const [index, part] of content.entries()) {
    const at = [...path, index]
    switch (fields.read(Schema.String, part["type"], [...at, "type"])) {
      case undefined:
        break
      case "input_text":
      case "output_text":
      case "text": {
        const text = fields.read(TextPart, part, at)?.text
        if (text !== undefined && text !== "") parts.push({ _tag: "Text", text })
        break
      }
      case "refusal": {
        const text = fields.read(RefusalPart, part, at)?.refusal
        if (text !== undefined && text !== "") parts.push({ _tag: "Refusal", text })
        break
      }
      case "input_image": {
        const image = fields.read(ImagePart, part, at)
        const url = image?.image_url ?? undefined
        if (url !== undefined) parts.push({ _tag: "Image", url, detail: image?.detail ?? undefined })
        else if (image !== undefined) fields.untranslatable(at, "an image kept by OpenAI")
        break
      }
      default:
        fields.untranslatable(at, `content of type ${String(part["type"])}`)
    }
  }
  return parts
}

const textOf = (parts: ReadonlyArray<Part>): string =>
  parts.map((part) => (part._tag === "Text" ? part.text : "")).join("")

const decodeInput = (fields: RequestFields, input: ReadonlyArray<JsonObject>) => {
  const system: Array<string> = []
  const turns: Array<Turn> = []
  for (const [index, item] of input.entries()) {
    const at = ["input", index]
    const type = fields.read(Schema.optional(Schema.String), item["type"], [...at, "type"])
    switch (type) {
      case undefined:
      case "message": {
        if (item["type"] !== undefined && type === undefined) break
        const role = fields.read(Role, item["role"], [...at, "role"])
        const content = fields.read(Content, item["content"], [...at, "content"])
        if (role === undefined || content === undefined) break
        const parts = decodeContent(fields, content, [...at, "content"])
        if (role === "user" || role === "assistant") turns.push({ role, parts })
        else system.push(textOf(parts))
        break
      }
      case "function_call": {
        const call = fields.read(FunctionCall, item, at)
        if (call === undefined) break
        turns.push({
          role: "assistant",
          parts: [{ _tag: "ToolCall", id: call.call_id, name: call.name, arguments: call.arguments }]
        })
        break
      }
      case "function_call_output": {
        const read = fields.read(FunctionOutput, item, at)
        if (read === undefined) break
        const parts = decodeContent(fields, read.output, [...at, "output"])
        if (parts.some((part) => part._tag === "Image"))
          fields.untranslatable([...at, "output"], "an image as a result")
        turns.push({
          role: "user",
          parts: [{ _tag: "ToolResult", id: read.call_id, text: textOf(parts), isError: false }]
        })
        break
      }
      // What the model thought concerns no other model, and is not text of the conversation.
      case "reasoning":
        break
      default:
        fields.untranslatable(at, `an item of type ${type}`)
    }
  }
  return { system, turns }
}

const decodeTools = (fields: RequestFields, tools: ReadonlyArray<JsonObject>): ReadonlyArray<Tool> =>
  tools.flatMap((tool, index): ReadonlyArray<Tool> => {
    const at = ["tools", index]
    const type = fields.read(Schema.String, tool["type"], [...at, "type"])
    if (type === undefined) return []
    if (type !== "function") {
      fields.untranslatable(at, `a tool of type ${type}`)
      return []
    }
    const read = fields.read(FunctionTool, tool, at)
    if (read === undefined) return []
    return [
      {
        name: read.name,
        description: read.description ?? undefined,
        parameters: read.parameters ?? { type: "object", properties: {} },
        strict: read.strict ?? undefined
      }
    ]
  })

const decodeToolChoice = (
  fields: RequestFields,
  choice: string | JsonObject | null | undefined
): ToolChoice | undefined => {
  if (choice === undefined || choice === null) return undefined
  if (!isJsonObject(choice)) {
    const word = fields.read(Schema.Literals(["auto", "none", "required"]), choice, ["tool_choice"])
    if (word === undefined) return undefined
    return word === "auto" ? { _tag: "Auto" } : word === "none" ? { _tag: "None" } : { _tag: "Required" }
  }
  const type = fields.read(Schema.String, choice["type"], ["tool_choice", "type"])
  if (type !== undefined && type !== "function") {
    fields.untranslatable(["tool_choice"], `a tool choice of type ${type}`)
    return undefined
  }
  const named = fields.read(NamedFunction, choice, ["tool_choice"])
  return named === undefined ? undefined : { _tag: "Tool", name: named.name }
}

const decodeFormat = (
  fields: RequestFields,
  format: JsonObject | null | undefined
): Conversation["format"] => {
  if (format === undefined || format === null) return undefined
  const at = ["text", "format"]
  switch (fields.read(Schema.String, format["type"], [...at, "type"])) {
    case "json_object":
      return { _tag: "Json" }
    case "json_schema": {
      const read = fields.read(JsonSchemaFormat, format, at)
      if (read === undefined) return undefined
      return { _tag: "Schema", name: read.name, schema: read.schema, strict: read.strict ?? undefined }
    }
    case undefined:
    case "text":
      return undefined
    default:
      fields.untranslatable(at, `a format of type ${String(format["type"])}`)
      return undefined
  }
}

const decodeRequest: Codec["decodeRequest"] = (body) => {
  const fields = makeRequestFields()
  const read = fields.read(Request, body, [])
  if (read === undefined) return fields.refused()
  for (const name of KEPT_BY_OPENAI) {
    if (read[name] !== undefined && read[name] !== null) fields.untranslatable([name], "what OpenAI keeps")
  }
  if (read.background === true) fields.untranslatable(["background"], "an answer in the background")
  const input = read.input ?? []
  const { system, turns } = Predicate.isString(input)
    ? { system: [], turns: [{ role: "user" as const, parts: decodeContent(fields, input, ["input"]) }] }
    : decodeInput(fields, input)
  const instructions = read.instructions ?? ""
  return fields.result({
    system: instructions === "" ? system : [instructions, ...system],
    turns,
    tools: decodeTools(fields, read.tools ?? []),
    toolChoice: decodeToolChoice(fields, read.tool_choice),
    parallelToolCalls: read.parallel_tool_calls ?? undefined,
    maxTokens: read.max_output_tokens ?? undefined,
    temperature: read.temperature ?? undefined,
    topP: read.top_p ?? undefined,
    stop: [],
    format: decodeFormat(fields, read.text?.format),
    reasoningEffort: read.reasoning?.effort ?? undefined
  })
}

const encodeTurn = (turn: Turn): ReadonlyArray<JsonObject> => {
  const items: Array<JsonObject> = []
  /** Adjacent text and images are one message. */
  let content: Array<JsonObject> = []
  const flush = () => {
    if (content.length > 0) items.push({ type: "message", role: turn.role, content })
    content = []
  }
  for (const part of turn.parts) {
    switch (part._tag) {
      case "Text":
        content.push(
          turn.role === "user"
            ? { type: "input_text", text: part.text }
            : { type: "output_text", text: part.text, annotations: [] }
        )
        break
      case "Refusal":
        content.push({ type: "refusal", refusal: part.text })
        break
      case "Image":
        content.push({ type: "input_image", image_url: part.url, detail: part.detail ?? "auto" })
        break
      case "ToolCall":
        flush()
        items.push({ type: "function_call", call_id: part.id, name: part.name, arguments: part.arguments })
        break
      case "ToolResult":
        flush()
        items.push({ type: "function_call_output", call_id: part.id, output: part.text })
        break
    }
  }
  flush()
  return items
}

const encodeToolChoice = (choice: ToolChoice): Schema.Json => {
  switch (choice._tag) {
    case "Auto":
      return "auto"
    case "None":
      return "none"
    case "Required":
      return "required"
    case "Tool":
      return { type: "function", name: choice.name }
  }
}

const encodeFormat = (format: NonNullable<Conversation["format"]>): JsonObject =>
  format._tag === "Json"
    ? { type: "json_object" }
    : present({ type: "json_schema", name: format.name, schema: format.schema, strict: format.strict })

/** Without `stop`, which this dialect cannot say, and without leave to keep the answer, which nobody asked for. */
const encodeRequest: Codec["encodeRequest"] = (conversation, model, stream) => {
  const [instructions, ...system] = conversation.system
  return present({
    model,
    instructions,
    input: [
      ...system.map((text) => ({
        type: "message",
        role: "developer",
        content: [{ type: "input_text", text }]
      })),
      ...mergedTurns(conversation.turns).flatMap(encodeTurn)
    ],
    tools:
      conversation.tools.length === 0
        ? undefined
        : conversation.tools.map((tool) =>
            present({
              type: "function",
              name: tool.name,
              description: tool.description,
              parameters: tool.parameters,
              // Strict here where nothing is said, unlike in the other dialects.
              strict: tool.strict ?? false
            })
          ),
    tool_choice:
      conversation.toolChoice === undefined ? undefined : encodeToolChoice(conversation.toolChoice),
    parallel_tool_calls: conversation.tools.length === 0 ? undefined : conversation.parallelToolCalls,
    max_output_tokens: conversation.maxTokens,
    temperature: conversation.temperature,
    top_p: conversation.topP,
    text: conversation.format === undefined ? undefined : { format: encodeFormat(conversation.format) },
    reasoning:
      conversation.reasoningEffort === undefined ? undefined : { effort: conversation.reasoningEffort },
    store: false,
    stream: stream ? true : undefined
  })
}

const decodeUsage = (usage: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isJsonObject(usage)) return undefined
  const cachedRead = countAt(usage, "input_tokens_details", "cached_tokens")
  const cachedWrite = countAt(usage, "input_tokens_details", "cache_write_tokens")
  return {
    input: Math.max(0, countAt(usage, "input_tokens") - cachedRead - cachedWrite),
    cachedRead,
    cachedWrite,
    output: countAt(usage, "output_tokens"),
    reasoning: countAt(usage, "output_tokens_details", "reasoning_tokens")
  }
}

const encodeUsage = (usage: TokenUsage): JsonObject => {
  const input = usage.input + usage.cachedRead + usage.cachedWrite
  return {
    input_tokens: input,
    input_tokens_details: { cached_tokens: usage.cachedRead, cache_write_tokens: usage.cachedWrite },
    output_tokens: usage.output,
    output_tokens_details: { reasoning_tokens: usage.reasoning },
    total_tokens: input + usage.output
  }
}

const decodeStop = (response: Schema.Json | undefined): Stop => {
  const status = stringAt(response, "status") ?? "completed"
  const reason = stringAt(response, "incomplete_details", "reason")
  const raw = reason ?? status
  if (reason === "max_output_tokens") return { reason: "length", raw, sequence: undefined }
  if (reason === "content_filter") return { reason: "content_filter", raw, sequence: undefined }
  if (status !== "completed") return { reason: "other", raw, sequence: undefined }
  const calls = listAt(response, "output").some((item) => stringAt(item, "type") === "function_call")
  return { reason: calls ? "tool_calls" : "stop", raw, sequence: undefined }
}

/** A pause is an answer that is not finished, for which this dialect has no other word than its limit of tokens. */
const encodeStop = (
  stop: Stop
): { readonly status: string; readonly incomplete_details: JsonObject | null } => {
  switch (stop.reason) {
    case "length":
    case "pause":
      return { status: "incomplete", incomplete_details: { reason: "max_output_tokens" } }
    case "content_filter":
      return { status: "incomplete", incomplete_details: { reason: "content_filter" } }
    case "stop":
    case "stop_sequence":
    case "tool_calls":
      return { status: "completed", incomplete_details: null }
    case "other":
      return stop.raw === "" || stop.raw === "completed"
        ? { status: "completed", incomplete_details: null }
        : { status: "incomplete", incomplete_details: { reason: stop.raw } }
  }
}

const decodeItem = (item: Schema.Json): ReadonlyArray<Part> => {
  switch (stringAt(item, "type")) {
    case "function_call":
      return [
        {
          _tag: "ToolCall",
          id: stringAt(item, "call_id") ?? "",
          name: stringAt(item, "name") ?? "",
          arguments: stringAt(item, "arguments") ?? ""
        }
      ]
    case "message":
      return listAt(item, "content").flatMap((part): ReadonlyArray<Part> => {
        const text = stringAt(part, "text") ?? ""
        const refusal = stringAt(part, "refusal") ?? ""
        if (text !== "") return [{ _tag: "Text", text }]
        return refusal === "" ? [] : [{ _tag: "Refusal", text: refusal }]
      })
    default:
      return []
  }
}

const decodeAnswer: Codec["decodeAnswer"] = (body) => {
  const error = jsonAt(body, "error")
  if (error !== undefined && error !== null)
    return Result.fail(stringAt(error, "message") ?? "a failed response")
  if (!Array.isArray(body["output"])) return Result.fail("an answer without output")
  const answer: Answer = {
    id: stringAt(body, "id") ?? "",
    model: stringAt(body, "model") ?? "",
    parts: listAt(body, "output").flatMap(decodeItem),
    stop: decodeStop(body),
    usage: decodeUsage(jsonAt(body, "usage"))
  }
  return Result.succeed(answer)
}

/** The clients want an id for each item, unlike any other. */
const itemId = (kind: Block["kind"], response: string, index: number): string =>
  `${kind === "Tool" ? "fc" : "msg"}_${response}_${index}`

const contentOf = (kind: Block["kind"], text: string): JsonObject =>
  kind === "Refusal"
    ? { type: "refusal", refusal: text }
    : { type: "output_text", text, annotations: [], logprobs: [] }

const encodeResponse = (
  id: string,
  model: string,
  created: number,
  output: ReadonlyArray<JsonObject>,
  stop: Stop | undefined,
  usage: TokenUsage | undefined
): JsonObject => ({
  id,
  object: "response",
  created_at: created,
  ...(stop === undefined ? { status: "in_progress", incomplete_details: null } : encodeStop(stop)),
  background: false,
  error: null,
  instructions: null,
  max_output_tokens: null,
  metadata: {},
  model,
  output,
  parallel_tool_calls: true,
  previous_response_id: null,
  reasoning: { effort: null, summary: null },
  store: false,
  temperature: null,
  text: { format: { type: "text" } },
  tool_choice: "auto",
  tools: [],
  top_p: null,
  truncation: "disabled",
  usage: usage === undefined ? null : encodeUsage(usage)
})

const encodeOutput = (answer: Answer): ReadonlyArray<JsonObject> =>
  answer.parts.flatMap((part, index): ReadonlyArray<JsonObject> => {
    switch (part._tag) {
      case "Text":
      case "Refusal": {
        const id = itemId("Text", answer.id, index)
        const content = [contentOf(part._tag, part.text)]
        return [{ id, type: "message", role: "assistant", status: "completed", content }]
      }
      case "ToolCall": {
        const id = itemId("Tool", answer.id, index)
        const { arguments: json, name } = part
        return [{ id, type: "function_call", call_id: part.id, name, arguments: json, status: "completed" }]
      }
      case "Image":
      case "ToolResult":
        return []
    }
  })

const failedOf = (error: Schema.Json | undefined): StreamEvent => ({
  _tag: "Failed",
  type: stringAt(error, "type") ?? null,
  code: stringAt(error, "code") ?? null,
  message: stringAt(error, "message") ?? "The provider failed without a reason"
})

/** What is missing of a whole text, where a part of it has come already. */
const missing = (whole: string, had: string): string => (whole.startsWith(had) ? whole.slice(had.length) : "")

const makeReader = (): StreamReader => {
  let started = false
  let ended = false
  let nextCall = 0
  /** Tool calls by `output_index`: our index, and the arguments so far. */
  const calls = new Map<number, { readonly index: number; json: string }>()
  /** Text and refusals so far, by `output_index` and `content_index`. */
  const texts = new Map<string, string>()

  const readText = (tag: "Text" | "Refusal", key: string, text: string): ReadonlyArray<StreamEvent> => {
    texts.set(key, (texts.get(key) ?? "") + text)
    return text === "" ? [] : [{ _tag: tag, text }]
  }

  /** What only the end of a text carries, or the end of the item, or of all. */
  const readWhole = (tag: "Text" | "Refusal", key: string, whole: string) =>
    readText(tag, key, missing(whole, texts.get(key) ?? ""))

  const readArguments = (at: number, json: string): ReadonlyArray<StreamEvent> => {
    const call = calls.get(at)
    if (call === undefined || json === "") return []
    call.json += json
    return [{ _tag: "ToolArguments", index: call.index, json }]
  }

  const readItem = (at: number, item: Schema.Json | undefined): ReadonlyArray<StreamEvent> => {
    switch (stringAt(item, "type")) {
      case "function_call": {
        const events: Array<StreamEvent> = []
        if (!calls.has(at)) {
          const call = { index: nextCall++, json: "" }
          calls.set(at, call)
          const id = stringAt(item, "call_id") ?? stringAt(item, "id") ?? ""
          events.push({ _tag: "ToolCall", index: call.index, id, name: stringAt(item, "name") ?? "" })
        }
        const whole = stringAt(item, "arguments") ?? ""
        return [...events, ...readArguments(at, missing(whole, calls.get(at)?.json ?? ""))]
      }
      case "message":
        return listAt(item, "content").flatMap((part, index) => [
          ...readWhole("Text", `${at}.${index}`, stringAt(part, "text") ?? ""),
          ...readWhole("Refusal", `${at}.${index}.refusal`, stringAt(part, "refusal") ?? "")
        ])
      default:
        return []
    }
  }

  const readStart = (response: Schema.Json | undefined): ReadonlyArray<StreamEvent> => {
    if (started) return []
    started = true
    return [{ _tag: "Started", id: stringAt(response, "id") ?? "", model: stringAt(response, "model") ?? "" }]
  }

  const readEnd = (response: Schema.Json | undefined): ReadonlyArray<StreamEvent> => {
    ended = true
    const usage = decodeUsage(jsonAt(response, "usage"))
    const items = listAt(response, "output").flatMap((item, at) => readItem(at, item))
    const stop = decodeStop(response)
    return [
      ...readStart(response),
      ...items,
      // Some compatible providers leave `output` empty at the end.
      {
        _tag: "Stopped",
        stop: stop.reason === "stop" && nextCall > 0 ? { ...stop, reason: "tool_calls" } : stop
      },
      ...(usage === undefined ? [] : [{ _tag: "Usage" as const, usage }]),
      { _tag: "Ended" }
    ]
  }

  const readFailure = (response: Schema.Json | undefined): ReadonlyArray<StreamEvent> => {
    ended = true
    const usage = decodeUsage(jsonAt(response, "usage"))
    return [
      ...(usage === undefined ? [] : [{ _tag: "Usage" as const, usage }]),
      failedOf(jsonAt(response, "error"))
    ]
  }

  const readEvent = (event: JsonObject, type: string | undefined): ReadonlyArray<StreamEvent> => {
    const at = countAt(event, "output_index")
    const key = `${at}.${countAt(event, "content_index")}`
    switch (type) {
      case "response.queued":
      case "response.in_progress":
        return readStart(jsonAt(event, "response"))
      case "response.output_item.added":
      case "response.output_item.done":
        return readItem(at, jsonAt(event, "item"))
      case "response.output_text.delta":
        return readText("Text", key, stringAt(event, "delta") ?? "")
      case "response.output_text.done":
        return readWhole("Text", key, stringAt(event, "text") ?? "")
      case "response.refusal.delta":
        return readText("Refusal", `${key}.refusal`, stringAt(event, "delta") ?? "")
      case "response.refusal.done":
        return readWhole("Refusal", `${key}.refusal`, stringAt(event, "refusal") ?? "")
      case "response.function_call_arguments.delta":
        return readArguments(at, stringAt(event, "delta") ?? "")
      case "response.function_call_arguments.done":
        return readArguments(at, missing(stringAt(event, "arguments") ?? "", calls.get(at)?.json ?? ""))
      case "response.reasoning_summary_text.delta":
      case "response.reasoning_text.delta": {
        const text = stringAt(event, "delta") ?? ""
        return text === "" ? [] : [{ _tag: "Reasoning", text }]
      }
      case "response.completed":
      case "response.incomplete":
        return readEnd(jsonAt(event, "response"))
      case "response.failed":
        return readFailure(jsonAt(event, "response"))
      default:
        return []
    }
  }

  return {
    read: (event) => {
      if (event.data === "" || event.data.trim() === "[DONE]") return Result.succeed([])
      const json = parseObject(event.data)
      if (json === undefined) return Result.fail("a frame that is no JSON object")
      const type = stringAt(json, "type") ?? event.event
      if (type === "error") {
        const error = jsonAt(json, "error")
        return Result.succeed([failedOf(isJsonObject(error) ? error : present({ ...json, type: undefined }))])
      }
      if (ended) return Result.succeed([])
      if (type === "response.created") {
        return started
          ? Result.fail("a second response.created")
          : Result.succeed(readStart(jsonAt(json, "response")))
      }
      if (!started && type?.endsWith(".delta") === true) return Result.fail(`${type} before response.created`)
      return Result.succeed(readEvent(json, type))
    }
  }
}

/** An item that is not done yet: how far its events have come. */
interface OpenItem {
  readonly id: string
  readonly block: Block
  /** As it was added, for an item of a kind that only OpenAI has. */
  readonly item: JsonObject
  /** Parts of a message that are done. */
  readonly parts: Array<JsonObject>
  /** `Item`: added. `Part`: its content part as well. `Text`: the text is done, the part is not. */
  stage: "Item" | "Part" | "Text"
}

const makeWriter: Codec["writer"] = (options): StreamWriter => {
  const blocks = makeBlocks()
  let sequence = 0
  let id = ""
  let model = ""
  /** As an adopted provider described the response: it goes out again at the end, with all that the request said. */
  let described: JsonObject | undefined
  let started = false
  let inProgress = false
  let stop: Stop | undefined
  let over = false
  let hasTools = false
  let nextIndex = 0
  let open: OpenItem | undefined
  const output: Array<JsonObject> = []

  const wire = (type: string, data: JsonObject): WireEvent => ({
    event: type,
    data: JSON.stringify({ type, sequence_number: sequence++, ...data })
  })

  const response = (stop: Stop | undefined, usage: TokenUsage | undefined): JsonObject => {
    const made = encodeResponse(id, model, options.created ?? 0, output, stop, usage)
    if (described === undefined) return made
    const { incomplete_details, status, usage: told } = made
    return present({ ...described, status, incomplete_details, output, usage: told })
  }

  const begin = (): ReadonlyArray<WireEvent> => {
    if (inProgress) return []
    inProgress = true
    const told = response(undefined, undefined)
    const created = started ? [] : [wire("response.created", { response: told })]
    started = true
    return [...created, wire("response.in_progress", { response: told })]
  }

  const openItem = (block: Block): ReadonlyArray<WireEvent> => {
    const item: JsonObject =
      block.kind === "Tool"
        ? {
            id: itemId("Tool", id, block.index),
            type: "function_call",
            call_id: block.id,
            name: block.name,
            arguments: "",
            status: "in_progress"
          }
        : {
            id: itemId("Text", id, block.index),
            type: "message",
            role: "assistant",
            status: "in_progress",
            content: []
          }
    open = { id: itemId(block.kind, id, block.index), block, item, parts: [], stage: "Item" }
    return [wire("response.output_item.added", { output_index: block.index, item })]
  }

  const place = (item: OpenItem): JsonObject =>
    item.block.kind === "Tool"
      ? { item_id: item.id, output_index: item.block.index }
      : { item_id: item.id, output_index: item.block.index, content_index: item.parts.length }

  const openPart = (item: OpenItem): ReadonlyArray<WireEvent> => {
    if (item.stage !== "Item" || item.block.kind === "Tool" || item.block.kind === "Other") return []
    item.stage = "Part"
    return [wire("response.content_part.added", { ...place(item), part: contentOf(item.block.kind, "") })]
  }

  const delta = (item: OpenItem, text: string): ReadonlyArray<WireEvent> => {
    switch (item.block.kind) {
      case "Tool":
        return [wire("response.function_call_arguments.delta", { ...place(item), delta: text })]
      case "Refusal":
        return [...openPart(item), wire("response.refusal.delta", { ...place(item), delta: text })]
      default:
        return [
          ...openPart(item),
          wire("response.output_text.delta", { ...place(item), delta: text, logprobs: [] })
        ]
    }
  }

  const closePart = (item: OpenItem): ReadonlyArray<WireEvent> => {
    if (item.stage === "Item") return []
    const { kind, text } = item.block
    const part = contentOf(kind, text)
    const events = [
      ...(item.stage === "Text"
        ? []
        : [
            kind === "Refusal"
              ? wire("response.refusal.done", { ...place(item), refusal: text })
              : wire("response.output_text.done", { ...place(item), text, logprobs: [] })
          ]),
      wire("response.content_part.done", { ...place(item), part })
    ]
    item.parts.push(part)
    return events
  }

  const closeItem = (item: OpenItem): ReadonlyArray<WireEvent> => {
    const { index, kind, text } = item.block
    const events: Array<WireEvent> = []
    let done: JsonObject = { ...item.item, status: "completed" }
    if (kind === "Tool") {
      if (item.stage !== "Text") {
        events.push(wire("response.function_call_arguments.done", { ...place(item), arguments: text }))
      }
      done = { ...done, arguments: text }
    } else if (stringAt(item.item, "type") === "message") {
      events.push(...closePart(item))
      done = { ...done, content: item.parts }
    }
    output.push(done)
    open = undefined
    return [...events, wire("response.output_item.done", { output_index: index, item: done })]
  }

  const writeBlock = (event: BlockEvent): ReadonlyArray<WireEvent> => {
    if (event._tag === "Open") {
      nextIndex = event.block.index + 1
      return openItem(event.block)
    }
    if (open === undefined) return []
    return event._tag === "Delta" ? delta(open, event.text) : closeItem(open)
  }

  const adoptItem = (index: number, item: JsonObject) => {
    const type = stringAt(item, "type")
    const kind = type === "function_call" ? "Tool" : type === "message" ? "Text" : "Other"
    const block: Block = { kind, index, id: "", name: "", text: stringAt(item, "arguments") ?? "" }
    nextIndex = Math.max(nextIndex, index + 1)
    open = { id: stringAt(item, "id") ?? "", block, item, parts: [], stage: "Item" }
    blocks.adopt(block, nextIndex)
  }

  /** An item whose text is done, or that takes no text: what is written next stands in an item of its own. */
  const seal = (item: OpenItem) => blocks.adopt({ ...item.block, kind: "Other" }, nextIndex)

  /** A part of another kind than text: the block becomes one of that kind. */
  const reopen = (item: OpenItem, kind: Block["kind"]) => {
    const block: Block = { ...item.block, kind, text: "" }
    open = { ...item, block, stage: "Part" }
    blocks.adopt(block, nextIndex)
  }

  const adoptFrame = (json: JsonObject) => {
    const at = countAt(json, "output_index")
    switch (stringAt(json, "type")) {
      case "response.created":
      case "response.queued":
      case "response.in_progress": {
        const told = jsonAt(json, "response")
        if (isJsonObject(told)) described = told
        inProgress ||= stringAt(json, "type") === "response.in_progress"
        break
      }
      case "response.output_item.added": {
        const item = jsonAt(json, "item")
        if (isJsonObject(item)) adoptItem(at, item)
        break
      }
      case "response.output_item.done": {
        const item = jsonAt(json, "item")
        if (isJsonObject(item)) output.push(item)
        open = undefined
        nextIndex = Math.max(nextIndex, at + 1)
        blocks.adopt(undefined, nextIndex)
        break
      }
      case "response.content_part.added":
        if (open !== undefined)
          reopen(open, stringAt(json, "part", "type") === "refusal" ? "Refusal" : "Text")
        break
      case "response.output_text.delta":
      case "response.refusal.delta":
      case "response.function_call_arguments.delta":
        if (open !== undefined) open.block.text += stringAt(json, "delta") ?? ""
        break
      case "response.output_text.done":
      case "response.refusal.done":
        if (open === undefined) break
        open.stage = "Text"
        open.block.text = stringAt(json, "text") ?? stringAt(json, "refusal") ?? open.block.text
        seal(open)
        break
      case "response.function_call_arguments.done":
        if (open === undefined) break
        open.stage = "Text"
        open.block.text = stringAt(json, "arguments") ?? open.block.text
        seal(open)
        break
      case "response.content_part.done": {
        const part = jsonAt(json, "part")
        if (open === undefined || !isJsonObject(part)) break
        open.parts.push(part)
        open.stage = "Item"
        seal(open)
        break
      }
      case "response.completed":
      case "response.incomplete":
      case "response.failed":
      case "error":
        over = true
        break
      default:
        break
    }
  }

  return {
    adopt: (events, frame) => {
      for (const event of events) {
        if (event._tag === "Started") {
          started = true
          id = event.id
          model = event.model
        } else if (event._tag === "ToolCall") hasTools = true
      }
      const json = parseObject(frame.data)
      if (json === undefined) return
      sequence = Math.max(sequence, (numberAt(json, "sequence_number") ?? -1) + 1)
      adoptFrame(json)
    },
    write: (event) => {
      if (over) return []
      switch (event._tag) {
        case "Started":
          if (started) return []
          id = event.id
          model = event.model
          return begin()
        case "Text":
        case "Refusal":
        case "ToolCall":
        case "ToolArguments":
          return [...begin(), ...blocks.push(event).flatMap(writeBlock)]
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
      if (!started && model === "") model = summary.answeredBy.model
      const events: Array<WireEvent> = [...begin(), ...blocks.close().flatMap(writeBlock)]
      const tools = hasTools || blocks.hasTools()
      const otherwise: Stop = { reason: tools ? "tool_calls" : "stop", raw: "", sequence: undefined }
      const told = response(stop ?? otherwise, summary.usage)
      events.push(wire(`response.${stringAt(told, "status") ?? "completed"}`, { response: told }))
      return events
    },
    fail: (problem) => {
      if (over) return []
      over = true
      // Flat as it is typed, and nested as OpenAI sends it: clients read either.
      const { code, message, param } = problem
      return [wire("error", { code, message, param, error: openAiError(problem) })]
    }
  }
}

/** OpenAI's `POST /v1/responses`. */
export const openAiResponses: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer: (answer, summary) =>
    encodeResponse(
      answer.id,
      answer.model,
      summary.created ?? 0,
      encodeOutput(answer),
      answer.stop,
      summary.usage
    ),
  reader: makeReader,
  writer: makeWriter,
  encodeProblem: (problem) => ({ error: openAiError(problem) }),
  addSystem: (body, line) => {
    const instructions = stringAt(body, "instructions") ?? ""
    return instructions === ""
      ? {
          ...body,
          ...(Array.isArray(body["input"]) ? { input: withSystemLine(body["input"], line) } : undefined)
        }
      : { ...body, instructions: withLine(instructions, line) }
  },
  forModel: (body, model, stream) => present({ ...body, model, stream: stream ? true : undefined }),
  continueFrom: (body, text) => {
    const input = body["input"]
    const before = Array.isArray(input)
      ? listAt(body, "input")
      : input === undefined
        ? []
        : [said("user", input)]
    return {
      ...body,
      input: [...before, said("assistant", makeContinuation(text).sent), said("user", GO_ON)]
    }
  }
}

const said = (role: string, content: Schema.Json): JsonObject => ({ type: "message", role, content })
