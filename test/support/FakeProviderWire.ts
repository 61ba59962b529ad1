import { Option, Schema } from "effect"
import type { TokenUsage } from "../../src/domain/Llm.ts"

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

export interface Tool {
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
  readonly maxTokens: number
  /** The text ends before the first of these that comes up. */
  readonly stop: ReadonlyArray<string>
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
  readonly finish: "stop" | "length" | "tool" | "sequence" | "refusal" | "pause"
  /** The stop sequence that came up. */
  readonly sequence: string | null
  readonly usage: TokenUsage
  /** Whether the usage is told. */
  readonly usageTold: boolean
  readonly asked: Asked
}

/** The parts of a stream, as frames of text. A fault leaves parts of it out. */
export interface Script {
  readonly head: ReadonlyArray<string>
  /** A frame for each piece. */
  readonly body: ReadonlyArray<string>
  readonly tail: ReadonlyArray<string>
  readonly end: ReadonlyArray<string>
}

export type Headers = Readonly<Record<string, string>>

/** One endpoint's wire format. */
export interface Wire {
  readonly read: (body: Schema.Json, headers: Headers) => Asked | Refusal
  readonly produces: "text" | "vectors" | "count"
  /** Whether a long turn can be paused, for the caller to send it back as it is (Anthropic's `pause_turn`). */
  readonly pauses: boolean
  readonly json: (answer: Answer) => JsonObject
  readonly script: ((answer: Answer) => Script) | undefined
  readonly inBandError: string
  readonly malformed: string
  readonly refusal: (refusal: Refusal, requestId: string) => JsonObject
  readonly headers: (requestId: string, status: number) => Headers
}

/** Unix seconds. */
export const created = 1_790_000_000

export const frame = (data: Schema.Json, event?: string) =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${JSON.stringify(data)}\n\n`

export const typed = (data: JsonObject & { readonly type: string }) => frame(data, data.type)

export const isObject = (value: Schema.Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const list = (value: Schema.Json | undefined): ReadonlyArray<Schema.Json> =>
  Array.isArray(value) ? value : []

// What the requests have of interest here; all else is let through, as the vendors add fields each month.

export const Block = Schema.Struct({
  type: Schema.String,
  text: Schema.optional(Schema.String),
  citations: Schema.optional(Schema.Json),
  id: Schema.optional(Schema.String),
  tool_use_id: Schema.optional(Schema.String),
  source: Schema.optional(Schema.Json),
  image_url: Schema.optional(Schema.Json),
  file_id: Schema.optional(Schema.Json)
})
export const Content = Schema.optional(Schema.NullOr(Schema.Union([Schema.String, Schema.Array(Block)])))
export type Content = typeof Content.Type

export const Count = Schema.optional(Schema.NullOr(Schema.Int.check(Schema.isGreaterThan(0))))
export const Flag = Schema.optional(Schema.NullOr(Schema.Boolean))

export const Choice = Schema.optional(
  Schema.Union([
    Schema.String,
    Schema.Struct({
      type: Schema.String,
      name: Schema.optional(Schema.String),
      function: Schema.optional(Schema.Struct({ name: Schema.String }))
    })
  ])
)

export const invalid = (message: string, param?: string, code: string | null = null): Refusal => ({
  status: 400,
  code,
  message,
  ...(param === undefined ? {} : { param })
})

export const blocksOf = (content: Content): ReadonlyArray<typeof Block.Type> =>
  typeof content === "object" && content !== null ? content : []

export const textOf = (content: Content) =>
  typeof content === "string"
    ? content
    : blocksOf(content)
        .map(({ text }) => text ?? "")
        .join("")

interface Turn {
  readonly role?: string | undefined
  readonly content?: Content
}

const asksToGoOn = /cut off|continue|go on/i

/** The text so far is the last turn, or the one before it when a user asks to go on. */
export const conversation = (turns: ReadonlyArray<Turn>) => {
  const [before, last] = turns.length > 1 ? turns.slice(-2) : [undefined, turns[0]]
  const said = textOf(last?.content)
  const goOn = last?.role === "user" && before?.role === "assistant" && asksToGoOn.test(said)
  return {
    soFar: last?.role === "assistant" ? said : goOn ? textOf(before.content) : "",
    // A tool's result comes after the user's text: a loop of an agent ends with it.
    toolAskedFor: last?.role === "user" && said.includes("use the tool")
  }
}

export const chosen = (
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

export const isRefusal = (value: Tool | Refusal | undefined): value is Refusal =>
  value !== undefined && "status" in value

export const plain = {
  stream: false,
  usageWanted: true,
  soFar: "",
  maxTokens: Number.MAX_SAFE_INTEGER,
  stop: [],
  tool: undefined,
  schema: undefined,
  inputs: 1,
  dimensions: 8,
  base64: false
} as const

/** Reads a body, or says as the vendors do that it is none. */
export const reading =
  <A>(schema: Schema.Decoder<A>, asked: (request: A, headers: Headers) => Asked | Refusal): Wire["read"] =>
  (body, headers) =>
    Option.match(Schema.decodeUnknownOption(schema)(body), {
      onNone: () => invalid("The body of the request is not what this endpoint takes."),
      onSome: (request) => asked(request, headers)
    })

/** The image formats that both vendors take. */
export const imageTypes = ["png", "jpeg", "gif", "webp"] as const

/** The model's own name: a gateway may name its vendor before it. */
export const nameOf = (model: string) => model.slice(model.lastIndexOf("/") + 1)
