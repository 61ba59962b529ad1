import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import type { StreamEvent } from "./Codec.ts"
import type { ProviderFault } from "./Faults.ts"

export const noUsage: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

export const addUsage = (left: TokenUsage, right: TokenUsage): TokenUsage => ({
  input: left.input + right.input,
  cachedRead: left.cachedRead + right.cachedRead,
  cachedWrite: left.cachedWrite + right.cachedWrite,
  output: left.output + right.output,
  reasoning: left.reasoning + right.reasoning
})

/** `open` is what an attempt ends as that nobody ended: its caller left. */
export type AttemptStatus = "ok" | "open" | ProviderFault["kind"]

/** One call of one provider, whoever ended it. Times in milliseconds. */
export interface AttemptRecord {
  readonly asked: string
  readonly target: ModelRef
  readonly status: "ok" | "cancelled" | ProviderFault["kind"]
  /** The provider's HTTP status, where it refused. */
  readonly httpStatus: number | null
  readonly usage: TokenUsage
  /** True where the provider told no usage, or not all of it. */
  readonly estimated: boolean
  readonly startedAt: number
  readonly latency: number
  /** Until the first token of a stream; none where none came. */
  readonly timeToFirstToken: number | null
  readonly providerRequestId: string | null
  readonly streamed: boolean
  readonly resumed: boolean
}

/** Fewer than any tokenizer makes of a text, never: an estimate is not below what was delivered. */
const CHARACTERS_A_TOKEN = 3

/** What is known of an attempt while it runs. Its record is made once, when it ends. */
export class Attempt {
  readonly asked: string
  readonly target: ModelRef
  readonly streamed: boolean
  readonly resumed: boolean
  readonly startedAt: number
  readonly promptCharacters: number
  status: AttemptStatus = "open"
  httpStatus: number | null = null
  providerRequestId: string | null = null
  #firstTokenAt: number | undefined
  #usage: TokenUsage | undefined
  #usageIsFinal = false
  #characters = 0
  #pieces = 0

  constructor(options: {
    readonly asked: string
    readonly target: ModelRef
    readonly streamed: boolean
    readonly resumed: boolean
    readonly startedAt: number
    readonly promptCharacters: number
  }) {
    this.asked = options.asked
    this.target = options.target
    this.streamed = options.streamed
    this.resumed = options.resumed
    this.startedAt = options.startedAt
    this.promptCharacters = options.promptCharacters
  }

  /** Whole answers tell their usage at once. */
  answered(usage: TokenUsage | undefined, characters: number) {
    this.#usage = usage
    this.#usageIsFinal = usage !== undefined
    this.#characters = characters
    this.status = "ok"
  }

  saw(event: StreamEvent, now: number) {
    switch (event._tag) {
      case "Text":
      case "Reasoning":
        this.#firstTokenAt ??= now
        this.#characters += event.text.length
        this.#pieces += 1
        break
      case "ToolCall":
        this.#firstTokenAt ??= now
        this.#pieces += 1
        break
      case "ToolArguments":
        this.#characters += event.json.length
        this.#pieces += 1
        break
      case "Stopped":
        this.#usageIsFinal ||= false
        break
      case "Usage":
        this.#usage = event.usage
        break
      case "Ended":
        this.#usageIsFinal = this.#usage !== undefined
        break
      default:
        break
    }
  }

  get hasFirstToken(): boolean {
    return this.#firstTokenAt !== undefined
  }

  failed(fault: ProviderFault) {
    this.status = fault.kind
    this.httpStatus = fault.status
  }

  /** The stream came to its whole end: what it told of its usage is all of it. */
  ended() {
    this.status = "ok"
    this.#usageIsFinal = this.#usage !== undefined
  }

  /** What the provider told; where that is missing or not the whole, what was delivered at least. */
  get usage(): TokenUsage {
    if (this.#usageIsFinal && this.#usage !== undefined) return this.#usage
    if (this.#pieces === 0 && this.#characters === 0 && this.status !== "ok") return this.#usage ?? noUsage
    const estimate = Math.max(this.#pieces, Math.ceil(this.#characters / CHARACTERS_A_TOKEN))
    const told = this.#usage
    return told === undefined
      ? { ...noUsage, input: Math.ceil(this.promptCharacters / CHARACTERS_A_TOKEN), output: estimate }
      : { ...told, output: Math.max(told.output, estimate) }
  }

  record(now: number): AttemptRecord {
    const usage = this.usage
    return {
      asked: this.asked,
      target: this.target,
      status: this.status === "open" ? "cancelled" : this.status,
      httpStatus: this.httpStatus,
      usage,
      estimated: !this.#usageIsFinal && (usage.input > 0 || usage.output > 0),
      startedAt: this.startedAt,
      latency: now - this.startedAt,
      timeToFirstToken: this.#firstTokenAt === undefined ? null : this.#firstTokenAt - this.startedAt,
      providerRequestId: this.providerRequestId,
      streamed: this.streamed,
      resumed: this.resumed
    }
  }
}
