import { NodeHttpServerRequest } from "@effect/platform-node"
import { Effect } from "effect"
import type { Scope } from "effect"
import type { HttpServerRequest } from "effect/http"
import { IncomingMessage } from "node:http"
import { WebSocketServer } from "ws"
import type { WebSocket } from "ws"
import { InvalidRequest } from "../domain/Problems.ts"
import { MAX_FRAME_BYTES } from "../services/llm/RealtimeWire.ts"

/** The one subprotocol that is answered: of those that OpenAI's clients send, all others carry a key. */
const PROTOCOL = "realtime"

const KEY = /^[+/0-9A-Za-z]{22}==$/

const server = new WebSocketServer({
  noServer: true,
  clientTracking: false,
  // Audio is as small as it gets, and who inflates what a stranger sends pays for it.
  perMessageDeflate: false,
  maxPayload: MAX_FRAME_BYTES,
  autoPong: false,
  handleProtocols: (offered) => (offered.has(PROTOCOL) ? PROTOCOL : false)
})

/** Headers of ours, for the answer of `ws`. */
const ownHeaders = new WeakMap<IncomingMessage, Readonly<Record<string, string>>>()
server.on("headers", (lines, request) => {
  for (const [name, value] of Object.entries(ownHeaders.get(request) ?? {})) lines.push(`${name}: ${value}`)
})

const has = (header: string | undefined, token: string): boolean =>
  (header ?? "")
    .toLowerCase()
    .split(",")
    .some((part) => part.trim() === token)

/** Why it is no handshake of a WebSocket (RFC 6455, 4.2.1). */
const flawOf = ({ headers, method }: HttpServerRequest.HttpServerRequest): string | undefined => {
  if (method !== "GET" || !has(headers["upgrade"], "websocket") || !has(headers["connection"], "upgrade")) {
    return "This is a WebSocket: ask for an upgrade"
  }
  if (!KEY.test(headers["sec-websocket-key"] ?? "") || headers["sec-websocket-version"] !== "13") {
    return "The handshake is not of WebSocket version 13"
  }
  return headers["content-length"] === undefined && headers["transfer-encoding"] === undefined
    ? undefined
    : "A handshake has no body"
}

/** A handshake that waits for its answer. */
export interface Handshake {
  /**
   * Answers it, and gives a socket that is paused: nothing is lost until somebody listens. Never returns for a caller who has
   * gone. The request must not end before the socket is closed, or a response would be written into it; the scope's end cuts
   * it. `headers` go into the answer as they are.
   */
  readonly accept: (headers: Readonly<Record<string, string>>) => Effect.Effect<WebSocket, never, Scope.Scope>
}

/**
 * Takes a request for a handshake; nothing is answered yet. A caller who leaves meanwhile interrupts the request, which Node
 * would not notice of a socket that nobody reads.
 *
 * By `ws` itself, and not the request's `upgrade`, which gives neither frames as they are nor close codes.
 */
export const takeHandshake = Effect.fnUntraced(function* (request: HttpServerRequest.HttpServerRequest) {
  const flaw = flawOf(request)
  if (flaw !== undefined) return yield* new InvalidRequest({ detail: flaw })
  const source = NodeHttpServerRequest.toIncomingMessage(request)
  if (!(source instanceof IncomingMessage)) {
    return yield* new InvalidRequest({ detail: "A WebSocket is opened over HTTP/1.1" })
  }
  const { socket } = source
  // RFC 6455, 4.1: a client sends nothing before the answer.
  const gone = () => socket.destroy()
  const forget = () => void socket.off("data", gone).off("end", gone)
  yield* Effect.acquireRelease(
    Effect.sync(() => socket.on("data", gone).on("end", gone)),
    () => Effect.sync(forget)
  )
  const handshake: Handshake = {
    accept: (headers) =>
      Effect.acquireRelease(
        Effect.callback<WebSocket>((resume) => {
          forget()
          ownHeaders.set(source, headers)
          server.handleUpgrade(source, socket, Buffer.alloc(0), (accepted) => {
            // Told by its close; without a listener, a frame that is none would end the process.
            accepted.on("error", () => undefined)
            accepted.pause()
            resume(Effect.succeed(accepted))
          })
        }),
        (accepted) => Effect.sync(() => accepted.terminate()),
        { interruptible: true }
      )
  }
  return handshake
})
