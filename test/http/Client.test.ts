import { assert, layer } from "@effect/vitest"
import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, Redacted } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { CollectionName } from "../../src/domain/Record.ts"
import { makeClient } from "../../src/http/Client.ts"

interface Seen {
  readonly method: string
  readonly key: string | undefined
  readonly at: number
}

/** A server that refuses the first calls, and writes down what it was sent. */
const refusing = (times: number, status: number, headers: Readonly<Record<string, string>> = {}) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly seen: Array<Seen>; readonly stop: () => void }>(
      (resume) => {
        const seen: Array<Seen> = []
        const server = createServer((request, response) => {
          const key = request.headers["idempotency-key"]
          seen.push({
            method: request.method ?? "",
            key: typeof key === "string" ? key : undefined,
            at: performance.now()
          })
          request.resume()
          if (seen.length <= times) {
            response.writeHead(status, { "content-type": "application/problem+json", ...headers })
            response.end("{}")
            return
          }
          response.writeHead(201, { "content-type": "application/json" })
          const now = "2026-01-01T00:00:00.000Z"
          const id = "0198c0de-0000-7000-8000-000000000000"
          response.end(
            JSON.stringify({ id, collection: "notes", data: 1, version: 1, created_at: now, updated_at: now })
          )
        })
        server.listen(0, "127.0.0.1", () => {
          const address: AddressInfo | string | null = server.address()
          const port = typeof address === "object" && address !== null ? address.port : 0
          resume(
            Effect.succeed({
              url: `http://127.0.0.1:${port}`,
              seen,
              stop: () => {
                server.close()
                server.closeAllConnections()
              }
            })
          )
        })
      }
    ),
    ({ stop }) => Effect.sync(stop)
  )

const create = Effect.fnUntraced(function* (baseUrl: string, retries: number | undefined) {
  const client = yield* makeClient({ baseUrl, apiKey: Redacted.make("aa_key"), retries })
  return yield* client.records.create({
    params: { collection: CollectionName.make("notes") },
    payload: { data: 1 }
  })
})

layer(Layer.fresh(NodeHttpClient.layerUndici), { excludeTestServices: true })("The client", (it) => {
  it.effect("tries a creating call again with one idempotency key, and never before Retry-After", () =>
    Effect.gen(function* () {
      const { seen, url } = yield* refusing(2, 503, { "retry-after": "1" })
      const record = yield* create(url, 3)
      assert.strictEqual(record.version, 1)
      assert.strictEqual(seen.length, 3)
      assert.strictEqual(new Set(seen.map(({ key }) => key)).size, 1)
      assert.match(seen[0]?.key ?? "", /^[0-9a-f-]{36}$/)
      // The server's clock and ours are one here: a second is what it asked for.
      assert.isAtLeast((seen[1]?.at ?? 0) - (seen[0]?.at ?? 0), 990)

      yield* create(url, 3)
      assert.notStrictEqual(seen[3]?.key, seen[0]?.key)
    })
  )

  it.effect("gives up after as many retries as it was told, and tries once when it was told nothing", () =>
    Effect.gen(function* () {
      const patient = yield* refusing(Infinity, 429)
      yield* Effect.flip(create(patient.url, 2))
      assert.strictEqual(patient.seen.length, 3)
      const hasty = yield* refusing(Infinity, 429)
      yield* Effect.flip(create(hasty.url, undefined))
      assert.strictEqual(hasty.seen.length, 1)
      assert.isUndefined(hasty.seen[0]?.key)
    })
  )

  it.effect("does not repeat what was refused for good", () =>
    Effect.gen(function* () {
      const { seen, url } = yield* refusing(Infinity, 422)
      yield* Effect.flip(create(url, 3))
      assert.strictEqual(seen.length, 1)
    })
  )
})
