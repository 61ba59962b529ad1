import { NodeHttpServer } from "@effect/platform-node"
import { Cause, Duration, Effect, Exit, Layer, Predicate, Schema } from "effect"
import type { Runtime } from "effect"
import { HttpServer, ProblemDetails } from "effect/http"
import { Server, STATUS_CODES } from "node:http"
import type { ServerOptions, ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import type { Socket } from "node:net"
import { HeadersTooLarge, InvalidRequest, PayloadTooLarge, RequestTimeout } from "../domain/Problems.ts"
import { securityHeaders } from "../http/Face.ts"
import { problemBody, problemHeaders } from "../http/ProblemResponse.ts"
import { requestIdFrom } from "../http/RequestId.ts"
import { Health } from "../services/Health.ts"
import { OrderlyResponse } from "./Departures.ts"

/** How long requests that run when the shutdown begins may go on. Cloud Run kills after 10 s, and others follow. */
const REQUESTS_FINISH_WITHIN = Duration.seconds(6)

/** How long what was interrupted then may take to say goodbye, before every connection is cut. */
const FAREWELL = Duration.millis(500)

/** How long the headers of a request may take to arrive, against clients that send a byte at a time. */
const HEADERS_WITHIN = Duration.seconds(10)

/** How long a whole request may take to arrive. Above the limit of the face, which has the better answer. */
const REQUEST_WITHIN = Duration.minutes(5)

/** Longer than the balancers in front keep a connection, or they send into one that was just closed. */
const KEEP_ALIVE = Duration.seconds(75)

/** How often the two limits above are looked at. */
const CHECK_EVERY = Duration.seconds(5)

/** How often a draining server looks for connections that have become idle. */
const CLOSE_IDLE_EVERY = Duration.millis(50)

/** How long a client that was refused may take to read why. */
const REFUSAL_READ_WITHIN_MILLIS = 500

const MAX_HEADER_BYTES = 16 * 1024
const MAX_HEADERS = 100

export interface ListenOptions {
  readonly host: string
  /** 0 takes a free one; `HttpServer.address` has it. */
  readonly port: number
  readonly finishWithin?: Duration.Input
  readonly headersWithin?: Duration.Input
  readonly requestWithin?: Duration.Input
  readonly keepAlive?: Duration.Input
}

/** The address can't be listened on: which, and why. */
export class ListenFailed extends Schema.TaggedError<ListenFailed>()("ListenFailed", {
  message: Schema.String
}) {}

const listenFailed = ({ host, port }: ListenOptions, cause: unknown) =>
  new ListenFailed({
    message:
      Predicate.hasProperty(cause, "code") && cause.code === "EADDRINUSE"
        ? `Port ${port} is in use: stop what listens there, or set PORT`
        : `Can't listen on ${host}, port ${port}: ${cause instanceof Error ? cause.message : "unknown reason"}`
  })

/** A server that says when it begins to close, lets go of each idle connection, and of all at the deadline. */
class DrainingServer extends Server {
  readonly #onDrain: () => void
  readonly #closeAfterMillis: number
  readonly #sockets = new Set<Socket>()
  #draining = false

  constructor(options: ServerOptions, closeAfter: Duration.Input, onDrain: () => void) {
    super(options)
    this.#onDrain = onDrain
    this.#closeAfterMillis = Duration.toMillis(closeAfter)
    this.on("connection", (socket) => {
      this.#sockets.add(socket)
      socket.once("close", () => this.#sockets.delete(socket))
    })
  }

  override close(callback?: (error?: Error) => void): this {
    if (!this.#draining) {
      this.#draining = true
      this.#onDrain()
      this.#letGo()
    }
    return super.close(callback)
  }

  /** Node calls `close` outside of any fiber. */
  #letGo() {
    // Node closes the connections that are idle now; those that become so later would stay for `keepAlive`.
    // @effect-diagnostics-next-line globalTimers:off
    const idle = setInterval(() => this.closeIdleConnections(), Duration.toMillis(CLOSE_IDLE_EVERY))
    // A WebSocket waits for the other end to answer its close, and Node for whoever does not read its answer.
    // @effect-diagnostics-next-line globalTimers:off
    const deadline = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy()
    }, this.#closeAfterMillis)
    this.once("close", () => {
      clearInterval(idle)
      clearTimeout(deadline)
    })
  }
}

