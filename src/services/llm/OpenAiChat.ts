import { Result, Schema } from "effect"
import type { TokenUsage } from "../../domain/Llm.ts"
import { InvalidRequest } from "../../domain/Problems.ts"
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

// OpenAI's Chat Completions, as `openai` 7.57 sends and parses them (`src/resources/chat/completions`).

const DONE: WireEvent = { event: undefined, data: "[DONE]" }

const JsonMembers = Schema.Record(Schema.String, Schema.Json)

const TextPart = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
const ImagePart = Schema.Struct({
  type: Schema.Literal("image_url"),
  image_url: Schema.Struct({ url: Schema.String, detail: Schema.optionalKey(Schema.String) })
})
const RefusalPart = Schema.Struct({ type: Schema.Literal("refusal"), refusal: Schema.String })
const ContentPart = Schema.Union([TextPart, ImagePart, RefusalPart])
const Content = Schema.Union([Schema.String, Schema.Array(ContentPart)])

const Calls = Schema.Array(
  Schema.Struct({
    id: Schema.String,
    type: Schema.Literal("function"),
    function: Schema.Struct({ name: Schema.String, arguments: Schema.String })
  })
)

const Message = Schema.Union([
  Schema.Struct({ role: Schema.Literals(["system", "developer"]), content: Content }),
  Schema.Struct({ role: Schema.Literal("user"), content: Content }),
  Schema.Struct({
    role: Schema.Literal("assistant"),
    content: Schema.optionalKey(Schema.NullOr(Content)),
    refusal: Schema.optionalKey(Schema.NullOr(Schema.String)),
    tool_calls: Schema.optionalKey(Schema.NullOr(Calls))
  }),
  Schema.Struct({ role: Schema.Literal("tool"), tool_call_id: Schema.String, content: Content })
])

const Request = Schema.Struct({
  messages: Schema.Array(Message).check(Schema.isMinLength(1)),
  tools: Schema.optionalKey(
    Schema.NullOr(
      Schema.Array(
        Schema.Struct({
          type: Schema.Literal("function"),
          function: Schema.Struct({
            name: Schema.String,
            description: Schema.optionalKey(Schema.NullOr(Schema.String)),
            parameters: Schema.optionalKey(Schema.NullOr(JsonMembers)),
            strict: Schema.optionalKey(Schema.NullOr(Schema.Boolean))
          })
        })
      )
    )
  ),
  tool_choice: Schema.optionalKey(
    Schema.NullOr(
      Schema.Union([
        Schema.Literals(["none", "auto", "required"]),
        Schema.Struct({
          type: Schema.Literal("function"),
          function: Schema.Struct({ name: Schema.String })
        })
      ])
    )
  ),
  parallel_tool_calls: Schema.optionalKey(Schema.NullOr(Schema.Boolean)),
  max_tokens: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  max_completion_tokens: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  temperature: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  top_p: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  stop: Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Schema.String)]))),
  response_format: Schema.optionalKey(
    Schema.NullOr(
      Schema.Union([
        Schema.Struct({ type: Schema.Literals(["text", "json_object"]) }),
        Schema.Struct({
          type: Schema.Literal("json_schema"),
          json_schema: Schema.Struct({
            name: Schema.String,
            schema: Schema.optionalKey(JsonMembers)
          })
        })
      ])
    )
  ),
  reasoning_effort: Schema.optionalKey(Schema.NullOr(Schema.String)),
  n: Schema.optionalKey(Schema.NullOr(Schema.Int))
})

const decode = requestDecoder(Request)

const partsOf = (content: typeof Content.Type): ReadonlyArray<Part> =>
  typeof content === "string"
    ? [{ _tag: "Text", text: content }]
    : content.map((part): Part => {
        switch (part.type) {
          case "text":
            return { _tag: "Text", text: part.text }
          case "image_url":
            return { _tag: "Image", url: part.image_url.url, detail: part.image_url.detail }
          case "refusal":
            return { _tag: "Refusal", text: part.refusal }
        }
      })

