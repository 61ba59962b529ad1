import { Option, Schema } from "effect"
import type { TokenUsage } from "../../src/domain/Llm.ts"
import {
  Block,
  blocksOf,
  Choice,
  chosen,
  Content,
  conversation,
  Flag,
  imageTypes,
  invalid,
  isObject,
  isRefusal,
  nameOf,
  plain,
  promptTokens,
  reading,
  typed
} from "./FakeProviderWire.ts"
import type { Answer, Headers, JsonObject, Refusal, Script, Wire } from "./FakeProviderWire.ts"

const Message = Schema.Struct({ role: Schema.String, content: Content })
type Message = typeof Message.Type

const CountRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(Message),
  system: Schema.optional(Schema.Union([Schema.String, Schema.Array(Block)]))
})

const MessagesRequest = Schema.Struct({
  ...CountRequest.fields,
  max_tokens: Schema.Int.check(Schema.isGreaterThan(0)),
  stop_sequences: Schema.optional(Schema.NullOr(Schema.Array(Schema.String))),
  stream: Flag,
  temperature: Schema.optional(Schema.Json),
  top_p: Schema.optional(Schema.Json),
  top_k: Schema.optional(Schema.Json),
  tool_choice: Choice,
  tools: Schema.optional(
    Schema.Array(Schema.Struct({ name: Schema.String, input_schema: Schema.optional(Schema.Json) }))
  ),
  output_config: Schema.optional(
    Schema.Struct({
      format: Schema.optional(
        Schema.NullOr(Schema.Struct({ type: Schema.String, schema: Schema.optional(Schema.Json) }))
      )
    })
  )
})

const types: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  409: "conflict_error",
  429: "rate_limit_error",
  529: "overloaded_error"
}

export const anthropicRefusal = ({ message, status }: Refusal, requestId: string): JsonObject => ({
  type: "error",
  error: { type: types[status] ?? "api_error", message, details: null },
  request_id: requestId
})

const anthropicHeaders = (requestId: string, status: number): Headers => ({
  "request-id": requestId,
  "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
  ...Object.fromEntries(
    ["requests", "tokens", "input-tokens", "output-tokens"].flatMap((what) => [
      [`anthropic-ratelimit-${what}-limit`, "4000"],
      [`anthropic-ratelimit-${what}-remaining`, status === 429 ? "0" : "3999"],
      [`anthropic-ratelimit-${what}-reset`, "2030-01-01T00:00:00Z"]
    ])
  )
})

/** Anthropic counts apart what a cache took or gave. */
const deltaUsage = (usage: TokenUsage, output: number) => ({
  input_tokens: usage.input,
  cache_creation_input_tokens: usage.cachedWrite,
  cache_read_input_tokens: usage.cachedRead,
  output_tokens: output,
  output_tokens_details: usage.reasoning === 0 ? null : { thinking_tokens: usage.reasoning },
  server_tool_use: null
})

const messageUsage = (usage: TokenUsage, output: number): JsonObject => ({
  ...deltaUsage(usage, output),
  cache_creation: { ephemeral_5m_input_tokens: usage.cachedWrite, ephemeral_1h_input_tokens: 0 },
  inference_geo: null,
  service_tier: "standard",
  speed: "standard"
})

const stopReasons = {
  stop: "end_turn",
  length: "max_tokens",
  tool: "tool_use",
  sequence: "stop_sequence",
  refusal: "refusal",
  pause: "pause_turn"
} as const

const ending = ({ finish, sequence }: Answer) => ({
  stop_reason: stopReasons[finish],
  stop_sequence: sequence,
  stop_details: finish === "refusal" ? { type: "refusal", category: null, explanation: null } : null,
  container: null
})

const notEnded = { stop_reason: null, stop_sequence: null, stop_details: null, container: null }

const messageBody = (
  answer: Answer,
  content: ReadonlyArray<Schema.Json>,
  end: typeof notEnded | ReturnType<typeof ending>,
  output: number
) => ({
  id: `msg_${answer.id}`,
  type: "message",
  role: "assistant",
  model: answer.model,
  content,
  diagnostics: null,
  ...end,
  ...(answer.usageTold ? { usage: messageUsage(answer.usage, output) } : {})
})

const direct = { caller: { type: "direct" } }

const contentBlock = ({ id, tool }: Answer, text: string, input: Schema.Json): JsonObject =>
  tool === undefined
    ? { type: "text", text, citations: null }
    : { type: "tool_use", id: `toolu_${id}`, name: tool, input, ...direct }

/** What a paused turn waits for: a tool of the vendor's own. The caller sends it back as it is. */
const pausedFor = ({ id }: Answer, input: Schema.Json): JsonObject => ({
  type: "server_tool_use",
  id: `srvtoolu_${id}`,
  name: "web_search",
  input,
  ...direct
})

const search = { query: "mock" }

