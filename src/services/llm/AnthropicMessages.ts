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

// Anthropic's Messages in the version of 2026-10-21, as `@anthropic-ai/sdk` 1.12 sends and parses them.

/** Anthropic demands a bound; this one holds where the caller named none. */
const DEFAULT_MAX_TOKENS = 4096

/** What the version of 2026-10-21 refuses, even at its defaults. */
const REFUSED = new Set(["temperature", "top_p", "top_k"])

const JsonMembers = Schema.Record(Schema.String, Schema.Json)

const TextBlock = Schema.Struct({ type: Schema.Literal("text"), text: Schema.String })
const ImageBlock = Schema.Struct({
  type: Schema.Literal("image"),
  source: Schema.Union([
    Schema.Struct({ type: Schema.Literal("base64"), media_type: Schema.String, data: Schema.String }),
    Schema.Struct({ type: Schema.Literal("url"), url: Schema.String })
  ])
})
const ToolUseBlock = Schema.Struct({
  type: Schema.Literal("tool_use"),
  id: Schema.String,
  name: Schema.String,
  input: Schema.Json
})
const ToolResultBlock = Schema.Struct({
  type: Schema.Literal("tool_result"),
  tool_use_id: Schema.String,
  content: Schema.optionalKey(
    Schema.Union([Schema.String, Schema.Array(Schema.Union([TextBlock, ImageBlock]))])
  ),
  is_error: Schema.optionalKey(Schema.NullOr(Schema.Boolean))
})
/** Another vendor's model can't read what Claude thought, and needs none of it. */
const ThinkingBlock = Schema.Struct({ type: Schema.Literals(["thinking", "redacted_thinking"]) })

const UserContent = Schema.Union([
  Schema.String,
  Schema.Array(Schema.Union([TextBlock, ImageBlock, ToolResultBlock]))
])
const AssistantContent = Schema.Union([
  Schema.String,
  Schema.Array(Schema.Union([TextBlock, ToolUseBlock, ThinkingBlock]))
])

const Request = Schema.Struct({
  messages: Schema.Array(
    Schema.Union([
      Schema.Struct({ role: Schema.Literal("user"), content: UserContent }),
      Schema.Struct({ role: Schema.Literal("assistant"), content: AssistantContent }),
      Schema.Struct({
        role: Schema.Literal("system"),
        content: Schema.Union([Schema.String, Schema.Array(TextBlock)])
      })
    ])
  ).check(Schema.isMinLength(1)),
  system: Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(TextBlock)]))),
  max_tokens: Schema.optionalKey(Schema.NullOr(Schema.Int)),
  stop_sequences: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.String))),
  temperature: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  top_p: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  tools: Schema.optionalKey(
    Schema.NullOr(
      Schema.Array(
        Schema.Struct({
          name: Schema.String,
          description: Schema.optionalKey(Schema.NullOr(Schema.String)),
          input_schema: JsonMembers,
          strict: Schema.optionalKey(Schema.NullOr(Schema.Boolean))
        })
      )
    )
  ),
  tool_choice: Schema.optionalKey(
    Schema.NullOr(
      Schema.Union([
        Schema.Struct({
          type: Schema.Literals(["auto", "any"]),
          disable_parallel_tool_use: Schema.optionalKey(Schema.Boolean)
        }),
        Schema.Struct({ type: Schema.Literal("none") }),
        Schema.Struct({
          type: Schema.Literal("tool"),
          name: Schema.String,
          disable_parallel_tool_use: Schema.optionalKey(Schema.Boolean)
        })
      ])
    )
  ),
  output_config: Schema.optionalKey(
    Schema.NullOr(
      Schema.Struct({
        effort: Schema.optionalKey(Schema.NullOr(Schema.String)),
        format: Schema.optionalKey(
          Schema.NullOr(Schema.Struct({ type: Schema.Literal("json_schema"), schema: JsonMembers }))
        )
      })
    )
  )
})

const decode = requestDecoder(Request)

type Blocks = ReadonlyArray<
  | typeof TextBlock.Type
  | typeof ImageBlock.Type
  | typeof ToolUseBlock.Type
  | typeof ToolResultBlock.Type
  | typeof ThinkingBlock.Type
