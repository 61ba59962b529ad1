import { Clock, Context, Effect, Layer } from "effect"
import { responseBound, transcriptionBound } from "../../domain/CostBound.ts"
import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { moneyOf } from "../../domain/Money.ts"
import { priceOf } from "../../domain/Prices.ts"
import type { BudgetExceeded, DependencyUnavailable } from "../../domain/Problems.ts"
import type { TenantRef } from "../../domain/Tenant.ts"
import type { TenantSettings } from "../../domain/TenantSettings.ts"
import { noUsage } from "./Attempt.ts"
import type { AttemptRecord } from "./Attempt.ts"
import { LlmBudgets, monthOf } from "./LlmBudgets.ts"
import type { Reservation } from "./LlmBudgets.ts"
import { countAttempt } from "./LlmMetrics.ts"
import { LlmUsage } from "./LlmUsage.ts"
import type { OpenAttempt } from "./LlmUsage.ts"

/** Whose session is metered. */
export interface MeteredSession {
  /** Ours, and never used twice. */
  readonly sessionId: string
  readonly tenant: TenantRef
  readonly settings: TenantSettings
  readonly requestId: string
  readonly keyId: string | null
  /** The model's name in the request. */
  readonly asked: string
}

/** What a provider bills: a response, or the transcription of what was said to it. */
export interface Billed {
  readonly kind: "response" | "transcription"
  /** The provider's. With the session's id it names what is billed: settled twice, it counts once. */
  readonly id: string
  readonly ref: ModelRef
  readonly ownKey: boolean
}

/** What it came to. */
export interface Metering extends Billed {
  readonly status: AttemptRecord["status"]
  /** `completed`, `cancelled`, `failed` or `incomplete`, as the provider says it; null where it did not come to say it. */
  readonly told: string | null
  readonly fault: string | null
  readonly usage: TokenUsage
  /** Whether some of `usage` was not told by the provider. */
  readonly estimated: boolean
  readonly latencyMillis: number
  readonly firstTokenMillis: number | null
}

/**
 * How a session stands with its tenant's budget. `last`: what is under way may end, and nothing may begin. Otherwise the
 * session is over.
 */
export type Standing = "open" | "last" | "BudgetExceeded" | "DependencyUnavailable"

/** What is told of an attempt that came to nothing. */
export type Outcome = Pick<Metering, "status" | "fault" | "usage" | "estimated">

/** A session's account. */
export interface RealtimeAccount {
  /**
   * The client asks for a response: nothing where none is paid for. Decided at once, since frames wait for nobody; what is left to be
   * done puts it into the books.
   */
  readonly ask: (billed: Asked) => Effect.Effect<Standing> | undefined
  /** The provider refused the event of that id, or nobody knows which: perhaps one that asked for a response. */
  readonly refused: (eventId: string | null) => Effect.Effect<Standing>
  readonly standing: () => Standing
  /** Who transcribes from now on. */
  readonly transcribes: (ref: ModelRef) => Effect.Effect<Standing>
  /** A response has begun, which may be one that was asked for: from here on at the latest it is in the books. */
  readonly begin: (billed: Billed, atLeast: AtLeast) => Effect.Effect<Standing>
  /** Told before more of a response is delivered than that, in tokens. */
  readonly reach: (billed: Pick<Billed, "kind" | "id">, tokens: number) => void
  /** Never fails: what could not be written is the journal's to remember. */
  readonly settle: (metering: Metering) => Effect.Effect<Standing>
  /** The session is over: what was asked for and has not begun. */
  readonly abandon: (outcome: Outcome) => Effect.Effect<void>
  /** Gives back what was reserved and not used. Called once, after all else. */
  readonly close: Effect.Effect<void>
}

/** What an attempt comes to at least, in tokens: all that is known of it if the process dies. */
export interface AtLeast {
  readonly read: number
  readonly said: number
}

