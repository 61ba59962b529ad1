import { Schema } from "effect"

/** What `load.ts` is to do. */
export const Plan = Schema.Struct({
  host: Schema.String,
  port: Schema.Int,
  connections: Schema.Int,
  seconds: Schema.Finite,
  tenants: Schema.Array(Schema.Struct({ slug: Schema.String, apiKey: Schema.String }))
})
export type Plan = typeof Plan.Type

/** What it measured. */
export const Measured = Schema.Struct({
  requests: Schema.Int,
  requestsPerSecond: Schema.Finite,
  p50Millis: Schema.Finite,
  p99Millis: Schema.Finite,
  /** Answers that were parsed and compared as a whole. */
  parsed: Schema.Int,
  /** Of one core, what the load itself took. */
  loadShare: Schema.Finite,
  /** Empty, or the figures are worth nothing. */
  failures: Schema.Array(Schema.String)
})
export type Measured = typeof Measured.Type

/** What `peer.ts` is to do: a database to read, and the key that it signs claims with. */
export const PeerPlan = Schema.Struct({
  databaseUrl: Schema.String,
  claimKey: Schema.Uint8ArrayFromBase64,
  environment: Schema.String,
  poolSize: Schema.Int,
  /** Sends the four messages of a transaction without waiting for the answers in between. */
  pipeline: Schema.Boolean,
  accessLog: Schema.Boolean
})
export type PeerPlan = typeof PeerPlan.Type
