import { Result, Schema } from "effect"
import type { TokenUsage } from "../../domain/Llm.ts"
import type { InvalidRequest } from "../../domain/Problems.ts"
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
import {
  compact,
  countOf,
  frame,
  isObject,
  listOf,
  numberOf,
  objectOf,
  parsed,
  requestDecoder,
  textOf
} from "./Json.ts"

// OpenAI's Responses, as `openai` 7.57 sends and parses them (`src/resources/responses`). Its parser holds each event
// to the ids of the items before it (`src/internal/responses/response-accumulator.ts`).

const JsonMembers = Schema.Record(Schema.String, Schema.Json)

const ContentPart = Schema.Union([
  Schema.Struct({ type: Schema.Literals(["input_text", "output_text"]), text: Schema.String }),
  Schema.Struct({
    type: Schema.Literal("input_image"),
    image_url: Schema.String,
    detail: Schema.optionalKey(Schema.NullOr(Schema.String))
  }),
  Schema.Struct({ type: Schema.Literal("refusal"), refusal: Schema.String })
])
const Content = Schema.Union([Schema.String, Schema.Array(ContentPart)])

const Message = Schema.Struct({
  type: Schema.optionalKey(Schema.Literal("message")),
  role: Schema.Literals(["system", "developer", "user", "assistant"]),
  content: Content
})

const InputItem = Schema.Union([
  Message,
  Schema.Struct({
    type: Schema.Literal("function_call"),
    call_id: Schema.String,
    name: Schema.String,
    arguments: Schema.String
  }),
  Schema.Struct({ type: Schema.Literal("function_call_output"), call_id: Schema.String, output: Content }),
  /** What one model thought another vendor's can't read, and needs none of it. */
  Schema.Struct({ type: Schema.Literal("reasoning") })
])

const Request = Schema.Struct({
  input: Schema.Union([Schema.String, Schema.Array(InputItem).check(Schema.isMinLength(1))]),
  instructions: Schema.optionalKey(Schema.NullOr(Schema.String)),
  tools: Schema.optionalKey(
    Schema.NullOr(
      Schema.Array(
        Schema.Struct({
          type: Schema.Literal("function"),
          name: Schema.String,
          description: Schema.optionalKey(Schema.NullOr(Schema.String)),
          parameters: Schema.optionalKey(Schema.NullOr(JsonMembers)),
          strict: Schema.optionalKey(Schema.NullOr(Schema.Boolean))
        })
      )
    )
  ),
  tool_choice: Schema.optionalKey(
    Schema.NullOr(
      Schema.Union([
        Schema.Literals(["none", "auto", "required"]),
        Schema.Struct({ type: Schema.Literal("function"), name: Schema.String })
      ])
    )
  ),
  parallel_tool_calls: Schema.optionalKey(Schema.NullOr(Schema.Boolean)),
  max_output_tokens: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  temperature: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  top_p: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  text: Schema.optionalKey(
    Schema.NullOr(
      Schema.Struct({
        format: Schema.optionalKey(
          Schema.NullOr(
            Schema.Union([
              Schema.Struct({ type: Schema.Literals(["text", "json_object"]) }),
              Schema.Struct({
                type: Schema.Literal("json_schema"),
                name: Schema.String,
                schema: JsonMembers
              })
            ])
          )
        )
      })
    )
  ),
  reasoning: Schema.optionalKey(
    Schema.NullOr(Schema.Struct({ effort: Schema.optionalKey(Schema.NullOr(Schema.String)) }))
  )
})

const decode = requestDecoder(Request)

const partsOf = (content: typeof Content.Type): ReadonlyArray<Part> =>
  typeof content === "string"
    ? [{ _tag: "Text", text: content }]
    : content.map((part): Part => {
        switch (part.type) {
          case "input_text":
          case "output_text":
            return { _tag: "Text", text: part.text }
          case "input_image":
            return { _tag: "Image", url: part.image_url, detail: part.detail ?? undefined }
          case "refusal":
            return { _tag: "Refusal", text: part.refusal }
        }
      })