>

const imageUrl = ({ source }: typeof ImageBlock.Type): string =>
  source.type === "url" ? source.url : `data:${source.media_type};base64,${source.data}`

const textsOf = (content: string | Blocks): string =>
  typeof content === "string"
    ? content
    : content.map((block) => (block.type === "text" ? block.text : "")).join("")

const partsOf = (content: string | Blocks): ReadonlyArray<Part> => {
  if (typeof content === "string") return [{ _tag: "Text", text: content }]
  return content.flatMap((block): ReadonlyArray<Part> => {
    switch (block.type) {
      case "text":
        return [{ _tag: "Text", text: block.text }]
      case "image":
        return [{ _tag: "Image", url: imageUrl(block), detail: undefined }]
      case "tool_use":
        return [{ _tag: "ToolCall", id: block.id, name: block.name, arguments: JSON.stringify(block.input) }]
      case "tool_result": {
        const given = block.content ?? ""
        const images = typeof given === "string" ? [] : given.filter((one) => one.type === "image")
        return [
          {
            _tag: "ToolResult",
            id: block.tool_use_id,
            text: textsOf(given),
            isError: block.is_error ?? false
          },
          ...images.map((image): Part => ({ _tag: "Image", url: imageUrl(image), detail: undefined }))
        ]
      }
      default:
        return []
    }
  })
}

const choiceOf = (choice: typeof Request.Type.tool_choice): ToolChoice | undefined => {
  switch (choice?.type) {
    case undefined:
      return undefined
    case "auto":
      return { _tag: "Auto" }
    case "any":
      return { _tag: "Required" }
    case "none":
      return { _tag: "None" }
    case "tool":
      return { _tag: "Tool", name: choice.name }
  }
}

const decodeRequest = (body: JsonObject): Result.Result<Conversation, InvalidRequest> =>
  Result.map(decode(body), (request): Conversation => {
    const system = request.system ?? []
    const choice = request.tool_choice
    const serial =
      choice !== null && choice !== undefined && choice.type !== "none"
        ? choice.disable_parallel_tool_use
        : undefined
    const format = request.output_config?.format
    return {
      system: [
        ...(typeof system === "string" ? [system] : system.map(({ text }) => text)),
        ...request.messages.flatMap((message) =>
          message.role === "system" ? [textsOf(message.content)] : []
        )
      ],
      turns: request.messages.flatMap((message): ReadonlyArray<Turn> =>
        message.role === "system" ? [] : [{ role: message.role, parts: partsOf(message.content) }]
      ),
      tools: (request.tools ?? []).map(({ description, input_schema, name, strict }) => ({
        name,
        description: description ?? undefined,
        parameters: input_schema,
        strict: strict ?? undefined
      })),
      toolChoice: choiceOf(choice),
      parallelToolCalls: serial === undefined ? undefined : !serial,
      maxTokens: request.max_tokens ?? undefined,
      temperature: request.temperature ?? undefined,
      topP: request.top_p ?? undefined,
      stop: request.stop_sequences ?? [],
      format: format ? { _tag: "Schema", name: "answer", schema: format.schema } : undefined,
      reasoningEffort: request.output_config?.effort ?? undefined
    }
  })

const DATA_URL = /^data:([^;,]+);base64,/

const sourceOf = (url: string): JsonObject => {
  const inline = DATA_URL.exec(url)
  return inline?.[1] === undefined
    ? { type: "url", url }
    : { type: "base64", media_type: inline[1], data: url.slice(inline[0].length) }
}

/** The arguments of a call as Claude wants them: an object. What is no JSON is kept where a reader finds it. */
const inputOf = (args: string): Schema.Json => {
  if (args.trim() === "") return {}
  const json = parsed(args)
  return isObject(json) ? json : { value: json ?? args }
}

