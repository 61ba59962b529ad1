import { ByteSize, Cause, Clock, Context, Duration, Effect, Layer, Predicate } from "effect"
import { References, Stream, Tracer } from "effect"
import type { Fiber, Types } from "effect"
import {
  Headers,
  HttpIncomingMessage,
  HttpMiddleware,
  HttpPlatform,
  HttpRouter,
  HttpServerError,
  HttpServerRequest,
  HttpServerResponse,
  ProblemDetails
} from "effect/http"
import type { Dialect } from "../domain/Llm.ts"
import {
  InternalError,
  InvalidRequest,
  MethodNotAllowed,
  NotFound,
  PayloadTooLarge,
  RequestTimeout,
  UnsupportedMediaType,
  UriTooLong
} from "../domain/Problems.ts"
import { ProviderTime } from "../domain/ProviderTime.ts"
import { RequestId } from "../domain/RequestId.ts"
import { AnswerHeaders } from "./AnswerHeaders.ts"
import { CallerDialect, dialectOf } from "./CallerDialect.ts"
import { compress } from "./Compression.ts"
import { namesETag } from "./ETag.ts"
import { HttpMetrics, UNMATCHED } from "./HttpMetrics.ts"
import { problemOf, toResponse } from "./ProblemResponse.ts"
import type { AnyProblem } from "./ProblemResponse.ts"
import { guardBody } from "./RequestBody.ts"
import { requestIdFrom } from "./RequestId.ts"
import * as RouteTable from "./RouteTable.ts"

/** The largest body an endpoint takes that asks for nothing else. */
const MAX_BODY_SIZE = ByteSize.mebibytes(1)

/** RFC 9112, 3 asks for 8,000 octets at least. Node itself takes twice as much for everything in the head. */
const MAX_URL_LENGTH = 8192

/** How long a request may take from its first byte to the head of its answer. */
const REQUEST_TIMEOUT = Duration.seconds(30)

/** How long a browser keeps the answer to a preflight. Chromium goes no further than two hours. */
const PREFLIGHT_SECONDS = 7200

/** The longest delay a timer of Node takes; a longer one would fire at once. */
const MAX_TIMER_MILLIS = 2_147_483_647

export interface FaceOptions {
  readonly maxBodySize?: ByteSize.ByteSize
  readonly requestTimeout?: Duration.Input
  /**
   * Limits of their own for the routes whose template starts with `prefix`; the first that fits counts. A
   * `requestTimeout` of `Duration.infinity` is for routes that upgrade to a WebSocket.
   */
  readonly limits?: ReadonlyArray<{
    readonly prefix: string
    readonly maxBodySize?: ByteSize.ByteSize
    readonly requestTimeout?: Duration.Input
  }>
  /** Who may call from a browser. None: no CORS headers at all. `*`: everyone. Credentials are never allowed. */
  readonly allowedOrigins?: ReadonlyArray<string>
}

/** A route as the face sees it. */
interface Route {
  readonly template: string
  readonly maxBodySize: ByteSize.ByteSize
  readonly maxBodyBytes: number
  readonly timeoutMillis: number
  readonly logged: boolean
}

/** On every response that has none of its own. Nothing here is a page, except the docs, which say so. */
export const securityHeaders: Readonly<Record<string, string>> = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "strict-transport-security": "max-age=63072000; includeSubDomains",
  "cache-control": "no-store"
}

const baseHeaders = Headers.fromRecordUnsafe(securityHeaders)

const exposedHeaders = [
  "ETag",
  "X-Request-ID",
  "Location",
  "Retry-After",
  "RateLimit",
  "RateLimit-Policy",
  "Idempotency-Replayed",
  "Retry-After-Ms",
  "X-Should-Retry",
  "Request-ID",
  "X-LLM-Provider",
  "X-LLM-Model",
  "X-LLM-Guard"
]

const allowedHeaders = [
  "Authorization",
  "X-API-Key",
  "X-Tenant-ID",
  "Content-Type",
  "If-Match",
  "If-None-Match",
  "Idempotency-Key",
  "X-Request-ID",
  "Last-Event-ID",
  "X-LLM-Resume",
  // What the vendors' clients send from a browser.
  "Anthropic-Version",
  "Anthropic-Beta",
  "Anthropic-Dangerous-Direct-Browser-Access",
  "OpenAI-Beta",
  "OpenAI-Organization",
  "OpenAI-Project",
  "X-Stainless-Arch",
  "X-Stainless-Helper",
  "X-Stainless-Helper-Method",
  "X-Stainless-Lang",
  "X-Stainless-OS",
  "X-Stainless-Package-Version",
  "X-Stainless-Retry-Count",
  "X-Stainless-Runtime",
  "X-Stainless-Runtime-Version",
  "X-Stainless-Timeout"
]