const plainText = (parts: ReadonlyArray<Part>): string =>
  parts.map((part) => (part._tag === "Text" || part._tag === "Refusal" ? part.text : "")).join("")

const turnOf = (message: typeof Message.Type): Turn => {
  switch (message.role) {
    case "tool":
      return {
        role: "user",
        parts: [
          {
            _tag: "ToolResult",
            id: message.tool_call_id,
            text: plainText(partsOf(message.content)),
            isError: false
          }
        ]
      }
    case "assistant":
      return {
        role: "assistant",
        parts: [
          ...partsOf(message.content ?? []),
          ...(message.refusal ? [{ _tag: "Refusal", text: message.refusal } as const] : []),
          ...(message.tool_calls ?? []).map((call): Part => ({
            _tag: "ToolCall",
            id: call.id,
            name: call.function.name,
            arguments: call.function.arguments
          }))
        ]
      }
    default:
      return { role: "user", parts: partsOf(message.content) }
  }
}

const choiceOf = (choice: typeof Request.Type.tool_choice): ToolChoice | undefined => {
  if (choice === undefined || choice === null) return undefined
  if (typeof choice === "object") return { _tag: "Tool", name: choice.function.name }
  return { _tag: choice === "none" ? "None" : choice === "auto" ? "Auto" : "Required" }
}

const decodeRequest = (body: JsonObject): Result.Result<Conversation, InvalidRequest> =>
  Result.flatMap(decode(body), (request) => {
    if ((request.n ?? 1) > 1) {
      return Result.fail(
        new InvalidRequest({
          detail: "The body is invalid",
          errors: [{ path: ["n"], message: "Expected 1: this model gives one answer" }]
        })
      )
    }
    const format = request.response_format
    const stop = request.stop ?? []
    return Result.succeed<Conversation>({
      system: request.messages.flatMap((message) =>
        message.role === "system" || message.role === "developer" ? [plainText(partsOf(message.content))] : []
      ),
      turns: request.messages.flatMap((message) =>
        message.role === "system" || message.role === "developer" ? [] : [turnOf(message)]
      ),
      tools: (request.tools ?? []).map(({ function: { description, name, parameters, strict } }): Tool => ({
        name,
        description: description ?? undefined,
        parameters: parameters ?? { type: "object", properties: {} },
        strict: strict ?? undefined
      })),
      toolChoice: choiceOf(request.tool_choice),
      parallelToolCalls: request.parallel_tool_calls ?? undefined,
      maxTokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      topP: request.top_p ?? undefined,
      stop: typeof stop === "string" ? [stop] : stop,
      format:
        format?.type === "json_schema"
          ? { _tag: "Schema", name: format.json_schema.name, schema: format.json_schema.schema ?? {} }
          : format?.type === "json_object"
            ? { _tag: "Json" }
            : undefined,
      reasoningEffort: request.reasoning_effort ?? undefined
    })
  })

const contentOf = (parts: ReadonlyArray<Part>): Schema.Json => {
  if (parts.every((part) => part._tag === "Text")) return plainText(parts)
  return parts.flatMap((part): ReadonlyArray<JsonObject> => {
    if (part._tag === "Text") return [{ type: "text", text: part.text }]
    if (part._tag === "Image") {
      return [{ type: "image_url", image_url: compact({ url: part.url, detail: part.detail }) }]
    }
    return []
  })
}

/** A turn of ours is several messages there: results of tools have a role of their own, and come first. */
const messagesOf = ({ parts, role }: Turn): ReadonlyArray<JsonObject> => {
  const results = parts.flatMap((part) =>
    part._tag === "ToolResult" ? [{ role: "tool", tool_call_id: part.id, content: part.text }] : []
  )
  const calls = parts.flatMap((part) =>
    part._tag === "ToolCall"
      ? [{ id: part.id, type: "function", function: { name: part.name, arguments: part.arguments } }]
      : []
  )
  const rest = parts.filter((part) => part._tag !== "ToolResult" && part._tag !== "ToolCall")
  if (role === "user") return rest.length === 0 ? results : [...results, { role, content: contentOf(rest) }]
  const text = plainText(rest)
  return [
    compact({
      role,
      content: text === "" && calls.length > 0 ? null : text,
      tool_calls: calls.length > 0 ? calls : undefined
    })
  ]
}