const blockOf = (part: Part): JsonObject => {
  switch (part._tag) {
    case "Text":
    case "Refusal":
      return { type: "text", text: part.text }
    case "Image":
      return { type: "image", source: sourceOf(part.url) }
    case "ToolCall":
      return { type: "tool_use", id: part.id, name: part.name, input: inputOf(part.arguments) }
    case "ToolResult":
      return compact({
        type: "tool_result",
        tool_use_id: part.id,
        content: part.text,
        is_error: part.isError ? true : undefined
      })
  }
}

/** Turns of one role, one after the other, are one turn there; results of tools stand first in theirs. An empty text is refused. */
const messagesOf = (turns: ReadonlyArray<Turn>): ReadonlyArray<JsonObject> => {
  const merged: Array<{ readonly role: Turn["role"]; readonly parts: Array<Part> }> = []
  for (const { parts, role } of turns) {
    const told = parts.filter((part) => part._tag !== "Text" || part.text !== "")
    const last = merged.at(-1)
    if (last?.role === role) last.parts.push(...told)
    else if (told.length > 0) merged.push({ role, parts: [...told] })
  }
  return merged.map(({ parts, role }) => ({
    role,
    content: [
      ...parts.filter((part) => part._tag === "ToolResult"),
      ...parts.filter((part) => part._tag !== "ToolResult")
    ].map(blockOf)
  }))
}

const encodeChoice = (
  choice: ToolChoice | undefined,
  parallel: boolean | undefined
): JsonObject | undefined => {
  const serial = parallel === false ? { disable_parallel_tool_use: true } : undefined
  switch (choice?._tag) {
    case undefined:
      return serial === undefined ? undefined : { type: "auto", ...serial }
    case "Auto":
      return { type: "auto", ...serial }
    case "Required":
      return { type: "any", ...serial }
    case "None":
      return { type: "none" }
    case "Tool":
      return { type: "tool", name: choice.name, ...serial }
  }
}

const EFFORTS = new Set(["low", "medium", "high", "xhigh", "max"])

const encodeRequest = (conversation: Conversation, model: string, stream: boolean): JsonObject => {
  const { format, reasoningEffort, tools } = conversation
  const effort = reasoningEffort !== undefined && EFFORTS.has(reasoningEffort) ? reasoningEffort : undefined
  const system = conversation.system.filter((text) => text !== "")
  return compact({
    model,
    max_tokens: conversation.maxTokens ?? DEFAULT_MAX_TOKENS,
    system: system.length === 0 ? undefined : system.join("\n\n"),
    messages: messagesOf(conversation.turns),
    tools:
      tools.length === 0
        ? undefined
        : tools.map(({ description, name, parameters, strict }) =>
            compact({ name, description, input_schema: { type: "object", ...parameters }, strict })
          ),
    // A choice without tools is refused.
    tool_choice:
      tools.length === 0 ? undefined : encodeChoice(conversation.toolChoice, conversation.parallelToolCalls),
    stop_sequences: conversation.stop.length === 0 ? undefined : conversation.stop,
    output_config:
      effort === undefined && format?._tag !== "Schema"
        ? undefined
        : compact({
            effort,
            format: format?._tag === "Schema" ? { type: "json_schema", schema: format.schema } : undefined
          }),
    stream: stream ? true : undefined
  })
}

const stopOf = (raw: string, sequence: string | undefined): Stop => {
  switch (raw) {
    case "end_turn":
      return { reason: "stop", raw, sequence }
    case "max_tokens":
    case "model_context_window_exceeded":
      return { reason: "length", raw, sequence }
    case "stop_sequence":
      return { reason: "stop_sequence", raw, sequence }
    case "tool_use":
      return { reason: "tool_calls", raw, sequence }
    case "refusal":
      return { reason: "content_filter", raw, sequence }
    case "pause_turn":
      return { reason: "pause", raw, sequence }
    default:
      return { reason: "other", raw, sequence }
  }
}

const reasons: Readonly<Record<Stop["reason"], string>> = {
  stop: "end_turn",
  length: "max_tokens",
  stop_sequence: "stop_sequence",
  tool_calls: "tool_use",
  content_filter: "refusal",
  pause: "pause_turn",
  other: "end_turn"
}