const plainText = (parts: ReadonlyArray<Part>): string =>
  parts.map((part) => (part._tag === "Text" || part._tag === "Refusal" ? part.text : "")).join("")

const turnOf = (item: typeof InputItem.Type): Turn | undefined => {
  switch (item.type) {
    case "reasoning":
      return undefined
    case "function_call":
      return {
        role: "assistant",
        parts: [{ _tag: "ToolCall", id: item.call_id, name: item.name, arguments: item.arguments }]
      }
    case "function_call_output":
      return {
        role: "user",
        parts: [
          { _tag: "ToolResult", id: item.call_id, text: plainText(partsOf(item.output)), isError: false }
        ]
      }
    default:
      return item.role === "system" || item.role === "developer"
        ? undefined
        : { role: item.role, parts: partsOf(item.content) }
  }
}

const speaksOfTools = ({ parts }: Turn): boolean =>
  parts.some(({ _tag }) => _tag === "ToolCall" || _tag === "ToolResult")

/** Calls and results are items of their own here; other dialects have all of one turn's together. */
const turnsOf = (items: ReadonlyArray<typeof InputItem.Type>): ReadonlyArray<Turn> => {
  const turns: Array<Turn> = []
  for (const item of items) {
    const turn = turnOf(item)
    if (turn === undefined) continue
    const last = turns.at(-1)
    if (last?.role === turn.role && (speaksOfTools(turn) || speaksOfTools(last))) {
      turns[turns.length - 1] = { role: turn.role, parts: [...last.parts, ...turn.parts] }
    } else {
      turns.push(turn)
    }
  }
  return turns
}

const choiceOf = (choice: typeof Request.Type.tool_choice): ToolChoice | undefined => {
  if (choice === undefined || choice === null) return undefined
  if (typeof choice === "object") return { _tag: "Tool", name: choice.name }
  return { _tag: choice === "none" ? "None" : choice === "auto" ? "Auto" : "Required" }
}

const decodeRequest = (body: JsonObject): Result.Result<Conversation, InvalidRequest> =>
  Result.map(decode(body), (request): Conversation => {
    const items: ReadonlyArray<typeof InputItem.Type> =
      typeof request.input === "string" ? [{ role: "user", content: request.input }] : request.input
    const format = request.text?.format
    return {
      system: [
        ...(request.instructions ? [request.instructions] : []),
        ...items.flatMap((item) =>
          "role" in item && (item.role === "system" || item.role === "developer")
            ? [plainText(partsOf(item.content))]
            : []
        )
      ],
      turns: turnsOf(items),
      tools: (request.tools ?? []).map(({ description, name, parameters, strict }): Tool => ({
        name,
        description: description ?? undefined,
        parameters: parameters ?? { type: "object", properties: {} },
        strict: strict ?? undefined
      })),
      toolChoice: choiceOf(request.tool_choice),
      parallelToolCalls: request.parallel_tool_calls ?? undefined,
      maxTokens: request.max_output_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      topP: request.top_p ?? undefined,
      stop: [],
      format:
        format?.type === "json_schema"
          ? { _tag: "Schema", name: format.name, schema: format.schema }
          : format?.type === "json_object"
            ? { _tag: "Json" }
            : undefined,
      reasoningEffort: request.reasoning?.effort ?? undefined
    }
  })

const contentOf = (parts: ReadonlyArray<Part>): Schema.Json => {
  if (parts.every((part) => part._tag === "Text")) return plainText(parts)
  return parts.flatMap((part): ReadonlyArray<JsonObject> => {
    if (part._tag === "Text") return [{ type: "input_text", text: part.text }]
    if (part._tag === "Image") {
      return [{ type: "input_image", image_url: part.url, detail: part.detail ?? "auto" }]
    }
    return []
  })
}

