import { Option, Schema } from "effect"

/** The tokens that the fake provider counts for any prompt, and for each input of an embedding. */
export const promptTokens = 12

export type JsonObject = { readonly [name: string]: Schema.Json }

/** A refusal, before a wire gives it its form. */
export interface Refusal {
  readonly status: number
  readonly code: string | null
  readonly message: string
  readonly param?: string
  /** Seconds, for the header `Retry-After`. */
  readonly retryAfter?: number
}

interface Tool {
  readonly name: string
  readonly schema: Schema.Json
}

/** What any of the wires asks for. */
export interface Asked {
  readonly model: string
  readonly stream: boolean
  /** Whether a stream of chat completions ends with its usage. */
  readonly usageWanted: boolean
  /** The text so far, when the caller sends it back to be gone on with. */
  readonly soFar: string
  /** Whether a user speaks after the text so far. */
  readonly spokenTo: boolean
  readonly maxTokens: number
  readonly tool: Tool | undefined
  readonly schema: Schema.Json | undefined
  readonly inputs: number
  readonly dimensions: number
  readonly base64: boolean
}

/** What is answered, in pieces of one token each, before a wire gives it its form. */
export interface Answer {
  readonly id: string
  readonly model: string
  readonly pieces: ReadonlyArray<string>
  readonly tool: string | undefined
  readonly finish: "stop" | "length" | "tool"
  readonly usage: boolean
  readonly asked: Asked
}

/** The parts of a stream, as frames of text. A fault leaves parts of it out. */
export interface Script {
  readonly head: ReadonlyArray<string>
  readonly body: ReadonlyArray<string>
  readonly tail: ReadonlyArray<string>
  readonly end: ReadonlyArray<string>
}

type Headers = Readonly<Record<string, string>>

/** One endpoint's wire format. */
export interface Wire {
  readonly read: (body: Schema.Json, headers: Headers) => Asked | Refusal
  readonly json: (answer: Answer) => JsonObject
  readonly script: ((answer: Answer) => Script) | undefined
  readonly inBandError: string
  readonly malformed: string
  readonly refusal: (refusal: Refusal, requestId: string) => JsonObject
  readonly headers: (requestId: string, status: number) => Headers
}

const created = 1_790_000_000

