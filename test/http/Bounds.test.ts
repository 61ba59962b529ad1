// What may be sent, to every endpoint of the document: whatever it is, the answer is a typed one.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import { Buffer } from "node:buffer"
import { request } from "node:http"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, operatorKey, TestServer, TestApp } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const nested = (depth: number, open = "[", close = "]") => open.repeat(depth) + close.repeat(depth)

const post = (path: string, body: string | Buffer<ArrayBuffer>, headers: Record<string, string>) =>
  send(path, { method: "POST", body, headers: { "content-type": "application/json", ...headers } })

interface Sent {
  readonly method: string
  readonly path: string
  readonly headers: Record<string, string>
  readonly body: Buffer | undefined
}

interface Received {
  readonly status: number
  readonly contentType: string
  readonly requestId: string
  readonly text: string
}

/** A request as it is written, without what `fetch` would put right. A stream is read to its head only. */
const sendRaw = Effect.fnUntraced(function* ({ method, path, headers, body }: Sent) {
  const { url } = yield* TestServer
  return yield* Effect.callback<Received>((resume) => {
    const { hostname, port } = new URL(url)
    const sending = request({ hostname, port, method, path, headers }, (response) => {
      const parts: Array<Buffer> = []
      const contentType = response.headers["content-type"] ?? ""
      const finish = () =>
        resume(
          Effect.succeed({
            status: response.statusCode ?? 0,
            contentType,
            requestId: String(response.headers["x-request-id"]),
            text: Buffer.concat(parts).toString()
          })
        )
      response.on("data", (part) => parts.push(part))
      response.on("end", finish)
      response.on("error", finish)
      if (contentType.startsWith("text/event-stream")) {
        finish()
        sending.destroy()
      }
    })
    sending.on("error", (error) => resume(Effect.die(error)))
    sending.end(body)
  })
})

/** Any bytes, each percent-encoded: NUL, half of a character, everything. */
const percent = (bytes: ReadonlyArray<number>) =>
  bytes.map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("")

/** What a header may hold on the wire. */
const headerValue = (bytes: ReadonlyArray<number>) =>
  Buffer.from(bytes.filter((byte) => byte >= 32 && byte !== 127)).toString("latin1")

const Byte = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0), Schema.isLessThanOrEqualTo(255))

/** Strings of JSON as text, with escapes that no well-formed text has. */
const evilStrings = [
  `"\\u0000"`,
  `"\\ud800"`,
  `"\\udfff\\ud800"`,
  `"\\ud83d\\ude00"`,
  `"${"x".repeat(3000)}"`
]
const evilValues = [...evilStrings, "1e400", "-1e400", "1e-400", "9".repeat(400), "null", "[]", "{}", "-0"]
const odd = [
  "*/*;q=nonsense",
  ",,,",
  `"1", W/"2", *`,
  `"`,
  "a=b; c",
  "gzip;q=2, br;q=-1",
  "bytes=9-1",
  "0-0",
  "\u00ff\u00fe"
]

const Mutation = Schema.Struct({
  operation: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0), Schema.isLessThanOrEqualTo(999)),
  how: Schema.Literals(["bytes", "depth", "json", "value", "key", "path", "query", "headers", "type"]),
  bytes: Schema.Array(Byte),
  json: Schema.Json,
  number: Schema.Int.check(Schema.isGreaterThanOrEqualTo(0), Schema.isLessThanOrEqualTo(9999))
})
type Mutation = typeof Mutation.Type

interface Operation {
  readonly method: string
  readonly template: string
  readonly example: unknown
}

const headerNames = [
  "accept",
  "accept-encoding",
  "if-match",
  "if-none-match",
  "x-tenant-id",
  "x-request-id",
  "idempotency-key",
  "last-event-id",
  "range",
  "traceparent",
  "origin",
  "cookie",
  "x-forwarded-for"
]

const at = <A>(list: ReadonlyArray<A>, index: number, otherwise: A): A =>
  list[index % list.length] ?? otherwise