/** Marks the interruption of a request that took too long. */
class Deadline extends Context.Service<Deadline, true>()("agent-army/http/Deadline") {
  static readonly annotation = this.context(true)
}

const isQuiet = (template: string) => template === "/metrics" || template.startsWith("/health")

const interruptedBy = (cause: Cause.Cause<unknown>, key: string) =>
  cause.reasons.some((reason) => reason._tag === "Interrupt" && reason.annotations.has(key))

/** 499, as nginx has it: nobody is there to read an answer. */
const clientGone = HttpServerResponse.empty({ status: 499 })

/** Whether the connection is closed: what interrupts a request then, the end of the server too, has nobody to tell. */
const isGone = ({ source }: HttpServerRequest.HttpServerRequest) =>
  Predicate.hasProperty(source, "socket") &&
  Predicate.hasProperty(source.socket, "destroyed") &&
  source.socket.destroyed === true

/** What effect answers by itself, as text or with an empty body. */
const problemOfResponse = (response: HttpServerResponse.HttpServerResponse) => {
  if (response.status < 400 || response.headers["content-type"] === ProblemDetails.contentType) {
    return undefined
  }
  if (response.status === 415 && response.headers["content-type"]?.startsWith("text/plain") === true) {
    return new UnsupportedMediaType()
  }
  return response.status === 413 && response.body._tag === "Empty" ? new PayloadTooLarge() : undefined
}

/** RFC 9112, 3.2: a request of HTTP/1.1 names its host. */
const lacksHost = (request: HttpServerRequest.HttpServerRequest) =>
  request.headers["host"] === undefined &&
  Predicate.hasProperty(request.source, "httpVersion") &&
  request.source.httpVersion === "1.1"

/** Why a request is refused before anyone looks at it. */
const refusal = (request: HttpServerRequest.HttpServerRequest, maxBodyBytes: number) => {
  if (lacksHost(request)) {
    return new InvalidRequest({ detail: "The Host header is missing" })
  }
  // Postgres has no NUL in its texts, and no path or query of ours needs one.
  if (request.url.includes("%00")) {
    return new InvalidRequest({ detail: "The URL has a NUL byte" })
  }
  if (request.url.length > MAX_URL_LENGTH) {
    return new UriTooLong({ detail: `A URL has ${MAX_URL_LENGTH} characters at most` })
  }
  const encoding = request.headers["content-encoding"]
  if (encoding !== undefined && encoding.trim().toLowerCase() !== "identity") {
    // Unpacked, a small body could be any size.
    return new UnsupportedMediaType({ detail: "A body is sent without a content encoding" })
  }
  return Number(request.headers["content-length"] ?? 0) > maxBodyBytes ? new PayloadTooLarge() : undefined
}

const isPreflight = (request: HttpServerRequest.HttpServerRequest) =>
  request.headers["origin"] !== undefined && request.headers["access-control-request-method"] !== undefined

/**
 * 304 for a read of what the caller says it has (RFC 9110, 13.1.2 and 15.4.5); `undefined` for everything else. With
 * the headers of the 200 that it stands for, save those of a body.
 */
const notModified = (
  request: HttpServerRequest.HttpServerRequest,
  response: HttpServerResponse.HttpServerResponse
) => {
  const known = request.headers["if-none-match"]
  const etag = response.headers["etag"]
  if (known === undefined || etag === undefined || response.status !== 200) return undefined
  if (request.method !== "GET" && request.method !== "HEAD") return undefined
  if (!namesETag(known, etag)) return undefined
  const {
    "content-type": _type,
    "content-length": _length,
    "content-encoding": _encoding,
    ...headers
  } = response.headers
  return HttpServerResponse.empty({ status: 304, headers })
}

