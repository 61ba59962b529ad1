import { NodeHttpServerRequest } from "@effect/platform-node"
import { Effect } from "effect"
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

const has = (header: string | undefined, token: string): boolean =>
  (header ?? "")
    .toLowerCase()
    .split(",")
    .some((part) => part.trim() === token)

const invalid = (detail: string) => new InvalidRequest({ detail })

/** Fails for what is no handshake of a WebSocket (RFC 6455, 4.2.1): before anything is done for it. */
export const checkHandshake = ({
  headers,
  method
}: HttpServerRequest.HttpServerRequest): Effect.Effect<void, InvalidRequest> => {
  if (method !== "GET" || !has(headers["upgrade"], "websocket") || !has(headers["connection"], "upgrade")) {
    return Effect.fail(invalid("This is a WebSocket: ask for an upgrade"))
  }
  if (!KEY.test(headers["sec-websocket-key"] ?? "") || headers["sec-websocket-version"] !== "13") {
    return Effect.fail(invalid("The handshake is not of WebSocket version 13"))
  }
  return headers["content-length"] === undefined && headers["transfer-encoding"] === undefined
    ? Effect.void
    : Effect.fail(invalid("A handshake has no body"))
}

/**
 * Answers the handshake, which has to be checked before; never returns for a caller who has gone. `ws` itself, and not the
 * request's `upgrade`, which gives neither frames as they are nor close codes. The request must not end before the socket is
 * closed: a response would be written into it.
 */
export const acceptWebSocket = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<WebSocket> =>
  Effect.callback((resume) => {
    const source = NodeHttpServerRequest.toIncomingMessage(request)
    if (!(source instanceof IncomingMessage)) return resume(Effect.die(new Error("An upgrade over HTTP/2")))
    // A client has to wait for the answer before it sends its first frame, so that there is no head.
    server.handleUpgrade(source, source.socket, Buffer.alloc(0), (socket) => resume(Effect.succeed(socket)))
  })