/** The example with one of its values replaced, by text, so that it can be what `JSON.stringify` never writes. */
const withValue = (example: unknown, number: number) => {
  const names = Object.keys(Object(example))
  const name = at(names, number, "data")
  const marked = JSON.stringify({ ...Object(example), [name]: "<here>" })
  return marked.replace(`"<here>"`, at(evilValues, Math.floor(number / 7), "1e400"))
}

const mutate = ({ method, template, example }: Operation, mutation: Mutation, slug: string): Sent => {
  const { how, bytes, json, number } = mutation
  const plain = template
    .replace("{tenant}", slug)
    .replace("{collection}", "notes")
    .replace("{model}", "fast")
    .replace("{id}", "0190c9a0-1111-7aaa-8bbb-123456789abc")
  const path = how === "path" ? template.replaceAll(/\{\w+\}/g, percent(bytes) || "%") : plain
  const fill = plain.replaceAll(/\{\w+\}/g, "name")
  const query = how === "query" ? `?limit=${number}&limit=2&cursor=${percent(bytes)}&__proto__=1&%=%&=` : ""
  const text = () => {
    switch (how) {
      case "depth":
        return `{"data":${nested(number * 10, number % 2 === 0 ? "[" : `{"a":`, number % 2 === 0 ? "]" : "}")}}`
      case "json":
        return JSON.stringify(json)
      case "value":
        return withValue(example, number)
      case "key":
        return `{"__proto__":{"toString":1},"constructor":${JSON.stringify(json)},"\\u0000":1,"data":${evilValues[number % evilValues.length]}}`
      default:
        return JSON.stringify(example ?? {})
    }
  }
  const takesBody = method !== "GET" && method !== "HEAD"
  const type = how === "type" ? headerValue(bytes) : "application/json"
  const value = number % 2 === 0 ? headerValue(bytes) : at(odd, number, "*")
  return {
    method,
    path: (how === "path" ? path : fill) + query,
    headers: {
      ...(takesBody ? { "content-type": type } : undefined),
      ...(how === "headers" ? { [at(headerNames, number, "accept")]: value } : undefined)
    },
    body: takesBody ? (how === "bytes" ? Buffer.from(bytes) : Buffer.from(text())) : undefined
  }
}

/** The operations of the document, and what a caller of each presents. */
const everything = Effect.gen(function* () {
  const { json } = yield* send("/openapi.json")
  const tenant = yield* provisionTenant("bounds")
  const operations: Array<Operation> = []
  for (const [template, item] of Object.entries(Object(member(json, "paths")))) {
    for (const [method, operation] of Object.entries(Object(item))) {
      const example = Object(operation).requestBody?.content?.["application/json"]?.example
      operations.push({ method: method.toUpperCase(), template, example })
      if (method === "get") operations.push({ method: "HEAD", template, example })
    }
  }
  const bearer = (template: string) =>
    template.startsWith("/api/v1/tenants")
      ? { authorization: `Bearer ${operatorKey}` }
      : template === "/api/v1/auth/login"
        ? { "x-tenant-id": tenant.slug }
        : { authorization: `Bearer ${Redacted.value(tenant.accessToken)}` }
  return { operations, bearer, slug: tenant.slug }
})

layer(TestApp, onRealClock)("whatever is sent", (it) => {
  const prepared = Effect.runSync(Effect.cached(everything))

  it.effect.prop(
    "gets an answer of the catalogue, and never a 500",
    { mutation: Mutation },
    Effect.fnUntraced(function* ({ mutation }) {
      const { operations, bearer, slug } = yield* prepared
      const operation = operations[mutation.operation % operations.length]
      if (operation === undefined) return
      const made = mutate(operation, mutation, slug)
      const sent = { ...made, headers: { ...bearer(operation.template), ...made.headers } }
      const answer = yield* sendRaw(sent)
      const told = `${sent.method} ${sent.path} ${JSON.stringify(sent.headers)} ${sent.body?.toString()}: ${answer.status} ${answer.text}`
      // No provider has a key here.
      const keyless = answer.status === 503 && answer.text.includes("ProviderNotConfigured")
      assert.isTrue(answer.status < 500 || keyless, told)
      if (answer.status < 400) return
      const vendor = operation.template.startsWith("/v1/")
      assert.strictEqual(answer.contentType, vendor ? "application/json" : "application/problem+json", told)
      if (sent.method === "HEAD") return
      const problem = Schema.decodeSync(Schema.fromJsonString(Schema.Json))(answer.text)
      if (vendor) return assert.isString(member(member(problem, "error"), "message"), told)
      assert.strictEqual(member(problem, "status"), answer.status, told)
      assert.strictEqual(member(problem, "request_id"), answer.requestId, told)
      assert.isString(member(problem, "code"), told)
    }),
    { arbitrary: { runs: 600 } }
  )

  it.effect("leaves the server as it was", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* send("/health/ready")).status, 200)
    })
  )

  it.effect("is looked at before it is parsed: depth, encoding, strings and numbers", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("bounds")
      const key = { "x-api-key": Redacted.value(acme.apiKey) }
      const record = (body: string | Buffer<ArrayBuffer>, headers = {}) =>
        post("/api/v1/records/notes", body, { ...key, ...headers })

      const deep = yield* record(`{"data":${nested(500_000)}}`)
      assert.strictEqual(deep.status, 400)
      assert.include(deep.text, "deeper than 100")
      const objects = yield* record(`{"data":${nested(120_000, `{"a":`, "}")}}`)
      assert.include(objects.text, "deeper than 100")
      assert.strictEqual((yield* record(`{"data":${nested(99)}}`)).status, 201)
      assert.strictEqual((yield* record(`{"data":${nested(100)}}`)).status, 400)
      // Brackets in a text are no nesting, whatever is escaped there.
      const brackets = JSON.stringify({ data: [`\\"${"[".repeat(200)}`, `"${"{".repeat(200)}`] })
      assert.strictEqual((yield* record(brackets)).status, 201)

      const latin = yield* record(Buffer.from(`{"data":"caf\u00e9"}`, "latin1"))
      assert.strictEqual(latin.status, 400)
      assert.include(latin.text, "not UTF-8")
      assert.strictEqual((yield* record(`{"data":1e400}`)).status, 400)
      const proto = yield* record(`{"data":{"__proto__":{"a":1},"constructor":2}}`)
      assert.strictEqual(proto.status, 201)
      assert.include(proto.text, `{"__proto__":{"a":1},"constructor":2}`)
      const packed = yield* record("{}", { "content-encoding": "gzip" })
      assert.strictEqual(code(packed), "UnsupportedMediaType")
    })
  )

  it.effect("has a bound in the URL: its length, a parameter given twice, a page", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("bounds")
      const key = { "x-api-key": Redacted.value(acme.apiKey) }
      const long = yield* send(`/api/v1/records/notes?cursor=${"x".repeat(9000)}`, { headers: key })
      assert.strictEqual(long.status, 414)
      assert.strictEqual(code(long), "UriTooLong")
      for (const query of [
        "limit=1&limit=2",
        "limit=0",
        "limit=201",
        "limit=1e400",
        "cursor=",
        "cursor=%00"
      ]) {
        const answer = yield* send(`/api/v1/records/notes?${query}`, { headers: key })
        assert.strictEqual(answer.status, 400, query)
        assert.strictEqual(code(answer), "InvalidRequest", query)
      }
      const longName = yield* send(`/api/v1/state/${"x".repeat(201)}`, { headers: key })
      assert.strictEqual(code(longName), "InvalidRequest")
    })
  )

  it.effect("lists fifty wrong fields at the most", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("bounds")
      const token = { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
      const scopes = Array.from({ length: 400_000 }, () => 1)
      const answer = yield* sendJson("POST", "/api/v1/auth/api-keys", { name: "x", scopes }, token)
      assert.strictEqual(answer.status, 400)
      const { errors } = Object(answer.json)
      assert.isAtMost(errors.length, 50)
    })
  )
})
