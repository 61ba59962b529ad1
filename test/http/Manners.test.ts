// What a well-behaved client may ask for: what has changed, how it is packed, and in which form.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { brotliDecompressSync, gunzipSync } from "node:zlib"
import { acceptsAny, preferredEncoding } from "../../src/http/Negotiation.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp, TestServer } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"
import { request } from "node:http"

/** The bytes as they were sent: `fetch` would unpack them. */
const bytes = Effect.fnUntraced(function* (path: string, headers: Record<string, string>) {
  const { url } = yield* TestServer
  return yield* Effect.callback<{
    readonly headers: NodeJS.Dict<string | Array<string>>
    readonly body: Buffer
  }>((resume) => {
    request(url + path, { headers }, (response) => {
      const parts: Array<Buffer> = []
      response.on("data", (part) => parts.push(part))
      response.on("end", () =>
        resume(Effect.succeed({ headers: response.headers, body: Buffer.concat(parts) }))
      )
    }).end()
  })
})

const recordOf = Effect.fnUntraced(function* (text: string) {
  const acme = yield* provisionTenant("manners")
  const key = { "x-api-key": Redacted.value(acme.apiKey) }
  const made = yield* sendJson("POST", "/api/v1/records/notes", { data: { text } }, key)
  return { key, path: `/api/v1/records/notes/${String(member(made.json, "id"))}` }
})

