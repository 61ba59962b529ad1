import { Clock, Effect } from "effect"
import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import type { Conversation, StreamEvent } from "./Codec.ts"
import type { Closing } from "./UsageEntry.ts"
import { describeFault, remedyOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import { countAttempt } from "./LlmMetrics.ts"

export type Operation = "chat" | "embedding" | "count_tokens" | "realtime"

/** What one attempt at a provider came to. */
export interface AttemptRecord {
  readonly operation: Operation
  /** The name in the request; `ref` is who was asked. */
  readonly asked: string
  readonly ref: ModelRef
  /** `cancelled`: the caller left, or its time was up. */
  readonly status: Exclude<Closing["status"], "crashed">
  /** Why it failed, in few words of ours. */
  readonly fault: string | null
  readonly httpStatus: number | null
  readonly usage: TokenUsage
  /** Whether some of `usage` was not told by the provider. */
  readonly estimated: boolean
  readonly latencyMillis: number
  readonly firstTokenMillis: number | null
  /** The provider's. */
  readonly providerRequestId: string | null
  /** How often this provider had been asked before, for this answer. */
  readonly retry: number
  readonly streamed: boolean
  /** Whether it went on with an answer that another attempt had begun. */
  readonly resumed: boolean
  readonly ownKey: boolean
}

/** What is known of an attempt before its provider is called. */
export interface AttemptOpening extends Pick<
  AttemptRecord,
  "operation" | "asked" | "ref" | "retry" | "streamed" | "resumed" | "ownKey"
> {
  /** In tokens. It counts only where the provider does not tell. */
  readonly estimatedInput: number
  /** Tokens of output that may come before more is told (`AttemptEntry.reach`). */
  readonly reached: number
}

/** An attempt in the books, from before its provider is called. */
export interface AttemptEntry {
  /** Told before more output than that is passed on, in tokens. */
  readonly reach: (tokens: number) => void
  /** Called once, whoever ended it. Must not wait long: a caller's end waits for it. */
  readonly close: (record: AttemptRecord) => Effect.Effect<void>
}

/**
 * The output that an attempt is down for if its process dies before it told more: what a short answer comes to. A provider may have
 * worked for it, also where nothing was delivered.
 */
const FIRST_REACH = 256

/** What an attempt at a conversation begins with. */
export const reachOf = (operation: Operation): number => (operation === "chat" ? FIRST_REACH : 0)

export const noUsage: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

export const addUsage = (a: TokenUsage, b: TokenUsage): TokenUsage => ({
  input: a.input + b.input,
  cachedRead: a.cachedRead + b.cachedRead,
  cachedWrite: a.cachedWrite + b.cachedWrite,
  output: a.output + b.output,
  reasoning: a.reasoning + b.reasoning
})

/** Of UTF-8, for a token: the vendors' tokenizers come to 4 in English and 3 in Chinese; the lower one never says too little. */
const BYTES_PER_TOKEN = 3
/** What frames a message, and primes the answer (OpenAI's cookbook, "How to count tokens with tiktoken"). */
const TOKENS_PER_MESSAGE = 4
const TOKENS_PER_REQUEST = 3
/** What a vendor counts for an image of middling size. */
const TOKENS_PER_IMAGE = 1_000

const utf8 = new TextEncoder()
const tokensOf = (bytes: number): number => Math.ceil(bytes / BYTES_PER_TOKEN)
const bytesOf = (text: string): number => utf8.encode(text).length

/** How many tokens a conversation is about. */
export const estimateInput = (conversation: Conversation): number => {
  let bytes = 0
  let images = 0
  for (const text of conversation.system) bytes += bytesOf(text)
  for (const tool of conversation.tools) bytes += bytesOf(JSON.stringify(tool))
  for (const { parts } of conversation.turns) {
    for (const part of parts) {
      if (part._tag === "Image") images++
      else if (part._tag === "ToolCall") bytes += bytesOf(part.name) + bytesOf(part.arguments)
      else bytes += bytesOf(part.text)
    }
  }
  const messages = conversation.system.length + conversation.turns.length
  return tokensOf(bytes) + images * TOKENS_PER_IMAGE + messages * TOKENS_PER_MESSAGE + TOKENS_PER_REQUEST
}

/**
 * One attempt, from its request to its record, which is written exactly once: by whoever ends it first. What the
 * provider told of its usage counts; the rest is estimated, and never below what came.
 */
export class Attempt {
  #opening: AttemptOpening
  #entry: AttemptEntry
  #reached: number
  #startedAt: number
  #firstTokenAt: number | undefined
  #requestId: string | null = null
  #httpStatus: number | null = null
  #usage: TokenUsage | undefined
  #isFinal = false
  #pieces = 0
  #bytes = 0
  #stopped = false
  #closed = false

  constructor(opening: AttemptOpening, entry: AttemptEntry, now: number) {
    this.#opening = opening
    this.#entry = entry
    this.#reached = opening.reached
    this.#startedAt = now
  }

  /** The provider has begun to answer. */
  begun(head: { readonly status: number; readonly requestId: string | null }): void {
    this.#httpStatus = head.status
    this.#requestId = head.requestId
  }

  /** What has come of a stream. */
  saw(events: ReadonlyArray<StreamEvent>, now: number): void {
    for (const event of events) {
      switch (event._tag) {
        case "Text":
        case "Reasoning":
        case "Refusal":
          this.#piece(event.text, now)
          break
        case "ToolCall":
          this.#piece(event.name, now)
          break
        case "ToolArguments":
          this.#piece(event.json, now)
          break
        case "Stopped":
          this.#stopped = true
          break
        case "Usage":
          this.#usage = event.usage
          break
        default:
          break
      }
    }
    // Anthropic tells a usage at the beginning too: only what comes with or after the stop is the whole.
    if (this.#stopped && events.some(({ _tag }) => _tag === "Usage")) this.#isFinal = true
  }

  /** The whole answer, and its usage if the provider told it. */
  answered(usage: TokenUsage | undefined, text: string, now: number): void {
    this.#usage = usage
    this.#isFinal = usage !== undefined
    if (text !== "") this.#piece(text, now)
  }

  get stopped(): boolean {
    return this.#stopped
  }

  #piece(text: string, now: number): void {
    this.#firstTokenAt ??= now
    this.#pieces++
    this.#bytes += bytesOf(text)
    const output = this.#output()
    if (output <= this.#reached) return
    // Twice as much each time, so that a long answer is told of a few times only.
    while (this.#reached < output) this.#reached = Math.max(FIRST_REACH, this.#reached * 2)
    this.#entry.reach(this.#reached)
  }

  /** What came. A piece of a stream is a token at least. */
  #output(): number {
    return Math.max(this.#pieces, tokensOf(this.#bytes))
  }

  /** Whether the provider may have worked for it, so that it costs. */
  #isCharged(fault: ProviderFault | undefined): boolean {
    return this.#httpStatus !== null || fault === undefined || fault.kind === "Silent"
  }

  get usage(): { readonly usage: TokenUsage; readonly estimated: boolean } {
    if (this.#usage !== undefined && this.#isFinal) return { usage: this.#usage, estimated: false }
    const told = this.#usage ?? { ...noUsage, input: this.#opening.estimatedInput }
    const output = Math.max(told.output, this.#output())
    return { usage: { ...told, output }, estimated: true }
  }

  close(status: AttemptRecord["status"], fault?: ProviderFault): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#closed) return Effect.void
      this.#closed = true
      const { estimatedInput: _, reached: __, ...known } = this.#opening
      return Effect.flatMap(Clock.currentTimeMillis, (now) => {
        const record: AttemptRecord = {
          ...known,
          ...(this.#isCharged(fault) ? this.usage : { usage: noUsage, estimated: false }),
          status,
          fault: fault === undefined ? null : describeFault(fault),
          httpStatus: fault?.status ?? this.#httpStatus,
          latencyMillis: now - this.#startedAt,
          firstTokenMillis: this.#firstTokenAt === undefined ? null : this.#firstTokenAt - this.#startedAt,
          providerRequestId: fault?.requestId ?? this.#requestId
        }
        return Effect.andThen(countAttempt(record.ref, record), this.#entry.close(record))
      })
    })
  }

  /** As a fault of the provider ends it. */
  failed(fault: ProviderFault): Effect.Effect<void> {
    return this.close(remedyOf(fault) === "Return" ? "refused" : "failed", fault)
  }
}