/** `input_tokens` exclude what was read from a cache or written to one. */
const usageOf = (json: Schema.Json | undefined): TokenUsage | undefined => {
  if (!isObject(json) || numberOf(json["output_tokens"]) === undefined) return undefined
  return {
    input: countOf(json["input_tokens"]),
    cachedRead: countOf(json["cache_read_input_tokens"]),
    cachedWrite: countOf(json["cache_creation_input_tokens"]),
    output: countOf(json["output_tokens"]),
    reasoning: countOf(objectOf(json["output_tokens_details"])["thinking_tokens"])
  }
}

const NOTHING: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

/** All members of the version of 2026-10-21, null where there is nothing to say. */
const encodeUsage = (usage: TokenUsage): JsonObject => ({
  input_tokens: usage.input,
  output_tokens: usage.output,
  cache_creation: null,
  cache_creation_input_tokens: usage.cachedWrite,
  cache_read_input_tokens: usage.cachedRead,
  inference_geo: null,
  output_tokens_details: usage.reasoning === 0 ? null : { thinking_tokens: usage.reasoning },
  server_tool_use: null,
  service_tier: "standard",
  speed: "standard"
})

const decodeAnswer = (body: JsonObject): Result.Result<Answer, string> => {
  if (!Array.isArray(body["content"])) return Result.fail("An answer without content")
  return Result.succeed({
    id: textOf(body["id"]) ?? "",
    model: textOf(body["model"]) ?? "",
    parts: listOf(body["content"]).flatMap((json): ReadonlyArray<Part> => {
      const block = objectOf(json)
      if (block["type"] === "text") return [{ _tag: "Text", text: textOf(block["text"]) ?? "" }]
      if (block["type"] !== "tool_use") return []
      return [
        {
          _tag: "ToolCall",
          id: textOf(block["id"]) ?? "",
          name: textOf(block["name"]) ?? "",
          arguments: JSON.stringify(block["input"] ?? {})
        }
      ]
    }),
    stop: stopOf(textOf(body["stop_reason"]) ?? "", textOf(body["stop_sequence"])),
    usage: usageOf(body["usage"])
  })
}

const idOf = (id: string): string => (id.startsWith("msg_") ? id : `msg_${id}`)

/** Blocks of an answer: `citations` stand at every text. */
const answerBlock = (part: Part): JsonObject => {
  const block = blockOf(part)
  return block["type"] === "text" ? { ...block, citations: null } : block
}

const encodeAnswer: Codec["encodeAnswer"] = (answer, summary) => ({
  id: idOf(answer.id),
  type: "message",
  role: "assistant",
  model: answer.model,
  content: answer.parts.map(answerBlock),
  container: null,
  diagnostics: null,
  stop_details: null,
  stop_reason: reasons[answer.stop.reason],
  stop_sequence: answer.stop.sequence ?? null,
  usage: encodeUsage(summary.usage)
})

