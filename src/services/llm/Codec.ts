import type { Result, Schema } from "effect"
import type { ModelRef, TokenUsage, GuardVerdict } from "../../domain/Llm.ts"
import type { InvalidField, InvalidRequest } from "../../domain/Problems.ts"

export type JsonObject = { readonly [name: string]: Schema.Json }

/** One server-sent event (WHATWG HTML, 9.2), `data` as it stood on the wire. */
export interface WireEvent {
  readonly event: string | undefined
  readonly data: string
}

export type Part =
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Image"; readonly url: string; readonly detail: string | undefined }
  | { readonly _tag: "ToolCall"; readonly id: string; readonly name: string; readonly arguments: string }
  | { readonly _tag: "ToolResult"; readonly id: string; readonly text: string; readonly isError: boolean }
  | { readonly _tag: "Refusal"; readonly text: string }

/** A turn of a conversation. Results of tools stand in `user` turns, as Anthropic has it. An image is an `https:` or a `data:` URL. */
export interface Turn {
  readonly role: "user" | "assistant"
  readonly parts: ReadonlyArray<Part>
}

export interface Tool {
  readonly name: string
  readonly description: string | undefined
  readonly parameters: JsonObject
  readonly strict: boolean | undefined
}

export type ToolChoice =
  | { readonly _tag: "Auto" }
  | { readonly _tag: "None" }
  | { readonly _tag: "Required" }
  | { readonly _tag: "Tool"; readonly name: string }

/** What is asked of a model, in no vendor's words: what all dialects can say. */
export interface Conversation {
  readonly system: ReadonlyArray<string>
  readonly turns: ReadonlyArray<Turn>
  readonly tools: ReadonlyArray<Tool>
  readonly toolChoice: ToolChoice | undefined
  readonly parallelToolCalls: boolean | undefined
  readonly maxTokens: number | undefined
  readonly temperature: number | undefined
  readonly topP: number | undefined
  readonly stop: ReadonlyArray<string>
  /** Structured output: a JSON schema that the answer has to follow, or just any JSON. */
  readonly format:
    | { readonly _tag: "Json" }
    | {
        readonly _tag: "Schema"
        readonly name: string
        readonly schema: JsonObject
        readonly strict?: boolean | undefined
      }
    | undefined
  readonly reasoningEffort: string | undefined
  /**
   * What the request asks for and only its own dialect can say: a document, a vendor's own tool, several choices. A
   * provider of that dialect understands it; to ask another would be to leave it out unsaid. Absent where there is none.
   */
  readonly untranslatable?: ReadonlyArray<typeof InvalidField.Type>
}

/** Why a model stopped, an open set: `raw` is what the provider said. */
export interface Stop {
  readonly reason: "stop" | "length" | "stop_sequence" | "tool_calls" | "content_filter" | "pause" | "other"
  readonly raw: string
  readonly sequence: string | undefined
}

export interface Answer {
  readonly id: string
  readonly model: string
  readonly parts: ReadonlyArray<Part>
  readonly stop: Stop
  readonly usage: TokenUsage | undefined
}

/**
 * What a stream of any dialect tells. An event that tells none of these yields nothing. Tool calls are counted from 0
 * by `index`, whatever numbers the provider gives them. `Usage` is cumulative: the last one counts.
 */
export type StreamEvent =
  | { readonly _tag: "Started"; readonly id: string; readonly model: string }
  | { readonly _tag: "Text"; readonly text: string }
  | { readonly _tag: "Refusal"; readonly text: string }
  /** Told, and never written: what a model thought is worth nothing to another vendor's client without its signature. */
  | { readonly _tag: "Reasoning"; readonly text: string }
  | { readonly _tag: "ToolCall"; readonly index: number; readonly id: string; readonly name: string }
  | { readonly _tag: "ToolArguments"; readonly index: number; readonly json: string }
  | { readonly _tag: "Stopped"; readonly stop: Stop }
  | { readonly _tag: "Usage"; readonly usage: TokenUsage }
  /** An error inside the stream, in the provider's words. */
  | {
      readonly _tag: "Failed"
      readonly type: string | null
      readonly code: string | null
      readonly message: string
    }
  /** The stream's own end mark: `[DONE]`, `message_stop`, `response.completed`. */
  | { readonly _tag: "Ended" }

