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
  Metric,
  Option,
  Redacted,
  Result,
  Schedule,
  Scope,
  Stream
} from "effect"
import { CircuitBreaker } from "effect/persistence"
import { hash } from "node:crypto"
import { announcedEnds, knownModels } from "../../domain/ModelGroups.ts"
import type { Dialect, ModelRef, TokenUsage } from "../../domain/Llm.ts"
import { ProviderRefused } from "../../domain/Llm.ts"
import { ProviderUnavailable } from "../../domain/Problems.ts"
import type { InvalidRequest } from "../../domain/Problems.ts"
import { addUsage, Attempt, noUsage } from "./Attempt.ts"
import type { AttemptRecord } from "./Attempt.ts"
import type { Answer, Conversation, JsonObject, StreamEvent, Summary, WireEvent } from "./Codec.ts"
import { codecOf } from "./Codecs.ts"
import { faultOf, reactionTo } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import { isObject, textOf } from "./Json.ts"
import { withoutUsage } from "./OpenAiChat.ts"
import { Providers, wireFor } from "./Providers.ts"
import type { ProviderResponse, Route } from "./Providers.ts"

/** Failures in a row after which a model is left alone for a while. */
const TRIPPED_BY = 20
const LEFT_ALONE = Duration.seconds(5)
/** The first wait before another attempt; each further one is twice as long, give or take a fifth. */
const FIRST_WAIT = Duration.millis(200)
/** A provider that asks for more than this is not waited for: the next one is there at once. */
const MOST_WAIT_MILLIS = 10_000
/** No call takes longer, whatever its caller says: so long as the vendors' own clients wait. */
const LONGEST = Duration.minutes(10)
/** How often a stream may go on with another provider. */
const MOST_TAKEOVERS = 3
const WARNED_DAYS_AHEAD = 60
const DAY_MILLIS = 86_400_000

const requests = Metric.counter("llm_requests_total", {
  description: "Attempts, by provider, model and how they ended",
  incremental: true
})
const durations = Metric.histogram("llm_request_duration_seconds", {
  description: "How long attempts took, in seconds",
  boundaries: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
})
const tokens = Metric.counter("llm_tokens_used_total", {
  description: "Tokens, by provider, model and kind",
  incremental: true
})
const alarms = Metric.counter("llm_provider_alarms_total", {
  description: "Faults that do not heal by themselves: a key refused, no credit, a model that is gone",
  incremental: true
})
const endings = Metric.gauge("llm_model_ends_in_days", {
  description: "Days until a model that was asked for ends, from 60 days ahead on"
})

/** Which models to ask, with the keys to ask them with. */
export interface Target extends ModelRef {
  readonly key: Redacted.Redacted<string>
}

export interface GatewayCall {
  readonly dialect: Dialect
  readonly body: JsonObject
  /** The body in no vendor's words; asked for only where somebody has to be spoken to in another dialect. */
  readonly conversation: Effect.Effect<Conversation, InvalidRequest>
  readonly headers: Readonly<Record<string, string>>
  /** As the caller named it. */
  readonly asked: string
  /** In the order of fallback. */
  readonly targets: Arr.NonEmptyReadonlyArray<Target>
  /** What to put into a request, by the dialect that a provider is spoken to in: whose it is. */
  readonly mark: (body: JsonObject, dialect: Dialect) => JsonObject
  readonly deadline: Duration.Duration | undefined
  readonly resume: boolean
  /** Called once for each attempt, whoever ended it. */
  readonly onAttempt: (record: AttemptRecord) => Effect.Effect<void>
  /** Called with what is known when the answer is over. */
  readonly summary: (known: Known) => Summary
}

/** What is known when an answer is over. `asked` is the model as our tables name it, which is what has a price. */
export interface Known extends Pick<Summary, "answeredBy" | "usage" | "resumed"> {
  readonly asked: ModelRef
}