const refusals: Readonly<Record<string, () => Parameters<typeof problemBody>[0]>> = {
  HPE_HEADER_OVERFLOW: () => new HeadersTooLarge(),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: () => new PayloadTooLarge(),
  ERR_HTTP_REQUEST_TIMEOUT: () => new RequestTimeout()
}

/** The answer to what never became a request: the same problem, headers and id as everywhere else. */
const rawRefusal = (code: string | undefined): string => {
  const problem = refusals[code ?? ""]?.() ?? new InvalidRequest({ detail: "The request is not valid HTTP" })
  const id = requestIdFrom(undefined)
  const body = JSON.stringify(problemBody(problem, id))
  const headers = {
    ...securityHeaders,
    ...problemHeaders(problem),
    "x-request-id": id,
    "content-type": ProblemDetails.contentType,
    "content-length": String(Buffer.byteLength(body)),
    connection: "close"
  }
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`)
  return [`HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}`, ...lines, "", body].join("\r\n")
}

const makeServer = (options: ListenOptions, onDrain: () => void): DrainingServer => {
  const millis = Duration.toMillis
  const finishWithin = Duration.fromInputUnsafe(options.finishWithin ?? REQUESTS_FINISH_WITHIN)
  const server = new DrainingServer(
    {
      ServerResponse: OrderlyResponse,
      headersTimeout: millis(options.headersWithin ?? HEADERS_WITHIN),
      requestTimeout: millis(options.requestWithin ?? REQUEST_WITHIN),
      keepAliveTimeout: millis(options.keepAlive ?? KEEP_ALIVE),
      connectionsCheckingInterval: millis(CHECK_EVERY),
      maxHeaderSize: MAX_HEADER_BYTES,
      // A missing Host is refused by the face, as a problem.
      requireHostHeader: false
    },
    Duration.sum(finishWithin, FAREWELL),
    onDrain
  )
  server.maxHeadersCount = MAX_HEADERS

  const answering = new WeakMap<Duplex, ServerResponse>()
  server.on("request", (request, response) => answering.set(request.socket, response))
  // An expectation that nobody knows may be ignored (RFC 9110, 10.1.1).
  server.on("checkExpectation", (request, response) => server.emit("request", request, response))
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
    const response = answering.get(socket)
    const begun = response !== undefined && response.headersSent && !response.writableFinished
    if (!socket.writable || begun || error.code === "ECONNRESET") {
      socket.destroy()
      return
    }
    socket.end(rawRefusal(error.code))
    // Time to read the answer, then the end. Outside of any fiber.
    // @effect-diagnostics-next-line globalTimers:off
    setTimeout(() => socket.destroy(), REFUSAL_READ_WITHIN_MILLIS).unref()
  })
  return server
}

/**
 * The HTTP server of the process. At its end it stops to be ready and to listen at once, lets running requests
 * finish within `finishWithin`, then interrupts them, open streams too, and half a second later cuts every
 * connection that is left.
 */
export const layer = (options: ListenOptions) =>
  Layer.effect(
    HttpServer.HttpServer,
    Effect.gen(function* () {
      const health = yield* Health
      const server = makeServer(options, () => Effect.runSync(health.markDraining))
      return yield* NodeHttpServer.make(() => server, {
        host: options.host,
        port: options.port,
        gracefulShutdownTimeout: options.finishWithin ?? REQUESTS_FINISH_WITHIN
      }).pipe(Effect.catchTag("ServeError", ({ cause }) => Effect.fail(listenFailed(options, cause))))
    })
  ).pipe(Layer.merge(NodeHttpServer.layerHttpServices))

/** For `NodeRuntime.runMain`: to end on a signal is what a server is asked to do, and no failure. */
export const teardown: Runtime.Teardown = (exit, onExit) => {
  const asked = Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)
  onExit(asked ? 0 : 1)
}