const messagesScript = (answer: Answer): Script => {
  const delta = (index: number, delta: JsonObject) => typed({ type: "content_block_delta", index, delta })
  const stop = (index: number) => typed({ type: "content_block_stop", index })
  const start = (index: number, content_block: JsonObject) =>
    typed({ type: "content_block_start", index, content_block })
  // One who has nothing more to say says it without a block.
  const speaks = answer.pieces.length > 0
  return {
    head: [
      typed({ type: "message_start", message: messageBody(answer, [], notEnded, 1) }),
      ...(speaks ? [start(0, contentBlock(answer, "", {}))] : []),
      typed({ type: "ping" })
    ],
    body: answer.pieces.map((piece) =>
      delta(
        0,
        answer.tool === undefined
          ? { type: "text_delta", text: piece }
          : { type: "input_json_delta", partial_json: piece }
      )
    ),
    tail: [
      ...(speaks ? [stop(0)] : []),
      ...(answer.finish === "pause"
        ? [
            start(1, pausedFor(answer, {})),
            delta(1, { type: "input_json_delta", partial_json: JSON.stringify(search) }),
            stop(1)
          ]
        : []),
      typed({
        type: "message_delta",
        delta: ending(answer),
        ...(answer.usageTold ? { usage: deltaUsage(answer.usage, answer.usage.output) } : {})
      })
    ],
    end: [typed({ type: "message_stop" })]
  }
}

const versions: ReadonlySet<string> = new Set(["2023-06-01", "2026-10-21"])

/** What `anthropic-version` asks for is refused before all else. */
export const badVersion = (headers: Headers): Refusal | undefined => {
  const version = headers["anthropic-version"]
  if (version === undefined) return invalid("anthropic-version: header is required")
  return versions.has(version)
    ? undefined
    : invalid(`anthropic-version: "${version}" is not a valid version.`)
}

/** What `anthropic-version: 2026-10-21` no longer takes, even at its default. */
const noLongerTaken = (request: typeof MessagesRequest.Type): Refusal | undefined => {
  const sampling = (["temperature", "top_p", "top_k"] as const).find((name) => request[name] !== undefined)
  if (sampling !== undefined) return invalid(`${sampling}: Extra inputs are not permitted`)
  for (const { content, role } of request.messages) {
    for (const { citations, type } of blocksOf(content)) {
      if (role === "assistant" && type === "document") {
        return invalid("messages: document blocks are not permitted in assistant messages")
      }
      if (role === "user" && type === "text" && Array.isArray(citations) && citations.length > 0) {
        return invalid("messages: citations are not permitted on user text blocks")
      }
    }
  }
  return undefined
}

const mediaTypes: ReadonlySet<string> = new Set(imageTypes.map((type) => `image/${type}`))

const badSource = (source: Schema.Json | undefined, at: string): Refusal | undefined => {
  const { data, file_id, media_type, type, url } = isObject(source) ? source : {}
  if (type === "base64") {
    if (typeof media_type !== "string" || !mediaTypes.has(media_type)) {
      const allowed = [...mediaTypes].map((one) => `'${one}'`).join(", ")
      return invalid(`${at}.source.base64.media_type: Input should be one of ${allowed}`)
    }
    return typeof data === "string" && /^[A-Za-z0-9+/]+={0,2}$/.test(data)
      ? undefined
      : invalid(`${at}.source.base64.data: invalid base64 data`)
  }
  if (type === "url") {
    return typeof url === "string" && url.startsWith("https:") && URL.canParse(url)
      ? undefined
      : invalid(`${at}.source.url.url: Only HTTPS URLs are supported.`)
  }
  return type === "file" && typeof file_id === "string"
    ? undefined
    : invalid(`${at}.source: Input tag does not match any of the expected tags: 'base64', 'file', 'url'`)
}

const badText = (where: string, content: Content): Refusal | undefined => {
  for (const { text, type } of blocksOf(content)) {
    if (type !== "text") continue
    if ((text ?? "") === "") return invalid(`${where}: text content blocks must be non-empty`)
    if ((text ?? "").trim() === "") {
      return invalid(`${where}: text content blocks must contain non-whitespace text`)
    }
  }
  return undefined
}

/** A result stands right after its call, and a call right before its result. */
const badTools = (messages: ReadonlyArray<Message>): Refusal | undefined => {
  const idsOf = (message: Message | undefined, role: string, kind: string) =>
    message?.role === role
      ? blocksOf(message.content).flatMap(({ id, tool_use_id, type }) =>
          type === kind ? [(kind === "tool_use" ? id : tool_use_id) ?? ""] : []
        )
      : []
  for (const [index, message] of messages.entries()) {
    const called = idsOf(messages[index - 1], "assistant", "tool_use")
    const uncalled = idsOf(message, "user", "tool_result").find((id) => !called.includes(id))
    if (uncalled !== undefined) {
      return invalid(
        `messages.${index}.content.0: unexpected \`tool_use_id\` found in \`tool_result\` blocks: ${uncalled}. ` +
          "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
      )
    }
    const answered = idsOf(messages[index + 1], "user", "tool_result")
    const unanswered = idsOf(message, "assistant", "tool_use").find((id) => !answered.includes(id))
    if (unanswered !== undefined) {
      return invalid(
        `messages.${index}: \`tool_use\` ids were found without \`tool_result\` blocks immediately after: ${unanswered}. ` +
          "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
      )
    }
  }
  return undefined
}

