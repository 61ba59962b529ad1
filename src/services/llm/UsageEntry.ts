import { Schema } from "effect"
import { Provider } from "../../domain/Llm.ts"
import { Price } from "../../domain/TenantSettings.ts"

const Tokens = Schema.Struct({
  input: Schema.Finite,
  cachedRead: Schema.Finite,
  cachedWrite: Schema.Finite,
  output: Schema.Finite,
  reasoning: Schema.Finite,
  audioInput: Schema.optionalKey(Schema.Finite),
  audioCachedRead: Schema.optionalKey(Schema.Finite),
  audioOutput: Schema.optionalKey(Schema.Finite),
  audioSeconds: Schema.optionalKey(Schema.Finite)
})

/** What is known of an attempt before its provider is called. Neither a key nor a word of the conversation is in it. */
export const Opening = Schema.Struct({
  /** A UUIDv7: the row's. */
  id: Schema.String,
  tenant: Schema.Struct({ id: Schema.String, schema: Schema.String }),
  /** Milliseconds since 1970. */
  openedAt: Schema.Finite,
  operation: Schema.Literals(["chat", "embedding", "count_tokens", "realtime"]),
  asked: Schema.String,
  provider: Provider,
  model: Schema.String,
  requestId: Schema.NullOr(Schema.String),
  keyId: Schema.NullOr(Schema.String),
  retry: Schema.Finite,
  streamed: Schema.Boolean,
  resumed: Schema.Boolean,
  ownKey: Schema.Boolean,
  metadata: Schema.Record(Schema.String, Schema.Json),
  /** The tokens of the conversation, estimated: all that is known of them if the process dies. */
  estimatedInput: Schema.Finite,
  /** Tokens of output that may be delivered before more is told. */
  reached: Schema.Finite,
  /** The instance whose lease of the budget it is paid from, where there is one. */
  lease: Schema.optionalKey(Schema.String),
  /** In force when the attempt was opened; `null` for a model without one. */
  price: Schema.NullOr(Price)
})
export type Opening = typeof Opening.Type

/** How an attempt ended. */
export const Closing = Schema.Struct({
  status: Schema.Literals(["ok", "refused", "failed", "cancelled", "crashed"]),
  fault: Schema.NullOr(Schema.String),
  httpStatus: Schema.NullOr(Schema.Finite),
  usage: Tokens,
  estimated: Schema.Boolean,
  /** USD, a decimal string. */
  cost: Schema.NullOr(Schema.String),
  latencyMillis: Schema.Finite,
  firstTokenMillis: Schema.NullOr(Schema.Finite),
  providerRequestId: Schema.NullOr(Schema.String),
  /** What is to be remembered of its end, beside the opening's `metadata`. */
  outcome: Schema.optionalKey(Schema.Record(Schema.String, Schema.Json))
})
export type Closing = typeof Closing.Type

/** An attempt that is over: a row of `llm_usage`. */
export interface UsageRow extends Opening, Closing {}

/** A line of a journal, by what happened: opened, reached so many tokens of output, closed. */
export const JournalLine = Schema.Union([
  Schema.Struct({ opened: Opening }),
  Schema.Struct({ reached: Schema.Finite, id: Schema.String }),
  Schema.Struct({ closed: Closing, id: Schema.String })
])
export type JournalLine = typeof JournalLine.Type
