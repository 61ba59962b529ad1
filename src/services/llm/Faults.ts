import { Schema } from "effect"

/**
 * What went wrong with one attempt. Only words and numbers: an error that held a request or a socket would be walked
 * through whenever effect compares causes.
 */
export class ProviderFault extends Schema.TaggedError<ProviderFault>()("ProviderFault", {
  kind: Schema.Literals([
    "status",
    "connection",
    "silent",
    "stalled",
    "cut",
    "malformed",
    "in_band",
    "circuit_open",
    "deadline"
  ]),
  message: Schema.String,
  status: Schema.NullOr(Schema.Int),
  type: Schema.NullOr(Schema.String),
  code: Schema.NullOr(Schema.String),
  param: Schema.NullOr(Schema.String),
  retryAfterMillis: Schema.NullOr(Schema.Finite)
}) {}

export const faultOf = (kind: ProviderFault["kind"], message: string): ProviderFault =>
  new ProviderFault({
    kind,
    message,
    status: null,
    type: null,
    code: null,
    param: null,
    retryAfterMillis: null
  })

/**
 * - `retry`: the same model again, after a while, and then the next one.
 * - `next`: the next model, at once.
 * - `alarm`: the next model, at once, and somebody has to look: it won't heal by itself.
 * - `return`: the caller's fault, or the provider's policy: told as it is. No other provider is asked round it.
 */
export type Reaction = "retry" | "next" | "alarm" | "return"

interface Row {
  readonly what: string
  readonly when: (fault: ProviderFault) => boolean
  readonly reaction: Reaction
}

const status = (...statuses: ReadonlyArray<number>) => {
  const known = new Set(statuses)
  return ({ kind, status }: ProviderFault) => kind === "status" && status !== null && known.has(status)
}

/** The one table of what follows from a fault: the first row that fits counts. */
export const faultTable: ReadonlyArray<Row> = [
  { what: "the key is wrong, or may not", when: status(401, 403), reaction: "alarm" },
  { what: "the account has no credit", when: status(402), reaction: "alarm" },
  { what: "there is no such model, or not any more", when: status(404), reaction: "alarm" },
  { what: "a conflict, or a request that took too long", when: status(408, 409), reaction: "retry" },
  { what: "too many requests", when: status(429), reaction: "retry" },
  {
    what: "the caller's fault, or refused by the provider's policy",
    when: ({ kind, status }) => kind === "status" && status !== null && status >= 400 && status < 500,
    reaction: "return"
  },
  {
    what: "the provider failed, or has too much to do",
    when: ({ kind, status }) => kind === "status" && status !== null && status >= 500,
    reaction: "retry"
  },
  { what: "no connection", when: ({ kind }) => kind === "connection", reaction: "retry" },
  // It had its whole time already, and the caller waited through it.
  { what: "nothing said in its time", when: ({ kind }) => kind === "silent", reaction: "next" },
  { what: "failing for a while now", when: ({ kind }) => kind === "circuit_open", reaction: "next" },
  { what: "a stream that broke before its first token", when: () => true, reaction: "retry" }
]

export const reactionTo = (fault: ProviderFault): Reaction =>
  faultTable.find(({ when }) => when(fault))?.reaction ?? "next"