/** Whether a model goes on from a turn of the assistant's: those before 4.6 do, and the fake's own. */
const takesPrefill = (model: string) => {
  const name = nameOf(model)
  const [, major = "", minor = "0"] =
    /^claude-(?:opus|sonnet|haiku)-(\d)(?:-(\d{1,2})(?!\d))?/.exec(name) ?? []
  return !/^claude-(?:fable|mythos)/.test(name) && Number(major) * 100 + Number(minor) < 406
}

const badLastTurn = (model: string, messages: ReadonlyArray<Message>): Refusal | undefined => {
  const last = messages.at(-1)
  if (last?.role !== "assistant") return undefined
  const block = blocksOf(last.content).at(-1)
  // A paused turn is no prefill: it is sent back as it came, and gone on with.
  if (block?.type === "server_tool_use") return undefined
  if (!takesPrefill(model)) {
    return invalid(
      "This model does not support assistant message prefill. The conversation must end with a user message."
    )
  }
  const text = typeof last.content === "string" ? last.content : block?.type === "text" ? block.text : ""
  return /\s$/.test(text ?? "")
    ? invalid("messages: final assistant content cannot end with trailing whitespace")
    : undefined
}

const badMessages = (request: typeof CountRequest.Type): Refusal | undefined => {
  const { messages, model, system } = request
  for (const [index, { content, role }] of messages.entries()) {
    const isLast = index === messages.length - 1
    if ((content ?? "").length === 0 && !(isLast && role === "assistant")) {
      return invalid(
        `messages.${index}: all messages must have non-empty content except for the optional final assistant message`
      )
    }
    for (const [at, { source, type }] of blocksOf(content).entries()) {
      const bad = type === "image" ? badSource(source, `messages.${index}.content.${at}.image`) : undefined
      if (bad !== undefined) return bad
    }
    const empty = badText("messages", content)
    if (empty !== undefined) return empty
  }
  return badText("system", system) ?? badTools(messages) ?? badLastTurn(model, messages)
}

const parsed = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

export const messages: Wire = {
  produces: "text",
  pauses: true,
  read: (body, headers) => {
    const version = badVersion(headers)
    if (version !== undefined) return version
    if (isObject(body) && body["max_tokens"] === undefined) return invalid("max_tokens: Field required")
    return reading(MessagesRequest, (request) => {
      const stop = request.stop_sequences ?? []
      const bad =
        (headers["anthropic-version"] === "2026-10-21" ? noLongerTaken(request) : undefined) ??
        (stop.some((sequence) => sequence.trim() === "")
          ? invalid("stop_sequences: each stop sequence must contain non-whitespace")
          : undefined) ??
        badMessages(request)
      if (bad !== undefined) return bad
      const { toolAskedFor, ...turns } = conversation(request.messages)
      const tools = (request.tools ?? []).map(({ input_schema, name }) => ({
        name,
        schema: input_schema ?? {}
      }))
      const tool = chosen(request.tool_choice, tools, toolAskedFor)
      if (isRefusal(tool)) return tool
      const format = request.output_config?.format
      return {
        ...plain,
        ...turns,
        stop,
        tool,
        model: request.model,
        stream: request.stream === true,
        maxTokens: request.max_tokens,
        schema: format?.type === "json_schema" ? (format.schema ?? {}) : undefined
      }
    })(body, headers)
  },
  json: (answer) => {
    const text = answer.pieces.join("")
    // The input of a call that was cut short is no JSON.
    const input = answer.tool === undefined ? {} : Option.getOrElse(parsed(text), () => ({}))
    const content = [
      ...(text === "" ? [] : [contentBlock(answer, text, input)]),
      ...(answer.finish === "pause" ? [pausedFor(answer, search)] : [])
    ]
    return messageBody(answer, content, ending(answer), answer.usage.output)
  },
  script: messagesScript,
  inBandError: typed({
    type: "error",
    error: { type: "overloaded_error", message: "Overloaded", details: null },
    request_id: "req_in_band"
  }),
  malformed: 'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n',
  refusal: anthropicRefusal,
  headers: anthropicHeaders
}

export const countTokens: Wire = {
  ...messages,
  produces: "count",
  read: (body, headers) =>
    badVersion(headers) ??
    reading(CountRequest, (request) => badMessages(request) ?? { ...plain, model: request.model })(
      body,
      headers
    ),
  json: () => ({ input_tokens: promptTokens }),
  script: undefined
}