export interface GatewayHead {
  readonly answeredBy: ModelRef
  readonly headers: Readonly<Record<string, string>>
}

export interface GatewayAnswer extends GatewayHead {
  readonly body: JsonObject
  readonly answer: Answer
  readonly summary: Summary
}

export interface GatewayStream extends GatewayHead {
  readonly events: Stream.Stream<WireEvent>
}

export type GatewayFailure = ProviderUnavailable | ProviderRefused | InvalidRequest

/** The model that a step of the plan asks. */
class CurrentTarget extends Context.Service<CurrentTarget, Target>()(
  "agent-army/services/llm/CurrentTarget"
) {}

const nameOf = ({ model, provider }: ModelRef) => `${provider}/${model}`

/** Labels that a caller can't multiply. */
const labelsOf = (target: ModelRef) => ({
  provider: target.provider,
  model: knownModels.has(nameOf(target)) ? target.model : "other"
})

const refusedBy = (target: ModelRef, fault: ProviderFault) =>
  new ProviderRefused({
    status: fault.status ?? 400,
    provider: target.provider,
    message: fault.message,
    type: fault.type,
    code: fault.code,
    param: fault.param
  })

const describe = ({ code, kind, status }: ProviderFault): string => {
  if (kind !== "status") return kind.replaceAll("_", " ")
  return code === null ? `status ${status}` : `status ${status}, ${code}`
}

/** A model's circuit: by its key too, since one tenant's bad key is not another's. Only what heals by waiting counts. */
const circuitOf = <A>(target: Target) => ({
  key: `${nameOf(target)}:${hash("sha256", Redacted.value(target.key), "hex").slice(0, 16)}`,
  classify: (exit: Exit.Exit<A, ProviderFault | InvalidRequest>): CircuitBreaker.Outcome => {
    if (Exit.isSuccess(exit)) return CircuitBreaker.success
    const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
    if (error?._tag !== "ProviderFault") return CircuitBreaker.ignored
    const counts = error.kind !== "status" || (error.status ?? 0) >= 500
    return counts ? CircuitBreaker.failure() : CircuitBreaker.ignored
  }
})

/** Who answered: the model as the provider itself names it, with its date or whatever else it adds. */
const answererOf = ({ model, provider }: ModelRef, said: string): ModelRef => ({
  provider,
  model: said === "" ? model : said
})

/** A stream that has said its first token. */
interface Begun {
  readonly target: Target
  readonly attempt: Attempt
  readonly response: ProviderResponse
  readonly scope: Scope.Closeable
  /** The next events, read and as they came; none at a whole end. */
  readonly next: Effect.Effect<Option.Option<ReadonlyArray<Read>>, ProviderFault>
  /** What came up to the first token. */
  readonly first: ReadonlyArray<Read>
  /** What the provider calls the model that answers. */
  readonly said: string
}

interface Read {
  readonly wire: WireEvent
  readonly events: ReadonlyArray<StreamEvent>
}

export interface GatewayTimes {
  /** Of one attempt that is no stream. */
  readonly attempt: Duration.Duration
  readonly firstToken: Duration.Duration
  readonly chunk: Duration.Duration
  /** Further attempts at one model, after the first. */
  readonly retries: number
}

/**
 * Asks models in order until one answers, and tells truthfully when none does. It knows no tenant. What follows from a
 * fault is one table (`Faults.ts`).
 */
export class LlmGateway extends Context.Service<
  LlmGateway,
  {
    readonly complete: (call: GatewayCall) => Effect.Effect<GatewayAnswer, GatewayFailure>
    /** Fails until the first token, unseen. The scope's end cancels the provider's call. */
    readonly stream: (call: GatewayCall) => Effect.Effect<GatewayStream, GatewayFailure, Scope.Scope>
    /** A request that goes through as it is, to the first model that takes it. */
    readonly pass: (
      call: GatewayCall,
      route: Route,
      usageOf: (body: JsonObject) => TokenUsage | undefined
    ) => Effect.Effect<GatewayHead & { readonly body: JsonObject; readonly summary: Summary }, GatewayFailure>
  }
