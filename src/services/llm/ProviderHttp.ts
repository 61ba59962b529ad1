import { Effect, Exit } from "effect"
import type { Scope } from "effect"
import { Agent as HttpAgent, request as httpRequest } from "node:http"
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from "node:http"
import { Agent as HttpsAgent, request as httpsRequest } from "node:https"
import { faultOf } from "./Faults.ts"
import type { ProviderFault } from "./Faults.ts"

// The way to the providers is Node's own HTTP client: `fetch`, which the vendors' SDKs take, costs a third of a core at a thousand
// calls a second, and as much again when their callers leave.

/** What waits unread before the provider is held back: a caller may read more slowly than a model writes. */
const BYTES_AHEAD = 256 * 1024

/** How long the end of an answer may come after its end mark. */
const LAST_BYTES_MILLIS = 1_000

/** As many connections as there are calls; who waits for no answer is left open for the next one, the last used first. */
const agentOptions = { keepAlive: true, maxFreeSockets: 256, scheduling: "lifo", timeout: 0 } as const
const httpAgent = new HttpAgent(agentOptions)
const httpsAgent = new HttpsAgent(agentOptions)

/** An answer whose head is there. */
export interface ProviderResponse {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  /**
   * All that has come since it was last asked, in one or more pieces; none at the end of the body. Waits for the first. Fails
   * with `Stalled` when nothing comes in time, and with `Cut` when the connection ends in the middle.
   */
  readonly read: (withinMillis: number) => Effect.Effect<ReadonlyArray<Buffer>, ProviderFault>
}

const cut = () => faultOf("Cut", "The connection ended in the middle of an answer")
const stalled = () => faultOf("Stalled", "Nothing more came in time")

const headersOf = (headers: IncomingHttpHeaders): Record<string, string> => {
  const kept: Record<string, string> = {}
  for (const name in headers) {
    const value = headers[name]
    // Lists are cookies, which are nobody's business.
    if (typeof value === "string") kept[name] = value
  }
  return kept
}

const readerOf = (response: IncomingMessage): ProviderResponse["read"] => {
  let chunks: Array<Buffer> = []
  let bytes = 0
  let end: "open" | "whole" | "cut" = "open"
  let wake: (() => void) | undefined

  const changed = () => {
    const waiting = wake
    wake = undefined
    waiting?.()
  }
  response.on("data", (chunk: Buffer) => {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > BYTES_AHEAD) response.pause()
    changed()
  })
  response.on("end", () => {
    end = response.complete ? "whole" : "cut"
    changed()
  })
  const broken = () => {
    if (end === "open") end = "cut"
    changed()
  }
  response.on("error", broken)
  response.on("close", broken)

  const take = (): Effect.Effect<ReadonlyArray<Buffer>, ProviderFault> | undefined => {
    if (chunks.length > 0) {
      const taken = chunks
      chunks = []
      bytes = 0
      if (response.isPaused()) response.resume()
      return Effect.succeed(taken)
    }
    if (end === "whole") return Effect.succeed([])
    return end === "cut" ? Effect.fail(cut()) : undefined
  }

  return (withinMillis) =>
    Effect.suspend(
      () =>
        take() ??
        Effect.callback((resume) => {
          // A timer and not `Effect.timeout`, whose two fibers for each chunk are most of a stream's cost.
          const timer = setTimeout(
            () => {
              wake = undefined
              resume(Effect.fail(stalled()))
            },
            Math.max(0, withinMillis)
          )
          wake = () => {
            clearTimeout(timer)
            resume(take() ?? Effect.fail(cut()))
          }
          return Effect.sync(() => {
            clearTimeout(timer)
            wake = undefined
          })
        })
    )
}

/**
 * Who has read the end mark of a stream has not read the end of its body, which comes with it or at once: then the connection
 * serves the next call.
 */
const leave = (request: ClientRequest): void => {
  if (request.destroyed) return
  // A timer and no fiber: the call is over, and nobody is left to wait.
  // @effect-diagnostics-next-line globalTimers:off
  const late = setTimeout(() => request.destroy(), LAST_BYTES_MILLIS)
  request.once("close", () => clearTimeout(late))
}

/**
 * Posts a body, and returns with the head of the answer, whatever its status. Redirections are answers like others: nobody's
 * key follows them. A scope that ends in failure or interruption closes the connection, unless the answer has come whole.
 */
export const post = (
  url: URL,
  headers: Readonly<Record<string, string>>,
  body: string
): Effect.Effect<ProviderResponse, ProviderFault, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const options = { method: "POST", headers: { ...headers, "content-length": Buffer.byteLength(body) } }
      return url.protocol === "https:"
        ? httpsRequest(url, { ...options, agent: httpsAgent })
        : httpRequest(url, { ...options, agent: httpAgent })
    }),
    (request, exit) => Effect.sync(() => (Exit.isSuccess(exit) ? leave(request) : void request.destroy()))
  ).pipe(
    Effect.flatMap((request) =>
      Effect.callback<ProviderResponse, ProviderFault>((resume) => {
        // Stays for as long as the request does: what nobody listens to would end the process.
        request.on("error", () => resume(Effect.fail(faultOf("Connection", "No connection"))))
        request.on("response", (response) =>
          resume(
            Effect.succeed({
              status: response.statusCode ?? 0,
              headers: headersOf(response.headers),
              read: readerOf(response)
            })
          )
        )
        request.end(body)
      })
    )
  )