const encodeChoice = (choice: ToolChoice | undefined): Schema.Json | undefined => {
  switch (choice?._tag) {
    case undefined:
      return undefined
    case "Tool":
      return { type: "function", function: { name: choice.name } }
    case "Auto":
      return "auto"
    case "None":
      return "none"
    case "Required":
      return "required"
  }
}

const encodeRequest = (conversation: Conversation, model: string, stream: boolean): JsonObject => {
  const { format } = conversation
  return compact({
    model,
    messages: [
      ...conversation.system.map((content) => ({ role: "system", content })),
      ...conversation.turns.flatMap(messagesOf)
    ],
    tools:
      conversation.tools.length === 0
        ? undefined
        : conversation.tools.map(({ description, name, parameters, strict }) => ({
            type: "function",
            function: compact({ name, description, parameters, strict })
          })),
    tool_choice: encodeChoice(conversation.toolChoice),
    parallel_tool_calls: conversation.parallelToolCalls,
    // The models of today refuse `max_tokens`.
    max_completion_tokens: conversation.maxTokens,
    temperature: conversation.temperature,
    top_p: conversation.topP,
    stop: conversation.stop.length === 0 ? undefined : conversation.stop,
    response_format:
      format === undefined
        ? undefined
        : format._tag === "Json"
          ? { type: "json_object" }
          : { type: "json_schema", json_schema: { name: format.name, strict: true, schema: format.schema } },
    reasoning_effort: conversation.reasoningEffort,
    ...(stream ? { stream: true, stream_options: { include_usage: true } } : undefined)
  })
}

const stopOf = (raw: string): Stop => {
  switch (raw) {
    case "stop":
    case "length":
    case "tool_calls":
    case "content_filter":
      return { reason: raw, raw, sequence: undefined }
    case "function_call":
      return { reason: "tool_calls", raw, sequence: undefined }
    default:
      return { reason: "other", raw, sequence: undefined }
  }
}

/** What OpenAI calls a stop. A `pause` has no name there. */
const reasonOf = ({ reason }: Stop): string =>
  reason === "stop_sequence" || reason === "pause" || reason === "other" ? "stop" : reason

/** `prompt_tokens` include the cached ones, and `completion_tokens` the reasoning. */
const usageOf = (json: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isObject(json) || numberOf(json["prompt_tokens"]) === undefined) return undefined
  const details = objectOf(json["prompt_tokens_details"])
  const cachedRead = countOf(details["cached_tokens"])
  const cachedWrite = countOf(details["cache_write_tokens"])
  return {
    input: Math.max(0, countOf(json["prompt_tokens"]) - cachedRead - cachedWrite),
    cachedRead,
    cachedWrite,
    output: countOf(json["completion_tokens"]),
    reasoning: countOf(objectOf(json["completion_tokens_details"])["reasoning_tokens"])
  }
}

const encodeUsage = (usage: TokenUsage): JsonObject => {
  const prompt = usage.input + usage.cachedRead + usage.cachedWrite
  return {
    prompt_tokens: prompt,
    completion_tokens: usage.output,
    total_tokens: prompt + usage.output,
    prompt_tokens_details: {
      cached_tokens: usage.cachedRead,
      cache_write_tokens: usage.cachedWrite,
      audio_tokens: 0
    },
    completion_tokens_details: { reasoning_tokens: usage.reasoning, audio_tokens: 0 }
  }
}

