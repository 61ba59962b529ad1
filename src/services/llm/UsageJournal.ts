import { Context } from "effect"
import type { Effect } from "effect"
import { costOf } from "../../domain/Prices.ts"
import { noUsage } from "./Attempt.ts"
import type { Closing, Opening, UsageRow } from "./UsageEntry.ts"

/**
 * Keeps each attempt from before its provider is called until its row is in the database, so that none is lost with the
 * process: what a dead instance left is found by the next one that looks.
 */
export class UsageJournal extends Context.Service<
  UsageJournal,
  {
    /** Returns when it is kept. Never fails: a call is not refused for its bookkeeping; what could not be kept is logged. */
    readonly open: (opening: Opening) => Effect.Effect<void>
    /** Told before more of an answer than that is delivered, in tokens. */
    readonly reach: (id: string, tokens: number) => void
    readonly close: (id: string, closing: Closing) => Effect.Effect<void>
    /** Their rows are in the database, or nobody's any more. */
    readonly settle: (ids: ReadonlyArray<string>) => Effect.Effect<void>
    /** Puts aside what the database will never take. */
    readonly reject: (row: UsageRow, reason: string) => Effect.Effect<void>
    /** The rows that are closed and not settled, read again: for a writer that could not hold them all. */
    readonly unsettled: Effect.Effect<ReadonlyArray<UsageRow>>
    /** What instances left that are dead: each is given to one who asks, and kept until it is settled. */
    readonly adopt: Effect.Effect<ReadonlyArray<UsageRow>>
  }
>()("agent-army/services/UsageJournal") {}

/**
 * The row of an attempt whose process died. Its provider may have worked for it, so it counts: with what the conversation is
 * estimated at, and with as much output as may have been delivered.
 */
export const crashed = (opening: Opening, reached: number): UsageRow => {
  const [input, output] = [opening.estimatedInput, reached]
  const usage =
    opening.operation === "realtime"
      ? { ...noUsage, audioInput: input, audioOutput: output }
      : { ...noUsage, input, output }
  return {
    ...opening,
    status: "crashed",
    fault: "The process ended",
    httpStatus: null,
    usage,
    estimated: true,
    cost: costOf(usage, opening.price ?? undefined),
    latencyMillis: 0,
    firstTokenMillis: null,
    providerRequestId: null
  }
}
