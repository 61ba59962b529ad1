import { Schema } from "effect"
import type { TokenUsage } from "../../src/domain/Llm.ts"
import {
  blocksOf,
  Choice,
  chosen,
  Content,
  conversation,
  Count,
  created,
  Flag,
  frame,
  imageTypes,
  invalid,
  isObject,
  isRefusal,
  nameOf,
  plain,
  reading,
  typed
} from "./FakeProviderWire.ts"
import type { Answer, Headers, JsonObject, Refusal, Script, Wire } from "./FakeProviderWire.ts"

const Call = Schema.Struct({ id: Schema.optional(Schema.String) })

const Message = Schema.Struct({
  role: Schema.String,
  content: Content,
  tool_calls: Schema.optional(Schema.NullOr(Schema.Array(Call))),
  tool_call_id: Schema.optional(Schema.String),
  function_call: Schema.optional(Schema.Json),
  refusal: Schema.optional(Schema.Json),
  audio: Schema.optional(Schema.Json)
})

const Item = Schema.Struct({
  type: Schema.optional(Schema.String),
  role: Schema.optional(Schema.String),
  content: Content,
  call_id: Schema.optional(Schema.String)
})

const ChatRequest = Schema.Struct({
  model: Schema.NonEmptyString,
  messages: Schema.NonEmptyArray(Message),
  stream: Flag,
  stream_options: Schema.optional(
    Schema.NullOr(Schema.Struct({ include_usage: Schema.optional(Schema.Boolean) }))
  ),
  max_tokens: Count,
  max_completion_tokens: Count,
  stop: Schema.optional(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Schema.String)]))),
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
  previous_response_id: Schema.optional(Schema.NullOr(Schema.String)),
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

const dataUrl = new RegExp(`^data:image/(?:${imageTypes.join("|")});base64,[A-Za-z0-9+/]+={0,2}$`)

/** An image is a `data:` URL of one of four formats, or an `https:` URL. */
const badImage = (url: Schema.Json | undefined, param: string): Refusal | undefined => {
  if (typeof url !== "string") return invalid("Missing required parameter: 'image_url'.", param)
  if (url.startsWith("data:")) {
    return dataUrl.test(url)
      ? undefined
      : invalid(
          "You uploaded an unsupported image. Please make sure your image has of one the following formats: " +
            "['png', 'jpeg', 'gif', 'webp'].",
          param,
          "invalid_image_format"
        )
  }
  return url.startsWith("https:") && URL.canParse(url)
    ? undefined
    : invalid("Invalid image URL. Expected a valid URL.", param, "invalid_image_url")
}

/** Models that think: they take `max_completion_tokens` alone (the SDK's comment on `max_tokens`, and the vendor's errors). */
const thinks = (model: string) => /^(?:gpt-5|o\d)/.test(nameOf(model))

const badMaxTokens = (request: typeof ChatRequest.Type): Refusal | undefined =>
  typeof request.max_tokens === "number" && thinks(request.model)
    ? invalid(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens",
        "unsupported_parameter"
      )
    : undefined

/** Each call of a tool is answered right after it, and nothing else is. */
const badMessages = (messages: ReadonlyArray<typeof Message.Type>): Refusal | undefined => {
  let open = new Set<string>()
  let answering = false
  const unanswered = () =>
    invalid(
      "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. " +
        `The following tool_call_ids did not have response messages: ${[...open].join(", ")}`,
      "messages"
    )
  for (const [index, message] of messages.entries()) {
    const { content, role, tool_call_id, tool_calls } = message
    const at = `messages.[${index}]`
    if (role === "tool") {
      if (!answering || tool_call_id === undefined || !open.delete(tool_call_id)) {
        return invalid(
          "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
          `${at}.role`
        )
      }
    } else {
      if (open.size > 0) return unanswered()
      answering = role === "assistant" && (tool_calls ?? []).length > 0
      if (answering) open = new Set((tool_calls ?? []).flatMap(({ id }) => (id === undefined ? [] : [id])))
    }
    const mayBeSilent =
      role === "assistant" &&
      (answering ||
        [message.function_call, message.refusal, message.audio].some((other) => (other ?? null) !== null))
    if ((content ?? null) === null && !mayBeSilent && role !== "function") {
      return invalid("Invalid value for 'content': expected a string, got null.", `${at}.content`)
    }
    for (const [part, { image_url, type }] of blocksOf(content).entries()) {
      if (type !== "image_url") continue
      const bad = badImage(
        isObject(image_url) ? image_url["url"] : undefined,
        `${at}.content.[${part}].image_url`
      )
      if (bad !== undefined) return bad
    }
  }
  return open.size > 0 ? unanswered() : undefined
}

