import { Data } from "effect"
import type { BudgetExceeded, DependencyUnavailable } from "../../domain/Problems.ts"

/**
 * How an attempt at a provider went wrong: `Status` an answer that is an error, `InBand` an error inside of a stream,
 * `Silent` nothing (or no token) until its time was up, `Stalled` no more of it, `Cut` an end in the middle, `Malformed`
 * what nobody can read, `CircuitOpen` not asked since it failed so often, `TimeUp` not asked since the caller's time is up,
 * `Unaffordable` not asked since nobody pays for it.
 */
export type FaultKind =
  | "Status"
  | "InBand"
  | "Connection"
  | "Silent"
  | "Stalled"
  | "Cut"
  | "Malformed"
  | "CircuitOpen"
  | "TimeUp"
  | "Unaffordable"

/** Why an attempt was not paid for, and so not made. */
export type Unpaid = BudgetExceeded | DependencyUnavailable

/**
 * An attempt that failed. Plain values only: an error of an SDK holds requests, headers with keys, and sockets, which a
 * `Cause` that meets another would hash by structure, all of them.
 */
export class ProviderFault extends Data.TaggedError("ProviderFault")<{
  readonly kind: FaultKind
  readonly status: number | null
  readonly type: string | null
  readonly code: string | null
  readonly param: string | null
  /** In the provider's words, keys taken out. */
  readonly message: string
  readonly retryAfterMillis: number | undefined
  /** The provider's `x-should-retry: false`. */
  readonly final: boolean
  readonly requestId: string | null
  /** Of `Unaffordable`. */
  readonly unpaid?: Unpaid
}> {}

export const faultOf = (
  kind: FaultKind,
  message: string,
  known: Partial<
    Pick<
      ProviderFault,
      "status" | "type" | "code" | "param" | "retryAfterMillis" | "final" | "requestId" | "unpaid"
    >
  > = {}
): ProviderFault =>
  new ProviderFault({
    kind,
    message,
    status: null,
    type: null,
    code: null,
    param: null,
    retryAfterMillis: undefined,
    final: false,
    requestId: null,
    ...known
  })

/**
 * - `Return`: the caller's fault or the vendor's policy: told to the caller, and nobody else is asked.
 * - `Retry`: the same provider again, then the next.
 * - `Next`: the next provider at once.
 * - `Alarm`: the same, and somebody has to look at it: our key, our bill or our table of models is wrong.
 */
export type Remedy = "Return" | "Retry" | "Next" | "Alarm"

interface Row {
  readonly name: string
  readonly kinds: ReadonlyArray<FaultKind>
  readonly statuses?: ReadonlyArray<number> | ((status: number) => boolean)
  /** Any of these as the error's `code` or `type`. */
  readonly says?: ReadonlyArray<string>
  readonly remedy: Remedy
}

/** What is done about a fault: the first row that fits. */
export const faultTable: ReadonlyArray<Row> = [
  {
    name: "the vendor's policy: no routing around it",
    kinds: ["Status", "InBand"],
    says: ["content_policy_violation", "content_filter", "invalid_prompt", "cyber_policy_violation"],
    remedy: "Return"
  },
  {
    name: "a prompt that is too long",
    kinds: ["Status", "InBand"],
    says: ["context_length_exceeded", "request_too_large", "string_above_max_length"],
    remedy: "Return"
  },
  {
    name: "our bill is unpaid: trying again does not help",
    kinds: ["Status", "InBand"],
    says: ["insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "billing_error"],
    remedy: "Alarm"
  },
  {
    name: "our key is refused, or our bill is unpaid",
    kinds: ["Status"],
    statuses: [401, 402, 403],
    remedy: "Alarm"
  },
  {
    name: "our key is refused, inside of a stream",
    kinds: ["InBand"],
    says: ["authentication_error", "permission_error", "invalid_api_key"],
    remedy: "Alarm"
  },
  // A group names models for the caller, so that a model which is gone is our table's fault. Who named the model itself has
  // nobody else to be asked, and is told (`isCallersOwn`).
  { name: "a model that is gone", kinds: ["Status"], statuses: [404], remedy: "Alarm" },
  {
    name: "slow down, a conflict, overload, or the provider's own failure",
    kinds: ["Status"],
    statuses: (status) => status === 408 || status === 409 || status === 429 || status >= 500,
    remedy: "Retry"
  },
  { name: "the caller's request is wrong", kinds: ["Status"], remedy: "Return" },
  {
    name: "the caller's request is wrong, inside of a stream",
    kinds: ["InBand"],
    says: ["invalid_request_error"],
    remedy: "Return"
  },
  { name: "a failure inside of a stream, before its first token", kinds: ["InBand"], remedy: "Retry" },
  { name: "no connection, or one that ended early", kinds: ["Connection", "Cut"], remedy: "Retry" },
  { name: "nothing until the time was up", kinds: ["Silent", "Stalled"], remedy: "Next" },
  { name: "an answer that nobody can read", kinds: ["Malformed"], remedy: "Next" },
  { name: "not asked at all", kinds: ["CircuitOpen", "TimeUp", "Unaffordable"], remedy: "Next" }
]

const fits = (row: Row, fault: ProviderFault): boolean => {
  if (!row.kinds.includes(fault.kind)) return false
  if (row.says !== undefined && !row.says.some((word) => word === fault.code || word === fault.type))
    return false
  if (row.statuses === undefined) return true
  if (fault.status === null) return false
  return typeof row.statuses === "function" ? row.statuses(fault.status) : row.statuses.includes(fault.status)
}

export const remedyOf = (fault: ProviderFault): Remedy => {
  const remedy = faultTable.find((row) => fits(row, fault))?.remedy ?? "Next"
  return remedy === "Retry" && fault.final ? "Next" : remedy
}

/** A model that the caller named itself and that is not there: nobody else is asked, so the vendor's answer goes on. */
export const isCallersOwn = (fault: ProviderFault): boolean => fault.kind === "Status" && fault.status === 404

/** Whether it says that the provider is unwell, for its circuit. A refusal shows the opposite. */
export const isUnwell = (fault: ProviderFault): boolean =>
  remedyOf(fault) === "Retry" ||
  fault.kind === "Silent" ||
  fault.kind === "Stalled" ||
  fault.kind === "Malformed"

const words: Readonly<Record<Exclude<FaultKind, "Status" | "InBand">, string>> = {
  Connection: "no connection",
  Silent: "nothing came in time",
  Stalled: "the stream stalled",
  Cut: "the stream broke off",
  Malformed: "an answer that cannot be read",
  CircuitOpen: "not asked, since it failed too often",
  Unaffordable: "could not be paid for",
  TimeUp: "not asked, since the time is up"
}

/** Types and codes are identifiers; whatever else stands there is not repeated. */
const identifier = (text: string | null) =>
  text !== null && /^[a-z0-9_.]{1,60}$/i.test(text) ? text : undefined

/** A fault in few words for the caller: never the provider's own text, which could hold anything. */
export const describeFault = (fault: ProviderFault): string => {
  if (fault.kind !== "Status" && fault.kind !== "InBand") return words[fault.kind]
  const told = identifier(fault.code) ?? identifier(fault.type)
  const what = fault.kind === "Status" ? `HTTP ${fault.status ?? "error"}` : "an error inside the stream"
  return told === undefined ? what : `${what} (${told})`
}