const decodeAnswer = (body: JsonObject): Result.Result<Answer, string> => {
  const choice = listOf(body["choices"])[0]
  if (!isObject(choice)) return Result.fail("An answer without choices")
  const message = objectOf(choice["message"])
  const text = textOf(message["content"])
  const refusal = textOf(message["refusal"])
  return Result.succeed({
    id: textOf(body["id"]) ?? "",
    model: textOf(body["model"]) ?? "",
    parts: [
      ...(text === undefined ? [] : [{ _tag: "Text", text } as const]),
      ...(refusal === undefined ? [] : [{ _tag: "Refusal", text: refusal } as const]),
      ...listOf(message["tool_calls"]).map((call): Part => {
        const called = objectOf(objectOf(call)["function"])
        return {
          _tag: "ToolCall",
          id: textOf(objectOf(call)["id"]) ?? "",
          name: textOf(called["name"]) ?? "",
          arguments: textOf(called["arguments"]) ?? ""
        }
      })
    ],
    stop: stopOf(textOf(choice["finish_reason"]) ?? ""),
    usage: usageOf(body["usage"])
  })
}

/** OpenAI's ids begin so; a client may look. */
const idOf = (id: string): string => (id.startsWith("chatcmpl") ? id : `chatcmpl-${id}`)

/** When an answer was made: nothing depends on it, and a codec has no clock. */
const CREATED = 0

const encodeAnswer: Codec["encodeAnswer"] = (answer, summary) => {
  const text = answer.parts.flatMap((part) => (part._tag === "Text" ? [part.text] : []))
  const refusals = answer.parts.flatMap((part) => (part._tag === "Refusal" ? [part.text] : []))
  const calls = answer.parts.flatMap((part) =>
    part._tag === "ToolCall"
      ? [{ id: part.id, type: "function", function: { name: part.name, arguments: part.arguments } }]
      : []
  )
  return {
    id: idOf(answer.id),
    object: "chat.completion",
    created: CREATED,
    model: answer.model,
    choices: [
      {
        index: 0,
        message: compact({
          role: "assistant",
          content: text.length === 0 ? null : text.join(""),
          refusal: refusals.length === 0 ? null : refusals.join(""),
          annotations: [],
          tool_calls: calls.length === 0 ? undefined : calls
        }),
        logprobs: null,
        finish_reason: reasonOf(answer.stop)
      }
    ],
    usage: encodeUsage(summary.usage)
  }
}

const reader = (): StreamReader => {
  let started = false
  /** Which tool calls have been told of: a chunk that repeats an id begins none. */
  const calls = new Set<number>()
  return {
    read: ({ data, event }) => {
      if (data === "[DONE]") return Result.succeed([{ _tag: "Ended" }])
      const chunk = parsed(data)
      if (!isObject(chunk)) return Result.fail("A frame that is no JSON object")
      const error = chunk["error"]
      if (event === "error" || (error !== undefined && error !== null)) {
        const told = isObject(error) ? error : chunk
        return Result.succeed([
          {
            _tag: "Failed",
            type: textOf(told["type"]) ?? null,
            code: textOf(told["code"]) ?? null,
            message: textOf(told["message"]) ?? textOf(error) ?? "The provider failed"
          }
        ])
      }
      const events: Array<StreamEvent> = []
      if (!started && textOf(chunk["object"]) === "chat.completion.chunk") {
        started = true
        events.push({
          _tag: "Started",
          id: textOf(chunk["id"]) ?? "",
          model: textOf(chunk["model"]) ?? ""
        })
      }
      // Of several choices (`n`) each event would need an index; the first one is what is counted and resumed.
      const choice = objectOf(listOf(chunk["choices"])[0])
      const delta = objectOf(choice["delta"])
      const reasoning = textOf(delta["reasoning_content"])
      if (reasoning !== undefined && reasoning !== "") events.push({ _tag: "Reasoning", text: reasoning })
      const text = textOf(delta["content"]) ?? textOf(delta["refusal"])
      if (text !== undefined && text !== "") events.push({ _tag: "Text", text })
      for (const call of listOf(delta["tool_calls"])) {
        const index = countOf(objectOf(call)["index"])
        const called = objectOf(objectOf(call)["function"])
        if (!calls.has(index)) {
          calls.add(index)
          events.push({
            _tag: "ToolCall",
            index,
            id: textOf(objectOf(call)["id"]) ?? "",
            name: textOf(called["name"]) ?? ""
          })
        }
        const json = textOf(called["arguments"])
        if (json !== undefined && json !== "") events.push({ _tag: "ToolArguments", index, json })
      }
      const finish = textOf(choice["finish_reason"])
      if (finish !== undefined) events.push({ _tag: "Stopped", stop: stopOf(finish) })
      const usage = usageOf(chunk["usage"])
      if (usage !== undefined) events.push({ _tag: "Usage", usage })
      return Result.succeed(events)
    }
  }
}

