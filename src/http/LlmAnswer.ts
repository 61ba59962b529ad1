import { Cause, Clock, Duration, Effect, Exit, Queue, Stream } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Headers } from "effect/http"
import type { ClosedCode } from "../domain/Event.ts"
import type { Dialect, ProviderRefused } from "../domain/Llm.ts"
import {
  DependencyUnavailable,
  Forbidden,
  RefusedByProvider,
  TenantSuspended,
  Unauthenticated
} from "../domain/Problems.ts"
import { RequestId } from "../domain/RequestId.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { TenantLlm } from "../services/TenantLlm.ts"
import type { LlmCall, LlmHead } from "../services/TenantLlm.ts"
import type { JsonObject, WireEvent } from "../services/llm/Codec.ts"
import { codecOf } from "../services/llm/Codecs.ts"
import { PresentedCredentials } from "./Authentication.ts"
import { wireProblem } from "./ProblemResponse.ts"
import { StillAllowed } from "./StillAllowed.ts"

/** How long a stream may be silent, before it shows that it is still there. Proxies cut what is silent for a minute. */
const SILENCE = Duration.seconds(15)

/** Frames that wait for a caller who reads more slowly than the model writes. */
const FRAMES_AHEAD = 16

/** The caller's headers that mean something to a provider. Never a credential, and nothing that names the caller. */
const PASSED_ON = ["anthropic-beta", "anthropic-version", "openai-beta"]

/** What a provider refused, as a problem. */
export const refused = ({ code, message, param, provider, status, type }: ProviderRefused) =>
  Effect.fail(
    new RefusedByProvider({
      detail: message,
      provider,
      provider_status: status,
      provider_type: type,
      provider_code: code,
      provider_param: param
    })
  )

/** The provider's own headers, and who answered: known with the head of an answer. */
export const headOf = ({ answeredBy, guard, headers }: LlmHead): Record<string, string> => ({
  ...headers,
  "x-llm-provider": answeredBy.provider,
  "x-llm-model": answeredBy.model,
  ...(guard.flagged ? { "x-llm-guard": "flagged" } : undefined)
})

export const passedOn = (headers: Headers.Headers): Record<string, string> =>
  Object.fromEntries(
    PASSED_ON.flatMap((name) => {
      const value = headers[name]
      return value === undefined ? [] : [[name, value]]
    })
  )

/** `X-Stainless-Timeout`, with which the vendors' clients say after how many seconds they give up. */
const deadlineOf = (headers: Headers.Headers): Duration.Duration | undefined => {
  const seconds = Number(headers["x-stainless-timeout"])
  return Number.isFinite(seconds) && seconds > 0 ? Duration.seconds(seconds) : undefined
}

