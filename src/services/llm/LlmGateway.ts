import {
  Array as Arr,
  Cause,
  Clock,
  Context,
  Duration,
  Effect,
  ExecutionPlan,
  Exit,
  Layer,
  Result
} from "effect"
import { Schedule, Scope, Stream } from "effect"
import type { Pull } from "effect"
import { CircuitBreaker } from "effect/persistence"
import { ProviderRefused } from "../../domain/Llm.ts"
import type { Dialect, ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { endingModels, modelName } from "../../domain/ModelGroups.ts"
import { ProviderUnavailable } from "../../domain/Problems.ts"
import { sumCosts } from "../../domain/Prices.ts"
import type { LeakWatcher } from "../Canary.ts"
import { addUsage, Attempt, estimateInput, noUsage, reachOf } from "./Attempt.ts"
import type { AttemptEntry, AttemptOpening, Operation } from "./Attempt.ts"
import type {
  Answer,
  Conversation,
  JsonObject,
  StreamEvent,
  StreamReader,
  Summary,
  WireEvent,
  WireProblem
} from "./Codec.ts"
import { codecOf } from "./Codecs.ts"
import { describeFault, faultOf, isCallersOwn, isUnwell, remedyOf } from "./Faults.ts"
import type { ProviderFault, Unpaid } from "./Faults.ts"
import { makeContinuation } from "./Continuation.ts"
import { jsonAt } from "./JsonAt.ts"
import { countAlarm, setModelEnd } from "./LlmMetrics.ts"
import { withoutUsage } from "./OpenAiChat.ts"
import type { ProviderClient, ProviderStream } from "./Providers.ts"

/** The SDKs' own limit for a call, and ours where the caller gives none. */
const MOST_TIME = Duration.minutes(10)
/** A stream that still brings something may take longer, but not for ever. */
const MOST_STREAM_TIME = Duration.hours(1)

/** The first pause before a retry; doubled each time, up to the longest, and jittered. */
const FIRST_PAUSE = Duration.millis(250)
const LONGEST_PAUSE = Duration.seconds(4)
/** Who asks to be left alone for longer than this is left alone: the next one is asked. */
const LONGEST_RETRY_AFTER = Duration.seconds(10)

/** Half of the last 20 calls failed, of 10 at least: then the provider is left alone for a while. */
const TRIP = CircuitBreaker.rate({ threshold: 0.5, size: 20, minimumCalls: 10 })
const OPEN_FOR = Duration.seconds(5)
const OPEN_FOR_AT_MOST = Duration.seconds(30)

/** How often the ends of models are looked at. */
const ENDINGS_EVERY = Duration.hours(1)

export interface GatewayTimeouts {
  /** Of a whole answer that is no stream. */
  readonly answer: Duration.Duration
  readonly firstToken: Duration.Duration
  readonly chunk: Duration.Duration
  /** How often a provider is asked again. */
  readonly maxRetries: number
}

export interface Candidate {
  readonly ref: ModelRef
  readonly client: ProviderClient
}

/** What holds of all that is asked of a provider. */
export interface Ask {
  /** The model's name in the request. */
  readonly asked: string
  /** In the order of fallback. */
  readonly candidates: Arr.NonEmptyReadonlyArray<Candidate>
  readonly headers: Readonly<Record<string, string>>
  readonly deadline: Duration.Duration | undefined
  /**
   * Whose failures count together for a provider's circuit: a tenant's own, since requests that make a provider fail are
   * easily found, and would close it to everybody.
   */
  readonly circuit: string
  /** Adds who is asking, under a name that tells the provider nothing. */
  readonly identify: (body: JsonObject, dialect: Dialect, client: ProviderClient) => JsonObject
  /** Puts an attempt into the books, before its provider is called. */
  readonly open: (opening: AttemptOpening) => Effect.Effect<AttemptEntry, Unpaid>
}

/** Watches an answer for something that was put into its question. */
export interface LeakWatch {
  readonly watcher: () => LeakWatcher
  /** Once, when it is seen. */
  readonly onLeak: Effect.Effect<void>
  /** The answer must not go out, or no further: what to say instead. */
  readonly problem: Omit<WireProblem, "requestId"> | undefined
}

export interface GatewayCall extends Ask {
  readonly dialect: Dialect
  readonly conversation: Conversation
  /** The caller's own body, unless the conversation was changed: it goes on untouched where a provider speaks its dialect. */
  readonly body: JsonObject | undefined
  /** Whether a stream ends with its usage: `stream_options.include_usage`. */
  readonly usageAsked: boolean
  readonly resume: boolean
  /** What looks at the answer for what must not be in it. */
  readonly watch: LeakWatch | undefined
  readonly requestId: string
  readonly costOf: (ref: ModelRef, usage: TokenUsage) => string | null
  readonly summary: (
    known: Pick<Summary, "answeredBy" | "usage" | "costUsd" | "resumed" | "created"> & {
      readonly leaked: boolean
    }
  ) => Summary
}

/** What is no conversation: one vendor's endpoint, as it is. */
export interface PlainCall extends Ask {
  readonly operation: Exclude<Operation, "chat" | "realtime">
  readonly dialect: Dialect
  readonly path: string
  readonly body: JsonObject
  /** In tokens. */
  readonly estimatedInput: number
  readonly usageOf: (answer: JsonObject) => TokenUsage | undefined
}

interface Head {
  readonly answeredBy: ModelRef
  readonly headers: Readonly<Record<string, string>>
}

type GatewayFailure = ProviderUnavailable | ProviderRefused | Unpaid

/** The dialect to speak with a provider: the caller's own where it understands that. */
export const dialectOf = (ref: ModelRef, caller: Dialect): Dialect =>
  ref.provider === "anthropic"
    ? "anthropic-messages"
    : caller === "openai-responses"
      ? "openai-responses"
      : "openai-chat"

const paths: Readonly<Record<Dialect, string>> = {
  native: "/chat/completions",
  "openai-chat": "/chat/completions",
  "openai-responses": "/responses",
  "anthropic-messages": "/v1/messages"
}

/** The rate limits of the platform's key tell of other tenants: only those of a tenant's own key go on. */
const headersFor = (client: ProviderClient, headers: Readonly<Record<string, string>>) =>
  Object.fromEntries(
    Object.entries(headers).filter(
      ([name]) =>
        name === "request-id" ||
        name === "openai-processing-ms" ||
        (client.own && (name.startsWith("x-ratelimit-") || name.startsWith("anthropic-ratelimit-")))
    )
  )

const requestOf = (call: GatewayCall, { client, ref }: Candidate, stream: boolean, soFar: string) => {
  const dialect = dialectOf(ref, call.dialect)
  const codec = codecOf[dialect]
  const asIs = dialect === call.dialect && call.body !== undefined
  const body = asIs
    ? codec.forModel(call.body, ref.model, stream)
    : codec.encodeRequest(call.conversation, ref.model, stream)
  const continued = soFar.trim() === "" ? body : codec.continueFrom(body, soFar)
  return {
    dialect,
    path: paths[dialect],
    body: call.identify(continued, dialect, client),
    headers: dialect === call.dialect ? call.headers : {}
  }
}

/** A stream whose first token is there. */
interface Opened {
  readonly candidate: Candidate
  readonly dialect: Dialect
  readonly head: ProviderStream
  readonly reader: StreamReader
  /** What came up to the first token. */
  readonly frames: ReadonlyArray<Frame>
  readonly attempt: Attempt
  readonly scope: Scope.Closeable
}

/** Who answers: the model as the provider itself names it, with its date or whatever else it adds. */
const answererOf = ({ model, provider }: ModelRef, said: string): ModelRef => ({
  provider,
  model: said === "" ? model : said
})

/** What a stream says that its model is. */
const modelIn = (frames: ReadonlyArray<Frame>): string => {
  const started = frames.flatMap(({ events }) => events).find(({ _tag }) => _tag === "Started")
  return started?._tag === "Started" ? started.model : ""
}

interface Frame {
  readonly wire: WireEvent
  readonly events: ReadonlyArray<StreamEvent>
}

const nowSeconds = Effect.map(Clock.currentTimeMillis, (now) => Math.floor(now / 1000))

/** All that an answer says, in text or as a tool's arguments. */
const saidIn = (parts: Answer["parts"]): string =>
  parts
    .map((part) => (part._tag === "ToolCall" ? part.arguments : part._tag === "Image" ? "" : part.text))
    .join(" ")

/** The same of a piece of a stream. */
const pieceOf = (event: StreamEvent): string =>
  event._tag === "Text" || event._tag === "Refusal" || event._tag === "Reasoning"
    ? event.text
    : event._tag === "ToolArguments"
      ? event.json
      : ""

const isToken = ({ _tag }: StreamEvent) =>
  _tag === "Text" ||
  _tag === "Reasoning" ||
  _tag === "Refusal" ||
  _tag === "ToolCall" ||
  _tag === "Stopped" ||
  _tag === "Ended"

const inBand = (event: StreamEvent & { readonly _tag: "Failed" }, { scrub }: ProviderClient) =>
  faultOf("InBand", scrub(event.message), {
    type: event.type === null ? null : scrub(event.type),
    code: event.code === null ? null : scrub(event.code)
  })

/** Reads a batch up to the first thing that is wrong. */
const readFrames = (reader: StreamReader, batch: ReadonlyArray<WireEvent>, client: ProviderClient) => {
  const frames: Array<Frame> = []
  for (const wire of batch) {
    const read = reader.read(wire)
    if (Result.isFailure(read)) return { frames, fault: faultOf("Malformed", read.failure) }
    const events = read.success
    for (const event of events) if (event._tag === "Failed") return { frames, fault: inBand(event, client) }
    frames.push({ wire, events })
  }
  return { frames, fault: undefined }
}

/** The candidate whose turn it is, in a plan. */
class CurrentCandidate extends Context.Service<CurrentCandidate, Candidate>()(
  "agent-army/services/LlmGateway/CurrentCandidate"
) {}

type Settled<A> =
  | { readonly _tag: "Answered"; readonly value: A }
  | { readonly _tag: "Refused"; readonly ref: ModelRef; readonly fault: ProviderFault }

const pause = Schedule.exponential(FIRST_PAUSE).pipe(
  Schedule.jittered,
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, LONGEST_PAUSE))),
  Schedule.setInputType<ProviderFault>(),
  Schedule.passthrough,
  // What the provider asks for, and a little more, so that those who were sent away together don't come back together.
  Schedule.modifyDelay(({ duration, output }) =>
    Effect.succeed(
      output.retryAfterMillis === undefined
        ? duration
        : Duration.sum(Duration.millis(output.retryAfterMillis), Duration.times(duration, 0.25))
    )
  )
)