const writer = ({ usage }: { readonly usage: boolean }): StreamWriter => {
  let id = ""
  let model = ""
  let started = false
  let stopped = false
  let usageTold = false
  let over = false
  /** Where a tool call of a reader stands in what this writer tells. */
  const indexes = new Map<number, number>()

  const chunk = (choices: ReadonlyArray<JsonObject>, told: JsonObject | null = null): WireEvent =>
    frame(undefined, {
      id: idOf(id),
      object: "chat.completion.chunk",
      created: CREATED,
      model,
      choices,
      ...(usage ? { usage: told } : undefined)
    })

  const delta = (content: JsonObject, finish: string | null = null): WireEvent => {
    const role = started ? undefined : { role: "assistant" }
    started = true
    return chunk([{ index: 0, delta: { ...role, ...content }, logprobs: null, finish_reason: finish }])
  }

  const note = (event: StreamEvent): void => {
    switch (event._tag) {
      case "Started":
        if (id === "") id = event.id
        model = event.model
        break
      case "Text":
        started = true
        break
      case "ToolCall":
        started = true
        if (!indexes.has(event.index)) indexes.set(event.index, indexes.size)
        break
      case "Stopped":
        stopped = true
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

  return {
    adopt: (events) => events.forEach(note),
    write: (event) => {
      switch (event._tag) {
        case "Text":
          return [delta({ content: event.text })]
        case "ToolCall": {
          const index = indexes.get(event.index) ?? indexes.size
          indexes.set(event.index, index)
          return [
            delta({
              tool_calls: [
                { index, id: event.id, type: "function", function: { name: event.name, arguments: "" } }
              ]
            })
          ]
        }
        case "ToolArguments":
          return [
            delta({
              tool_calls: [
                {
                  index: indexes.get(event.index) ?? event.index,
                  function: { arguments: event.json }
                }
              ]
            })
          ]
        case "Stopped":
          stopped = true
          return [delta({}, reasonOf(event.stop))]
        // Told by `end`, exactly once, from the whole call's summary.
        case "Usage":
        case "Reasoning":
        case "Ended":
        case "Failed":
          return []
        case "Started":
          note(event)
          return []
      }
    },
    end: (summary) => {
      if (over) return []
      over = true
      const events: Array<WireEvent> = []
      if (!stopped) events.push(delta({}, "stop"))
      if (usage && !usageTold) events.push(chunk([], encodeUsage(summary.usage)))
      return [...events, DONE]
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [frame(undefined, encodeProblem(problem))]
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

export const encodeProblem = ({ code, message, param, status, type }: WireProblem): JsonObject => ({
  error: { message, type: type ?? typeOf(status), param, code }
})

/**
 * A provider's event for a caller that did not ask for usage, which we always ask for: the chunk that has only usage is
 * dropped, and the member taken out of the others. An event that has none is given back as it is.
 */
export const withoutUsage = (event: WireEvent): WireEvent | undefined => {
  if (!event.data.includes('"usage"')) return event
  const chunk = parsed(event.data)
  if (!isObject(chunk) || !("usage" in chunk)) return event
  const { usage, ...rest } = chunk
  return isObject(usage) && listOf(chunk["choices"]).length === 0 ? undefined : frame(event.event, rest)
}

/** Chat Completions. */
export const OpenAiChat: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer,
  reader,
  writer,
  encodeProblem,
  forModel: (body, model, stream) => {
    if (!stream) return { ...body, model }
    return {
      ...body,
      model,
      stream: true,
      stream_options: { ...objectOf(body["stream_options"]), include_usage: true }
    }
  },
  continueFrom: (body, text) => ({
    ...body,
    messages: [...listOf(body["messages"]), { role: "assistant", content: text }]
  })
}