/** WHATWG HTML, 9.2: a line break in the data would end the field. */
const frame = ({ data, event }: WireEvent): string =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${data.replaceAll(/\r\n|\r|\n/g, "\ndata: ")}\n\n`

/** What tells a client in each dialect that the stream is alive, and nothing else. */
const heartbeats: Readonly<Record<Dialect, string>> = {
  native: ": keep-alive\n\n",
  "openai-chat": ": keep-alive\n\n",
  "openai-responses": ": keep-alive\n\n",
  "anthropic-messages": frame({ event: "ping", data: `{"type": "ping"}` })
}

const closings = {
  Unauthenticated: () => new Unauthenticated({}),
  Forbidden: () => new Forbidden({}),
  TenantSuspended: () => new TenantSuspended({}),
  DependencyUnavailable: () => new DependencyUnavailable({})
} as const satisfies Record<Exclude<ClosedCode, "ShuttingDown">, unknown>

/**
 * The events as bytes, each as soon as it is there, and heartbeats while there are none.
 *
 * Ends with an error what the caller may no longer read: a tenant that is suspended must not go on spending. At the
 * shutdown of the server what runs may end by itself, as every request may.
 *
 * One fiber fills a queue, and the response empties it: combinators of streams would run four more for each stream, all of
 * which have to be interrupted when many clients leave at once.
 */
const framesOf = Effect.fnUntraced(function* (
  stillAllowed: StillAllowed["Service"],
  dialect: Dialect,
  events: Stream.Stream<WireEvent>
) {
  const { tenantId } = yield* TenantContext
  const requestId = yield* RequestId
  const clock = yield* Clock.Clock
  const frames = yield* Queue.bounded<string, Cause.Done>(FRAMES_AHEAD)
  const silence = Duration.toMillis(SILENCE)
  let last = clock.currentTimeMillisUnsafe()
  /** Told its end by us: what the pump's own would say comes too late. */
  let isClosed = false

  const pump = yield* events.pipe(
    Stream.runForEach((event) => {
      last = clock.currentTimeMillisUnsafe()
      return Queue.offer(frames, frame(event))
    }),
    Effect.onExit(
      Exit.match({
        onSuccess: () => Queue.end(frames),
        onFailure: (cause) => (isClosed ? Effect.void : Queue.failCause(frames, cause))
      })
    ),
    Effect.forkScoped
  )

  const beat = (): NodeJS.Timeout => {
    const now = clock.currentTimeMillisUnsafe()
    if (now - last >= silence) {
      last = now
      Queue.offerUnsafe(frames, heartbeats[dialect])
    }
    // A timer and not a fiber: most streams end before it is needed.
    // @effect-diagnostics-next-line globalTimers:off
    return setTimeout(() => (timer = beat()), last + silence - now)
  }
  let timer = beat()
  yield* Effect.addFinalizer(() => Effect.sync(() => clearTimeout(timer)))

  yield* stillAllowed.watch(
    { credentials: yield* PresentedCredentials, tenantId, scope: "llm:use" },
    (code) => {
      if (code === "ShuttingDown") return
      isClosed = true
      pump.interruptUnsafe()
      const farewell = codecOf[dialect]
        .writer({ usage: false })
        .fail(wireProblem(closings[code](), requestId))
      const unsaid = Queue.offerAllUnsafe(frames, farewell.map(frame))
      // Who does not read isn't told; but neither does its stream seem to end well.
      if (unsaid.length > 0) Queue.failCauseUnsafe(frames, Cause.interrupt())
      else Queue.endUnsafe(frames)
    }
  )
  return Stream.encodeText(Stream.fromQueue(frames))
})

interface AnswerOptions {
  readonly stream: boolean
  /** As the body says it; otherwise the header counts. */
  readonly resume?: boolean | undefined
}

/**
 * Asks a model in a dialect, and answers in it: with a stream if `stream`, whose head leaves with its first token, so that
 * what fails until then has a status. The request's scope is the call's: a caller that leaves cancels it.
 */
const answerCall = Effect.fnUntraced(function* (
  stillAllowed: StillAllowed["Service"],
  dialect: Dialect,
  body: JsonObject,
  { resume, stream }: AnswerOptions
) {
  const { headers } = yield* HttpServerRequest.HttpServerRequest
  const llm = yield* TenantLlm
  const call: LlmCall = {
    dialect,
    body,
    headers: passedOn(headers),
    deadline: deadlineOf(headers),
    resume: resume ?? headers["x-llm-resume"]?.toLowerCase() === "true"
  }
  if (!stream) {
    const answer = yield* Effect.catchTag(llm.complete(call), "ProviderRefused", refused)
    return HttpServerResponse.jsonUnsafe(answer.body, { headers: headOf(answer) })
  }
  const answer = yield* Effect.catchTag(llm.stream(call), "ProviderRefused", refused)
  return HttpServerResponse.stream(yield* framesOf(stillAllowed, dialect, answer.events), {
    contentType: "text/event-stream",
    headers: { ...headOf(answer), "cache-control": "no-store", "x-accel-buffering": "no" }
  })
})

export const makeAnswerCall = Effect.map(
  StillAllowed,
  (stillAllowed) => (dialect: Dialect, body: JsonObject, options: AnswerOptions) =>
    answerCall(stillAllowed, dialect, body, options)
)