>()("agent-army/services/llm/LlmGateway") {
  static readonly layer = (times: GatewayTimes) =>
    Layer.effect(
      LlmGateway,
      Effect.gen(function* () {
        const providers = yield* Providers
        const breaker = yield* CircuitBreaker.make({
          tripPolicy: CircuitBreaker.consecutive(TRIPPED_BY),
          openDuration: LEFT_ALONE
        })

        const now = Clock.currentTimeMillis

        const report = (call: GatewayCall, attempt: Attempt) =>
          Effect.gen(function* () {
            const record = attempt.record(yield* now)
            const labels = labelsOf(record.target)
            yield* Metric.update(Metric.withAttributes(requests, { ...labels, status: record.status }), 1)
            yield* Metric.update(Metric.withAttributes(durations, labels), record.latency / 1000)
            for (const [kind, count] of Object.entries(record.usage)) {
              if (count > 0) yield* Metric.update(Metric.withAttributes(tokens, { ...labels, kind }), count)
            }
            yield* call.onAttempt(record)
          })

        const warnOfEnd = (target: ModelRef) => {
          const end = announcedEnds[nameOf(target)]
          if (end === undefined) return Effect.void
          return Effect.flatMap(now, (millis) => {
            const days = Math.ceil((Date.parse(end) - millis) / DAY_MILLIS)
            return days > WARNED_DAYS_AHEAD
              ? Effect.void
              : Metric.update(
                  Metric.withAttributes(endings, { provider: target.provider, model: target.model }),
                  days
                )
          })
        }

        const raiseAlarm = (target: ModelRef, fault: ProviderFault) =>
          Effect.andThen(
            Metric.update(
              Metric.withAttributes(alarms, { ...labelsOf(target), status: String(fault.status ?? 0) }),
              1
            ),
            Effect.logError("An LLM provider needs attention").pipe(
              Effect.annotateLogs({ ...labelsOf(target), status: fault.status ?? 0 })
            )
          )

        /**
         * Runs `use` against one model after the other: `retry` waits and asks again, `next` goes on. What is the caller's
         * own fault comes out as a success of the plan, so that nobody else is asked.
         */
        const inOrder = <A>(
          call: GatewayCall,
          targets: Arr.NonEmptyReadonlyArray<Target>,
          endsAt: number,
          use: (target: Target) => Effect.Effect<A, ProviderFault | InvalidRequest>
        ): Effect.Effect<A, GatewayFailure> =>
          Effect.gen(function* () {
            const failed = new Map<string, ProviderFault>()
            let gone: ProviderRefused | undefined
            const attemptAt = Effect.fnUntraced(function* (
              target: Target
            ): Effect.fn.Return<Result.Result<A, GatewayFailure>, ProviderFault> {
              const result = yield* Effect.result(use(target).pipe(breaker.execute(circuitOf<A>(target))))
              if (Result.isSuccess(result)) return Result.succeed(result.success)
              const error = result.failure
              if (error._tag === "InvalidRequest") return Result.fail(error)
              const fault =
                error._tag === "ProviderFault" ? error : faultOf("circuit_open", "It failed too often lately")
              const reaction = reactionTo(fault)
              if (reaction === "return") return Result.fail(refusedBy(target, fault))
              if (reaction === "alarm") yield* raiseAlarm(target, fault)
              if (fault.status === 404) gone = refusedBy(target, fault)
              failed.set(nameOf(target), fault)
              return yield* fault
            })
            const isRetried = (fault: ProviderFault): boolean =>
              reactionTo(fault) === "retry" && (fault.retryAfterMillis ?? 0) <= MOST_WAIT_MILLIS
            // The wait is the provider's own where it named one.
            const schedule = Schedule.exponential(FIRST_WAIT).pipe(
              Schedule.jittered,
              Schedule.setInputType<ProviderFault>(),
              Schedule.modifyDelay(({ duration, input }) =>
                Effect.succeed(
                  input.retryAfterMillis === null ? duration : Duration.millis(input.retryAfterMillis)
                )
              )
            )
            // Retries are inside of a step: a step's own `schedule` and `while` would be asked about the failure of the step
            // before it, so that the next model would wait as long as the last one asked for, or never be asked.
            const [first, ...rest] = Arr.map(targets, (target) => ({
              provide: Context.make(CurrentTarget, target),
              attempts: 1
            }))
            const plan = ExecutionPlan.make(first, ...rest)
            const one = Effect.gen(function* () {
              const target = yield* CurrentTarget
              yield* warnOfEnd(target)
              return yield* Effect.retry(attemptAt(target), {
                schedule,
                while: isRetried,
                times: times.retries
              })
            })
            const left = Duration.millis(Math.max(0, endsAt - (yield* now)))
            const outcome = yield* Effect.withExecutionPlan(one, plan).pipe(
              Effect.timeoutOption(left),
              Effect.catchTag("ProviderFault", () => Effect.succeed(Option.none()))
            )
            if (Option.isSome(outcome)) {
              return yield* Effect.fromResult(outcome.value)
            }
            // Nobody else could answer either: then the truth is that there is no such model.
            if (gone !== undefined && failed.size === targets.length) return yield* gone
            const told = [...failed].map(([name, fault]) => `${name}: ${describe(fault)}`)
            return yield* new ProviderUnavailable({
              detail: told.length === 0 ? `${call.asked}: no answer in time` : told.join("; ")
            })
          })

        /** The request in the words of the provider that gets it. */
        const bodyFor = (call: GatewayCall, target: Target, stream: boolean, soFar: string | undefined) =>
          Effect.gen(function* () {
            const wire = wireFor(target.provider, call.dialect)
            const codec = codecOf[wire]
            const body =
              wire === call.dialect
                ? codec.forModel(call.body, target.model, stream)
                : codec.encodeRequest(yield* call.conversation, target.model, stream)
            const marked = call.mark(body, wire)
            return { wire, body: soFar === undefined ? marked : codec.continueFrom(marked, soFar) }
          })

        const attemptOf = (
          call: GatewayCall,
          target: Target,
          options: { streamed: boolean; resumed: boolean }
        ) =>
          Effect.flatMap(now, (startedAt) =>
            Effect.acquireRelease(
              Effect.sync(
                () =>
                  new Attempt({
                    asked: call.asked,
                    target: { provider: target.provider, model: target.model },
                    startedAt,
                    promptCharacters: JSON.stringify(call.body).length,
                    ...options
                  })
              ),
              (attempt) => report(call, attempt)
            )
          )

        /** Headers go on to a provider that speaks as the caller does. */
        const headersFor = (call: GatewayCall, wire: Dialect) => {
          if (wire !== call.dialect) return {}
          // The version is the SDK's: what we send is written for it.
          const { "anthropic-version": _, ...rest } = call.headers
          return rest
        }

        const endOf = (call: GatewayCall) =>
          Effect.map(now, (millis) => {
            const most = Duration.toMillis(LONGEST)
            return (
              millis + Math.min(most, call.deadline === undefined ? most : Duration.toMillis(call.deadline))
            )
          })

        const begin = (
          call: GatewayCall,
          target: Target,
          parent: Scope.Scope,
          soFar: string | undefined
        ): Effect.Effect<Begun, ProviderFault | InvalidRequest> =>
          Effect.uninterruptibleMask((restore) =>
            Effect.gen(function* () {
              const scope = yield* Scope.fork(parent)
              const exit = yield* restore(
                Effect.gen(function* () {
                  const { body, wire } = yield* bodyFor(call, target, true, soFar)
                  const attempt = yield* attemptOf(call, target, {
                    streamed: true,
                    resumed: soFar !== undefined
                  })
                  return yield* opened(call, target, scope, attempt, wire, body).pipe(
                    Effect.timeoutOrElse({
                      duration: times.firstToken,
                      orElse: () => Effect.fail(faultOf("silent", "No token in time"))
                    }),
                    Effect.tapError((fault) => Effect.sync(() => attempt.failed(fault)))
                  )
                }).pipe(Effect.provideService(Scope.Scope, scope))
              ).pipe(Effect.exit)
              if (Exit.isFailure(exit)) yield* Scope.close(scope, exit)
              return yield* exit
            })
          )

        const opened = (
          call: GatewayCall,
          target: Target,
          scope: Scope.Closeable,
          attempt: Attempt,
          wire: Exclude<Dialect, "native">,
          body: JsonObject
        ): Effect.Effect<Begun, ProviderFault, Scope.Scope> =>
          Effect.gen(function* () {
            const response = yield* providers.send({
              provider: target.provider,
              route: wire,
              key: target.key,
              body,
              headers: headersFor(call, wire)
            })
            attempt.providerRequestId = response.requestId
            const reader = codecOf[wire].reader()
            let stopped = false
            let isOver = false
            /** Found behind events that are good: told after them. */
            let pending: ProviderFault | undefined
            const next: Begun["next"] = Effect.gen(function* () {
              if (pending !== undefined) return yield* pending
              if (isOver) return Option.none()
              const pulled = yield* response.pull.pipe(
                // Everything was said but the end mark.
                Effect.catchTag("ProviderFault", (fault) =>
                  stopped ? Effect.succeed(Option.none()) : Effect.fail(fault)
                )
              )
              if (Option.isNone(pulled)) {
                if (stopped) return Option.none()
                return yield* faultOf("cut", "The stream ended before the answer did")
              }
              const millis = yield* now
              const read: Array<Read> = []
              for (const event of pulled.value) {
                const events = reader.read(event)
                if (Result.isFailure(events)) {
                  pending = faultOf("malformed", events.failure)
                  break
                }
                const failure = events.success.find((one) => one._tag === "Failed")
                if (failure !== undefined) {
                  const { code, message, type } = failure
                  const fault = faultOf("in_band", message)
                  pending = Object.assign(fault, { code, type })
                  break
                }
                for (const one of events.success) {
                  attempt.saw(one, millis)
                  if (one._tag === "Stopped") stopped = true
                  if (one._tag === "Ended") isOver = true
                }
                read.push({ wire: event, events: events.success })
              }
              if (read.length === 0 && pending !== undefined) return yield* pending
              return Option.some(read)
            })
            const first: Array<Read> = []
            // An answer may be empty: then its end is what comes first.
            while (true) {
              const read = yield* next
              if (Option.isNone(read)) break
              first.push(...read.value)
              if (attempt.hasFirstToken || stopped) break
            }
            const started = first.flatMap(({ events }) => events).find(({ _tag }) => _tag === "Started")
            const said = started?._tag === "Started" ? started.model : ""
            return { target, attempt, response, scope, next, first, said }
          })

        const summarized = (
          call: GatewayCall,
          attempts: ReadonlyArray<Attempt>,
          target: ModelRef,
          said: string
        ) =>
          call.summary({
            asked: target,
            answeredBy: answererOf(target, said),
            usage: attempts.reduce((sum, attempt) => addUsage(sum, attempt.usage), noUsage),
            resumed: attempts.length > 1
          })

        return LlmGateway.of({
          complete: Effect.fn("LlmGateway.complete")(function* (call) {
            const endsAt = yield* endOf(call)
            return yield* inOrder(call, call.targets, endsAt, (target) =>
              Effect.scoped(
                Effect.gen(function* () {
                  const { body, wire } = yield* bodyFor(call, target, false, undefined)
                  const attempt = yield* attemptOf(call, target, { streamed: false, resumed: false })
                  return yield* Effect.gen(function* () {
                    const response = yield* providers.send({
                      provider: target.provider,
                      route: wire,
                      key: target.key,
                      body,
                      headers: headersFor(call, wire)
                    })
                    attempt.providerRequestId = response.requestId
                    const json = yield* response.json
                    const decoded = codecOf[wire].decodeAnswer(json)
                    if (Result.isFailure(decoded)) return yield* faultOf("malformed", decoded.failure)
                    const answer = decoded.success
                    attempt.answered(answer.usage, charactersOf(answer))
                    const summary = summarized(call, [attempt], target, answer.model)
                    return {
                      answeredBy: summary.answeredBy,
                      headers: response.headers,
                      answer,
                      summary,
                      body: wire === call.dialect ? json : codecOf[call.dialect].encodeAnswer(answer, summary)
                    }
                  }).pipe(
                    Effect.timeoutOrElse({
                      duration: times.attempt,
                      orElse: () => Effect.fail(faultOf("silent", "No answer in time"))
                    }),
                    Effect.tapError((fault) => Effect.sync(() => attempt.failed(fault)))
                  )
                })
              )
            )
          }),

          stream: Effect.fn("LlmGateway.stream")(function* (call) {
            const endsAt = yield* endOf(call)
            const scope = yield* Scope.Scope
            const begun = yield* inOrder(call, call.targets, endsAt, (target) =>
              begin(call, target, scope, undefined)
            )
            return {
              answeredBy: answererOf(begun.target, begun.said),
              headers: begun.response.headers,
              events: eventsOf(call, begun, scope, endsAt)
            }
          }),

          pass: Effect.fn("LlmGateway.pass")(function* (call, route, usageOf) {
            const endsAt = yield* endOf(call)
            return yield* inOrder(call, call.targets, endsAt, (target) =>
              Effect.scoped(
                Effect.gen(function* () {
                  const attempt = yield* attemptOf(call, target, { streamed: false, resumed: false })
                  return yield* Effect.gen(function* () {
                    const response = yield* providers.send({
                      provider: target.provider,
                      route,
                      key: target.key,
                      body: call.mark({ ...call.body, model: target.model }, call.dialect),
                      headers: headersFor(call, call.dialect)
                    })
                    attempt.providerRequestId = response.requestId
                    const body = yield* response.json
                    attempt.answered(usageOf(body), 0)
                    const summary = summarized(call, [attempt], target, textOf(body["model"]) ?? "")
                    return { answeredBy: summary.answeredBy, headers: response.headers, body, summary }
                  }).pipe(
                    Effect.timeoutOrElse({
                      duration: times.attempt,
                      orElse: () => Effect.fail(faultOf("silent", "No answer in time"))
                    }),
                    Effect.tapError((fault) => Effect.sync(() => attempt.failed(fault)))
                  )
                })
              )
            )
          })
        })

        function eventsOf(
          call: GatewayCall,
          begun: Begun,
          scope: Scope.Scope,
          endsAt: number
        ): Stream.Stream<WireEvent> {
          const dialect = call.dialect
          const options = isObject(call.body["stream_options"]) ? call.body["stream_options"] : {}
          const usageAsked = options["include_usage"] === true
          const writer = codecOf[dialect].writer({ usage: usageAsked })
          const attempts = [begun.attempt]
          let current = begun
          let ready: ReadonlyArray<Read> | undefined = begun.first
          let isUntouched = wireFor(begun.target.provider, dialect) === dialect
          let text = ""
          let hasTool = false
          let isOver = false
          /** White space at the end of the text so far, which a provider that goes on may say once more. */
          let overlap = ""

          const passed = ({ events, wire }: Read): ReadonlyArray<WireEvent> => {
            for (const event of events) {
              if (event._tag === "Text") text += event.text
              if (event._tag === "ToolCall") hasTool = true
            }
            if (isUntouched) {
              writer.adopt(events)
              const kept = dialect === "openai-chat" && !usageAsked ? withoutUsage(wire) : wire
              return kept === undefined ? [] : [kept]
            }
            return events.flatMap((event) => writer.write(event))
          }

          /** What a provider that goes on repeats of the white space it was not given is left out. */
          const joined = (read: Read): Read => {
            if (overlap === "") return read
            return {
              ...read,
              events: read.events.map((event) => {
                if (event._tag !== "Text" || overlap === "") return event
                const again = event.text.startsWith(overlap) ? overlap.length : 0
                overlap = ""
                return { ...event, text: event.text.slice(again) }
              })
            }
          }

          const takeOver = Effect.gen(function* () {
            const at = call.targets.indexOf(current.target)
            const after = call.targets.slice(at + 1)
            const targets: Arr.NonEmptyReadonlyArray<Target> = Arr.isReadonlyArrayNonEmpty(after)
              ? after
              : [current.target]
            const next = yield* inOrder(call, targets, endsAt, (target) => begin(call, target, scope, text))
            overlap = next.target.provider === "anthropic" ? text.slice(text.trimEnd().length) : ""
            attempts.push(next.attempt)
            current = next
            ready = next.first
            isUntouched = false
          })

          const failWith = (fault: ProviderFault, detail: string): ReadonlyArray<WireEvent> => {
            isOver = true
            const summary = summarized(call, attempts, current.target, current.said)
            return writer.fail({
              status: 502,
              code: "ProviderUnavailable",
              type: null,
              message: `${detail} (${nameOf(current.target)}: ${describe(fault)})`,
              param: null,
              requestId: summary.requestId
            })
          }

          const read = Effect.gen(function* () {
            if (ready !== undefined) {
              const first = ready
              ready = undefined
              return Option.some(first)
            }
            const left = endsAt - (yield* now)
            const isLast = left < Duration.toMillis(times.chunk)
            return yield* current.next.pipe(
              Effect.timeoutOrElse({
                duration: isLast ? Duration.millis(Math.max(0, left)) : times.chunk,
                orElse: () =>
                  Effect.fail(
                    isLast
                      ? faultOf("deadline", "The caller's time is up")
                      : faultOf("stalled", "The stream stalled")
                  )
              })
            )
          })

          const step: Effect.Effect<ReadonlyArray<WireEvent>> = Effect.gen(function* () {
            const result = yield* Effect.result(read)
            if (Result.isSuccess(result)) {
              if (Option.isSome(result.success))
                return result.success.value.flatMap((one) => passed(joined(one)))
              isOver = true
              current.attempt.ended()
              const end = writer.end(summarized(call, attempts, current.target, current.said))
              yield* Scope.close(current.scope, Exit.void)
              return end
            }
            const fault = result.failure
            current.attempt.failed(fault)
            yield* Scope.close(current.scope, Exit.void)
            const mayGoOn =
              call.resume &&
              !hasTool &&
              text !== "" &&
              fault.kind !== "deadline" &&
              attempts.length <= MOST_TAKEOVERS
            if (!mayGoOn) return failWith(fault, "The stream broke off")
            const taken = yield* Effect.result(takeOver)
            return Result.isFailure(taken) ? failWith(fault, "The stream broke off, and nobody went on") : []
          })

          return Stream.fromPull(
            Effect.succeed(
              Effect.gen(function* () {
                while (true) {
                  if (isOver) return yield* Cause.done()
                  const events = yield* step
                  if (Arr.isReadonlyArrayNonEmpty(events)) return events
                }
              })
            )
          )
        }
      })
    ).pipe(Layer.provide(CircuitBreaker.layerStoreMemory()))
}

const charactersOf = ({ parts }: Answer): number =>
  parts.reduce(
    (sum, part) =>
      sum + (part._tag === "ToolCall" ? part.arguments.length : part._tag === "Image" ? 0 : part.text.length),
    0
  )