/** A turn of ours is several items there; results of tools come first. */
const itemsOf = ({ parts, role }: Turn): ReadonlyArray<JsonObject> => {
  const results = parts.flatMap((part) =>
    part._tag === "ToolResult" ? [{ type: "function_call_output", call_id: part.id, output: part.text }] : []
  )
  const calls = parts.flatMap((part) =>
    part._tag === "ToolCall"
      ? [{ type: "function_call", call_id: part.id, name: part.name, arguments: part.arguments }]
      : []
  )
  const rest = parts.filter((part) => part._tag !== "ToolResult" && part._tag !== "ToolCall")
  const content = role === "user" ? contentOf(rest) : plainText(rest)
  return [...results, ...(rest.length === 0 ? [] : [{ role, content }]), ...calls]
}

const encodeChoice = (choice: ToolChoice | undefined): Schema.Json | undefined => {
  switch (choice?._tag) {
    case undefined:
      return undefined
    case "Tool":
      return { type: "function", name: choice.name }
    case "Auto":
      return "auto"
    case "None":
      return "none"
    case "Required":
      return "required"
  }
}

const encodeRequest = (conversation: Conversation, model: string, stream: boolean): JsonObject => {
  const { format, reasoningEffort, system } = conversation
  return compact({
    model,
    instructions: system.length === 0 ? undefined : system.join("\n\n"),
    input: conversation.turns.flatMap(itemsOf),
    tools:
      conversation.tools.length === 0
        ? undefined
        : conversation.tools.map(({ description, name, parameters, strict }) => ({
            type: "function",
            ...compact({ name, description, parameters }),
            // Left out it means `true` here, and `false` in the other dialects.
            strict: strict ?? false
          })),
    tool_choice: encodeChoice(conversation.toolChoice),
    parallel_tool_calls: conversation.parallelToolCalls,
    max_output_tokens: conversation.maxTokens,
    temperature: conversation.temperature,
    top_p: conversation.topP,
    text:
      format === undefined
        ? undefined
        : {
            format:
              format._tag === "Json"
                ? { type: "json_object" }
                : { type: "json_schema", name: format.name, strict: true, schema: format.schema }
          },
    reasoning: reasoningEffort === undefined ? undefined : { effort: reasoningEffort },
    // Who asked in another dialect did not ask OpenAI to keep the answer, which is the default here.
    store: false,
    stream: stream ? true : undefined
  })
}

/** A response has a status instead of a stop reason. That a tool was called, only its output tells. */
const stopOf = (response: JsonObject, called: boolean): Stop => {
  const incomplete = textOf(objectOf(response["incomplete_details"])["reason"])
  const raw = incomplete ?? textOf(response["status"]) ?? ""
  if (incomplete === "max_output_tokens") return { reason: "length", raw, sequence: undefined }
  if (incomplete === "content_filter") return { reason: "content_filter", raw, sequence: undefined }
  if (raw !== "completed") return { reason: "other", raw, sequence: undefined }
  return { reason: called ? "tool_calls" : "stop", raw, sequence: undefined }
}

/** What OpenAI calls a stop before the end; `undefined` for a whole answer. */
const incompleteOf = (stop: Stop | undefined): string | undefined => {
  if (stop?.reason === "length") return "max_output_tokens"
  return stop?.reason === "content_filter" ? "content_filter" : undefined
}