layer(TestApp, onRealClock)("manners", (it) => {
  it.effect("a read of what the caller has is 304, compared weakly", () =>
    Effect.gen(function* () {
      const { key, path } = yield* recordOf("short")
      for (const tag of [`"1"`, `W/"1"`, `"7", "1"`, `"x" ,W/"1"`, "*", `"1-br"`]) {
        for (const method of ["GET", "HEAD"]) {
          const answer = yield* send(path, { method, headers: { ...key, "if-none-match": tag } })
          assert.strictEqual(answer.status, 304, `${method} ${tag}`)
          assert.strictEqual(answer.headers.get("etag"), `"1"`)
          assert.strictEqual(answer.headers.get("cache-control"), "no-store")
          assert.isNotNull(answer.headers.get("x-request-id"))
          assert.isNull(answer.headers.get("content-type"))
          assert.strictEqual(answer.text, "")
        }
      }
      for (const tag of [`"2"`, "1", "", `"11"`]) {
        const answer = yield* send(path, { headers: { ...key, "if-none-match": tag } })
        assert.strictEqual(answer.status, 200, tag)
        assert.strictEqual(answer.headers.get("etag"), `"1"`)
      }
      // Only of what there is, only for who may read it, and never instead of a change.
      const missing = "/api/v1/records/notes/0190c9a0-1111-7aaa-8bbb-123456789abc"
      assert.strictEqual((yield* send(missing, { headers: { ...key, "if-none-match": "*" } })).status, 404)
      assert.strictEqual((yield* send(path, { headers: { "if-none-match": "*" } })).status, 401)
      const put = yield* sendJson("PUT", path, { data: 2 }, { ...key, "if-none-match": `"2"` })
      assert.strictEqual(put.status, 200)
      assert.strictEqual(put.headers.get("etag"), `"2"`)
    })
  )

  it.effect("tenants, keys and the document have tags of their content", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("manners")
      const operator = { authorization: `Bearer ${operatorKey}` }
      const paths = [`/api/v1/tenants/${acme.slug}`, "/.well-known/jwks.json", "/openapi.json", "/docs"]
      for (const path of paths) {
        const first = yield* send(path, { headers: operator })
        const etag = first.headers.get("etag") ?? ""
        assert.match(etag, /^"[\w-]+"$/, path)
        const again = yield* send(path, { headers: { ...operator, "if-none-match": etag } })
        assert.strictEqual(again.status, 304, path)
        assert.strictEqual(again.headers.get("cache-control"), first.headers.get("cache-control"))
      }
      const before = yield* send(`/api/v1/tenants/${acme.slug}`, { headers: operator })
      yield* sendJson("PATCH", `/api/v1/tenants/${acme.slug}`, { name: "Changed" }, operator)
      const changed = yield* send(`/api/v1/tenants/${acme.slug}`, {
        headers: { ...operator, "if-none-match": before.headers.get("etag") ?? "" }
      })
      assert.strictEqual(changed.status, 200)
      const jwks = yield* send("/.well-known/jwks.json")
      assert.strictEqual(jwks.headers.get("cache-control"), "public, max-age=5")
      assert.strictEqual(before.headers.get("cache-control"), "no-store")
    })
  )

  it.effect("long reads are compressed for who asks, with a tag of their own that a write takes", () =>
    Effect.gen(function* () {
      const { key, path } = yield* recordOf("long ".repeat(1000))
      const plain = yield* bytes(path, key)
      assert.isUndefined(plain.headers["content-encoding"])
      assert.strictEqual(plain.headers["vary"], "Accept-Encoding")
      assert.strictEqual(plain.headers["etag"], `"1"`)
      const unpack = { br: brotliDecompressSync, gzip: gunzipSync }
      for (const encoding of ["br", "gzip"] as const) {
        const packed = yield* bytes(path, { ...key, "accept-encoding": encoding })
        assert.strictEqual(packed.headers["content-encoding"], encoding)
        assert.strictEqual(packed.headers["vary"], "Accept-Encoding")
        assert.strictEqual(packed.headers["etag"], `"1-${encoding}"`)
        assert.strictEqual(packed.headers["content-length"], String(packed.body.length))
        assert.isBelow(packed.body.length, plain.body.length / 10)
        assert.deepStrictEqual(unpack[encoding](packed.body), plain.body)
      }
      const known = yield* send(path, { headers: { ...key, "if-none-match": `"1-gzip"` } })
      assert.strictEqual(known.status, 304)
      const wrong = yield* sendJson("PUT", path, { data: 2 }, { ...key, "if-match": `"2-br"` })
      assert.strictEqual(wrong.status, 412)
      const right = yield* sendJson("PUT", path, { data: 2 }, { ...key, "if-match": `"1-br"` })
      assert.strictEqual(right.status, 200)
    })
  )

  it.effect("what is short, written or refused is not compressed", () =>
    Effect.gen(function* () {
      const { key, path } = yield* recordOf("short")
      const asks = { ...key, "accept-encoding": "br, gzip" }
      const short = yield* bytes(path, asks)
      assert.isUndefined(short.headers["content-encoding"])
      const long = { data: "long ".repeat(1000) }
      const written = yield* sendJson("PUT", path, long, asks)
      assert.isNull(written.headers.get("content-encoding"))
      const refused = yield* bytes(path, { ...asks, "accept-encoding": "br;q=0, identity" })
      assert.isUndefined(refused.headers["content-encoding"])
    })
  )

  it.effect("Accept is heard before anything is done, and a problem is always a problem", () =>
    Effect.gen(function* () {
      const { key, path } = yield* recordOf("short")
      for (const accept of ["text/html", "application/json;q=0, */*", "application/xml, image/*"]) {
        const refused = yield* send(path, { headers: { ...key, accept } })
        assert.strictEqual(refused.status, 406, accept)
        assert.strictEqual(code(refused), "NotAcceptable")
        assert.strictEqual(refused.headers.get("content-type"), "application/problem+json")
      }
      const write = yield* sendJson(
        "POST",
        "/api/v1/records/unwanted",
        { data: 1 },
        { ...key, accept: "text/html" }
      )
      assert.strictEqual(write.status, 406)
      const none = yield* send("/api/v1/records/unwanted", { headers: key })
      assert.deepStrictEqual(member(none.json, "items"), [])
      for (const accept of ["application/json", "application/*", "*/*;q=0.1", "text/html, */*", ""]) {
        assert.strictEqual((yield* send(path, { headers: { ...key, accept } })).status, 200, accept)
      }
      // What has no body has no form that could be excluded.
      const removed = yield* send(path, { method: "DELETE", headers: { ...key, accept: "text/html" } })
      assert.strictEqual(removed.status, 204)
    })
  )

  it.effect("every read has a HEAD, every path its methods", () =>
    Effect.gen(function* () {
      const { json } = yield* send("/openapi.json")
      for (const [template, item] of Object.entries(Object(member(json, "paths")))) {
        const path = template.replaceAll(/\{\w+\}/g, "name")
        const methods = Object.keys(Object(item)).map((method) => method.toUpperCase())
        const allowed = new Set([...methods, "OPTIONS", ...(methods.includes("GET") ? ["HEAD"] : [])])
        const expected = [...allowed].toSorted().join(", ")
        const options = yield* send(path, { method: "OPTIONS" })
        assert.strictEqual(options.status, 204, template)
        assert.strictEqual(options.headers.get("allow"), expected, template)
        for (const method of ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]) {
          if (allowed.has(method)) continue
          const answer = yield* send(path, { method })
          assert.strictEqual(answer.status, 405, `${method} ${template}`)
          assert.strictEqual(answer.headers.get("allow"), expected)
        }
        if (!methods.includes("GET")) continue
        const headOfIt = yield* send(path, { method: "HEAD" })
        const got = yield* send(path)
        assert.strictEqual(headOfIt.status, got.status, template)
        assert.strictEqual(headOfIt.text, "")
        assert.strictEqual(headOfIt.headers.get("content-type"), got.headers.get("content-type"))
      }
    })
  )

  it.effect("weights decide", () =>
    Effect.sync(() => {
      assert.strictEqual(preferredEncoding("gzip, br"), "br")
      assert.strictEqual(preferredEncoding("gzip;q=1.0, br;q=0.5"), "gzip")
      assert.strictEqual(preferredEncoding("*"), "br")
      assert.strictEqual(preferredEncoding("*, br;q=0"), "gzip")
      assert.strictEqual(preferredEncoding("identity"), undefined)
      assert.strictEqual(preferredEncoding(undefined), undefined)
      assert.isTrue(acceptsAny("text/*;q=0, application/json", ["application/json"]))
      assert.isFalse(acceptsAny("application/*, application/json;q=0.0", ["application/json"]))
    })
  )
})