/** What a stream meets after its head is sent can only be logged: the connection is cut, never ended cleanly. */
const watchStream = (
  response: HttpServerResponse.HttpServerResponse,
  withOwn: (context: Context.Context<never>) => Context.Context<never>
): HttpServerResponse.HttpServerResponse => {
  if (response.body._tag !== "Stream") return response
  const { stream, contentType, contentLength } = response.body
  const watched = stream.pipe(
    Stream.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.logError("A response broke off", cause)
    ),
    Stream.updateContext(withOwn)
  )
  return HttpServerResponse.stream(watched, {
    status: response.status,
    statusText: response.statusText,
    headers: response.headers,
    cookies: response.cookies,
    contentType,
    contentLength
  })
}

/**
 * Everything HTTP that is no endpoint's business, around a layer of routes: request ids, problems for whatever
 * the routes leave unanswered, limits of size and time, security headers, CORS, the access log and metrics.
 * Serve the result with `disableLogger`, or each request is logged twice.
 */
export const around = <A, E, R>(routes: Layer.Layer<A, E, R>, options: FaceOptions = {}) =>
  Layer.provide(routes, layer(options))

/** The router that the routes are added to: it knows them, and stands behind the face. */
const layer = (options: FaceOptions) =>
  Layer.effect(
    HttpRouter.HttpRouter,
    Effect.gen(function* () {
      const router = yield* HttpRouter.HttpRouter
      const metrics = yield* HttpMetrics
      const { compression } = yield* HttpPlatform.HttpPlatform
      const context = yield* Effect.context<never>()

      const describe = (method: string, template: string): Route => {
        if (method !== "*") Effect.runSyncWith(context)(metrics.expect(method, template))
        return describeRoute(template, options)
      }
      const table = RouteTable.make(yield* HttpRouter.RouterConfig, describe)

      yield* router.addGlobalMiddleware(makeFace(table, metrics, compression, options))
      return RouteTable.recording(router, table)
    })
  )

const describeRoute = (template: string, options: FaceOptions): Route => {
  const own = options.limits?.find(({ prefix }) => template.startsWith(prefix))
  const maxBodySize = own?.maxBodySize ?? options.maxBodySize ?? MAX_BODY_SIZE
  return {
    template,
    maxBodySize,
    maxBodyBytes: ByteSize.toNumberUnsafe(maxBodySize),
    timeoutMillis: Duration.toMillis(own?.requestTimeout ?? options.requestTimeout ?? REQUEST_TIMEOUT),
    logged: !isQuiet(template)
  }
}