const reader = (): StreamReader => {
  let usage = NOTHING
  /** The tool call that a block is, by the block's index. */
  const calls = new Map<number, number>()
  return {
    read: ({ data }) => {
      const json = parsed(data)
      if (!isObject(json)) return Result.fail("A frame that is no JSON object")
      const index = countOf(json["index"])
      switch (json["type"]) {
        case "message_start": {
          const message = objectOf(json["message"])
          usage = usageOf(message["usage"]) ?? usage
          return Result.succeed<ReadonlyArray<StreamEvent>>([
            { _tag: "Started", id: textOf(message["id"]) ?? "", model: textOf(message["model"]) ?? "" },
            { _tag: "Usage", usage }
          ])
        }
        case "content_block_start": {
          const block = objectOf(json["content_block"])
          if (block["type"] === "tool_use") {
            const call = calls.size
            calls.set(index, call)
            const begun: StreamEvent = {
              _tag: "ToolCall",
              index: call,
              id: textOf(block["id"]) ?? "",
              name: textOf(block["name"]) ?? ""
            }
            // Empty where the arguments follow in pieces.
            const given = block["input"]
            return Result.succeed<ReadonlyArray<StreamEvent>>(
              isObject(given) && Object.keys(given).length > 0
                ? [begun, { _tag: "ToolArguments", index: call, json: JSON.stringify(given) }]
                : [begun]
            )
          }
          const text = textOf(block["text"])
          return Result.succeed<ReadonlyArray<StreamEvent>>(
            block["type"] === "text" && text !== undefined && text !== "" ? [{ _tag: "Text", text }] : []
          )
        }
        case "content_block_delta": {
          const delta = objectOf(json["delta"])
          const text = textOf(delta["text"])
          const thinking = textOf(delta["thinking"])
          const piece = textOf(delta["partial_json"])
          const call = calls.get(index)
          if (delta["type"] === "text_delta" && text) {
            return Result.succeed<ReadonlyArray<StreamEvent>>([{ _tag: "Text", text }])
          }
          if (delta["type"] === "thinking_delta" && thinking) {
            return Result.succeed<ReadonlyArray<StreamEvent>>([{ _tag: "Reasoning", text: thinking }])
          }
          return Result.succeed<ReadonlyArray<StreamEvent>>(
            delta["type"] === "input_json_delta" && piece && call !== undefined
              ? [{ _tag: "ToolArguments", index: call, json: piece }]
              : []
          )
        }
        case "message_delta": {
          const delta = objectOf(json["delta"])
          const told = objectOf(json["usage"])
          const counted = (name: string, before: number) =>
            numberOf(told[name]) === undefined ? before : countOf(told[name])
          const thought = numberOf(objectOf(told["output_tokens_details"])["thinking_tokens"])
          // Cumulative, and only what it names.
          usage = {
            input: counted("input_tokens", usage.input),
            cachedRead: counted("cache_read_input_tokens", usage.cachedRead),
            cachedWrite: counted("cache_creation_input_tokens", usage.cachedWrite),
            output: counted("output_tokens", usage.output),
            reasoning: thought ?? usage.reasoning
          }
          const raw = textOf(delta["stop_reason"])
          return Result.succeed<ReadonlyArray<StreamEvent>>([
            ...(raw === undefined
              ? []
              : [{ _tag: "Stopped", stop: stopOf(raw, textOf(delta["stop_sequence"])) } as const]),
            { _tag: "Usage", usage }
          ])
        }
        case "message_stop":
          return Result.succeed<ReadonlyArray<StreamEvent>>([{ _tag: "Ended" }])
        case "error": {
          const error = objectOf(json["error"])
          return Result.succeed<ReadonlyArray<StreamEvent>>([
            {
              _tag: "Failed",
              type: textOf(error["type"]) ?? null,
              code: textOf(objectOf(error["details"])["error_code"]) ?? null,
              message: textOf(error["message"]) ?? "The provider failed"
            }
          ])
        }
        default:
          return Result.succeed<ReadonlyArray<StreamEvent>>([])
      }
    }
  }
}

/** Anthropic's client drops a frame that has no `event:` line. */
const event = (type: string, members: JsonObject): WireEvent => frame(type, { type, ...members })

