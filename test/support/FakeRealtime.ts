import { Context, Effect, Layer } from "effect"
import { createServer } from "node:http"
import type { IncomingHttpHeaders, IncomingMessage } from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"
import { WebSocketServer } from "ws"
import type { WebSocket } from "ws"
import type { TokenUsage } from "../../src/domain/Llm.ts"

/** One session as the provider saw it. */
export interface ProviderSession {
  readonly model: string
  readonly headers: IncomingHttpHeaders
  /** What came, as it came. */
  readonly frames: Array<{ readonly text: string; readonly binary: boolean }>
  readonly socket: WebSocket
  /** Bytes of a flood that the system has taken. */
  flushed: number
  closed: { readonly code: number; readonly atMillis: number } | undefined
}

export interface Fake {
  /** Without `/v1`. */
  readonly url: string
  /** In the order in which they came, those that are over too. */
  readonly sessions: ReadonlyArray<ProviderSession>
  /** Upgrades asked for, by model, refused ones too. */
  readonly asked: ReadonlyArray<string>
  /** Upgrades of `rt-mute` that wait for an answer. */
  readonly waiting: () => number
}

type Json = Readonly<Record<string, unknown>>

/** 20 ms of PCM16 of 24 kHz. */
export const AUDIO = Buffer.alloc(960, 7).toString("base64")

/** Frames of a flood, and how large each is. */
export const FLOOD = { frames: 1024, bytes: 64 * 1024 } as const

export const usageOf = (audioOut: number) => ({
  total_tokens: 30 + 5 + audioOut,
  input_tokens: 30,
  output_tokens: 5 + audioOut,
  input_token_details: {
    text_tokens: 10,
    audio_tokens: 20,
    image_tokens: 0,
    cached_tokens: 8,
    cached_tokens_details: { text_tokens: 4, audio_tokens: 4, image_tokens: 0 }
  },
  output_token_details: { text_tokens: 5, audio_tokens: audioOut }
})

/** Of a long conversation: `rt-long`. */
const longUsage = {
  total_tokens: 130_000,
  input_tokens: 110_000,
  output_tokens: 20_000,
  input_token_details: { text_tokens: 110_000, audio_tokens: 0, image_tokens: 0, cached_tokens: 0 },
  output_token_details: { text_tokens: 20_000, audio_tokens: 0 }
}

const refusals: Readonly<Record<string, readonly [status: string, code: string]>> = {
  "rt-200": ["200 OK", "none"],
  "rt-401": ["401 Unauthorized", "invalid_api_key"],
  "rt-403": ["403 Forbidden", "permission_denied"],
  "rt-400": ["400 Bad Request", "invalid_prompt"],
  "rt-429": ["429 Too Many Requests", "rate_limit_exceeded"],
  "rt-503": ["503 Service Unavailable", "server_error"]
}