const refusal = (ref: ModelRef, fault: ProviderFault) =>
  new ProviderRefused({
    status: fault.status ?? 400,
    provider: ref.provider,
    message: fault.message,
    type: fault.type,
    code: fault.code,
    param: fault.param
  })

/**
 * Asks providers in order until one answers, and survives what can be survived. It knows no tenant: whose keys, models and
 * prices there are is told with each call.
 */
export class LlmGateway extends Context.Service<
  LlmGateway,
  {
    readonly complete: (call: GatewayCall) => Effect.Effect<
      Head & {
        readonly body: JsonObject
        readonly answer: Answer
        readonly summary: Summary
        /** Whether `watch` saw what it looked for. */
        readonly leaked: boolean
      },
      GatewayFailure
    >
    /** Returns with the first token. What fails later is told in the stream, or resumed. The scope's end cancels. */
    readonly stream: (
      call: GatewayCall
    ) => Effect.Effect<Head & { readonly events: Stream.Stream<WireEvent> }, GatewayFailure, Scope.Scope>
    readonly plain: (call: PlainCall) => Effect.Effect<Head & { readonly body: JsonObject }, GatewayFailure>
  }
>()("agent-army/services/LlmGateway") {
  static readonly layer = (timeouts: GatewayTimeouts) =>
    Layer.effect(LlmGateway, make(timeouts)).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))
}