/** A response that a client asks for. */
export interface Asked extends Omit<Billed, "id" | "kind">, AtLeast {
  /** The client's event's. */
  readonly eventId: string | null
}

/** What is held for something that has not begun. */
interface Hold {
  readonly month: string
  readonly reservation: Reservation
}

const nameOf = ({ id, kind }: Pick<Billed, "kind" | "id">) => `${kind}/${id}`

/**
 * What sessions of realtime voice cost. Under a budget, an open session always holds the most that its next response can cost: one is
 * reserved when the session begins, and another one as soon as a response takes it.
 */
export class RealtimeMeter extends Context.Service<
  RealtimeMeter,
  {
    /** Fails where not so much is left as a response of it can cost. */
    readonly open: (
      session: MeteredSession,
      ref: ModelRef
    ) => Effect.Effect<RealtimeAccount, BudgetExceeded | DependencyUnavailable>
  }
>()("agent-army/services/RealtimeMeter") {
  static readonly layer = Layer.effect(
    RealtimeMeter,
    Effect.gen(function* () {
      const rows = yield* LlmUsage
      const budgets = yield* LlmBudgets

      return RealtimeMeter.of({
        open: Effect.fn("RealtimeMeter.open")(function* (session, voice) {
          const { keyId, requestId, sessionId, settings, tenant } = session
          const budget = settings["llm.monthly_budget_usd"]

          /** The most that one of a kind can cost: nothing is held without a budget. */
          const hold = Effect.fnUntraced(function* (kind: Billed["kind"], { model, provider }: ModelRef) {
            const now = yield* Clock.currentTimeMillis
            const price = priceOf({ provider, model }, settings["llm.prices"], now)
            if (budget === undefined || price === undefined) return undefined
            const month = monthOf(now)
            const bound = kind === "response" ? responseBound(price, model) : transcriptionBound(price)
            return { month, reservation: yield* budgets.reserve(tenant, month, moneyOf(budget), bound) }
          })

          const release = ({ reservation }: Hold) => {
            reservation.settle(0n)
            reservation.written()
          }

          /** For responses to come, and for the next transcription. */
          const holds: Record<Billed["kind"], Array<Hold>> = { response: [], transcription: [] }
          /** Asked for by the client, in their order, and not begun. */
          const asked: Array<{
            readonly eventId: string | null
            readonly ref: ModelRef
            readonly row: OpenAttempt
          }> = []
          const open = new Map<string, OpenAttempt>()
          const settled = new Set<string>()
          let ended: BudgetExceeded | DependencyUnavailable | undefined
          /** Something began that nothing was left for. */
          let isOverdrawn = false
          let isClosed = false

          const standing = (): Standing => {
            if (ended === undefined) return "open"
            return open.size + asked.length > 0 && !isOverdrawn ? "last" : ended._tag
          }

          const refill = (kind: Billed["kind"], ref: ModelRef) =>
            hold(kind, ref).pipe(
              Effect.map((held) => {
                if (held === undefined) return
                if (isClosed) release(held)
                else holds[kind].push(held)
              }),
              Effect.catch((problem) => Effect.sync(() => void (ended ??= problem)))
            )

          /** What is held for it; what is not is reserved now. */
          const current = Effect.fnUntraced(
            function* (held: Hold | undefined, { kind, ref }: Pick<Billed, "kind" | "ref">) {
              if (held !== undefined && held.month === monthOf(yield* Clock.currentTimeMillis)) return held
              // Of a month that is over.
              if (held !== undefined) release(held)
              return yield* hold(kind, ref)
            },
            // It is asked for or has begun, whether it may or not: the session ends here, and it with the session.
            Effect.catch((problem) =>
              Effect.sync((): undefined => {
                ended ??= problem
                isOverdrawn = true
              })
            )
          )

          const openRow = Effect.fnUntraced(function* (
            { kind, ownKey, ref }: Omit<Billed, "id">,
            { read, said }: AtLeast,
            kept: Hold | undefined
          ) {
            const held = yield* current(kept, { kind, ref })
            const price = priceOf(ref, settings["llm.prices"], yield* Clock.currentTimeMillis)
            const row = yield* rows.open(
              {
                tenant,
                operation: "realtime",
                asked: session.asked,
                provider: ref.provider,
                model: ref.model,
                requestId,
                keyId,
                retry: 0,
                streamed: true,
                resumed: false,
                ownKey,
                metadata: { session_id: sessionId, kind },
                estimatedInput: read,
                reached: said,
                price: price ?? null,
                ...(held === undefined ? undefined : { lease: budgets.instance })
              },
              held?.reservation
            )
            if (held !== undefined && !isClosed) yield* refill(kind, ref)
            return row
          })

          const begin = Effect.fnUntraced(function* (billed: Billed, atLeast: AtLeast) {
            const name = nameOf(billed)
            if (open.has(name) || settled.has(name)) return
            const row = billed.kind === "response" ? asked.shift()?.row : undefined
            if (row !== undefined) {
              open.set(name, row)
              return
            }
            open.set(name, yield* openRow(billed, atLeast, holds[billed.kind].shift()))
          })

          const drop = Effect.fnUntraced(function* (
            { ref, row }: (typeof asked)[number],
            { estimated, fault, status, usage }: Outcome
          ) {
            const closing = { status, fault, usage, estimated, latencyMillis: 0, firstTokenMillis: null }
            yield* countAttempt(ref, closing)
            yield* row.close({ ...closing, httpStatus: null, providerRequestId: null })
          })

          yield* Effect.map(hold("response", voice), (held) => {
            if (held !== undefined) holds.response.push(held)
          })

          return {
            standing,
            ask: ({ eventId, ownKey, read, ref, said }) => {
              const held = holds.response.shift()
              if (budget !== undefined && (held === undefined || ended !== undefined)) {
                if (held !== undefined) holds.response.push(held)
                return undefined
              }
              const opened = openRow({ kind: "response", ref, ownKey }, { read, said }, held)
              return Effect.map(opened, (row) => {
                asked.push({ eventId, ref, row })
                return standing()
              })
            },
            refused: Effect.fnUntraced(function* (eventId) {
              const index = asked.findIndex((one) => eventId === null || one.eventId === eventId)
              for (const one of index === -1 ? [] : asked.splice(index, 1)) {
                yield* drop(one, {
                  status: "refused",
                  fault: "the provider refused it",
                  usage: noUsage,
                  estimated: false
                })
              }
              return standing()
            }),
            abandon: (outcome) =>
              Effect.suspend(() =>
                Effect.forEach(asked.splice(0), (one) => drop(one, outcome), { discard: true })
              ),
            transcribes: Effect.fnUntraced(function* (ref) {
              for (const held of holds.transcription.splice(0)) release(held)
              yield* refill("transcription", ref)
              return standing()
            }),
            begin: (billed, atLeast) => Effect.map(begin(billed, atLeast), standing),
            reach: (billed, tokens) => open.get(nameOf(billed))?.reach(tokens),
            settle: Effect.fnUntraced(function* (metering) {
              const name = nameOf(metering)
              if (settled.has(name)) return standing()
              yield* begin(metering, { read: 0, said: 0 })
              const { id, kind: _, ownKey: __, ref, told, ...closing } = metering
              yield* countAttempt(ref, closing)
              const row = open.get(name)
              const { audioSeconds } = metering.usage
              open.delete(name)
              settled.add(name)
              if (row !== undefined) {
                yield* row.close({
                  ...closing,
                  httpStatus: null,
                  providerRequestId: id,
                  outcome: {
                    status: told,
                    ...(audioSeconds === undefined ? undefined : { seconds: audioSeconds })
                  }
                })
              }
              return standing()
            }),
            close: Effect.sync(() => {
              isClosed = true
              for (const held of [...holds.response.splice(0), ...holds.transcription.splice(0)])
                release(held)
            })
          }
        })
      })
    })
  )
}
