import { Duration, Effect, Redacted } from "effect"
import type { IncomingMessage } from "node:http"
import { WebSocket } from "ws"
import { faultOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"
import { isJsonObject, parseObject, stringAt } from "./JsonAt.ts"
import type { Candidate } from "./LlmGateway.ts"
import { MAX_FRAME_BYTES } from "./RealtimeWire.ts"

/** How long a provider may take to answer the upgrade. */
const CONNECT_WITHIN = Duration.seconds(10)

/** More of a refusal than this is not read. */
const MOST_REFUSAL_BYTES = 64 * 1024

const urlOf = ({ client, ref }: Candidate): URL => {
  const base = (client.baseUrl ?? "https://api.openai.com/v1").replace(/\/+$/, "")
  const url = new URL(`${base.replace(/^http/, "ws")}/realtime`)
  url.searchParams.set("model", ref.model)
  return url
}

const header = (response: IncomingMessage, name: string): string | undefined => {
  const value = response.headers[name]
  return Array.isArray(value) ? value[0] : value
}

/** An answer that is no upgrade, as a fault. */
const refusalOf = (
  response: IncomingMessage,
  body: string,
  scrub: (text: string) => string
): ProviderFault => {
  const json = parseObject(body) ?? {}
  const error = isJsonObject(json["error"]) ? json["error"] : json
  const clean = (name: string) => {
    const text = stringAt(error, name)
    return text === undefined ? null : scrub(text)
  }
  const seconds = Number(header(response, "retry-after") ?? Number.NaN)
  const status = response.statusCode ?? 502
  if (status < 400) return faultOf("Malformed", "An answer that is no upgrade")
  return faultOf("Status", clean("message") ?? "The provider gave no reason", {
    status,
    type: clean("type"),
    code: clean("code"),
    param: clean("param"),
    retryAfterMillis: Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined,
    requestId: header(response, "x-request-id") ?? null
  })
}

/**
 * An open session at a provider, paused: nothing of it is lost until somebody listens. Not connected by the vendor's SDK,
 * which reads every frame as an event, and has no way to slow a sender down. Cut with the scope, unless it is closing.
 */
export const connectRealtime = (candidate: Candidate, headers: Readonly<Record<string, string>>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      new WebSocket(urlOf(candidate), {
        headers: { ...headers, authorization: `Bearer ${Redacted.value(candidate.client.key)}` },
        // Audio is as small as it gets.
        perMessageDeflate: false,
        maxPayload: MAX_FRAME_BYTES,
        handshakeTimeout: Duration.toMillis(CONNECT_WITHIN),
        // A key goes to the host that it is for.
        followRedirects: false,
        autoPong: false
      }).on("error", () => undefined)
    ),
    (socket) =>
      Effect.sync(() => {
        if (socket.readyState !== socket.CLOSING) socket.terminate()
      })
  ).pipe(
    Effect.flatMap((socket) =>
      Effect.callback<WebSocket, ProviderFault>((resume) => {
        socket.once("open", () => {
          socket.pause()
          resume(Effect.succeed(socket))
        })
        socket.once("error", (error) =>
          resume(
            Effect.fail(
              error.message.includes("timed out")
                ? faultOf("Silent", "Nothing came in time")
                : faultOf("Connection", "No connection")
            )
          )
        )
        socket.once("unexpected-response", (request, response) => {
          let body = ""
          const answer = () => {
            request.destroy()
            resume(Effect.fail(refusalOf(response, body, candidate.client.scrub)))
          }
          response.setEncoding("utf8")
          response.on("data", (text: string) => {
            body += text
            if (body.length > MOST_REFUSAL_BYTES) answer()
          })
          response.on("end", answer)
          response.on("error", answer)
          response.on("aborted", answer)
        })
      })
    ),
    // A refusal whose body never ends.
    Effect.timeoutOrElse({
      duration: Duration.sum(CONNECT_WITHIN, Duration.seconds(1)),
      orElse: () => Effect.fail(faultOf("Silent", "Nothing came in time"))
    })
  )
