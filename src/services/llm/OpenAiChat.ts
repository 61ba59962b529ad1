import { Predicate, Result, Schema } from "effect"
import type { TokenUsage } from "../../domain/Llm.ts"
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
import { withSystemLine } from "./SystemLine.ts"

/** OpenAI's chat completions, as `openai` 7.57 types them. */

const JsonRecord = Schema.Record(Schema.String, Schema.Json)
const NullOrString = Schema.optional(Schema.NullOr(Schema.String))
const NullOrNumber = Schema.optional(Schema.NullOr(Schema.Finite))
const NullOrBoolean = Schema.optional(Schema.NullOr(Schema.Boolean))
const NullOrTokens = Schema.optional(
  Schema.NullOr(Schema.Finite.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(1)))
)

const Request = Schema.Struct({
  messages: Schema.Array(JsonRecord),
  tools: Schema.optional(Schema.NullOr(Schema.Array(JsonRecord))),
  tool_choice: Schema.optional(Schema.NullOr(Schema.Union([Schema.String, JsonRecord]))),
  parallel_tool_calls: NullOrBoolean,
  max_completion_tokens: NullOrTokens,
  max_tokens: NullOrTokens,
  temperature: NullOrNumber,
  top_p: NullOrNumber,
  stop: Schema.optional(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Schema.String)]))),
  response_format: Schema.optional(Schema.NullOr(JsonRecord)),
  reasoning_effort: NullOrString,
  n: NullOrNumber,
  modalities: Schema.optional(Schema.NullOr(Schema.Array(Schema.String))),
  web_search_options: Schema.optional(Schema.NullOr(JsonRecord)),
  functions: Schema.optional(Schema.NullOr(Schema.Array(JsonRecord)))
})

const Role = Schema.Literals(["system", "developer", "user", "assistant", "tool", "function"])
const Content = Schema.optional(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(JsonRecord)])))
const TextPart = Schema.Struct({ text: Schema.String })
const RefusalPart = Schema.Struct({ refusal: Schema.String })
const ImagePart = Schema.Struct({ image_url: Schema.Struct({ url: Schema.String, detail: NullOrString }) })
const ToolCalls = Schema.optional(Schema.NullOr(Schema.Array(JsonRecord)))
const FunctionCall = Schema.Struct({
  id: Schema.String,
  function: Schema.Struct({ name: Schema.String, arguments: Schema.String })
})
const FunctionTool = Schema.Struct({
  function: Schema.Struct({
    name: Schema.String,
    description: NullOrString,
    parameters: Schema.optional(Schema.NullOr(JsonRecord)),
    strict: NullOrBoolean
  })
})
const NamedFunction = Schema.Struct({ function: Schema.Struct({ name: Schema.String }) })
const JsonSchemaFormat = Schema.Struct({
  json_schema: Schema.Struct({
    name: Schema.String,
    schema: Schema.optional(Schema.NullOr(JsonRecord)),
    strict: NullOrBoolean
  })
})

type Path = ReadonlyArray<string | number>