/** `input_tokens` include the cached ones, and `output_tokens` the reasoning. */
const usageOf = (json: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isObject(json) || numberOf(json["input_tokens"]) === undefined) return undefined
  const details = objectOf(json["input_tokens_details"])
  const cachedRead = countOf(details["cached_tokens"])
  const cachedWrite = countOf(details["cache_write_tokens"])
  return {
    input: Math.max(0, countOf(json["input_tokens"]) - cachedRead - cachedWrite),
    cachedRead,
    cachedWrite,
    output: countOf(json["output_tokens"]),
    reasoning: countOf(objectOf(json["output_tokens_details"])["reasoning_tokens"])
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

const itemParts = (item: JsonObject): ReadonlyArray<Part> => {
  switch (item["type"]) {
    case "message":
      return listOf(item["content"]).flatMap((json): ReadonlyArray<Part> => {
        const part = objectOf(json)
        const text = textOf(part["text"])
        const refusal = textOf(part["refusal"])
        if (text !== undefined) return [{ _tag: "Text", text }]
        return refusal === undefined ? [] : [{ _tag: "Refusal", text: refusal }]
      })
    case "function_call":
      return [
        {
          _tag: "ToolCall",
          id: textOf(item["call_id"]) ?? "",
          name: textOf(item["name"]) ?? "",
          arguments: textOf(item["arguments"]) ?? ""
        }
      ]
    default:
      return []
  }
}

const decodeAnswer = (body: JsonObject): Result.Result<Answer, string> => {
  const output = body["output"]
  if (body["status"] === "failed") {
    return Result.fail(textOf(objectOf(body["error"])["message"]) ?? "The response failed")
  }
  if (!Array.isArray(output)) return Result.fail("A response without output")
  const parts = listOf(output).flatMap((item) => itemParts(objectOf(item)))
  return Result.succeed({
    id: textOf(body["id"]) ?? "",
    model: textOf(body["model"]) ?? "",
    parts,
    stop: stopOf(
      body,
      parts.some(({ _tag }) => _tag === "ToolCall")
    ),
    usage: usageOf(body["usage"])
  })
}

/** OpenAI's ids begin so; a client may look. */
const idOf = (id: string): string => (id.startsWith("resp_") ? id : `resp_${id}`)

/** When an answer was made: nothing depends on it, and a codec has no clock. */
const CREATED = 0

const responseOf = (id: string, model: string): JsonObject => ({
  id: idOf(id),
  object: "response",
  created_at: CREATED,
  completed_at: null,
  status: "in_progress",
  background: false,
  error: null,
  incomplete_details: null,
  instructions: null,
  max_output_tokens: null,
  max_tool_calls: null,
  metadata: {},
  model,
  output: [],
  parallel_tool_calls: true,
  previous_response_id: null,
  prompt_cache_key: null,
  reasoning: { effort: null, summary: null },
  safety_identifier: null,
  service_tier: "default",
  store: false,
  temperature: 1,
  text: { format: { type: "text" } },
  tool_choice: "auto",
  tools: [],
  top_logprobs: 0,
  top_p: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  truncation: "disabled",
  usage: null,
  user: null
})

/** The same response when it is over. */
const ended = (
  response: JsonObject,
  output: ReadonlyArray<Schema.Json>,
  stop: Stop | undefined,
  usage: TokenUsage
): JsonObject => {
  const reason = incompleteOf(stop)
  return {
    ...response,
    status: reason === undefined ? "completed" : "incomplete",
    completed_at: reason === undefined ? CREATED : null,
    incomplete_details: reason === undefined ? null : { reason },
    output,
    usage: encodeUsage(usage)
  }
}

const textPart = (text: string): JsonObject => ({ type: "output_text", annotations: [], logprobs: [], text })

const messageItem = (id: string, status: string, content: ReadonlyArray<Schema.Json>): JsonObject => ({
  id,
  type: "message",
  status,
  role: "assistant",
  content
})

const callItem = (
  id: string,
  status: string,
  call: Omit<Part & { _tag: "ToolCall" }, "_tag">
): JsonObject => ({
  id,
  type: "function_call",
  status,
  call_id: call.id,
  name: call.name,
  arguments: call.arguments
})

/** Ids of items are held to be unique and not empty; the place in the answer makes them so. */
const itemId = (kind: "msg" | "fc", response: string, index: number): string =>
  `${kind}_${response.replace(/^resp_/, "")}_${index}`

const encodeAnswer: Codec["encodeAnswer"] = (answer, summary) => {
  const status = incompleteOf(answer.stop) === undefined ? "completed" : "incomplete"
  const content = answer.parts.flatMap((part): ReadonlyArray<JsonObject> => {
    if (part._tag === "Text") return [textPart(part.text)]
    return part._tag === "Refusal" ? [{ type: "refusal", refusal: part.text }] : []
  })
  const first = content.length === 0 ? 0 : 1
  const calls = answer.parts
    .filter((part) => part._tag === "ToolCall")
    .map((call, index) => callItem(itemId("fc", answer.id, first + index), status, call))
  return ended(
    responseOf(answer.id, answer.model),
    [...(first === 0 ? [] : [messageItem(itemId("msg", answer.id, 0), status, content)]), ...calls],
    answer.stop,
    summary.usage
  )
}

/**
 * The frame that events were read from, for a writer that adopts them. The events don't tell ids and places of items,
 * and many frames tell no event at all; the writer needs all of it to go on where another stream stopped.
 */
const origins = new WeakMap<object, JsonObject>()

const reader = (): StreamReader => {
  let started = false
  let over = false
  let texts = false
  /** What was told of each part of a text, and of the arguments of each call, by place. */
  const told = new Map<string, string>()
  /** Which number each call has, by its place and by its id. */
  const calls = new Map<string, number>()
  let called = 0

  /** What of a whole was not told yet. */
  const rest = (place: string, whole: string): string => {
    const before = told.get(place) ?? ""
    if (!whole.startsWith(before)) return ""
    told.set(place, whole)
    return whole.slice(before.length)
  }
  const more = (place: string, delta: string): string => rest(place, (told.get(place) ?? "") + delta)

  const text = (delta: string): ReadonlyArray<StreamEvent> => {
    if (delta === "") return []
    texts = true
    return [{ _tag: "Text", text: delta }]
  }
  const argumentsOf = (index: number | undefined, json: string): ReadonlyArray<StreamEvent> =>
    index === undefined || json === "" ? [] : [{ _tag: "ToolArguments", index, json }]

  const call = (place: string, item: JsonObject): ReadonlyArray<StreamEvent> => {
    if (item["type"] !== "function_call") return []
    const id = textOf(item["call_id"]) ?? textOf(item["id"]) ?? ""
    const known = calls.get(place) ?? calls.get(`id ${id}`)
    const index = known ?? called++
    calls.set(place, index)
    calls.set(`id ${id}`, index)
    return [
      ...(known === undefined
        ? [{ _tag: "ToolCall", index, id, name: textOf(item["name"]) ?? "" } as const]
        : []),
      ...argumentsOf(index, rest(`call ${index}`, textOf(item["arguments"]) ?? ""))
    ]
  }

  const endOf = (response: JsonObject): ReadonlyArray<StreamEvent> => {
    over = true
    const output = listOf(response["output"]).map(objectOf)
    const late = output.flatMap((item, index): ReadonlyArray<StreamEvent> => {
      if (item["type"] === "message") return texts ? [] : text(plainText(itemParts(item)))
      // The places of a final output need not be those of the stream: only the ids count.
      return call(`final ${index}`, item)
    })
    const usage = usageOf(response["usage"])
    return [
      ...late,
      { _tag: "Stopped", stop: stopOf(response, called > 0) },
      ...(usage === undefined ? [] : [{ _tag: "Usage", usage } as const]),
      { _tag: "Ended" }
    ]
  }

  const failed = (error: JsonObject): StreamEvent => ({
    _tag: "Failed",
    type: error["type"] === "error" ? null : (textOf(error["type"]) ?? null),
    code: textOf(error["code"]) ?? null,
    message: textOf(error["message"]) ?? "The provider failed"
  })

  const eventsOf = (type: string, body: JsonObject): ReadonlyArray<StreamEvent> => {
    const place = `${countOf(body["output_index"])}`
    const part = `${place} ${countOf(body["content_index"])}`
    const delta = textOf(body["delta"]) ?? ""
    switch (type) {
      case "response.output_text.delta":
      case "response.refusal.delta":
        return text(more(part, delta))
      case "response.output_text.done":
        return text(rest(part, textOf(body["text"]) ?? ""))
      case "response.refusal.done":
        return text(rest(part, textOf(body["refusal"]) ?? ""))
      case "response.reasoning_text.delta":
      case "response.reasoning_summary_text.delta":
        return delta === "" ? [] : [{ _tag: "Reasoning", text: delta }]
      case "response.output_item.added":
        return call(place, objectOf(body["item"]))
      case "response.function_call_arguments.delta": {
        const index = calls.get(place)
        return argumentsOf(index, more(`call ${index}`, delta))
      }
      case "response.function_call_arguments.done": {
        const index = calls.get(place)
        return argumentsOf(index, rest(`call ${index}`, textOf(body["arguments"]) ?? ""))
      }
      case "response.output_item.done": {
        const item = objectOf(body["item"])
        if (item["type"] !== "message") return call(place, item)
        return itemParts(item).flatMap((whole, index) => text(rest(`${place} ${index}`, plainText([whole]))))
      }
      case "response.completed":
      case "response.incomplete":
        return endOf(objectOf(body["response"]))
      case "response.failed":
        over = true
        return [failed(objectOf(objectOf(body["response"])["error"]))]
      default:
        return []
    }
  }

  return {
    read: ({ data, event }) => {
      if (data === "[DONE]") {
        const events: ReadonlyArray<StreamEvent> = over ? [] : [{ _tag: "Ended" }]
        over = true
        return Result.succeed(events)
      }
      const body = parsed(data)
      if (!isObject(body)) return Result.fail("A frame that is no JSON object")
      const type = textOf(body["type"]) ?? event ?? ""
      const events: Array<StreamEvent> = []
      const error = body["error"]
      if (type === "error" || event === "error" || isObject(error)) {
        over = true
        events.push(failed(isObject(error) ? error : body))
      } else {
        const response = body["response"]
        if (!started && isObject(response)) {
          started = true
          events.push({
            _tag: "Started",
            id: textOf(response["id"]) ?? "",
            model: textOf(response["model"]) ?? ""
          })
        }
        events.push(...eventsOf(type, body))
      }
      for (const origin of [events, ...events]) origins.set(origin, { ...body, type })
      return Result.succeed(events)
    }
  }
}

/** An item of the output, as it stands after the frames so far. */
interface Item {
  value: JsonObject
  open: boolean
  /** Parts of a message, by `content_index`. */
  readonly parts: Map<number, { value: JsonObject; open: boolean }>
}

const writer = (): StreamWriter => {
  let response = responseOf("", "")
  let started = false
  let over = false
  let sequence = 0
  let stop: Stop | undefined
  /** By `output_index`. */
  const items = new Map<number, Item>()
  /** The `output_index` of each call that is being written, by its number there. */
  const calls = new Map<number, number>()

  const partOf = (body: JsonObject) =>
    items.get(countOf(body["output_index"]))?.parts.get(countOf(body["content_index"]))

  const append = (body: JsonObject, name: "text" | "refusal") => {
    const part = partOf(body)
    if (part === undefined) return
    const text = (textOf(part.value[name]) ?? "") + (textOf(body["delta"]) ?? "")
    part.value = { ...part.value, [name]: text }
  }

  const argue = (body: JsonObject, join: (before: string) => string) => {
    const item = items.get(countOf(body["output_index"]))
    if (item === undefined) return
    item.value = { ...item.value, arguments: join(textOf(item.value["arguments"]) ?? "") }
  }

  /** Follows a frame, another's or one of ours: it is where all state but the stop comes from. */
  const follow = (body: JsonObject): void => {
    sequence = Math.max(sequence, (numberOf(body["sequence_number"]) ?? sequence) + 1)
    const index = countOf(body["output_index"])
    switch (body["type"]) {
      case "response.created":
      case "response.queued":
      case "response.in_progress":
        started = true
        response = { ...response, ...objectOf(body["response"]) }
        break
      case "response.output_item.added":
        items.set(index, { value: objectOf(body["item"]), open: true, parts: new Map() })
        break
      case "response.content_part.added":
        items
          .get(index)
          ?.parts.set(countOf(body["content_index"]), { value: objectOf(body["part"]), open: true })
        break
      case "response.output_text.delta":
        append(body, "text")
        break
      case "response.refusal.delta":
        append(body, "refusal")
        break
      case "response.content_part.done": {
        const part = partOf(body)
        if (part !== undefined) Object.assign(part, { value: objectOf(body["part"]), open: false })
        break
      }
      case "response.function_call_arguments.delta":
        argue(body, (before) => before + (textOf(body["delta"]) ?? ""))
        break
      case "response.function_call_arguments.done":
        argue(body, (before) => textOf(body["arguments"]) ?? before)
        break
      case "response.output_item.done": {
        const item = items.get(index)
        if (item !== undefined) Object.assign(item, { value: objectOf(body["item"]), open: false })
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

  const emit = (type: string, members: JsonObject): WireEvent => {
    const body = { type, sequence_number: sequence, ...members }
    follow(body)
    return frame(type, body)
  }

  const start = (id: string, model: string): ReadonlyArray<WireEvent> => {
    // The id of a response must not change, not even when another provider goes on with it.
    if (started) {
      if (model !== "") response = { ...response, model }
      return []
    }
    response = responseOf(id, model)
    return [emit("response.created", { response }), emit("response.in_progress", { response })]
  }

  const responseId = (): string => textOf(response["id"]) ?? ""

  const nextIndex = (): number => Math.max(-1, ...items.keys()) + 1

  const closePart = (
    place: { readonly item_id: string; readonly output_index: number },
    content_index: number,
    part: JsonObject
  ): ReadonlyArray<WireEvent> => {
    const at = { ...place, content_index }
    const told =
      part["type"] === "output_text"
        ? [emit("response.output_text.done", { ...at, text: textOf(part["text"]) ?? "", logprobs: [] })]
        : part["type"] === "refusal"
          ? [emit("response.refusal.done", { ...at, refusal: textOf(part["refusal"]) ?? "" })]
          : []
    return [...told, emit("response.content_part.done", { ...at, part })]
  }

  const close = (output_index: number, status: string): ReadonlyArray<WireEvent> => {
    const item = items.get(output_index)
    if (item === undefined || !item.open) return []
    const { value } = item
    const place = { item_id: textOf(value["id"]) ?? "", output_index }
    const events: Array<WireEvent> = []
    if (value["type"] === "message") {
      for (const [index, part] of item.parts) {
        if (part.open) events.push(...closePart(place, index, part.value))
      }
      item.value = { ...value, content: [...item.parts.values()].map((part) => part.value) }
    } else if (value["type"] === "function_call") {
      const json = textOf(value["arguments"]) ?? ""
      events.push(
        emit("response.function_call_arguments.done", {
          ...place,
          name: value["name"] ?? "",
          arguments: json
        })
      )
    }
    const known = "status" in value ? { status } : undefined
    return [...events, emit("response.output_item.done", { output_index, item: { ...item.value, ...known } })]
  }

  /** Items that nothing more can come for when another one begins. Calls stay open: some providers mix theirs. */
  const closeOthers = (): ReadonlyArray<WireEvent> =>
    [...items].flatMap(([index, { value }]) =>
      value["type"] === "function_call" ? [] : close(index, "completed")
    )

  /** Where text goes to, with the events that it takes to get there. */
  const openText = (): readonly [place: JsonObject, events: ReadonlyArray<WireEvent>] => {
    const events: Array<WireEvent> = []
    const last = nextIndex() - 1
    const current = items.get(last)
    let output_index = last
    if (current === undefined || !current.open || current.value["type"] !== "message") {
      events.push(...closeOthers())
      output_index = last + 1
      const item = messageItem(itemId("msg", responseId(), output_index), "in_progress", [])
      events.push(emit("response.output_item.added", { output_index, item }))
    }
    const item = items.get(output_index)
    const place = { item_id: textOf(item?.value["id"]) ?? "", output_index }
    const parts = [...(item?.parts ?? [])]
    const open = parts.find(([, part]) => part.open && part.value["type"] === "output_text")
    if (open !== undefined) return [{ ...place, content_index: open[0] }, events]
    for (const [index, part] of parts) {
      if (part.open) events.push(...closePart(place, index, part.value))
    }
    const content_index = parts.length
    events.push(emit("response.content_part.added", { ...place, content_index, part: textPart("") }))
    return [{ ...place, content_index }, events]
  }

  const write = (event: StreamEvent): ReadonlyArray<WireEvent> => {
    if (over) return []
    switch (event._tag) {
      case "Started":
        return start(event.id, event.model)
      case "Text": {
        const before = start("", "")
        const [place, events] = openText()
        const delta = emit("response.output_text.delta", { ...place, delta: event.text, logprobs: [] })
        return [...before, ...events, delta]
      }
      case "ToolCall": {
        const before = [...start("", ""), ...closeOthers()]
        const output_index = nextIndex()
        calls.set(event.index, output_index)
        const item = callItem(itemId("fc", responseId(), output_index), "in_progress", {
          id: event.id,
          name: event.name,
          arguments: ""
        })
        return [...before, emit("response.output_item.added", { output_index, item })]
      }
      case "ToolArguments": {
        const output_index = calls.get(event.index)
        if (output_index === undefined) return []
        const item_id = textOf(items.get(output_index)?.value["id"]) ?? ""
        return [emit("response.function_call_arguments.delta", { item_id, output_index, delta: event.json })]
      }
      case "Stopped":
        stop = event.stop
        return []
      // Told by `end`, from the whole call's summary.
      case "Usage":
      case "Reasoning":
      case "Ended":
      case "Failed":
        return []
    }
  }

  return {
    adopt: (events) => {
      const origin = origins.get(events) ?? events.map((event) => origins.get(event)).find(isObject)
      if (origin !== undefined) {
        follow(origin)
        return
      }
      // Without their frames they are taken to have passed as this writer would have written them.
      for (const event of events) {
        write(event)
        over ||= event._tag === "Ended" || event._tag === "Failed"
      }
    },
    write,
    end: (summary) => {
      if (over) return []
      const events = [...start(summary.requestId, summary.answeredBy.model)]
      const status = incompleteOf(stop) === undefined ? "completed" : "incomplete"
      const indexes = [...items.keys()].toSorted((left, right) => left - right)
      for (const index of indexes) events.push(...close(index, status))
      const output = indexes.flatMap((index) => items.get(index)?.value ?? [])
      const whole = ended(response, output, stop, summary.usage)
      return [...events, emit(`response.${status}`, { response: whole })]
    },
    fail: (problem) => {
      if (over) return []
      const { code, message, param } = problem
      return [emit("error", { code, message, param })]
    }
  }
}

/** The class that OpenAI gives to a status (`openai` 7.57, `src/core/error.ts`). */
const typeOf = (status: number): string => {
  if (status === 401) return "authentication_error"
  if (status === 403) return "permission_error"
  if (status === 429) return "rate_limit_error"
  return status >= 500 ? "server_error" : "invalid_request_error"
}

const encodeProblem = ({ code, message, param, status, type }: WireProblem): JsonObject => ({
  error: { message, type: type ?? typeOf(status), param, code }
})

/** Responses. */
export const OpenAiResponses: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer,
  reader,
  writer,
  encodeProblem,
  forModel: (body, model, stream) =>
    stream || "stream" in body ? { ...body, model, stream } : { ...body, model },
  continueFrom: (body, text) => {
    const { input } = body
    return {
      ...body,
      input: [
        ...(typeof input === "string" ? [{ role: "user", content: input }] : listOf(input)),
        { role: "assistant", content: text }
      ]
    }
  }
}
