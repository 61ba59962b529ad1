import { Clock, Deferred, Duration, Effect, Stream } from "effect"
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

/** Frames, and heartbeats for as long as there are none. */
const withHeartbeats = (frames: Stream.Stream<string>, heartbeat: string): Stream.Stream<string> =>
  Stream.unwrap(
    Effect.map(Clock.Clock, (clock) => {
      let last = clock.currentTimeMillisUnsafe()
      const silence = Duration.toMillis(SILENCE)
      const beat = Effect.gen(function* () {
        const left = () => last + silence - clock.currentTimeMillisUnsafe()
        while (left() > 0) yield* Effect.sleep(left())
        last = clock.currentTimeMillisUnsafe()
        return heartbeat
      })
      const told = Stream.map(frames, (text) => {
        last = clock.currentTimeMillisUnsafe()
        return text
      })
      return Stream.merge(told, Stream.fromEffectRepeat(beat), { haltStrategy: "left" })
    })
  )

const closings = {
  Unauthenticated: () => new Unauthenticated({}),
  Forbidden: () => new Forbidden({}),
  TenantSuspended: () => new TenantSuspended({}),
  DependencyUnavailable: () => new DependencyUnavailable({})
} as const satisfies Record<Exclude<ClosedCode, "ShuttingDown">, unknown>

/**
 * Ends with an error what the caller may no longer read: a tenant that is suspended must not go on spending. At the
 * shutdown of the server what runs may end by itself, as every request may.
 */
const whileAllowed = Effect.fnUntraced(function* (
  stillAllowed: StillAllowed["Service"],
  dialect: Dialect,
  events: Stream.Stream<WireEvent>
) {
  const { tenantId } = yield* TenantContext
  const requestId = yield* RequestId
  const closed = yield* Deferred.make<keyof typeof closings>()
  yield* stillAllowed.watch(
    { credentials: yield* PresentedCredentials, tenantId, scope: "llm:use" },
    (code) => {
      if (code !== "ShuttingDown") Deferred.doneUnsafe(closed, Effect.succeed(code))
    }
  )
  let over = false
  const farewell = Stream.unwrap(
    Effect.map(Deferred.await(closed), (code) =>
      Stream.fromIterable(
        codecOf[dialect].writer({ usage: false }).fail(wireProblem(closings[code](), requestId))
      )
    )
  )
  return events.pipe(
    Stream.onEnd(Effect.sync(() => (over = true))),
    Stream.interruptWhen(Deferred.await(closed)),
    Stream.concat(Stream.suspend(() => (over ? Stream.empty : farewell)))
  )
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
  const events = yield* whileAllowed(stillAllowed, dialect, answer.events)
  return HttpServerResponse.stream(
    withHeartbeats(Stream.map(events, frame), heartbeats[dialect]).pipe(Stream.encodeText),
    {
      contentType: "text/event-stream",
      headers: { ...headOf(answer), "cache-control": "no-store", "x-accel-buffering": "no" }
    }
  )
})

export const makeAnswerCall = Effect.map(
  StillAllowed,
  (stillAllowed) => (dialect: Dialect, body: JsonObject, options: AnswerOptions) =>
    answerCall(stillAllowed, dialect, body, options)
)
