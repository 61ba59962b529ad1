import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { createServer } from "node:http"
import type { RequestListener } from "node:http"
import { post } from "../../../src/services/llm/ProviderHttp.ts"
import type { ProviderResponse } from "../../../src/services/llm/ProviderHttp.ts"
import { eventually } from "../../support/Eventually.ts"

const started = (listener: RequestListener) =>
  Effect.gen(function* () {
    const seen = { connections: 0, closed: 0 }
    const server = createServer(listener)
    server.on("connection", (socket) => {
      seen.connections++
      socket.on("close", () => seen.closed++)
    })
    const port = yield* Effect.acquireRelease(
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
    return { seen, url: new URL(`http://127.0.0.1:${port}/v1/thing`) }
  })

const textOf = Effect.fnUntraced(function* ({ read }: ProviderResponse) {
  let text = ""
  for (;;) {
    const chunks = yield* read(5_000)
    if (chunks.length === 0) return text
    text += Buffer.concat(chunks).toString()
  }
})

const asked = (url: URL, body = "{}") => post(url, { "content-type": "application/json" }, body)

it.live("sends body and headers, and reads an answer that comes in pieces", () =>
  Effect.gen(function* () {
    const { url } = yield* started((request, response) => {
      const { method, url: path, headers } = request
      request.setEncoding("utf8").on("data", (body: string) => {
        response.write(`${method} ${path} ${headers["content-type"]} ${headers["content-length"]} `)
        setImmediate(() => response.end(body))
      })
    })
    const response = yield* asked(url, `{"é":1}`)
    assert.strictEqual(response.status, 200)
    assert.strictEqual(yield* textOf(response), `POST /v1/thing application/json 8 {"é":1}`)
  }).pipe(Effect.scoped)
)

it.live("who stops at the end mark leaves the connection open for the next call", () =>
  Effect.gen(function* () {
    let ended = 0
    let end = (): void => undefined
    const { seen, url } = yield* started((_, response) => {
      response.on("close", () => ended++)
      response.write("data: [DONE]\n\n")
      end = () => void response.end()
    })
    for (let call = 1; call <= 5; call++) {
      yield* Effect.scoped(Effect.flatMap(asked(url), ({ read }) => read(5_000)))
      // The end of the body comes after the scope's.
      end()
      yield* eventually(
        "its answer is over",
        Effect.sync(() => ended),
        (count) => count === call
      )
    }
    assert.strictEqual(seen.connections, 1)
    assert.strictEqual(seen.closed, 0)
  }).pipe(Effect.scoped)
)

it.live("who fails or leaves closes the connection, before the head and after it", () =>
  Effect.gen(function* () {
    const { seen, url } = yield* started((request, response) => {
      if (request.url === "/v1/silent") return
      response.write("some")
    })
    const silent = yield* Effect.forkChild(Effect.scoped(asked(new URL("/v1/silent", url))))
    yield* eventually(
      "it is connected",
      Effect.sync(() => seen.connections),
      (count) => count === 1
    )
    yield* Fiber.interrupt(silent)
    yield* eventually(
      "it is closed",
      Effect.sync(() => seen.closed),
      (count) => count === 1
    )

    const scope = yield* Scope.make()
    const response = yield* Scope.provide(asked(url), scope)
    yield* response.read(5_000)
    yield* Scope.close(scope, Exit.fail("enough"))
    yield* eventually(
      "it is closed too",
      Effect.sync(() => seen.closed),
      (count) => count === 2
    )
  }).pipe(Effect.scoped)
)

it.live("an answer cut short is no whole one, and a silent one stalls", () =>
  Effect.gen(function* () {
    const { url } = yield* started((request, response) => {
      response.writeHead(200, { "content-length": 100 })
      response.write("some")
      if (request.url === "/v1/thing") setImmediate(() => response.destroy())
    })
    const cut = yield* Effect.flatMap(asked(url), textOf).pipe(Effect.flip)
    assert.strictEqual(cut.kind, "Cut")
    const stalling = yield* asked(new URL("/v1/other", url))
    yield* stalling.read(5_000)
    const stalled = yield* Effect.flip(stalling.read(20))
    assert.strictEqual(stalled.kind, "Stalled")
  }).pipe(Effect.scoped)
)

it.live("holds back a provider that sends faster than anybody reads, and loses nothing", () =>
  Effect.gen(function* () {
    const total = 64 * 1024 * 1024
    let sent = 0
    const block = Buffer.alloc(64 * 1024, "x")
    const { url } = yield* started((_, response) => {
      const send = () => {
        while (sent < total) {
          sent += block.length
          if (!response.write(block)) return void response.once("drain", send)
        }
        response.end()
      }
      send()
    })
    const response = yield* asked(url)
    let before = -1
    yield* eventually(
      "it sends no more",
      Effect.sync(() => {
        const stands = before === sent
        before = sent
        return stands
      }),
      (stands) => stands
    )
    assert.isBelow(sent, total)
    let read = 0
    for (;;) {
      const chunks = yield* response.read(5_000)
      if (chunks.length === 0) break
      for (const chunk of chunks) read += chunk.length
    }
    assert.strictEqual(read, total)
  }).pipe(Effect.scoped)
)

it.live("follows no redirection", () =>
  Effect.gen(function* () {
    const { seen, url } = yield* started((_, response) => {
      response.writeHead(307, { location: "/v1/elsewhere" })
      response.end()
    })
    assert.strictEqual((yield* asked(url)).status, 307)
    assert.strictEqual(seen.connections, 1)
  }).pipe(Effect.scoped)
)

it.live("nobody there is no connection", () =>
  Effect.gen(function* () {
    const { url } = yield* Effect.scoped(started(() => undefined))
    const fault = yield* Effect.flip(asked(url))
    assert.strictEqual(fault.kind, "Connection")
  }).pipe(Effect.scoped)
)
