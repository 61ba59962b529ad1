import { Context, Duration, Effect, FiberSet, Layer, Result, Semaphore } from "effect"
import type { Array as Arr, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import type { WebSocket } from "ws"
import type { ClosedCode } from "../../domain/Event.ts"
import { ProviderRefused } from "../../domain/Llm.ts"
import type { ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { modelName } from "../../domain/ModelGroups.ts"
import { ProviderNotConfigured, ProviderUnavailable, RateLimited } from "../../domain/Problems.ts"
import type { BudgetExceeded, DependencyUnavailable } from "../../domain/Problems.ts"
import { noUsage } from "./Attempt.ts"
import type { JsonObject } from "./Codec.ts"
import { describeFault, isCallersOwn, remedyOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import type { Candidate } from "./LlmGateway.ts"
import { countAlarm, countAttempt, setRealtimeSessions } from "./LlmMetrics.ts"
import { RealtimeMeter } from "./RealtimeMeter.ts"
import type { MeteredSession, Metering, RealtimeAccount, Standing } from "./RealtimeMeter.ts"
import { Relay } from "./RealtimeRelay.ts"
import type { Ending } from "./RealtimeRelay.ts"
import { connectRealtime } from "./RealtimeUpstream.ts"
import { errorEvent, examineClient, readServer, sessionUpdate } from "./RealtimeWire.ts"

/** Open sessions of one tenant on one instance. */
export const MOST_SESSIONS = 100
/** When one who has too many may come again, in seconds. */
const RETRY_AFTER_SECONDS = 10

/** What is left to be settled when the server ends. */
const LAST_SETTLEMENTS = Duration.seconds(5)

/** OpenAI's PCM16 of 24 kHz: a token of the model's speech is 50 ms of it. */
const SPEECH_BYTES_PER_TOKEN = 2_400
/** The same of a caller's: 100 ms. */
const HEARD_BYTES_PER_TOKEN = 4_800
const BASE64 = 0.75
const TEXT_BYTES_PER_TOKEN = 3
/** Of a response's tokens, so many are written down before they are delivered. */
const REACH_AHEAD = 256
/** What of an event with audio is no audio, about. */
const EVENT_OVERHEAD_BYTES = 200

/** What a session may do, and who pays for it. */
export interface RealtimeGrant extends Omit<MeteredSession, "sessionId"> {
  /** In the order of fallback. */
  readonly candidates: Arr.NonEmptyReadonlyArray<Candidate>
  readonly mayTranscribeWith: (model: string) => boolean
  /** A name for the tenant that tells the provider nothing. */
  readonly safetyIdentifier: string
}

export type RealtimeFailure =
  | ProviderUnavailable
  | ProviderNotConfigured
  | ProviderRefused
  | RateLimited
  | BudgetExceeded
  | DependencyUnavailable

/** A provider's open session, that waits for its client. */
export interface RealtimeSession {
  readonly answeredBy: ModelRef
  /** Joins the client to it; returns when both are closed. */
  readonly relay: (client: WebSocket) => Effect.Effect<void>
  /** Ends it, with an `error` event that says why. Also before it is joined. */
  readonly end: (code: ClosedCode) => void
}

type EndCode = ClosedCode | "BudgetExceeded" | "ProviderUnavailable"

/** What a client may say while the last response that is paid for is under way. */
const lastWords: ReadonlySet<string | undefined> = new Set([
  "response.cancel",
  "conversation.item.truncate",
  "output_audio_buffer.clear"
])

/** RFC 6455, 7.4.1: 1001 going away, 1008 policy, 1011 an error of the server's; 1013 try again later (IANA). */
const endings: Readonly<
  Record<EndCode, { readonly close: number; readonly type: string; readonly message: string }>
> = {
  Unauthenticated: {
    close: 1008,
    type: "authentication_error",
    message: "The credential of this session is no longer valid"
  },
  Forbidden: {
    close: 1008,
    type: "permission_error",
    message: "The credential of this session no longer allows this"
  },
  TenantSuspended: { close: 1008, type: "permission_error", message: "The tenant is suspended" },
  BudgetExceeded: {
    close: 1008,
    type: "insufficient_quota",
    message: "The tenant's monthly budget is spent"
  },
  DependencyUnavailable: {
    close: 1013,
    type: "server_error",
    message: "Nobody can tell whether this session may go on"
  },
  ShuttingDown: { close: 1001, type: "server_error", message: "The server shuts down: connect again" },
  ProviderUnavailable: {
    close: 1011,
    type: "server_error",
    message: "The connection to the provider broke off"
  }
}

/** Closes with which the provider asks to come again: going away, a restart, too busy. */
const passing: ReadonlySet<number> = new Set([1001, 1012, 1013])
/** Closes that say nothing, and the connection that broke off. */
const broken: ReadonlySet<number> = new Set([1002, 1006, 1007, 1009, 1010, 1011, 1014, 1015])

/** What all candidates' failures come to: whatever says most about when it is worth while to ask again. */
const failureOf = (
  failures: ReadonlyArray<readonly [ModelRef, ProviderFault]>
): RateLimited | ProviderNotConfigured | ProviderUnavailable => {
  const detail = failures.map(([ref, fault]) => `${modelName(ref)}: ${describeFault(fault)}`).join("; ")
  const busy = failures.find(([, { status }]) => status === 429)?.[1]
  if (busy !== undefined) {
    return new RateLimited({
      detail,
      retry_after: Math.max(1, Math.ceil((busy.retryAfterMillis ?? RETRY_AFTER_SECONDS * 1000) / 1000))
    })
  }
  return failures.every(([, { status }]) => status === 401 || status === 402 || status === 403)
    ? new ProviderNotConfigured({ detail })
    : new ProviderUnavailable({ detail })
}

interface OpenResponse {
  readonly id: string
  readonly startedAt: number
  firstAt: number | undefined
  /** What it had read, estimated. */
  readonly read: TokenUsage
  audioBytes: number
  /** Of text, or of the words to the audio: a token each at least. */
  pieces: number
  /** Tokens that are written down as delivered. */
  reached: number
}

const saidBy = ({ audioBytes, pieces }: OpenResponse): Pick<TokenUsage, "output" | "audioOutput"> => ({
  output: pieces,
  audioOutput: Math.ceil(audioBytes / SPEECH_BYTES_PER_TOKEN)
})

/**
 * Realtime voice: the session of a caller joined to one of a provider's, both of which speak OpenAI's protocol. It knows no
 * tenant but for what a grant says.
 */
export class Realtime extends Context.Service<
  Realtime,
  {
    /**
     * Opens a session at the first candidate that takes it; all that can be refused is refused here, before the caller's
     * upgrade is answered. `pinned` is a client secret's. The scope's end cuts both sides.
     */
    readonly open: (
      grant: RealtimeGrant,
      pinned: JsonObject | undefined
    ) => Effect.Effect<RealtimeSession, RealtimeFailure, Scope.Scope>
  }
>()("agent-army/services/Realtime") {
  static readonly layer = Layer.effect(
    Realtime,
    Effect.gen(function* () {
      const meter = yield* RealtimeMeter
      const random = yield* SecureRandom.SecureRandom
      const fibers = yield* FiberSet.make<void>()
      const run = yield* FiberSet.runtime(fibers)()
      yield* Effect.addFinalizer(() =>
        Effect.ignore(Effect.timeout(FiberSet.awaitEmpty(fibers), LAST_SETTLEMENTS))
      )
      const open = new Map<string, number>()
      let count = 0

      const countOne = (tenantId: string, by: 1 | -1) => {
        const now = (open.get(tenantId) ?? 0) + by
        if (now === 0) open.delete(tenantId)
        else open.set(tenantId, now)
        count += by
        return setRealtimeSessions(count)
      }

      const slot = (tenantId: string) =>
        Effect.acquireRelease(
          Effect.suspend(() =>
            (open.get(tenantId) ?? 0) >= MOST_SESSIONS
              ? Effect.fail(
                  new RateLimited({
                    detail: `A tenant may have ${MOST_SESSIONS} open sessions`,
                    retry_after: RETRY_AFTER_SECONDS
                  })
                )
              : countOne(tenantId, 1)
          ),
          () => countOne(tenantId, -1)
        )

      const connect = Effect.fnUntraced(function* (
        { candidates, safetyIdentifier }: RealtimeGrant,
        accountFor: (
          ref: ModelRef
        ) => Effect.Effect<RealtimeAccount, BudgetExceeded | DependencyUnavailable, Scope.Scope>
      ) {
        const failures: Array<readonly [ModelRef, ProviderFault]> = []
        let tooDear: BudgetExceeded | DependencyUnavailable | undefined
        for (const candidate of candidates) {
          const { client, ref } = candidate
          const paid = yield* Effect.result(accountFor(ref))
          if (Result.isFailure(paid)) {
            tooDear = paid.failure
            continue
          }
          const account = paid.success
          const [took, connected] = yield* Effect.timed(
            Effect.result(connectRealtime(candidate, { "openai-safety-identifier": safetyIdentifier }))
          )
          if (Result.isSuccess(connected)) return { account, candidate, provider: connected.success }
          yield* account.close
          const fault = connected.failure
          failures.push([ref, fault])
          const remedy = remedyOf(fault)
          yield* countAttempt(ref, {
            status: remedy === "Return" ? "refused" : "failed",
            latencyMillis: Duration.toMillis(took),
            usage: noUsage
          })
          if (remedy === "Alarm") {
            yield* countAlarm(ref, describeFault(fault))
            yield* Effect.logError(
              `An LLM provider refuses ${client.own ? "a tenant's own key" : "the platform"}: ${describeFault(fault)}`
            ).pipe(Effect.annotateLogs({ model: modelName(ref) }))
          }
          if (remedy === "Return" || (candidates.length === 1 && isCallersOwn(fault))) {
            return yield* new ProviderRefused({
              status: fault.status ?? 400,
              provider: ref.provider,
              message: fault.message,
              type: fault.type,
              code: fault.code,
              param: fault.param
            })
          }
        }
        return yield* failures.length === 0 && tooDear !== undefined ? tooDear : failureOf(failures)
      })

      return Realtime.of({
        open: Effect.fn("Realtime.open")(function* (grant, pinned) {
          yield* slot(grant.tenant.id)
          const sessionId = yield* random.uuidV7()
          const one = Semaphore.makeUnsafe(1)
          /** In their order, and beside the relay. */
          const beside = (effect: Effect.Effect<void>) => run(one.withPermit(effect))
          const { account, candidate, provider } = yield* connect(grant, (ref) =>
            Effect.acquireRelease(
              meter.open({ ...grant, sessionId }, ref),
              ({ close }) => Effect.sync(() => void beside(close)),
              { interruptible: true }
            )
          )
          return join({ grant, pinned, sessionId, account, candidate, provider, beside })
        })
      })
    })
  )
}

/** What a response has read and said, the next one reads again, from the provider's cache. */
const afterwards = (usage: TokenUsage): TokenUsage => ({
  ...noUsage,
  cachedRead: usage.input + usage.cachedRead + usage.output - usage.reasoning,
  audioCachedRead: (usage.audioInput ?? 0) + (usage.audioCachedRead ?? 0) + (usage.audioOutput ?? 0)
})

const tokensRead = (usage: TokenUsage): number =>
  usage.input + usage.cachedRead + (usage.audioInput ?? 0) + (usage.audioCachedRead ?? 0)

interface Joined {
  readonly grant: RealtimeGrant
  readonly pinned: JsonObject | undefined
  readonly sessionId: string
  readonly account: RealtimeAccount
  readonly candidate: Candidate
  readonly provider: WebSocket
  readonly beside: (effect: Effect.Effect<void>) => void
}

/** A session, from the provider's open socket on. */
const join = ({
  account,
  beside,
  candidate,
  grant,
  pinned,
  provider,
  sessionId
}: Joined): RealtimeSession => {
  const { client: vendor, ref } = candidate
  const rules = {
    model: ref.model,
    names: [grant.asked, modelName(ref)],
    mayTranscribeWith: grant.mayTranscribeWith
  }
  const responses = new Map<string, OpenResponse>()
  let current: OpenResponse | undefined
  let transcriber: string | undefined
  let relay: Relay | undefined
  let ended: Ending | undefined
  let providerLeft = false
  let errors = 0
  /** What the next response will read, estimated: what the last one came to, and what the caller has said since. */
  let context: TokenUsage = noUsage
  let saidSinceBytes = 0
  let heardSinceBytes = 0
  let isToldOfLast = false

  const errorId = () => `event_${sessionId.replaceAll("-", "")}_${++errors}`

  const endingOf = (code: EndCode, detail = ""): Ending => {
    const { close, message, type } = endings[code]
    return {
      code: close,
      reason: message,
      event: errorEvent(errorId(), { type, code, message: message + detail, param: null, eventId: null })
    }
  }

  const end = (ending: Ending) => {
    ended ??= ending
    relay?.end(ended)
  }

  const heed = (standing: Effect.Effect<Standing>) =>
    beside(
      Effect.map(standing, (standing) => {
        if (standing !== "open" && standing !== "last") end(endingOf(standing))
      })
    )

  const settle = (metering: Metering) => heed(account.settle(metering))

  const unpaid = (eventId: string | null): string => {
    const code = account.standing() === "open" ? "RateLimited" : "BudgetExceeded"
    return errorEvent(errorId(), {
      type: code === "RateLimited" ? "rate_limit_error" : endings.BudgetExceeded.type,
      code,
      message:
        code === "RateLimited"
          ? "The tenant's budget has to be asked for a response more: try again"
          : endings.BudgetExceeded.message,
      param: null,
      eventId
    })
  }

  /** Whether an event of the client's is paid for; what it is told where it is not. */
  const refusalOf = (
    type: string | undefined,
    eventId: string | null
  ): { refuse: string | undefined } | undefined => {
    if (type === "response.create") {
      const asked = account.ask({
        ref,
        ownKey: vendor.own,
        eventId,
        read: tokensRead(readNext()),
        said: REACH_AHEAD
      })
      if (asked === undefined) return { refuse: unpaid(eventId) }
      // Before the frame goes on.
      heed(asked)
      return undefined
    }
    if (account.standing() === "open" || lastWords.has(type)) return undefined
    // Audio goes on coming; to be told once is enough.
    if (type === "input_audio_buffer.append" && isToldOfLast) return { refuse: undefined }
    isToldOfLast = true
    return { refuse: unpaid(eventId) }
  }

  const readNext = (): TokenUsage => ({
    ...context,
    input: Math.ceil(saidSinceBytes / TEXT_BYTES_PER_TOKEN),
    audioInput: Math.ceil((heardSinceBytes * BASE64) / HEARD_BYTES_PER_TOKEN)
  })

  const tellReach = (response: OpenResponse) => {
    const { audioOutput = 0, output } = saidBy(response)
    if (output + audioOutput + REACH_AHEAD / 2 < response.reached) return
    response.reached = output + audioOutput + REACH_AHEAD
    account.reach({ kind: "response", id: response.id }, response.reached)
  }

  const timesOf = (response: OpenResponse | undefined) => {
    const now = performance.now()
    const startedAt = response?.startedAt ?? now
    return {
      latencyMillis: now - startedAt,
      firstTokenMillis: response?.firstAt === undefined ? null : response.firstAt - startedAt
    }
  }

  const statuses: Readonly<Record<string, Metering["status"]>> = {
    cancelled: "cancelled",
    failed: "failed"
  }

  const fromProvider = (data: Buffer, isBinary: boolean) => {
    const event = isBinary ? undefined : readServer(data)
    if (event === undefined) return
    switch (event._tag) {
      case "Piece":
        if (current === undefined) return
        current.firstAt ??= performance.now()
        if (event.audio) current.audioBytes += Math.max(0, data.length - EVENT_OVERHEAD_BYTES) * BASE64
        else current.pieces++
        tellReach(current)
        return
      case "Session":
        if (event.transcriber !== undefined && event.transcriber !== transcriber) {
          heed(account.transcribes({ provider: ref.provider, model: event.transcriber }))
        }
        transcriber = event.transcriber
        // However it came to be: what the tenant may not use is not used.
        if (transcriber !== undefined && !grant.mayTranscribeWith(transcriber)) {
          end(endingOf("Forbidden", `: ${transcriber}`))
        }
        return
      case "Started": {
        const read = readNext()
        current = {
          id: event.id,
          startedAt: performance.now(),
          firstAt: undefined,
          read,
          audioBytes: 0,
          pieces: 0,
          reached: REACH_AHEAD
        }
        responses.set(event.id, current)
        heed(
          account.begin(
            { kind: "response", id: event.id, ref, ownKey: vendor.own },
            { read: tokensRead(read), said: REACH_AHEAD }
          )
        )
        return
      }
      case "Refused":
        heed(account.refused(event.eventId))
        return
      case "Done": {
        const response = responses.get(event.id)
        responses.delete(event.id)
        if (current === response) current = undefined
        settle({
          kind: "response",
          id: event.id,
          ref,
          ownKey: vendor.own,
          status: statuses[event.status] ?? "ok",
          told: event.status,
          fault: event.reason === null ? null : vendor.scrub(event.reason).slice(0, 100),
          usage:
            event.usage ?? (response === undefined ? noUsage : { ...response.read, ...saidBy(response) }),
          estimated: event.usage === undefined,
          ...timesOf(response)
        })
        if (event.usage !== undefined) {
          context = afterwards(event.usage)
          saidSinceBytes = 0
          heardSinceBytes = 0
        }
        return
      }
      case "Transcribed":
        settle({
          kind: "transcription",
          id: event.id,
          ref: { provider: ref.provider, model: transcriber ?? "unknown" },
          ownKey: vendor.own,
          status: "ok",
          told: "completed",
          fault: null,
          usage: event.usage ?? noUsage,
          estimated: event.usage === undefined,
          ...timesOf(undefined)
        })
    }
  }

  /** The provider bills what it had said until then, and nobody is told any more how much that was. */
  const settleUnfinished = () => {
    for (const [id, response] of responses) {
      settle({
        kind: "response",
        id,
        ref,
        ownKey: vendor.own,
        status: providerLeft ? "failed" : "cancelled",
        told: null,
        fault: providerLeft ? "the provider's connection broke off" : null,
        usage: { ...response.read, ...saidBy(response) },
        estimated: true,
        ...timesOf(response)
      })
    }
    responses.clear()
    beside(
      account.abandon({
        status: providerLeft ? "failed" : "cancelled",
        fault: providerLeft ? "the provider's connection broke off" : null,
        usage: readNext(),
        estimated: true
      })
    )
  }

  return {
    answeredBy: ref,
    end: (code) => end(endingOf(code)),
    relay: (client) =>
      Effect.callback<void>((resume) => {
        relay = new Relay(client, provider, {
          fromClient: (data, isBinary) => {
            const verdict = examineClient(data, isBinary, rules)
            if (verdict._tag === "Refused") return { refuse: errorEvent(errorId(), verdict.error) }
            const refusal = refusalOf(verdict.type, verdict.eventId)
            if (refusal !== undefined) return refusal
            if (verdict.type === "input_audio_buffer.append") heardSinceBytes += data.length
            else saidSinceBytes += data.length
            return { forward: verdict._tag === "Renamed" ? verdict.text : data }
          },
          fromProvider,
          providerClosed: (code, reason) => {
            providerLeft = true
            if (passing.has(code)) return { ...endingOf("ProviderUnavailable"), code: 1013 }
            if (broken.has(code)) return endingOf("ProviderUnavailable")
            const said = { code: code === 1005 ? 1000 : code, reason: vendor.scrub(reason) }
            return said.code === 1000 ? said : { ...endingOf("ProviderUnavailable"), ...said }
          },
          failed: (error) => beside(Effect.logError("A realtime session failed", error)),
          closed: () => {
            settleUnfinished()
            resume(Effect.void)
          }
        })
        if (pinned !== undefined) relay.tellProvider(sessionUpdate(pinned))
        if (ended !== undefined) relay.end(ended)
        return Effect.sync(() => {
          relay?.cut()
          settleUnfinished()
        })
      })
  }
}
