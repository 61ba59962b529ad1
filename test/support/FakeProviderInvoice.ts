import type { Schema } from "effect"
import { createHash } from "node:crypto"
import type { TokenUsage } from "../../src/domain/Llm.ts"
import { isObject } from "./FakeProviderWire.ts"
import type { Headers } from "./FakeProviderWire.ts"

/** One attempt as the vendor's own books have it, for a ledger to be compared with row by row. */
export interface InvoiceRow {
  /** What the vendor's header named: `x-request-id` or `request-id`. */
  readonly requestId: string
  readonly path: string
  /** Empty where the request names none. */
  readonly model: string
  /** SHA-256 of the key, in hex; `null` for a request without one. */
  readonly keyDigest: string | null
  readonly user: string | null
  /** `metadata.user_id` */
  readonly metadataUserId: string | null
  readonly safetyIdentifier: string | null
  readonly promptCacheKey: string | null
  /** What is billed: what was read, and what was produced until the end, a cut or an abort. */
  readonly usage: TokenUsage
  /** The tokens of the answer that went to the socket in frames that can be read, those of its thoughts not among them. */
  readonly delivered: number
  /**
   * `cut` by a fault: the connection lost, an error inside the stream, or its end mark left out. `aborted` by the
   * client alone: also when a fault made it wait in vain.
   */
  readonly ended: "open" | "finished" | "refused" | "cut" | "aborted"
  /** `null` when no headers were sent. */
  readonly status: number | null
}

type Writable<A> = { -readonly [K in keyof A]: A[K] }

/** A row while its attempt goes on. */
export type OpenRow = Omit<Writable<InvoiceRow>, "usage"> & { usage: Writable<TokenUsage> }

const noTokens: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

const keyOf = (headers: Headers): string | undefined =>
  // Anthropic takes the first where both are there.
  headers["x-api-key"] ?? /^Bearer (\S+)/i.exec(headers["authorization"] ?? "")?.[1]

/** The digest that a row has for a key. */
export const keyDigestOf = (key: string): string => createHash("sha256").update(key).digest("hex")

export const openRow = (requestId: string, path: string, headers: Headers): OpenRow => {
  const key = keyOf(headers)
  return {
    requestId,
    path,
    model: "",
    keyDigest: key === undefined ? null : keyDigestOf(key),
    user: null,
    metadataUserId: null,
    safetyIdentifier: null,
    promptCacheKey: null,
    usage: { ...noTokens },
    delivered: 0,
    ended: "open",
    status: null
  }
}

/** Writes down who asks, and for what. */
export const identify = (row: OpenRow, model: string, body: Schema.Json): void => {
  row.model = model
  if (!isObject(body)) return
  const text = (value: Schema.Json | undefined) => (typeof value === "string" ? value : null)
  const metadata = body["metadata"]
  row.user = text(body["user"])
  row.metadataUserId = isObject(metadata) ? text(metadata["user_id"]) : null
  row.safetyIdentifier = text(body["safety_identifier"])
  row.promptCacheKey = text(body["prompt_cache_key"])
}
