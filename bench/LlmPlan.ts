import { Schema } from "effect"

/** What `llmLoad.ts` is to do. */
export const LlmPlan = Schema.Struct({
  host: Schema.String,
  port: Schema.Int,
  path: Schema.String,
  headers: Schema.Record(Schema.String, Schema.String),
  model: Schema.String,
  stream: Schema.Boolean,
  connections: Schema.Int,
  seconds: Schema.Finite,
  /** Calls a second, whatever has been answered; without it, each connection asks when it has its answer. */
  rate: Schema.optionalKey(Schema.Finite)
})
export type LlmPlan = typeof LlmPlan.Type

/** What it measured. */
export const LlmMeasured = Schema.Struct({
  calls: Schema.Int,
  callsPerSecond: Schema.Finite,
  p50Millis: Schema.Finite,
  p99Millis: Schema.Finite,
  /** To the first token: of streams. */
  firstP50Millis: Schema.Finite,
  firstP99Millis: Schema.Finite,
  /** Of one core, what the load itself took. */
  loadShare: Schema.Finite,
  /** Empty, or the figures are worth nothing. */
  failures: Schema.Array(Schema.String)
})
export type LlmMeasured = typeof LlmMeasured.Type