/** Calls and results go together, unless an earlier response has the other one. */
const badItems = (items: ReadonlyArray<typeof Item.Type>, whole: boolean): Refusal | undefined => {
  const of = (kind: string) =>
    items.flatMap(({ call_id, type }) => (type === kind && call_id !== undefined ? [call_id] : []))
  const calls = of("function_call")
  const results = of("function_call_output")
  const uncalled = whole ? results.find((id) => !calls.includes(id)) : undefined
  if (uncalled !== undefined) {
    return invalid(`No tool call found for function call output with call_id ${uncalled}.`, "input")
  }
  const unanswered = calls.find((id) => !results.includes(id))
  if (unanswered !== undefined) {
    return invalid(`No tool output found for function call ${unanswered}.`, "input")
  }
  for (const [index, { content }] of items.entries()) {
    for (const [part, { file_id, image_url, type }] of blocksOf(content).entries()) {
      if (type !== "input_image" || typeof file_id === "string") continue
      const bad = badImage(image_url, `input[${index}].content[${part}].image_url`)
      if (bad !== undefined) return bad
    }
  }
  return undefined
}

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

/** OpenAI counts in the prompt what a cache took or gave. */
const promptOf = ({ cachedRead, cachedWrite, input }: TokenUsage) => input + cachedRead + cachedWrite

const chatUsage = (usage: TokenUsage): JsonObject => ({
  prompt_tokens: promptOf(usage),
  completion_tokens: usage.output,
  total_tokens: promptOf(usage) + usage.output,
  prompt_tokens_details: {
    cached_tokens: usage.cachedRead,
    cache_write_tokens: usage.cachedWrite,
    audio_tokens: 0
  },
  completion_tokens_details: {
    reasoning_tokens: usage.reasoning,
    audio_tokens: 0,
    accepted_prediction_tokens: 0,
    rejected_prediction_tokens: 0
  }
})

const chatFinish = {
  stop: "stop",
  sequence: "stop",
  refusal: "stop",
  pause: "stop",
  length: "length",
  tool: "tool_calls"
} as const

const chatCommon = ({ id, model }: Answer) => ({
  id: `chatcmpl-${id}`,
  created,
  model,
  service_tier: "default",
  system_fingerprint: "fp_fake"
})

const chatScript = (answer: Answer): Script => {
  const { asked, finish, id, pieces, tool } = answer
  const usage = asked.usageWanted && answer.usageTold
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
          ? finish === "refusal"
            ? { role: "assistant", content: null, refusal: "" }
            : { role: "assistant", content: "", refusal: null }
          : { role: "assistant", content: null, tool_calls: [call(tool)], refusal: null }
      )
    ],
    body: pieces.map((piece) =>
      delta(
        tool === undefined
          ? finish === "refusal"
            ? { refusal: piece }
            : { content: piece }
          : { tool_calls: [{ index: 0, function: { arguments: piece } }] }
      )
    ),
    tail: [delta({}, chatFinish[finish]), ...(usage ? [chunk([], chatUsage(answer.usage))] : [])],
    end: ["data: [DONE]\n\n"]
  }
}

