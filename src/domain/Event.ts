import { Schema } from "effect"
import { StorableJson } from "./StorableJson.ts"

/** A stream of events: named as a collection of records is. */
export const StreamName = Schema.String.check(
  Schema.isPattern(/^[A-Za-z][A-Za-z0-9_-]{0,62}$/, {
    message: "Expected 1 to 63 of letters, digits, - and _, beginning with a letter"
  })
).pipe(Schema.brand("StreamName"))
export type StreamName = typeof StreamName.Type

/** What the platform itself says on a stream. Nobody publishes events of these types. */
export const Notice = Schema.Literals(["reset", "dropped", "closed"])
export type Notice = typeof Notice.Type

const isNotice = Schema.is(Notice)

/** What kind of event it is: a name that needs no escaping in a line of text. */
export const EventType = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$/, {
    message: "Expected 1 to 100 of letters, digits and . _ : / -, beginning with a letter or digit"
  }),
  Schema.makeFilter((type: string) =>
    isNotice(type) ? "Expected a type that the platform does not use itself" : undefined
  )
).pipe(Schema.brand("EventType"))
export type EventType = typeof EventType.Type

const MAX_UINT64 = "18446744073709551615"

/** The order of two whole numbers without leading zeros. */
const compareNumbers = (a: string, b: string): number =>
  a.length === b.length ? (a < b ? -1 : a > b ? 1 : 0) : a.length - b.length

/** The place of an event in its stream, as Redis writes it: milliseconds and a count, each of 64 bits. */
export const EventId = Schema.String.check(
  Schema.isPattern(/^(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})$/, { message: "Expected the id of an event" }),
  Schema.makeFilter((id: string) =>
    id.split("-").every((part) => compareNumbers(part, MAX_UINT64) <= 0)
      ? undefined
      : "Expected the id of an event"
  )
).pipe(Schema.brand("EventId"))
export type EventId = typeof EventId.Type

/** The place before every event. */
export const BEGINNING = EventId.make("0-0")

/** The order of two events of one stream: below 0 where `a` came before `b`. */
export const compareEventIds = (a: EventId, b: EventId): number => {
  const [aMillis = "", aCount = ""] = a.split("-")
  const [bMillis = "", bCount = ""] = b.split("-")
  const millis = compareNumbers(aMillis, bMillis)
  return millis === 0 ? compareNumbers(aCount, bCount) : millis
}

export const NewEvent = Schema.Struct({ type: EventType, data: StorableJson })
export type NewEvent = typeof NewEvent.Type

/** An event as its stream keeps it. */
export interface StoredEvent {
  readonly id: EventId
  /** The event before it, of those that were ever published here: whether one is missing can be seen from this. */
  readonly previous: EventId
  readonly type: string
  /** JSON in one line. */
  readonly data: string
}

/** Why a stream was closed. */
export const ClosedCode = Schema.Literals([
  "Unauthenticated",
  "Forbidden",
  "TenantSuspended",
  "DependencyUnavailable",
  "ShuttingDown"
])
export type ClosedCode = typeof ClosedCode.Type
