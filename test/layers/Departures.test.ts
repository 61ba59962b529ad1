import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { createServer } from "node:http"
import type { Server } from "node:http"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { OrderlyResponse } from "../../src/layers/Departures.ts"
import { eventually } from "../support/Eventually.ts"

const CLIENTS = 60

const listening = (server: Server) =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(
          typeof address === "object" && address !== null
            ? Effect.succeed(address.port)
            : Effect.die(new Error("No port"))
        )
      })
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

it.live("clients that leave together are seen to leave a few at a time, and all of them", () =>
  Effect.gen(function* () {
    let begun = 0
    let gone = 0
    /** How many left in each turn of the event loop. */
    const perTurn: Array<number> = []
    const server = createServer({ ServerResponse: OrderlyResponse }, (_, response) => {
      begun++
      response.write("hello")
      response.on("close", () => {
        gone++
        perTurn[perTurn.length - 1] = (perTurn.at(-1) ?? 0) + 1
      })
    })
    const port = yield* listening(server)
    const clients: Array<Socket> = []
    for (let client = 0; client < CLIENTS; client++) {
      const socket = connect(port, "127.0.0.1")
      socket.on("error", () => undefined)
      socket.write("GET / HTTP/1.1\r\nhost: test\r\n\r\n")
      clients.push(socket)
    }
    yield* eventually(
      "all are being answered",
      Effect.sync(() => begun),
      (count) => count === CLIENTS
    )
    const turn = () => {
      perTurn.push(0)
      if (gone < CLIENTS) setImmediate(turn)
    }
    turn()
    for (const socket of clients) socket.destroy()
    yield* eventually(
      "all have left",
      Effect.sync(() => gone),
      (count) => count === CLIENTS
    )
    // Two as they come, and two of those who had to wait.
    assert.isAtMost(Math.max(...perTurn), 4)
  }).pipe(Effect.scoped)
)

it.live("a response that was written whole closes at once", () =>
  Effect.gen(function* () {
    let atOnce: boolean | undefined
    const server = createServer({ ServerResponse: OrderlyResponse }, (_, response) => {
      response.end("hello")
      let closed = false
      response.once("close", () => (closed = true))
      response.emit("close")
      atOnce = closed
    })
    const port = yield* listening(server)
    const answer = yield* Effect.promise(() =>
      fetch(`http://127.0.0.1:${port}`).then((found) => found.text())
    )
    assert.strictEqual(answer, "hello")
    assert.isTrue(atOnce)
  }).pipe(Effect.scoped)
)