const makeFace = (
  table: RouteTable.RouteTable<Route>,
  metrics: HttpMetrics["Service"],
  compression: HttpPlatform.Compression,
  options: FaceOptions
) => {
  const origins = new Set(options.allowedOrigins)
  const cors =
    origins.size === 0
      ? undefined
      : HttpMiddleware.cors({
          allowedOrigins: origins.has("*") ? [] : (origin) => origins.has(origin),
          allowedHeaders,
          exposedHeaders,
          maxAge: PREFLIGHT_SECONDS
        })
  const unmatched = describeRoute(UNMATCHED, options)

  return (
    handler: Effect.Effect<HttpServerResponse.HttpServerResponse, Types.unhandled>
  ): Effect.Effect<
    HttpServerResponse.HttpServerResponse,
    Types.unhandled,
    HttpServerRequest.HttpServerRequest
  > => {
    return Effect.withFiber((fiber) => {
      const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
      const clock = fiber.getRef(Clock.Clock)
      const startedAt = clock.currentTimeNanosUnsafe()
      const id = requestIdFrom(request.headers["x-request-id"])
      const route = table.find(request.method, request.url)
      const { template, maxBodyBytes, maxBodySize, timeoutMillis, logged } = route ?? unmatched

      const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
      if (span?._tag === "Span") span.attribute("request_id", id)
      const dialect = dialectOf(request.url, request.headers)
      const answerHeaders: typeof AnswerHeaders.Service = { value: undefined }
      const providerTime: ProviderTime = { calls: 0, millis: 0 }
      const annotations = { ...fiber.getRef(References.CurrentLogAnnotations), request_id: id }
      // Added one by one, which lays them over the context; merging would copy all of it for each request.
      const withOwn = <R>(context: Context.Context<R>) =>
        context.pipe(
          Context.add(RequestId, id),
          Context.add(AnswerHeaders, answerHeaders),
          Context.add(CallerDialect, dialect),
          Context.add(ProviderTime, providerTime),
          Context.add(References.CurrentLogAnnotations, annotations),
          Context.add(HttpIncomingMessage.MaxBodySize, maxBodySize)
        )

      const refuse = (problem: Parameters<typeof toResponse>[0], headers?: Record<string, string>) =>
        Effect.succeed(toResponse(problem, id, headers, dialect))

      /** Runs the routes within the limits of the one that answers. */
      const run = () => {
        guardBody(request)
        const deadline = startDeadline(fiber, timeoutMillis)
        return handler.pipe(
          Effect.onExit(() => Effect.sync(() => clearTimeout(deadline))),
          Effect.catchCause((cause) =>
            Cause.hasInterruptsOnly(cause) && isGone(request)
              ? Effect.succeed(clientGone)
              : recover(cause, id, dialect)
          )
        )
      }

      const answer = () => {
        const refused = refusal(request, maxBodyBytes)
        if (refused !== undefined) return refuse(refused)
        if (route !== undefined) return run()
        const methods = table.methods(request.url)
        if (methods.length === 0) return refuse(new NotFound())
        const allow = { allow: methods.join(", ") }
        return request.method === "OPTIONS"
          ? Effect.succeed(HttpServerResponse.empty({ status: 204, headers: allow }))
          : refuse(new MethodNotAllowed(), allow)
      }

      const report = (response: HttpServerResponse.HttpServerResponse) => {
        const seconds = Number(clock.currentTimeNanosUnsafe() - startedAt) / 1e9
        const waited = providerTime.calls === 1 ? providerTime.millis / 1000 : undefined
        const observed = metrics.observe(request.method, template, response.status, seconds, waited)
        const reported = logged
          ? Effect.andThen(observed, logAccess(request.method, template, response.status, seconds))
          : observed
        return Effect.as(reported, response)
      }

      const finish = (response: HttpServerResponse.HttpServerResponse) => {
        const problem = problemOfResponse(response)
        const plain =
          problem === undefined ? watchStream(response, withOwn) : toResponse(problem, id, undefined, dialect)
        const done = HttpServerResponse.setHeaders(plain, {
          ...baseHeaders,
          ...plain.headers,
          ...(plain.status < 400 ? answerHeaders.value : undefined),
          "x-request-id": id,
          ...(dialect === "anthropic-messages" ? { "request-id": id } : undefined)
        })
        const unchanged = notModified(request, done)
        if (unchanged !== undefined) return report(unchanged)
        const compressed = compress(compression, request, done)
        return compressed === undefined ? report(done) : Effect.flatMap(compressed, report)
      }

      // effect's CORS takes every OPTIONS for a preflight.
      const crossOrigin = cors !== undefined && (request.method !== "OPTIONS" || isPreflight(request))
      const answered = crossOrigin ? cors(Effect.suspend(answer)) : answer()
      return answered.pipe(Effect.flatMap(finish), Effect.updateContext(withOwn))
    })
  }
}

/** Interrupts the request at its deadline. Not `Effect.timeout`, which would run each request in two more fibers. */
const startDeadline = (fiber: Fiber.Fiber<unknown, unknown>, millis: number) =>
  millis > MAX_TIMER_MILLIS
    ? undefined
    : // @effect-diagnostics-next-line globalTimers:off
      setTimeout(() => fiber.interruptUnsafe(fiber.id, Deadline.annotation), millis)

/** The answer to whatever came out of the routes instead of a response. */
const recover = (
  cause: Cause.Cause<unknown>,
  id: string,
  dialect: Dialect
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const answer = (problem: AnyProblem) => toResponse(problem, id, undefined, dialect)
  if (interruptedBy(cause, Deadline.key)) {
    return Effect.succeed(answer(new RequestTimeout()))
  }
  if (interruptedBy(cause, HttpServerError.ClientAbort.key)) {
    return Effect.succeed(clientGone)
  }
  for (const reason of cause.reasons) {
    if (reason._tag === "Interrupt") continue
    const error = reason._tag === "Fail" ? reason.error : reason.defect
    const problem = problemOf(error)
    if (problem !== undefined) return Effect.succeed(answer(problem))
  }
  return Effect.as(Effect.logError("A request failed", cause), answer(new InternalError()))
}

const logAccess = (method: string, route: string, status: number, seconds: number) =>
  Effect.annotateLogs(Effect.logInfo("Answered"), {
    method,
    route,
    status,
    duration_ms: Math.round(seconds * 1e5) / 100
  })