const frame = (data: Schema.Json, event?: string) =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`

const typed = (data: JsonObject & { readonly type: string }) => frame(data, data.type)

// What the requests have of interest here; all else is let through, as the vendors add fields each month.

const Block = Schema.Struct({
  type: Schema.String,
  text: Schema.optional(Schema.String),
  citations: Schema.optional(Schema.Json)
})
const Content = Schema.optional(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Block)])))
type Content = typeof Content.Type

const Message = Schema.Struct({ role: Schema.String, content: Content })
const Item = Schema.Struct({
  type: Schema.optional(Schema.String),
  role: Schema.optional(Schema.String),
  content: Content
})

const Count = Schema.optional(Schema.NullOr(Schema.Int.check(Schema.isGreaterThan(0))))
const Flag = Schema.optional(Schema.NullOr(Schema.Boolean))

const Choice = Schema.optional(
  Schema.Union([
    Schema.String,
    Schema.Struct({
      type: Schema.String,
      name: Schema.optional(Schema.String),
      function: Schema.optional(Schema.Struct({ name: Schema.String }))
    })
  ])
)

const ChatRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(Message),
  stream: Flag,
  stream_options: Schema.optional(
    Schema.NullOr(Schema.Struct({ include_usage: Schema.optional(Schema.Boolean) }))
  ),
  max_tokens: Count,
  max_completion_tokens: Count,
  tool_choice: Choice,
  tools: Schema.optional(
    Schema.Array(
      Schema.Struct({
        function: Schema.optional(
          Schema.Struct({ name: Schema.String, parameters: Schema.optional(Schema.Json) })
        )
      })
    )
  ),
  response_format: Schema.optional(
    Schema.Struct({
      type: Schema.String,
      json_schema: Schema.optional(Schema.Struct({ schema: Schema.optional(Schema.Json) }))
    })
  )
})

const ResponsesRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Union([Schema.String, Schema.Array(Item)]),
  stream: Flag,
  max_output_tokens: Count,
  tool_choice: Choice,
  tools: Schema.optional(
    Schema.Array(
      Schema.Struct({ name: Schema.optional(Schema.String), parameters: Schema.optional(Schema.Json) })
    )
  ),
  text: Schema.optional(
    Schema.Struct({
      format: Schema.optional(Schema.Struct({ type: Schema.String, schema: Schema.optional(Schema.Json) }))
    })
  )
})

const CountRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(Message)
})

const MessagesRequest = Schema.Struct({
  ...CountRequest.fields,
  max_tokens: Schema.Int.check(Schema.isGreaterThan(0)),
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

const EmbeddingsRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  input: Schema.Union([
    Schema.String,
    Schema.Array(Schema.Finite),
    Schema.Array(Schema.String),
    Schema.Array(Schema.Array(Schema.Finite))
  ]),
  dimensions: Count,
  encoding_format: Schema.optional(Schema.Literals(["float", "base64"]))
})

const invalid = (message: string, param?: string): Refusal => ({
  status: 400,
  code: null,
  message,
  ...(param === undefined ? {} : { param })
})

const textOf = (content: Content) =>
  content === undefined || content === null
    ? ""
    : typeof content === "string"
      ? content
      : content.map(({ text }) => text ?? "").join("")

/** The text so far is the last turn, or the one before it when a user asks to go on. */
const conversation = (turns: ReadonlyArray<typeof Item.Type>) => {
  const last = turns.at(-1)
  const assistant = turns.slice(-2).findLast(({ role }) => role === "assistant")
  return {
    soFar: textOf(assistant?.content),
    spokenTo: last?.role !== "assistant",
    // A tool's result comes after the user's text: a loop of an agent ends with it.
    toolAskedFor: last?.role === "user" && textOf(last.content).includes("use the tool")
  }
}

const chosen = (
  choice: typeof Choice.Type,
  tools: ReadonlyArray<Tool>,
  toolAskedFor: boolean
): Tool | undefined | Refusal => {
  const kind = typeof choice === "string" ? choice : (choice?.type ?? "auto")
  const name = typeof choice === "string" ? undefined : (choice?.function?.name ?? choice?.name)
  if (name !== undefined) {
    return (
      tools.find((tool) => tool.name === name) ??
      invalid(`Tool '${name}' not found in 'tools'.`, "tool_choice")
    )
  }
  if (kind === "required" || kind === "any") {
    return tools[0] ?? invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
  }
  return kind === "auto" && toolAskedFor ? tools[0] : undefined
}

const isRefusal = (value: Tool | Refusal | undefined): value is Refusal =>
  value !== undefined && "status" in value

const plain = {
  stream: false,
  usageWanted: true,
  soFar: "",
  spokenTo: true,
  maxTokens: Number.MAX_SAFE_INTEGER,
  tool: undefined,
  schema: undefined,
  inputs: 1,
  dimensions: 8,
  base64: false
}

/** Reads a body, or says as the vendors do that it is none. */
const reading =
  <A>(schema: Schema.Decoder<A>, asked: (request: A, headers: Headers) => Asked | Refusal): Wire["read"] =>
  (body, headers) =>
    Option.match(Schema.decodeUnknownOption(schema)(body), {
      onNone: () => invalid("The body of the request is not what this endpoint takes."),
      onSome: (request) => asked(request, headers)
    })

// OpenAI

const openAiTypes: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  408: "timeout",
  409: "conflict_error",
  429: "requests",
  503: "server_error",
  529: "overloaded_error"
}

const openAiRefusal = ({ code, message, param, status }: Refusal): JsonObject => ({
  error: {
    message,
    type: openAiTypes[status] ?? (status < 500 ? "invalid_request_error" : "server_error"),
    param: param ?? null,
    code
  }
})

const openAiHeaders = (requestId: string, status: number): Headers => ({
  "x-request-id": requestId,
  "openai-version": "2020-10-01",
  "openai-organization": "org-fake",
  "openai-processing-ms": "1",
  "x-ratelimit-limit-requests": "10000",
  "x-ratelimit-remaining-requests": status === 429 ? "0" : "9999",
  "x-ratelimit-reset-requests": "6ms",
  "x-ratelimit-limit-tokens": "2000000",
  "x-ratelimit-remaining-tokens": status === 429 ? "0" : "1999988",
  "x-ratelimit-reset-tokens": "1ms"
})

const chatUsage = (output: number): JsonObject => ({
  prompt_tokens: promptTokens,
  completion_tokens: output,
  total_tokens: promptTokens + output,
  prompt_tokens_details: { cached_tokens: 0, audio_tokens: 0 },
  completion_tokens_details: {
    reasoning_tokens: 0,
    audio_tokens: 0,
    accepted_prediction_tokens: 0,
    rejected_prediction_tokens: 0
  }
})

const chatFinish = { stop: "stop", length: "length", tool: "tool_calls" } as const

const chatCommon = ({ id, model }: Answer) => ({
  id: `chatcmpl-${id}`,
  created,
  model,
  service_tier: "default",
  system_fingerprint: "fp_fake"
})

const chatScript = (answer: Answer): Script => {
  const { asked, finish, id, pieces, tool } = answer
  const usage = asked.usageWanted && answer.usage
  const chunk = (choices: ReadonlyArray<Schema.Json>, used: Schema.Json = null) =>
    frame({
      ...chatCommon(answer),
      object: "chat.completion.chunk",
      choices,
      ...(usage ? { usage: used } : {})
    })
  const delta = (delta: JsonObject, finish_reason: string | null = null) =>
    chunk([{ index: 0, delta, logprobs: null, finish_reason }])
  const call = (name: string) => ({
    index: 0,
    id: `call_${id}`,
    type: "function",
    function: { name, arguments: "" }
  })
  return {
    head: [
      delta(
        tool === undefined
          ? { role: "assistant", content: "", refusal: null }
          : { role: "assistant", content: null, tool_calls: [call(tool)], refusal: null }
      )
    ],
    body: pieces.map((piece) =>
      delta(
        tool === undefined
          ? { content: piece }
          : { tool_calls: [{ index: 0, function: { arguments: piece } }] }
      )
    ),
    tail: [delta({}, chatFinish[finish]), ...(usage ? [chunk([], chatUsage(pieces.length))] : [])],
    end: ["data: [DONE]\n\n"]
  }
}

const chat: Wire = {
  read: reading(ChatRequest, (request) => {
    const { toolAskedFor, ...turns } = conversation(request.messages)
    const tools = (request.tools ?? []).flatMap(({ function: of }) =>
      of === undefined ? [] : [{ name: of.name, schema: of.parameters ?? {} }]
    )
    const tool = chosen(request.tool_choice, tools, toolAskedFor)
    if (isRefusal(tool)) return tool
    const format = request.response_format
    return {
      ...plain,
      ...turns,
      tool,
      model: request.model,
      stream: request.stream === true,
      usageWanted: request.stream_options?.include_usage === true,
      maxTokens: request.max_completion_tokens ?? request.max_tokens ?? plain.maxTokens,
      schema:
        format?.type === "json_schema"
          ? (format.json_schema?.schema ?? {})
          : format?.type === "json_object"
            ? { type: "object" }
            : undefined
    }
  }),
  json: (answer) => {
    const text = answer.pieces.join("")
    const call = { id: `call_${answer.id}`, type: "function" }
    return {
      ...chatCommon(answer),
      object: "chat.completion",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: answer.tool === undefined ? text : null,
            refusal: null,
            annotations: [],
            ...(answer.tool === undefined
              ? {}
              : { tool_calls: [{ ...call, function: { name: answer.tool, arguments: text } }] })
          },
          logprobs: null,
          finish_reason: chatFinish[answer.finish]
        }
      ],
      ...(answer.usage ? { usage: chatUsage(answer.pieces.length) } : {})
    }
  },
  script: chatScript,
  inBandError: frame({
    error: {
      message: "The server had an error while processing your request. Sorry about that!",
      type: "server_error",
      param: null,
      code: null
    }
  }),
  malformed: 'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choi\n\n',
  refusal: openAiRefusal,
  headers: openAiHeaders
}

const responsesItem = ({ id, tool }: Answer, text: string, status: string): JsonObject =>
  tool === undefined
    ? {
        id: `msg_${id}`,
        type: "message",
        role: "assistant",
        status,
        content:
          status === "in_progress" ? [] : [{ type: "output_text", text, annotations: [], logprobs: [] }]
      }
    : { id: `fc_${id}`, type: "function_call", status, call_id: `call_${id}`, name: tool, arguments: text }

const responsesBody = (answer: Answer, done: boolean): JsonObject => {
  const output = answer.pieces.length
  const status = done ? (answer.finish === "length" ? "incomplete" : "completed") : "in_progress"
  return {
    id: `resp_${answer.id}`,
    object: "response",
    created_at: created,
    status,
    background: false,
    error: null,
    incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
    instructions: null,
    max_output_tokens: answer.asked.maxTokens === plain.maxTokens ? null : answer.asked.maxTokens,
    metadata: {},
    model: answer.model,
    output: done ? [responsesItem(answer, answer.pieces.join(""), status)] : [],
    parallel_tool_calls: true,
    previous_response_id: null,
    reasoning: { effort: null, summary: null },
    service_tier: "default",
    store: false,
    temperature: 1,
    text: { format: { type: "text" } },
    tool_choice: "auto",
    tools: [],
    top_p: 1,
    truncation: "disabled",
    usage:
      done && answer.usage
        ? {
            input_tokens: promptTokens,
            input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
            output_tokens: output,
            output_tokens_details: { reasoning_tokens: 0 },
            total_tokens: promptTokens + output
          }
        : null
  }
}

const responsesScript = (answer: Answer): Script => {
  let sequence = 0
  const event = (type: string, fields: JsonObject) => typed({ type, sequence_number: sequence++, ...fields })
  const full = responsesBody(answer, true)
  const text = answer.pieces.join("")
  const status = answer.finish === "length" ? "incomplete" : "completed"
  const item = { output_index: 0, item: responsesItem(answer, text, status) }
  const began = { output_index: 0, item: responsesItem(answer, "", "in_progress") }
  const of = { item_id: `${answer.tool === undefined ? "msg" : "fc"}_${answer.id}`, output_index: 0 }
  const part = (text: string) => ({
    ...of,
    content_index: 0,
    part: { type: "output_text", text, annotations: [], logprobs: [] }
  })
  const called = answer.tool !== undefined
  // The order of these lines is the order of the sequence numbers.
  const head = [
    event("response.created", { response: responsesBody(answer, false) }),
    event("response.in_progress", { response: responsesBody(answer, false) }),
    event("response.output_item.added", began),
    ...(called ? [] : [event("response.content_part.added", part(""))])
  ]
  const body = answer.pieces.map((delta) =>
    called
      ? event("response.function_call_arguments.delta", { ...of, delta })
      : event("response.output_text.delta", { ...of, content_index: 0, delta, logprobs: [] })
  )
  const tail = [
    ...(called
      ? [event("response.function_call_arguments.done", { ...of, name: answer.tool ?? "", arguments: text })]
      : [
          event("response.output_text.done", { ...of, content_index: 0, text, logprobs: [] }),
          event("response.content_part.done", part(text))
        ]),
    event("response.output_item.done", item)
  ]
  return { head, body, tail, end: [event(`response.${status}`, { response: full })] }
}

const responses: Wire = {
  read: reading(ResponsesRequest, (request) => {
    const input =
      typeof request.input === "string" ? [{ role: "user", content: request.input }] : request.input
    const { toolAskedFor, ...turns } = conversation(input)
    const tools = (request.tools ?? []).flatMap(({ name, parameters }) =>
      name === undefined ? [] : [{ name, schema: parameters ?? {} }]
    )
    const tool = chosen(request.tool_choice, tools, toolAskedFor)
    if (isRefusal(tool)) return tool
    const format = request.text?.format
    return {
      ...plain,
      ...turns,
      tool,
      model: request.model,
      stream: request.stream === true,
      maxTokens: request.max_output_tokens ?? plain.maxTokens,
      schema:
        format?.type === "json_schema"
          ? (format.schema ?? {})
          : format?.type === "json_object"
            ? { type: "object" }
            : undefined
    }
  }),
  json: (answer) => responsesBody(answer, true),
  script: responsesScript,
  inBandError: typed({
    type: "error",
    sequence_number: 999,
    code: "server_error",
    message: "The server had an error while processing your request.",
    param: null
  }),
  malformed: 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","del\n\n',
  refusal: openAiRefusal,
  headers: openAiHeaders
}

const embeddings: Wire = {
  read: reading(EmbeddingsRequest, (request) => ({
    ...plain,
    model: request.model,
    inputs:
      typeof request.input === "string" || typeof request.input[0] === "number" ? 1 : request.input.length,
    dimensions: request.dimensions ?? plain.dimensions,
    base64: request.encoding_format === "base64"
  })),
  json: ({ asked, model, usage }) => {
    const { base64, dimensions, inputs } = asked
    const total = promptTokens * inputs
    return {
      object: "list",
      data: Array.from({ length: inputs }, (_, index) => {
        // A unit vector along the input's own axis: inputs differ, and none is zero.
        const vector = Array.from({ length: dimensions }, (_, axis) => (axis === index % dimensions ? 1 : 0))
        const bytes = Buffer.from(new Float32Array(vector).buffer)
        return { object: "embedding", index, embedding: base64 ? bytes.toString("base64") : vector }
      }),
      model,
      ...(usage ? { usage: { prompt_tokens: total, total_tokens: total } } : {})
    }
  },
  script: undefined,
  inBandError: chat.inBandError,
  malformed: chat.malformed,
  refusal: openAiRefusal,
  headers: openAiHeaders
}

// Anthropic

const anthropicTypes: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  409: "conflict_error",
  429: "rate_limit_error",
  529: "overloaded_error"
}

const anthropicRefusal = ({ message, status }: Refusal, requestId: string): JsonObject => ({
  type: "error",
  error: { type: anthropicTypes[status] ?? "api_error", message, details: null },
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

const deltaUsage = (output: number) => ({
  input_tokens: promptTokens,
  cache_creation_input_tokens: 0,
  cache_read_input_tokens: 0,
  output_tokens: output,
  output_tokens_details: null,
  server_tool_use: null
})

const messageUsage = (output: number): JsonObject => ({
  ...deltaUsage(output),
  cache_creation: { ephemeral_5m_input_tokens: 0, ephemeral_1h_input_tokens: 0 },
  inference_geo: null,
  service_tier: "standard",
  speed: "standard"
})

const stopReason = { stop: "end_turn", length: "max_tokens", tool: "tool_use" } as const

const messageBody = (
  answer: Answer,
  content: ReadonlyArray<Schema.Json>,
  stop: string | null,
  output: number
) => ({
  id: `msg_${answer.id}`,
  type: "message",
  role: "assistant",
  model: answer.model,
  content,
  container: null,
  diagnostics: null,
  stop_details: null,
  stop_reason: stop,
  stop_sequence: null,
  ...(answer.usage ? { usage: messageUsage(output) } : {})
})

const contentBlock = ({ id, tool }: Answer, text: string, input: Schema.Json): JsonObject =>
  tool === undefined
    ? { type: "text", text, citations: null }
    : { type: "tool_use", id: `toolu_${id}`, name: tool, input, caller: { type: "direct" } }

const messagesScript = (answer: Answer): Script => ({
  head: [
    typed({ type: "message_start", message: messageBody(answer, [], null, 1) }),
    typed({ type: "content_block_start", index: 0, content_block: contentBlock(answer, "", {}) }),
    typed({ type: "ping" })
  ],
  body: answer.pieces.map((piece) =>
    typed({
      type: "content_block_delta",
      index: 0,
      delta:
        answer.tool === undefined
          ? { type: "text_delta", text: piece }
          : { type: "input_json_delta", partial_json: piece }
    })
  ),
  tail: [
    typed({ type: "content_block_stop", index: 0 }),
    typed({
      type: "message_delta",
      delta: {
        stop_reason: stopReason[answer.finish],
        stop_sequence: null,
        stop_details: null,
        container: null
      },
      ...(answer.usage ? { usage: deltaUsage(answer.pieces.length) } : {})
    })
  ],
  end: [typed({ type: "message_stop" })]
})

const versionMissing = invalid("anthropic-version: header is required")

/** What `anthropic-version: 2026-10-21` no longer takes, even at its default. */
const noLongerTaken = (request: typeof MessagesRequest.Type): Refusal | undefined => {
  const sampling = (["temperature", "top_p", "top_k"] as const).find((name) => request[name] !== undefined)
  if (sampling !== undefined) return invalid(`${sampling}: Extra inputs are not permitted`)
  for (const { content, role } of request.messages) {
    for (const { citations, type } of typeof content === "object" && content !== null ? content : []) {
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

const messages: Wire = {
  read: (body, headers) => {
    const version = headers["anthropic-version"]
    if (version === undefined) return versionMissing
    if (typeof body === "object" && body !== null && !("max_tokens" in body)) {
      return invalid("max_tokens: Field required")
    }
    return reading(MessagesRequest, (request) => {
      const refused = version >= "2026-10-21" ? noLongerTaken(request) : undefined
      if (refused !== undefined) return refused
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
    const input = answer.tool === undefined ? {} : Schema.decodeSync(Schema.fromJsonString(Schema.Json))(text)
    return messageBody(
      answer,
      [contentBlock(answer, text, input)],
      stopReason[answer.finish],
      answer.pieces.length
    )
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

const countTokens: Wire = {
  ...messages,
  read: (body, headers) =>
    headers["anthropic-version"] === undefined
      ? versionMissing
      : reading(CountRequest, ({ model }) => ({ ...plain, model }))(body, headers),
  json: () => ({ input_tokens: promptTokens }),
  script: undefined
}

/** The endpoints that take a model's name, by path. */
export const wires: ReadonlyMap<string, Wire> = new Map([
  ["/v1/chat/completions", chat],
  ["/v1/responses", responses],
  ["/v1/embeddings", embeddings],
  ["/v1/messages", messages],
  ["/v1/messages/count_tokens", countTokens]
])

/** The vendor that a path, or the headers where both have the path, belongs to. */
export const vendor = (path: string, headers: Headers): Pick<Wire, "refusal" | "headers"> =>
  path.startsWith("/v1/messages") || headers["anthropic-version"] !== undefined ? messages : chat

export const isAnthropic = (wire: Pick<Wire, "refusal">) => wire.refusal === anthropicRefusal

const modelNames = ["mock", "gpt-5.4", "claude-sonnet-5-5"] as const

/** `GET /v1/models` of OpenAI. */
export const openAiModels: JsonObject = {
  object: "list",
  data: modelNames.map((id) => ({ id, object: "model", created, owned_by: "fake" }))
}

/** `GET /v1/models` of Anthropic. */
export const anthropicModels: JsonObject = {
  data: modelNames.map((id) => ({
    id,
    type: "model",
    display_name: id,
    created_at: "2026-10-01T00:00:00Z",
    capabilities: null,
    deprecated_at: null,
    lifecycle: "active",
    line: null,
    max_input_tokens: 200_000,
    max_tokens: 64_000
  })),
  has_more: false,
  first_id: modelNames[0],
  last_id: "claude-sonnet-5-5"
}

const isObject = (value: Schema.Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const list = (value: Schema.Json | undefined): ReadonlyArray<Schema.Json> =>
  Array.isArray(value) ? value : []

const formats: Readonly<Record<string, string>> = {
  "date-time": "2026-01-01T00:00:00Z",
  date: "2026-01-01",
  time: "00:00:00Z",
  email: "mock@example.com",
  uuid: "00000000-0000-4000-8000-000000000000",
  uri: "https://example.com"
}

/** A value that a JSON schema allows: the simplest one. References are followed within `root`. */
export const dummy = (schema: Schema.Json, root: Schema.Json = schema, depth = 0): Schema.Json => {
  if (!isObject(schema) || depth > 20) return null
  const deeper = (inner: Schema.Json) => dummy(inner, root, depth + 1)
  if (schema["const"] !== undefined) return schema["const"]
  const first = list(schema["enum"])[0]
  if (first !== undefined) return first
  const reference = schema["$ref"]
  if (typeof reference === "string") {
    let target: Schema.Json = root
    for (const name of reference.split("/").slice(1))
      target = isObject(target) ? (target[name] ?? null) : null
    return deeper(target)
  }
  const branch = list(schema["anyOf"])[0] ?? list(schema["oneOf"])[0] ?? list(schema["allOf"])[0]
  if (branch !== undefined) return deeper(branch)
  const properties = schema["properties"]
  const kind = list(schema["type"])[0] ?? schema["type"]
  const least = schema["minimum"]
  const format = schema["format"]
  if (kind === "object" || isObject(properties)) {
    return Object.fromEntries(
      Object.entries(isObject(properties) ? properties : {}).map(([name, of]) => [name, deeper(of)])
    )
  }
  if (kind === "array") {
    const items = schema["minItems"]
    return Array.from({ length: typeof items === "number" ? items : 0 }, () => deeper(schema["items"] ?? {}))
  }
  if (kind === "integer" || kind === "number") return typeof least === "number" ? least : 1
  if (kind === "boolean") return true
  if (kind === "null") return null
  return (typeof format === "string" ? formats[format] : undefined) ?? "mock"
}