const make = Effect.fnUntraced(function* (timeouts: GatewayTimeouts) {
  const breaker = yield* CircuitBreaker.make({
    tripPolicy: TRIP,
    openDuration: OPEN_FOR,
    maxOpenDuration: OPEN_FOR_AT_MOST
  })
  yield* Effect.forkScoped(Effect.repeat(watchEndings, Schedule.spaced(ENDINGS_EVERY)))

  const circuitOf = ({ client, ref }: Candidate, circuit: string) =>
    `${circuit}:${modelName(ref)}:${client.keyDigest}`

  const alarm = ({ client, ref }: Candidate, fault: ProviderFault) =>
    Effect.andThen(
      countAlarm(ref, describeFault(fault)),
      Effect.logError(
        `An LLM provider refuses ${client.own ? "a tenant's own key" : "the platform"}: ${describeFault(fault)}`
      ).pipe(Effect.annotateLogs({ model: modelName(ref), provider_request_id: fault.requestId ?? "none" }))
    )

  /** One attempt, unless its circuit is open. */
  const behindBreaker = <A, R>(
    circuit: string,
    candidate: Candidate,
    attempt: Effect.Effect<A, ProviderFault, R>
  ) =>
    breaker
      .execute(attempt, {
        key: circuitOf(candidate, circuit),
        classify: (exit: Exit.Exit<A, ProviderFault>) => {
          if (Exit.isSuccess(exit)) return CircuitBreaker.success
          const fault = Arr.head(exit.cause.reasons.filter(Cause.isFailReason))
          return fault._tag === "Some" && isUnwell(fault.value.error)
            ? CircuitBreaker.failure({ retryAfter: fault.value.error.retryAfterMillis })
            : CircuitBreaker.ignored
        }
      })
      .pipe(
        Effect.catchTag("CircuitBreakerError", () =>
          Effect.fail(faultOf("CircuitOpen", "The provider failed too often"))
        )
      )

  /**
   * Asks the candidates in order. The plan carries the order alone: its steps' own schedules pause before the first
   * attempt too, and test the step before's error.
   */
  const ask = <A, R>(
    circuit: string,
    candidates: Arr.NonEmptyReadonlyArray<Candidate>,
    until: number,
    attempt: (candidate: Candidate, retry: number) => Effect.Effect<A, ProviderFault, R>
  ): Effect.Effect<A, GatewayFailure, R> =>
    Effect.suspend(() => {
      const failures: Array<readonly [ModelRef, ProviderFault]> = []

      const step = Effect.gen(function* () {
        const candidate = yield* CurrentCandidate
        const { ref } = candidate
        let retry = 0
        const once = Effect.flatMap(Clock.currentTimeMillis, (now) =>
          now >= until
            ? Effect.fail(faultOf("TimeUp", "The caller's time is up"))
            : behindBreaker(circuit, candidate, attempt(candidate, retry++))
        )
        return yield* once.pipe(
          Effect.retry({
            schedule: pause,
            times: timeouts.maxRetries,
            while: (fault) =>
              Effect.map(Clock.currentTimeMillis, (now) => {
                const wait = fault.retryAfterMillis ?? 0
                return (
                  remedyOf(fault) === "Retry" &&
                  wait <= Duration.toMillis(LONGEST_RETRY_AFTER) &&
                  now + wait < until
                )
              })
          }),
          Effect.map((value): Settled<A> => ({ _tag: "Answered", value })),
          Effect.catch((fault) => {
            failures.push([ref, fault])
            const remedy = remedyOf(fault)
            const callersOwn = candidates.length === 1 && isCallersOwn(fault)
            // Settled as a value: a plan would go on to the next step.
            if (remedy === "Return" || callersOwn) {
              return Effect.succeed<Settled<A>>({ _tag: "Refused", ref, fault })
            }
            return Effect.andThen(
              remedy === "Alarm" ? alarm(candidate, fault) : Effect.void,
              Effect.fail(fault)
            )
          })
        )
      })

      const stepOf = (candidate: Candidate) => ({ provide: Context.make(CurrentCandidate, candidate) })
      const [first, ...others] = candidates
      return Effect.withExecutionPlan(step, ExecutionPlan.make(stepOf(first), ...others.map(stepOf))).pipe(
        Effect.mapError(
          () =>
            // One that could not be paid for might have answered.
            failures.find(([, { unpaid }]) => unpaid !== undefined)?.[1].unpaid ??
            new ProviderUnavailable({
              detail: failures.map(([ref, fault]) => `${modelName(ref)}: ${describeFault(fault)}`).join("; ")
            })
        ),
        Effect.flatMap((settled): Effect.Effect<A, GatewayFailure> =>
          settled._tag === "Answered"
            ? Effect.succeed(settled.value)
            : Effect.fail(refusal(settled.ref, settled.fault))
        )
      )
    })

  const endOf = (deadline: Duration.Duration | undefined) =>
    Effect.map(
      Clock.currentTimeMillis,
      (now) => now + Duration.toMillis(deadline === undefined ? MOST_TIME : Duration.min(deadline, MOST_TIME))
    )

  const within = (limit: Duration.Duration, until: number, now: number) =>
    Duration.min(limit, Duration.millis(Math.max(1, until - now)))

  /**
   * Runs one attempt in a scope of its own: its failure ends the provider's call at once, its record is written whoever ends
   * it. Where `use` succeeds the scope stays open, as a part of the caller's.
   */
  const attempted = Effect.fnUntraced(function* <A>(
    call: Ask,
    opening: AttemptOpening,
    use: (attempt: Attempt, scope: Scope.Closeable) => Effect.Effect<A, ProviderFault, Scope.Scope>,
    limit: Duration.Duration,
    until: number
  ) {
    const now = yield* Clock.currentTimeMillis
    const outer = yield* Effect.scope
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        const entry = yield* Effect.mapError(call.open(opening), (unpaid) =>
          faultOf("Unaffordable", unpaid.detail ?? "Nobody pays for it", { unpaid })
        )
        const attempt = new Attempt(opening, entry, now)
        const scope = yield* Scope.fork(outer)
        yield* Scope.addFinalizer(scope, attempt.close("cancelled"))
        return yield* restore(
          use(attempt, scope).pipe(
            Scope.provide(scope),
            Effect.timeoutOrElse({
              duration: within(limit, until, now),
              orElse: () => Effect.fail(faultOf("Silent", "Nothing came in time"))
            })
          )
        ).pipe(
          Effect.tapError((fault) => attempt.failed(fault)),
          Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
        )
      })
    )
  })

  const openStream = (
    call: GatewayCall,
    candidate: Candidate,
    retry: number,
    until: number,
    soFar: string
  ) => {
    const { dialect, ...request } = requestOf(call, candidate, true, soFar)
    return attempted(
      call,
      {
        operation: "chat",
        asked: call.asked,
        ref: candidate.ref,
        retry,
        streamed: true,
        resumed: soFar !== "",
        ownKey: candidate.client.own,
        estimatedInput: estimateInput(call.conversation),
        reached: reachOf("chat")
      },
      Effect.fnUntraced(function* (attempt, scope) {
        const head = yield* candidate.client.stream({ ...request, timeout: timeouts.firstToken })
        attempt.begun(head)
        const reader = codecOf[dialect].reader()
        const frames: Array<Frame> = []
        for (;;) {
          // The attempt's own limit ends it first.
          const batch = yield* head.read(MOST_TIME)
          if (batch === undefined) return yield* faultOf("Cut", "The stream ended before its first token")
          const read = readFrames(reader, batch, candidate.client)
          attempt.saw(
            read.frames.flatMap(({ events }) => events),
            yield* Clock.currentTimeMillis
          )
          frames.push(...read.frames)
          const begun = frames.some(({ events }) => events.some(isToken))
          // With a token before it, it is for the stream to deal with.
          if (read.fault !== undefined && !begun) return yield* read.fault
          if (begun) {
            const opened: Opened = { candidate, dialect, head, reader, frames, attempt, scope }
            return { opened, fault: read.fault }
          }
        }
      }),
      timeouts.firstToken,
      until
    )
  }

  const stream = Effect.fn("LlmGateway.stream")(function* (call: GatewayCall) {
    const until = yield* endOf(call.deadline)
    const first = yield* ask(call.circuit, call.candidates, until, (candidate, retry) =>
      openStream(call, candidate, retry, until, "")
    )
    const scope = yield* Effect.scope
    const { candidate, head } = first.opened
    const created = yield* nowSeconds
    return {
      answeredBy: answererOf(candidate.ref, modelIn(first.opened.frames)),
      headers: headersFor(candidate.client, head.headers),
      events: Stream.fromPull(Effect.succeed(answerOf(call, first, created, scope)))
    }
  })

  /** The rest of a stream whose first token is there, to its end or failure. */
  const answerOf = (
    call: GatewayCall,
    first: { readonly opened: Opened; readonly fault: ProviderFault | undefined },
    created: number,
    scope: Scope.Scope
  ): Pull.Pull<Arr.NonEmptyReadonlyArray<WireEvent>> => {
    const writer = codecOf[call.dialect].writer({ usage: call.usageAsked, created })
    let current = first.opened
    let waiting: ReadonlyArray<Frame> = current.frames
    let fault = first.fault
    let asIs = current.dialect === call.dialect
    let resumed = false
    let over = false
    let text = ""
    /** A tool's call or a refusal, which nobody can go on with. */
    let isFinal = false
    /** The words of a provider that goes on, as they follow the text so far. */
    let join = (piece: string): string => piece
    let usageBefore = noUsage
    let costBefore: string | null = "0"
    let giveUpAt: number | undefined
    const watcher = call.watch?.watcher()
    let leaked = false
    // Whoever comes after the one that answers, then the others once more: in a group of one it is asked again.
    const turn = call.candidates.findIndex((candidate) => candidate === current.candidate)
    let queue = [...call.candidates.slice(turn + 1), ...call.candidates.slice(0, turn + 1)]

    const costSoFar = () => {
      const { usage } = current.attempt.usage
      return {
        usage: addUsage(usageBefore, usage),
        costUsd: sumCosts(costBefore, call.costOf(current.candidate.ref, usage))
      }
    }

    const finish = Effect.suspend(() => {
      over = true
      const summary = call.summary({
        answeredBy: answererOf(current.candidate.ref, modelIn(current.frames)),
        ...costSoFar(),
        resumed,
        created,
        leaked
      })
      return Effect.as(
        Effect.andThen(current.attempt.close("ok"), Scope.close(current.scope, Exit.void)),
        writer.end(summary)
      )
    })

    const writeEvent = (event: StreamEvent): ReadonlyArray<WireEvent> => {
      if (event._tag !== "Text") return writer.write(event)
      const said = join(event.text)
      if (said === "") return []
      text += said
      return writer.write({ _tag: "Text", text: said })
    }

    const passOn = ({ events, wire }: Frame): ReadonlyArray<WireEvent> => {
      for (const event of events) if (event._tag === "ToolCall" || event._tag === "Refusal") isFinal = true
      if (!asIs) return events.flatMap(writeEvent)
      for (const event of events) if (event._tag === "Text") text += event.text
      const ended = events.some(({ _tag }) => _tag === "Ended")
      // An end without the usage that was asked for: the writer's has it.
      if (ended && call.usageAsked && current.attempt.usage.estimated) return []
      writer.adopt(events, wire)
      if (call.usageAsked || call.dialect !== "openai-chat") return [wire]
      const stripped = withoutUsage(wire)
      return stripped === undefined ? [] : [stripped]
    }

    const failWith = (problem: Omit<WireProblem, "requestId">) =>
      Effect.sync(() => {
        over = true
        return writer.fail({ ...problem, requestId: call.requestId })
      })

    const fail = (detail: string) =>
      failWith({ status: 502, code: "ProviderUnavailable", type: null, message: detail, param: null })

    const broke = Effect.fnUntraced(function* (fault: ProviderFault) {
      const { attempt, candidate } = current
      // Nothing of the answer is missing.
      if (attempt.stopped) return yield* finish
      const detail = `${modelName(candidate.ref)}: ${describeFault(fault)}`
      yield* attempt.close("failed", fault)
      yield* Scope.close(current.scope, Exit.fail(fault))
      yield* Effect.ignore(behindBreaker(call.circuit, candidate, Effect.fail(fault)))
      const { costUsd, usage } = costSoFar()
      usageBefore = usage
      costBefore = costUsd
      const now = yield* Clock.currentTimeMillis
      if (!call.resume || isFinal || !Arr.isArrayNonEmpty(queue) || now >= (giveUpAt ?? now + 1)) {
        return yield* fail(`The answer broke off. ${detail}`)
      }
      const until = yield* endOf(call.deadline)
      const next = yield* ask(call.circuit, queue, until, (candidate, retry) =>
        openStream(call, candidate, retry, until, text)
      ).pipe(Effect.provideService(Scope.Scope, scope), Effect.result)
      if (Result.isFailure(next)) {
        const why =
          next.failure._tag === "ProviderRefused" ? "the next provider refused" : next.failure.detail
        return yield* fail(`The answer broke off. ${detail}; ${why}`)
      }
      const { opened } = next.success
      queue = queue.slice(queue.indexOf(opened.candidate) + 1)
      current = opened
      waiting = opened.frames
      asIs = false
      resumed = true
      join = makeContinuation(text).join
      resumeFault(next.success.fault)
      return []
    })

    const resumeFault = (found: ProviderFault | undefined) => {
      fault = found
    }

    /** Whether these frames are the first that complete what must not be in the answer. */
    const nowLeaks = (frames: ReadonlyArray<Frame>): boolean => {
      if (watcher === undefined || leaked) return false
      for (const { events } of frames) for (const event of events) leaked = watcher.push(pieceOf(event))
      return leaked
    }

    const cutOff = Effect.fnUntraced(function* (problem: Omit<WireProblem, "requestId">) {
      yield* current.attempt.close("cancelled")
      yield* Scope.close(current.scope, Exit.fail("cut off"))
      return yield* failWith(problem)
    })

    const take = (frames: ReadonlyArray<Frame>): Effect.Effect<ReadonlyArray<WireEvent>> => {
      if (nowLeaks(frames) && call.watch !== undefined) {
        const { onLeak, problem } = call.watch
        return Effect.andThen(onLeak, problem === undefined ? passAll(frames) : cutOff(problem))
      }
      return passAll(frames)
    }

    const passAll = (frames: ReadonlyArray<Frame>): Effect.Effect<ReadonlyArray<WireEvent>> => {
      const out = frames.flatMap(passOn)
      return frames.some(({ events }) => events.some(({ _tag }) => _tag === "Ended"))
        ? Effect.map(finish, (end) => [...out, ...end])
        : Effect.succeed(out)
    }

    const read = Effect.suspend(() => {
      const { attempt, candidate, head, reader } = current
      return head.read(timeouts.chunk).pipe(
        Effect.flatMap((batch) =>
          batch === undefined ? Effect.fail(faultOf("Cut", "The stream ended early")) : Effect.succeed(batch)
        ),
        Effect.matchEffect({
          onFailure: broke,
          onSuccess: (batch) =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => {
              giveUpAt ??= now + Duration.toMillis(MOST_STREAM_TIME)
              const found = readFrames(reader, batch, candidate.client)
              attempt.saw(
                found.frames.flatMap(({ events }) => events),
                now
              )
              fault = now >= giveUpAt ? faultOf("Stalled", "The stream took too long") : found.fault
              return take(found.frames)
            })
        })
      )
    })

    const step = Effect.suspend((): Effect.Effect<ReadonlyArray<WireEvent>> => {
      if (waiting.length > 0) {
        const frames = waiting
        waiting = []
        return take(frames)
      }
      if (fault !== undefined) {
        const found = fault
        fault = undefined
        return broke(found)
      }
      return read
    })

    return Effect.suspend(function next(): Pull.Pull<Arr.NonEmptyReadonlyArray<WireEvent>> {
      return over
        ? Cause.done()
        : Effect.flatMap(step, (events) =>
            Arr.isReadonlyArrayNonEmpty(events) ? Effect.succeed(events) : Effect.suspend(next)
          )
    })
  }

  const complete = Effect.fn("LlmGateway.complete")(function* (call: GatewayCall) {
    const until = yield* endOf(call.deadline)
    return yield* ask(call.circuit, call.candidates, until, (candidate, retry) => {
      const { dialect, ...request } = requestOf(call, candidate, false, "")
      return attempted(
        call,
        {
          operation: "chat",
          asked: call.asked,
          ref: candidate.ref,
          retry,
          streamed: false,
          resumed: false,
          ownKey: candidate.client.own,
          estimatedInput: estimateInput(call.conversation),
          reached: reachOf("chat")
        },
        Effect.fnUntraced(function* (attempt) {
          const { headers, json, requestId, status } = yield* candidate.client.json({
            ...request,
            timeout: timeouts.answer
          })
          attempt.begun({ status, requestId })
          const decoded = codecOf[dialect].decodeAnswer(json)
          if (Result.isFailure(decoded)) return yield* faultOf("Malformed", decoded.failure)
          const answer = decoded.success
          const text = answer.usage === undefined ? JSON.stringify(answer.parts) : ""
          attempt.answered(answer.usage, text, yield* Clock.currentTimeMillis)
          const { usage } = attempt.usage
          const created = yield* nowSeconds
          const leaked = call.watch?.watcher().push(saidIn(answer.parts)) ?? false
          if (leaked) yield* call.watch?.onLeak ?? Effect.void
          const answeredBy = answererOf(candidate.ref, answer.model)
          const summary = call.summary({
            answeredBy,
            usage,
            costUsd: call.costOf(candidate.ref, usage),
            resumed: false,
            created,
            leaked
          })
          yield* attempt.close("ok")
          return {
            answeredBy,
            headers: headersFor(candidate.client, headers),
            body: dialect === call.dialect ? json : codecOf[call.dialect].encodeAnswer(answer, summary),
            answer,
            summary,
            leaked
          }
        }),
        timeouts.answer,
        until
      )
    })
  }, Effect.scoped)

  const plain = Effect.fn("LlmGateway.plain")(function* (call: PlainCall) {
    const until = yield* endOf(call.deadline)
    return yield* ask(call.circuit, call.candidates, until, (candidate, retry) =>
      attempted(
        call,
        {
          operation: call.operation,
          asked: call.asked,
          ref: candidate.ref,
          retry,
          streamed: false,
          resumed: false,
          ownKey: candidate.client.own,
          estimatedInput: call.estimatedInput,
          reached: reachOf(call.operation)
        },
        Effect.fnUntraced(function* (attempt) {
          const { headers, json, requestId, status } = yield* candidate.client.json({
            path: call.path,
            body: call.identify({ ...call.body, model: candidate.ref.model }, call.dialect, candidate.client),
            headers: call.headers,
            timeout: timeouts.answer
          })
          attempt.begun({ status, requestId })
          attempt.answered(call.usageOf(json), "", yield* Clock.currentTimeMillis)
          yield* attempt.close("ok")
          return { answeredBy: candidate.ref, headers: headersFor(candidate.client, headers), body: json }
        }),
        timeouts.answer,
        until
      )
    )
  }, Effect.scoped)

  return LlmGateway.of({ complete, stream, plain })
})

/** Tells of models that will be gone. */
const watchEndings = Effect.gen(function* () {
  for (const { days, name } of endingModels(yield* Clock.currentTimeMillis)) yield* setModelEnd(name, days)
})

/** Whether the caller of a chat stream wants its usage. */
export const asksForUsage = (dialect: Dialect, body: JsonObject): boolean =>
  dialect !== "openai-chat" || jsonAt(body, "stream_options", "include_usage") === true