const writer = (): StreamWriter => {
  let id = ""
  let model = ""
  let begun = false
  let over = false
  let stop: Stop | undefined
  let stopTold = false
  let usage = NOTHING
  /** The block that is open: a text, or a tool call by its index. */
  let open: { readonly index: number; readonly call: number | undefined } | undefined
  let blocks = 0

  const begin = (): ReadonlyArray<WireEvent> => {
    if (begun) return []
    begun = true
    return [
      event("message_start", {
        message: {
          id: idOf(id),
          type: "message",
          role: "assistant",
          model,
          content: [],
          container: null,
          diagnostics: null,
          stop_details: null,
          stop_reason: null,
          stop_sequence: null,
          usage: encodeUsage(usage)
        }
      })
    ]
  }

  const close = (): ReadonlyArray<WireEvent> => {
    if (open === undefined) return []
    const { index } = open
    open = undefined
    return [event("content_block_stop", { index })]
  }

  const openBlock = (call: number | undefined, block: JsonObject): ReadonlyArray<WireEvent> => {
    const closed = close()
    open = { index: blocks, call }
    blocks += 1
    return [...begin(), ...closed, event("content_block_start", { index: open.index, content_block: block })]
  }

  const deltaOf = (delta: JsonObject): WireEvent =>
    event("content_block_delta", { index: open?.index ?? 0, delta })

  return {
    adopt: (events) => {
      for (const told of events) {
        switch (told._tag) {
          case "Started":
            id = told.id
            model = told.model
            begun = true
            break
          case "Text":
            if (open === undefined || open.call !== undefined) {
              open = { index: blocks, call: undefined }
              blocks += 1
            }
            break
          case "Reasoning":
            // A block of its own that the provider opened: the next one comes after it.
            if (open === undefined || open.call !== -1) {
              open = { index: blocks, call: -1 }
              blocks += 1
            }
            break
          case "ToolCall":
            open = { index: blocks, call: told.index }
            blocks += 1
            break
          case "Stopped":
            // The provider closed its blocks before it said so.
            open = undefined
            stop = told.stop
            stopTold = true
            break
          case "Usage":
            usage = told.usage
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
    write: (told) => {
      switch (told._tag) {
        case "Started":
          if (!begun) {
            id = told.id
            model = told.model
          }
          return []
        case "Usage":
          usage = told.usage
          return []
        case "Text": {
          const opened =
            open !== undefined && open.call === undefined
              ? []
              : openBlock(undefined, { type: "text", text: "", citations: null })
          return [...opened, deltaOf({ type: "text_delta", text: told.text })]
        }
        case "ToolCall":
          return openBlock(told.index, { type: "tool_use", id: told.id, name: told.name, input: {} })
        case "ToolArguments":
          // Pieces of a call whose block is closed can't be told any more; no provider mixes calls.
          return open?.call === told.index
            ? [deltaOf({ type: "input_json_delta", partial_json: told.json })]
            : []
        case "Stopped":
          stop = told.stop
          return []
        case "Reasoning":
        case "Ended":
        case "Failed":
          return []
      }
    },
    end: (summary) => {
      if (over) return []
      over = true
      usage = summary.usage
      const closed = [...begin(), ...close()]
      if (!stopTold) {
        closed.push(
          event("message_delta", {
            delta: {
              stop_reason: reasons[stop?.reason ?? "stop"],
              stop_sequence: stop?.sequence ?? null,
              stop_details: null,
              container: null
            },
            usage: encodeUsage(usage)
          })
        )
      }
      return [...closed, event("message_stop", {})]
    },
    fail: (problem) => {
      if (over) return []
      over = true
      return [frame("error", encodeProblem(problem))]
    }
  }
}

/** The class that Anthropic gives to a status (`@anthropic-ai/sdk` 1.12, `src/core/error.ts`). */
const types: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  409: "conflict_error",
  413: "request_too_large",
  429: "rate_limit_error",
  504: "timeout_error",
  529: "overloaded_error"
}

const typeOf = (status: number): string =>
  types[status] ?? (status >= 500 ? "api_error" : "invalid_request_error")

export const encodeProblem = ({ code, message, requestId, status, type }: WireProblem): JsonObject => ({
  type: "error",
  error: { type: type ?? typeOf(status), message, details: { error_code: code } },
  request_id: requestId
})

/** The text so far as a turn of the assistant's. Claude refuses one that ends in white space, so that is left to us to keep. */
const continueFrom = (body: JsonObject, text: string): JsonObject => ({
  ...body,
  messages: [
    ...listOf(body["messages"]),
    { role: "assistant", content: [{ type: "text", text: text.trimEnd() }] }
  ]
})

/** Messages. */
export const AnthropicMessages: Codec = {
  decodeRequest,
  encodeRequest,
  decodeAnswer,
  encodeAnswer,
  reader,
  writer,
  encodeProblem,
  forModel: (body, model, stream) => {
    const { stream: _, ...rest } = body
    const kept = Object.fromEntries(Object.entries(rest).filter(([name]) => !REFUSED.has(name)))
    return { ...kept, model, ...(stream ? { stream } : undefined) }
  },
  continueFrom
}