const refuse = (socket: Duplex, status: string, code: string, key: string) => {
  // A key in an error's text, as providers have it.
  const body = JSON.stringify({ error: { message: `No, ${key}`, type: "x", code, param: null } })
  const retry = status.startsWith("429") ? "retry-after: 7\r\n" : ""
  socket.end(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\n${retry}content-length: ${body.length}\r\nconnection: close\r\n\r\n${body}`
  )
}

/** How many pieces of audio a model answers with: `rt-n2000`. */
const piecesOf = (model: string) => Number(/-n(\d+)/.exec(model)?.[1] ?? 25)

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** What a response that is not `completed` says of itself, by the model's name. */
const statuses: Readonly<Record<string, readonly [status: string, details: Json]>> = {
  "rt-failed": ["failed", { type: "failed", error: { type: "server_error", code: "boom" } }],
  "rt-incomplete": ["incomplete", { type: "incomplete", reason: "max_output_tokens" }]
}

/** How a response ended, and what is billed for it. */
export type Bill = (ended: "finished" | "aborted", usage: TokenUsage) => void

/** What `usageOf` says, each token counted once. */
const billOf = (audioOut: number): TokenUsage => ({
  input: 6,
  cachedRead: 4,
  cachedWrite: 0,
  output: 5,
  reasoning: 0,
  audioInput: 16,
  audioCachedRead: 4,
  audioOutput: audioOut
})

const serve = (
  session: ProviderSession,
  number: number,
  openBill: (response: string, model: string) => Bill
) => {
  const { model, socket } = session
  let count = 0
  const id = (kind: string) => `${kind}_${number}_${++count}`
  const send = (event: Json) => {
    if (socket.readyState === socket.OPEN) socket.send(JSON.stringify({ event_id: id("event"), ...event }))
  }
  let config: Json = { type: "realtime", object: "realtime.session", id: id("sess"), model }
  const answer = { cancelled: false }
  let conversed = ""

  const flood = async () => {
    for (let index = 0; index < FLOOD.frames; index++) {
      const text = JSON.stringify({ type: "flood", index, pad: "x".repeat(FLOOD.bytes) })
      await new Promise<void>((resolve) => socket.send(text, () => resolve()))
      session.flushed += text.length
    }
  }

  const respond = async () => {
    const response = id("resp")
    const common = { response_id: response, item_id: id("item"), output_index: 0, content_index: 0 }
    answer.cancelled = false
    const bill = openBill(response, model)
    let sent = 0
    socket.once("close", () => bill("aborted", billOf(sent)))
    send({ type: "response.created", response: { id: response, status: "in_progress", usage: null } })
    if (model === "rt-hang") return
    const pieces = piecesOf(model)
    for (; sent < pieces && !answer.cancelled; sent++) {
      if (model === "rt-drop" && sent === 10) return socket.terminate()
      const close = /^rt-close-(\d+)$/.exec(model)?.[1]
      if (close !== undefined && sent === 10) {
        return socket.close(Number(close), `of ${session.headers.authorization}`)
      }
      send({ type: "response.output_audio.delta", ...common, delta: AUDIO, n: sent })
      if (sent % 5 === 0) send({ type: "response.output_audio_transcript.delta", ...common, delta: "word " })
      await turn()
    }
    send({ type: "response.output_audio.done", ...common })
    const [status, details] = answer.cancelled
      ? ["cancelled", { type: "cancelled", reason: "client_cancelled" }]
      : (statuses[model] ?? ["completed", null])
    const done = {
      type: "response.done",
      response: {
        object: "realtime.response",
        id: response,
        status,
        status_details: details,
        output: [],
        usage: model === "rt-nousage" ? null : model === "rt-long" ? longUsage : usageOf(sent)
      }
    }
    bill("finished", billOf(sent))
    send(done)
    if (model === "rt-twice") send(done)
    send({ type: "rate_limits.updated", rate_limits: [] })
  }

  send({ type: "session.created", session: config })
  socket.on("message", (data, binary) => {
    const text = Buffer.isBuffer(data) ? data.toString("utf8") : ""
    session.frames.push({ text, binary })
    if (binary) {
      socket.send(data, { binary: true })
      return
    }
    const event = JSON.parse(text)
    switch (event.type) {
      case "session.update":
        config = { ...config, ...event.session }
        send({ type: "session.updated", session: config })
        break
      case "input_audio_buffer.append":
        break
      case "input_audio_buffer.commit":
        conversed = id("item")
        send({ type: "input_audio_buffer.committed", item_id: conversed, previous_item_id: null })
        send({
          type: "conversation.item.input_audio_transcription.completed",
          item_id: conversed,
          content_index: 0,
          transcript: "hello",
          usage:
            model === "rt-seconds"
              ? { type: "duration", seconds: 1.5 }
              : {
                  type: "tokens",
                  total_tokens: 22,
                  input_tokens: 17,
                  input_token_details: { text_tokens: 0, audio_tokens: 17 },
                  output_tokens: 5
                }
        })
        break
      case "conversation.item.create":
        send({ type: "conversation.item.added", item: { id: id("item"), ...event.item } })
        break
      case "response.cancel":
        answer.cancelled = true
        break
      case "response.create":
        if (model === "rt-error") {
          send({ type: "error", error: { type: "server_error", code: null, message: "boom", param: null } })
        } else if (model === "rt-flood") void flood()
        else if (model === "rt-switch") {
          // A provider that transcribes with what nobody asked for.
          config = { ...config, audio: { input: { transcription: { model: "forbidden-transcriber" } } } }
          send({ type: "session.updated", session: config })
        } else void respond()
        break
      default:
        send({ type: "error", error: { type: "invalid_request_error", code: "unknown_event", message: "?" } })
    }
  })
  socket.on("close", (code) => {
    session.closed = { code, atMillis: performance.now() }
  })
}

/** A provider of realtime voice, behind the upgrades of some server. */
export const realtimeProvider = (
  openBill: (response: string, model: string) => Bill = () => () => undefined
) => {
  const sessions: Array<ProviderSession> = []
  const asked: Array<string> = []
  let waiting = 0
  const sockets = new WebSocketServer({ noServer: true })
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const model = new URL(request.url ?? "", "http://provider").searchParams.get("model") ?? ""
    asked.push(model)
    const refusal = refusals[model]
    if (refusal !== undefined) {
      return refuse(socket, ...refusal, request.headers.authorization ?? "")
    }
    if (model === "rt-mute") {
      waiting++
      socket.on("close", () => waiting--)
      socket.on("end", () => socket.destroy())
      // Read, so that its end is seen.
      socket.resume()
      return
    }
    sockets.handleUpgrade(request, socket, head, (open) => {
      const session: ProviderSession = {
        model,
        headers: request.headers,
        frames: [],
        socket: open,
        flushed: 0,
        closed: undefined
      }
      sessions.push(session)
      serve(session, sessions.length, openBill)
    })
  }
  return {
    upgrade,
    sessions,
    asked,
    waiting: () => waiting,
    close: () => {
      for (const { socket } of sessions) socket.terminate()
    }
  }
}

/**
 * A provider of realtime voice that speaks OpenAI's GA protocol over plain HTTP. Names of models pick what it does: `rt` and
 * `rt-n<pieces>` answer, `rt-<status>` refuses the upgrade, the others are told by their names above.
 */
export class FakeRealtime extends Context.Service<FakeRealtime, Fake>()("test/FakeRealtime") {
  static readonly layer = Layer.effect(
    FakeRealtime,
    Effect.acquireRelease(
      Effect.callback<{ readonly fake: Fake; readonly close: () => void }>((resume) => {
        const provider = realtimeProvider()
        const server = createServer((_request, response) => {
          response.statusCode = 404
          response.end()
        })
        server.on("upgrade", provider.upgrade)
        server.listen(0, "127.0.0.1", () => {
          const address: AddressInfo | string | null = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(
            Effect.succeed({
              fake: { ...provider, url: `http://127.0.0.1:${port}` },
              close: () => {
                provider.close()
                server.closeAllConnections()
                server.close()
              }
            })
          )
        })
      }),
      ({ close }) => Effect.sync(close)
    ).pipe(Effect.map(({ fake }) => fake))
  )
}
