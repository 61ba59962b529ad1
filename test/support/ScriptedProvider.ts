import { Effect } from "effect"
import type { Scope } from "effect"
import { createServer } from "node:http"
import type { ServerResponse } from "node:http"

export interface ScriptedAnswer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

/** A vendor that answers with what a test hands it, one answer for each request; the last one again and again. */
export const startScriptedProvider = (
  answers: ReadonlyArray<ScriptedAnswer>
): Effect.Effect<{ readonly url: string; readonly asked: () => number }, never, Scope.Scope> =>
  Effect.gen(function* () {
    let asked = 0
    const answer = (response: ServerResponse) => {
      const next = answers[Math.min(asked++, answers.length - 1)]
      response.writeHead(next?.status ?? 500, { "content-type": "application/json", ...next?.headers })
      response.end(next?.body)
    }
    const server = createServer((request, response) => {
      request.resume()
      request.on("end", () => answer(response))
    })
    const port = yield* Effect.acquireRelease(
      Effect.callback<number>((resume) => {
        server.listen(0, "127.0.0.1", () => {
          const address = server.address()
          resume(
            typeof address === "object" && address !== null
              ? Effect.succeed(address.port)
              : Effect.die(new Error("The scripted provider has no port"))
          )
        })
      }),
      () =>
        Effect.callback<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    return { url: `http://127.0.0.1:${port}`, asked: () => asked }
  })