/** What is known of a call when it is over, for the dialects that tell it. */
export interface Summary {
  /** Who answered; of a resumed stream, who ended it. */
  readonly answeredBy: ModelRef
  readonly usage: TokenUsage
  /** USD, a decimal string; `null` for a model without a price. */
  readonly costUsd: string | null
  readonly resumed: boolean
  readonly tenantId: string
  readonly requestId: string
  readonly guard: GuardVerdict
  /** When the answer began, in seconds since 1970; OpenAI's dialects tell it. 0 where nothing is given. */
  readonly created?: number
}

/** A problem as it goes out in a vendor's own error envelope. */
export interface WireProblem {
  readonly status: number
  /** Our stable code, or the provider's own. */
  readonly code: string | null
  /** The vendor's class of errors; made from `status` where nothing is given. */
  readonly type: string | null
  readonly message: string
  readonly param: string | null
  readonly requestId: string
}

/** Reads a provider's stream. Stateful: one for each stream. */
export interface StreamReader {
  /** Fails on a frame that is no JSON or breaks the dialect's order: such a stream is dead. */
  readonly read: (event: WireEvent) => Result.Result<ReadonlyArray<StreamEvent>, string>
}

/**
 * Writes a stream to a caller. Stateful: one for each answer. What passes untouched from a provider of the same
 * dialect is told by `adopt`, so that a writer can take over at any event: to resume with another provider, to fail, or
 * to add an end mark that the provider forgot.
 */
export interface StreamWriter {
  /**
   * `wire` is the frame that the events were read from: it holds the dialect's own counts, which no event tells. A frame
   * that tells of a failure ends the stream: it is adopted only where nobody goes on.
   */
  readonly adopt: (events: ReadonlyArray<StreamEvent>, wire: WireEvent) => void
  /**
   * `Usage`, `Stopped`, `Ended` and `Failed` write nothing yet: `end` and `fail` do. A second `Started`, of the provider
   * that goes on, is not told.
   */
  readonly write: (event: StreamEvent) => ReadonlyArray<WireEvent>
  /** All that is missing for a whole stream: open blocks closed, stop reason, usage if asked for, end mark. */
  readonly end: (summary: Summary) => ReadonlyArray<WireEvent>
  /** The error event that ends a stream which broke off. Never followed by an end mark that would look like success. */
  readonly fail: (problem: WireProblem) => ReadonlyArray<WireEvent>
}

/** One dialect: requests, answers, streams and errors, read and written. Pure; tolerant of what it does not know. */
export interface Codec {
  readonly decodeRequest: (body: JsonObject) => Result.Result<Conversation, InvalidRequest>
  /** `stream`: as a stream, with its usage. */
  readonly encodeRequest: (conversation: Conversation, model: string, stream: boolean) => JsonObject
  readonly decodeAnswer: (body: JsonObject) => Result.Result<Answer, string>
  readonly encodeAnswer: (answer: Answer, summary: Summary) => JsonObject
  readonly reader: () => StreamReader
  /**
   * `usage`: whether the caller asked for a usage chunk (`stream_options.include_usage`). `created`: when the answer
   * began, in seconds since 1970 (0 where nothing is given).
   */
  readonly writer: (options: { readonly usage: boolean; readonly created?: number }) => StreamWriter
  readonly encodeProblem: (problem: WireProblem) => JsonObject
  /** The same request with a line more after its system prompt, and nothing else changed. As it is where it has none. */
  readonly addSystem: (body: JsonObject, line: string) => JsonObject
  /** The same request for another model, ready for a provider of this dialect; all unknown fields untouched. */
  readonly forModel: (body: JsonObject, model: string, stream: boolean) => JsonObject
  /**
   * The same request with a text so far as the assistant's turn, for a provider to go on from: as it is where the model
   * does that by itself, else asked for it by a turn of the user. Trailing white space is not sent, since Anthropic
   * refuses a last turn that ends with it; `Continuation` says how the rest joins.
   */
  readonly continueFrom: (body: JsonObject, text: string) => JsonObject
}