const decodeContent = (
  fields: RequestFields,
  content: typeof Content.Type,
  path: Path
): ReadonlyArray<Part> => {
  if (content === undefined || content === null) return []
  if (Predicate.isString(content)) return content === "" ? [] : [{ _tag: "Text", text: content }]
  const parts: Array<Part> = []
  for (const [index, part] of content.entries()) {
    const at = [...path, index]
    switch (fields.read(Schema.String, part["type"], [...at, "type"])) {
      case undefined:
        break
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
      case "image_url": {
        const image = fields.read(ImagePart, part, at)?.image_url
        if (image !== undefined)
          parts.push({ _tag: "Image", url: image.url, detail: image.detail ?? undefined })
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

const decodeToolCalls = (fields: RequestFields, value: unknown, path: Path): ReadonlyArray<Part> =>
  (fields.read(ToolCalls, value, path) ?? []).flatMap((call, index): ReadonlyArray<Part> => {
    const at = [...path, index]
    if (call["type"] !== undefined && call["type"] !== "function") {
      fields.untranslatable(at, "a tool call that is no function")
      return []
    }
    const read = fields.read(FunctionCall, call, at)
    return read === undefined
      ? []
      : [{ _tag: "ToolCall", id: read.id, name: read.function.name, arguments: read.function.arguments }]
  })

const decodeMessages = (fields: RequestFields, messages: ReadonlyArray<JsonObject>) => {
  const system: Array<string> = []
  const turns: Array<Turn> = []
  for (const [index, message] of messages.entries()) {
    const at = ["messages", index]
    const role = fields.read(Role, message["role"], [...at, "role"])
    const content = fields.read(Content, message["content"], [...at, "content"])
    const parts = decodeContent(fields, content, [...at, "content"])
    switch (role) {
      case "system":
      case "developer":
        system.push(textOf(parts))
        break
      case "user":
        if (content === undefined || content === null)
          fields.refuse([...at, "content"], "Expected string or array")
        turns.push({ role: "user", parts })
        break
      case "tool": {
        const id = fields.read(Schema.String, message["tool_call_id"], [...at, "tool_call_id"])
        if (id !== undefined) {
          turns.push({
            role: "user",
            parts: [{ _tag: "ToolResult", id, text: textOf(parts), isError: false }]
          })
        }
        break
      }
      case "assistant": {
        const refusal = fields.read(NullOrString, message["refusal"], [...at, "refusal"])
        const said: ReadonlyArray<Part> =
          refusal === undefined || refusal === null || refusal === ""
            ? []
            : [{ _tag: "Refusal", text: refusal }]
        const calls = decodeToolCalls(fields, message["tool_calls"], [...at, "tool_calls"])
        turns.push({ role: "assistant", parts: [...parts, ...said, ...calls] })
        break
      }
      case "function":
        fields.untranslatable(at, "a message of role function")
        break
      default:
        break
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
    const read = fields.read(FunctionTool, tool, at)?.function
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
  return named === undefined ? undefined : { _tag: "Tool", name: named.function.name }
}

const decodeFormat = (
  fields: RequestFields,
  format: JsonObject | null | undefined
): Conversation["format"] => {
  if (format === undefined || format === null) return undefined
  const at = ["response_format"]
  switch (fields.read(Schema.String, format["type"], [...at, "type"])) {
    case "json_object":
      return { _tag: "Json" }
    case "json_schema": {
      const read = fields.read(JsonSchemaFormat, format, at)?.json_schema
      if (read === undefined) return undefined
      return { _tag: "Schema", name: read.name, schema: read.schema ?? {}, strict: read.strict ?? undefined }
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
  if (read.n !== undefined && read.n !== null && read.n > 1)
    fields.untranslatable(["n"], "more than one choice")
  if (read.modalities?.some((modality) => modality !== "text") === true) {
    fields.untranslatable(["modalities"], "an answer in sound")
  }
  if (read.web_search_options !== undefined && read.web_search_options !== null) {
    fields.untranslatable(["web_search_options"], "a search by the provider")
  }
  if (read.functions !== undefined && read.functions !== null)
    fields.untranslatable(["functions"], "functions")
  const stop = read.stop ?? []
  return fields.result({
    ...decodeMessages(fields, read.messages),
    tools: decodeTools(fields, read.tools ?? []),
    toolChoice: decodeToolChoice(fields, read.tool_choice),
    parallelToolCalls: read.parallel_tool_calls ?? undefined,
    maxTokens: read.max_completion_tokens ?? read.max_tokens ?? undefined,
    temperature: read.temperature ?? undefined,
    topP: read.top_p ?? undefined,
    stop: Predicate.isString(stop) ? [stop] : stop,
    format: decodeFormat(fields, read.response_format),
    reasoningEffort: read.reasoning_effort ?? undefined
  })
}

const encodeUserParts = (parts: ReadonlyArray<Part>): Schema.Json => {
  const [first] = parts
  if (parts.length === 1 && first?._tag === "Text") return first.text
  return parts.flatMap((part): ReadonlyArray<JsonObject> => {
    if (part._tag === "Text") return [{ type: "text", text: part.text }]
    if (part._tag === "Image") {
      return [{ type: "image_url", image_url: present({ url: part.url, detail: part.detail }) }]
    }
    return []
  })
}

const encodeCall = (part: Extract<Part, { _tag: "ToolCall" }>): JsonObject => ({
  id: part.id,
  type: "function",
  function: { name: part.name, arguments: part.arguments }
})

const encodeAssistant = (parts: ReadonlyArray<Part>): JsonObject => {
  const said = parts.filter((part) => part._tag === "Text")
  const refusals = parts.filter((part) => part._tag === "Refusal")
  const calls = parts.filter((part) => part._tag === "ToolCall")
  const [only] = said
  return present({
    role: "assistant",
    content:
      said.length === 1 && only !== undefined
        ? only.text
        : said.length === 0
          ? null
          : said.map((part) => ({ type: "text", text: part.text })),
    refusal: refusals.length === 0 ? undefined : refusals.map((part) => part.text).join(""),
    tool_calls: calls.length === 0 ? undefined : calls.map(encodeCall)
  })
}

const encodeTurn = (turn: Turn): ReadonlyArray<JsonObject> => {
  if (turn.role === "assistant") return [encodeAssistant(turn.parts)]
  // Results follow right upon the calls, before anything else that the user says.
  const results = turn.parts.filter((part) => part._tag === "ToolResult")
  const rest = turn.parts.filter((part) => part._tag !== "ToolResult")
  return [
    ...results.map((part) => ({ role: "tool", tool_call_id: part.id, content: part.text })),
    ...(rest.length === 0 ? [] : [{ role: "user", content: encodeUserParts(rest) }])
  ]
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
      return { type: "function", function: { name: choice.name } }
  }
}

const encodeFormat = (format: NonNullable<Conversation["format"]>): JsonObject =>
  format._tag === "Json"
    ? { type: "json_object" }
    : {
        type: "json_schema",
        json_schema: present({ name: format.name, schema: format.schema, strict: format.strict })
      }

const encodeRequest: Codec["encodeRequest"] = (conversation, model, stream) =>
  present({
    model,
    messages: [
      ...conversation.system.map((content) => ({ role: "system", content })),
      ...mergedTurns(conversation.turns).flatMap(encodeTurn)
    ],
    tools:
      conversation.tools.length === 0
        ? undefined
        : conversation.tools.map((tool) => ({
            type: "function",
            function: present({
              name: tool.name,
              description: tool.description,
              parameters: tool.parameters,
              strict: tool.strict
            })
          })),
    tool_choice:
      conversation.toolChoice === undefined ? undefined : encodeToolChoice(conversation.toolChoice),
    parallel_tool_calls: conversation.tools.length === 0 ? undefined : conversation.parallelToolCalls,
    // `max_tokens` is refused by the reasoning models.
    max_completion_tokens: conversation.maxTokens,
    temperature: conversation.temperature,
    top_p: conversation.topP,
    stop: conversation.stop.length === 0 ? undefined : conversation.stop,
    response_format: conversation.format === undefined ? undefined : encodeFormat(conversation.format),
    reasoning_effort: conversation.reasoningEffort,
    stream: stream ? true : undefined,
    stream_options: stream ? { include_usage: true } : undefined
  })

const decodeUsage = (usage: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isJsonObject(usage)) return undefined
  const cachedRead = countAt(usage, "prompt_tokens_details", "cached_tokens")
  const cachedWrite = countAt(usage, "prompt_tokens_details", "cache_write_tokens")
  return {
    input: Math.max(0, countAt(usage, "prompt_tokens") - cachedRead - cachedWrite),
    cachedRead,
    cachedWrite,
    output: countAt(usage, "completion_tokens"),
    reasoning: countAt(usage, "completion_tokens_details", "reasoning_tokens")
  }
}

const encodeUsage = (usage: TokenUsage): JsonObject => {
  const prompt = usage.input + usage.cachedRead + usage.cachedWrite
  return {
    prompt_tokens: prompt,
    completion_tokens: usage.output,
    total_tokens: prompt + usage.output,
    prompt_tokens_details: { cached_tokens: usage.cachedRead, cache_write_tokens: usage.cachedWrite },
    completion_tokens_details: { reasoning_tokens: usage.reasoning }
  }
}

const decodeStop = (raw: string): Stop => {
  const stop = (reason: Stop["reason"]): Stop => ({ reason, raw, sequence: undefined })
  switch (raw) {
    case "stop":
      return stop("stop")
    case "length":
      return stop("length")
    case "tool_calls":
    case "function_call":
      return stop("tool_calls")
    case "content_filter":
      return stop("content_filter")
    default:
      return stop("other")
  }
}

/** A pause is an answer that is not finished, for which this dialect has no other word than `length`. */
const encodeStop = (stop: Stop): string => {
  switch (stop.reason) {
    case "stop":
    case "stop_sequence":
      return "stop"
    case "length":
    case "pause":
      return "length"
    case "tool_calls":
      return "tool_calls"
    case "content_filter":
      return "content_filter"
    case "other":
      return stop.raw === "" ? "stop" : stop.raw
  }
}

const decodeAnswer: Codec["decodeAnswer"] = (body) => {
  const [choice] = listAt(body, "choices")
  const message = jsonAt(choice, "message")
  if (message === undefined) return Result.fail("an answer without choices[0].message")
  const text = stringAt(message, "content") ?? ""
  const refusal = stringAt(message, "refusal") ?? ""
  const calls = listAt(message, "tool_calls").map((call): Part => ({
    _tag: "ToolCall",
    id: stringAt(call, "id") ?? "",
    name: stringAt(call, "function", "name") ?? "",
    arguments: stringAt(call, "function", "arguments") ?? ""
  }))
  const answer: Answer = {
    id: stringAt(body, "id") ?? "",
    model: stringAt(body, "model") ?? "",
    parts: [
      ...(text === "" ? [] : [{ _tag: "Text" as const, text }]),
      ...(refusal === "" ? [] : [{ _tag: "Refusal" as const, text: refusal }]),
      ...calls
    ],
    stop: decodeStop(stringAt(choice, "finish_reason") ?? ""),
    usage: decodeUsage(jsonAt(body, "usage"))
  }
  return Result.succeed(answer)
}

const encodeAnswer: Codec["encodeAnswer"] = (answer, summary) => {
  const said = answer.parts.filter((part) => part._tag === "Text")
  const refusals = answer.parts.filter((part) => part._tag === "Refusal")
  const calls = answer.parts.filter((part) => part._tag === "ToolCall")
  return {
    id: answer.id,
    object: "chat.completion",
    created: summary.created ?? 0,
    model: answer.model,
    choices: [
      {
        index: 0,
        message: present({
          role: "assistant",
          content: said.length === 0 ? null : said.map((part) => part.text).join(""),
          refusal: refusals.length === 0 ? null : refusals.map((part) => part.text).join(""),
          tool_calls: calls.length === 0 ? undefined : calls.map(encodeCall)
        }),
        logprobs: null,
        finish_reason: encodeStop(answer.stop)
      }
    ],
    usage: encodeUsage(summary.usage)
  }
}

const failedOf = (error: Schema.Json | undefined): StreamEvent => ({
  _tag: "Failed",
  type: stringAt(error, "type") ?? null,
  code: stringAt(error, "code") ?? numberAt(error, "code")?.toString() ?? null,
  message: stringAt(error, "message") ?? "The provider failed without a reason"
})

const makeReader = (): StreamReader => {
  let started = false
  /** Our index and the provider's id of each call, by the provider's index. */
  const calls = new Map<number, { readonly index: number; readonly id: string }>()
  let nextCall = 0

  const readCall = (call: Schema.Json, place: number): ReadonlyArray<StreamEvent> => {
    const at = numberAt(call, "index") ?? place
    const id = stringAt(call, "id") ?? ""
    const name = stringAt(call, "function", "name") ?? ""
    const json = stringAt(call, "function", "arguments") ?? ""
    const known = calls.get(at)
    const events: Array<StreamEvent> = []
    // Some compatible providers give every call the same index: a new id with a name is a new call.
    const isNew = known === undefined || (id !== "" && name !== "" && id !== known.id)
    const current = isNew ? { index: nextCall++, id } : known
    if (isNew) {
      calls.set(at, current)
      events.push({ _tag: "ToolCall", index: current.index, id, name })
    }
    if (json !== "") events.push({ _tag: "ToolArguments", index: current.index, json })
    return events
  }

  const readChunk = (chunk: JsonObject): ReadonlyArray<StreamEvent> => {
    const events: Array<StreamEvent> = []
    const choice = listAt(chunk, "choices").find((choice) => (numberAt(choice, "index") ?? 0) === 0)
    if (!started && choice !== undefined) {
      started = true
      events.push({ _tag: "Started", id: stringAt(chunk, "id") ?? "", model: stringAt(chunk, "model") ?? "" })
    }
    const delta = jsonAt(choice, "delta")
    const reasoning = stringAt(delta, "reasoning_content") ?? stringAt(delta, "reasoning") ?? ""
    if (reasoning !== "") events.push({ _tag: "Reasoning", text: reasoning })
    const text = stringAt(delta, "content") ?? ""
    if (text !== "") events.push({ _tag: "Text", text })
    const refusal = stringAt(delta, "refusal") ?? ""
    if (refusal !== "") events.push({ _tag: "Refusal", text: refusal })
    for (const [place, call] of listAt(delta, "tool_calls").entries()) events.push(...readCall(call, place))
    const finish = stringAt(choice, "finish_reason")
    if (finish !== undefined) events.push({ _tag: "Stopped", stop: decodeStop(finish) })
    const usage = decodeUsage(jsonAt(chunk, "usage"))
    if (usage !== undefined) events.push({ _tag: "Usage", usage })
    return events
  }

  return {
    read: (event) => {
      if (event.data === "") return Result.succeed([])
      if (event.data.trim() === "[DONE]") return Result.succeed([{ _tag: "Ended" }])
      const chunk = parseObject(event.data)
      if (chunk === undefined) return Result.fail("a frame that is no JSON object")
      const error = jsonAt(chunk, "error")
      if (event.event === "error") return Result.succeed([failedOf(error ?? chunk)])
      if (error !== undefined && error !== null) return Result.succeed([failedOf(error)])
      return Result.succeed(readChunk(chunk))
    }
  }
}

const wire = (data: JsonObject): WireEvent => ({ event: undefined, data: JSON.stringify(data) })

const makeWriter: Codec["writer"] = (options): StreamWriter => {
  let id = ""
  let model = ""
  let created = options.created ?? 0
  let started = false
  let stop: Stop | undefined
  let stopTold = false
  let usageTold = false
  let over = false
  /** Our index of each call by the event's: a provider that goes on counts anew. */
  const calls = new Map<number, { readonly index: number; empty: boolean }>()
  let nextCall = 0

  const chunk = (choices: ReadonlyArray<JsonObject>, usage: JsonObject | null): WireEvent =>
    wire({
      id,
      object: "chat.completion.chunk",
      created,
      model,
      choices,
      ...(options.usage ? { usage } : {})
    })

  const delta = (delta: JsonObject, finish: string | null = null): WireEvent =>
    chunk([{ index: 0, delta, logprobs: null, finish_reason: finish }], null)

  const begin = (): ReadonlyArray<WireEvent> => {
    if (started) return []
    started = true
    return [delta({ role: "assistant", content: "", refusal: null })]
  }

  const callDelta = (index: number, json: string): WireEvent =>
    delta({ tool_calls: [{ index, function: { arguments: json } }] })

  const write: StreamWriter["write"] = (event) => {
    if (over || stopTold) return []
    switch (event._tag) {
      case "Started":
        if (started) return []
        id = event.id
        model = event.model
        return begin()
      case "Text":
        return event.text === "" ? [] : [...begin(), delta({ content: event.text })]
      case "Refusal":
        return event.text === "" ? [] : [...begin(), delta({ refusal: event.text })]
      case "ToolCall": {
        const call = { index: nextCall++, empty: true }
        calls.set(event.index, call)
        const { id, name } = event
        return [
          ...begin(),
          delta({
            tool_calls: [{ index: call.index, id, type: "function", function: { name, arguments: "" } }]
          })
        ]
      }
      case "ToolArguments": {
        const call = calls.get(event.index)
        if (call === undefined || event.json === "") return []
        call.empty = false
        return [callDelta(call.index, event.json)]
      }
      case "Stopped":
        stop = event.stop
        return []
      case "Reasoning":
      case "Usage":
      case "Failed":
      case "Ended":
        return []
    }
  }

  return {
    write,
    adopt: (events, frame) => {
      for (const event of events) {
        switch (event._tag) {
          case "Started":
            started = true
            id = event.id
            model = event.model
            created = numberAt(parseObject(frame.data), "created") ?? created
            break
          case "ToolCall":
            nextCall = Math.max(nextCall, event.index + 1)
            calls.set(event.index, { index: event.index, empty: false })
            break
          case "Stopped":
            stopTold = true
            break
          case "Usage":
            usageTold = true
            break
          case "Ended":
          case "Failed":
            over = true
            break
          default:
            break
        }
      }
    },
    end: (summary) => {
      if (over) return []
      over = true
      const events: Array<WireEvent> = [...begin()]
      if (!stopTold) {
        // No client can parse an empty text as arguments.
        for (const call of calls.values()) if (call.empty) events.push(callDelta(call.index, "{}"))
        const otherwise: Stop = { reason: nextCall > 0 ? "tool_calls" : "stop", raw: "", sequence: undefined }
        events.push(delta({}, encodeStop(stop ?? otherwise)))
      }
      if (options.usage && !usageTold) events.push(chunk([], encodeUsage(summary.usage)))
      events.push({ event: undefined, data: "[DONE]" })
      return events
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [wire({ error: openAiError(problem) })]
    }
  }
}

/**
 * A provider's frame as it goes to a caller who did not ask for usage, which we ask for in any case (`forModel`): the
 * usage chunk is left out (undefined), and the member `usage` of every other. A frame without one passes as it is.
 */
export const withoutUsage = (event: WireEvent): WireEvent | undefined => {
  if (!event.data.includes('"usage"')) return event
  const chunk = parseObject(event.data)
  if (chunk === undefined || !("usage" in chunk)) return event
  const { usage, ...rest } = chunk
  const isUsageChunk = isJsonObject(usage) && Array.isArray(rest["choices"]) && rest["choices"].length === 0
  return isUsageChunk ? undefined : { ...event, data: JSON.stringify(rest) }
}

/** OpenAI's `POST /v1/chat/completions`. */
export const openAiChat: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer,
  reader: makeReader,
  writer: makeWriter,
  encodeProblem: (problem) => ({ error: openAiError(problem) }),
  /** A stream is asked for its usage in any case, since without it an attempt could only be estimated. */
  addSystem: (body, line) => ({ ...body, messages: withSystemLine(listAt(body, "messages"), line) }),
  forModel: (body, model, stream) => {
    if (!stream) {
      // `stream_options` are refused without a stream.
      return present({ ...body, model, stream: undefined, stream_options: undefined })
    }
    const options = body["stream_options"]
    return {
      ...body,
      model,
      stream: true,
      stream_options: { ...(isJsonObject(options) ? options : {}), include_usage: true }
    }
  },
  continueFrom: (body, text) => ({
    ...body,
    messages: [
      ...listAt(body, "messages"),
      { role: "assistant", content: makeContinuation(text).sent },
      { role: "user", content: GO_ON }
    ]
  })
}