export const chat: Wire = {
  produces: "text",
  pauses: false,
  read: reading(ChatRequest, (request) => {
    const stop = typeof request.stop === "string" ? [request.stop] : (request.stop ?? [])
    if (stop.length > 4) {
      const message = `Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with length ${stop.length} instead.`
      return invalid(message, "stop", "array_above_max_length")
    }
    const bad = badMaxTokens(request) ?? badMessages(request.messages)
    if (bad !== undefined) return bad
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
      stop,
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
    const refused = answer.finish === "refusal"
    const call = { id: `call_${answer.id}`, type: "function" }
    return {
      ...chatCommon(answer),
      object: "chat.completion",
      choices: [
        {
          index: 0,
          message: {
            role: "assistant",
            content: answer.tool === undefined && !refused ? text : null,
            refusal: refused ? text : null,
            annotations: [],
            ...(answer.tool === undefined
              ? {}
              : { tool_calls: [{ ...call, function: { name: answer.tool, arguments: text } }] })
          },
          logprobs: null,
          finish_reason: chatFinish[answer.finish]
        }
      ],
      ...(answer.usageTold ? { usage: chatUsage(answer.usage) } : {})
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

const responsesPart = ({ finish }: Answer, text: string): JsonObject =>
  finish === "refusal"
    ? { type: "refusal", refusal: text }
    : { type: "output_text", text, annotations: [], logprobs: [] }

const responsesItem = (answer: Answer, text: string, status: string): JsonObject => {
  const { id, tool } = answer
  return tool === undefined
    ? {
        id: `msg_${id}`,
        type: "message",
        role: "assistant",
        status,
        content: status === "in_progress" ? [] : [responsesPart(answer, text)]
      }
    : { id: `fc_${id}`, type: "function_call", status, call_id: `call_${id}`, name: tool, arguments: text }
}

const responsesBody = (answer: Answer, done: boolean): JsonObject => {
  const { usage } = answer
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
      done && answer.usageTold
        ? {
            input_tokens: promptOf(usage),
            input_tokens_details: {
              cached_tokens: usage.cachedRead,
              cache_write_tokens: usage.cachedWrite
            },
            output_tokens: usage.output,
            output_tokens_details: { reasoning_tokens: usage.reasoning },
            total_tokens: promptOf(usage) + usage.output
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
  const part = (text: string) => ({ ...of, content_index: 0, part: responsesPart(answer, text) })
  const called = answer.tool !== undefined
  const refused = answer.finish === "refusal"
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
      : refused
        ? event("response.refusal.delta", { ...of, content_index: 0, delta })
        : event("response.output_text.delta", { ...of, content_index: 0, delta, logprobs: [] })
  )
  const tail = [
    ...(called
      ? [event("response.function_call_arguments.done", { ...of, name: answer.tool ?? "", arguments: text })]
      : [
          refused
            ? event("response.refusal.done", { ...of, content_index: 0, refusal: text })
            : event("response.output_text.done", { ...of, content_index: 0, text, logprobs: [] }),
          event("response.content_part.done", part(text))
        ]),
    event("response.output_item.done", item)
  ]
  return { head, body, tail, end: [event(`response.${status}`, { response: full })] }
}

export const responses: Wire = {
  produces: "text",
  pauses: false,
  read: reading(ResponsesRequest, (request) => {
    const input =
      typeof request.input === "string" ? [{ role: "user", content: request.input }] : request.input
    const bad = badItems(input, (request.previous_response_id ?? null) === null)
    if (bad !== undefined) return bad
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

export const embeddings: Wire = {
  produces: "vectors",
  pauses: false,
  read: reading(EmbeddingsRequest, (request) => ({
    ...plain,
    model: request.model,
    inputs:
      typeof request.input === "string" || typeof request.input[0] === "number" ? 1 : request.input.length,
    dimensions: request.dimensions ?? plain.dimensions,
    base64: request.encoding_format === "base64"
  })),
  json: ({ asked, model, usage, usageTold }) => {
    const { base64, dimensions, inputs } = asked
    return {
      object: "list",
      data: Array.from({ length: inputs }, (_, index) => {
        // A unit vector along the input's own axis: inputs differ, and none is zero.
        const vector = Array.from({ length: dimensions }, (_, axis) => (axis === index % dimensions ? 1 : 0))
        const bytes = Buffer.from(new Float32Array(vector).buffer)
        return { object: "embedding", index, embedding: base64 ? bytes.toString("base64") : vector }
      }),
      model,
      ...(usageTold ? { usage: { prompt_tokens: usage.input, total_tokens: usage.input } } : {})
    }
  },
  script: undefined,
  inBandError: chat.inBandError,
  malformed: chat.malformed,
  refusal: openAiRefusal,
  headers: openAiHeaders
}
