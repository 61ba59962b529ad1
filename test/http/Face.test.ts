// The face over a real socket, in front of a small Api of its own.
import { assert, describe, it, layer } from "@effect/vitest"
import { ByteSize, Clock, Context, Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { spawn } from "node:child_process"
import { setTimeout as delay } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { Health } from "../../src/services/Health.ts"
import { eventually } from "../support/Eventually.ts"
import { Logged, serveLab } from "./fixtures/Lab.ts"
import { json, Wire } from "./fixtures/Wire.ts"

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const id = "0190c9a0-1111-7aaa-8bbb-123456789abc"

const lab = (...options: Parameters<typeof serveLab>) =>
  Wire.layer.pipe(Layer.provideMerge(serveLab(...options)), Layer.provideMerge(Logged.layer))

/** The members every problem has, and that the body says the same as the head. */
const assertProblem = (response: Response, status: number, code: string) =>
  Effect.gen(function* () {
    const body = yield* json(response)
    assert.strictEqual(response.status, status, JSON.stringify(body))
    assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
    assert.strictEqual(body.status, status)
    assert.strictEqual(body.code, code)
    assert.match(body.type, /^urn:agent-army:problem:/)
    assert.isString(body.title)
    assert.isString(body.detail)
    assert.strictEqual(body.request_id, response.headers.get("x-request-id"))
    assert.match(body.request_id, uuid)
    return body
  })

const post = (body: string, headers: Record<string, string> = {}): RequestInit => ({
  method: "POST",
  body,
  headers: { "content-type": "application/json", ...headers }
})

const thingWith = (email: string) => `{"email":"${email}","password":"long enough to do"}`

const bodyOf = (bytes: number) => JSON.stringify({ text: "x".repeat(bytes) })

const securityHeaders = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "x-frame-options": "DENY",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store"
}

layer(lab(), { excludeTestServices: true })("Face", (it) => {
  describe("request ids", () => {
    it.effect("keeps the caller's, if it is a UUID", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const response = yield* wire.fetch(`/things/${id}`, { headers: { "x-request-id": id } })
        assert.strictEqual(response.headers.get("x-request-id"), id)
        assert.strictEqual((yield* json(response)).request_id, id)
      })
    )

    it.effect("replaces anything else, and repeats none", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const seen = new Set<string | null>()
        for (const sent of ["", "x", `${id}, ${id}`, `${id}\tadmin=true`]) {
          const response = yield* wire.fetch("/cached", { headers: { "x-request-id": sent } })
          const got = response.headers.get("x-request-id")
          assert.match(got ?? "", uuid)
          assert.notStrictEqual(got, id)
          seen.add(got)
        }
        assert.strictEqual(seen.size, 4)
      })
    )

    it.effect("puts one on every response, with the security headers", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const calls: ReadonlyArray<readonly [string, RequestInit?]> = [
          ["/cached"],
          ["/nothing"],
          ["/cached", { method: "POST" }],
          ["/cached", { method: "HEAD" }],
          ["/cached", { method: "OPTIONS" }],
          ["/fail/defect"],
          ["/things", post("{")],
          ["/health"],
          ["/health/ready"],
          ["/metrics"],
          ["/%"],
          ["/a%00b"]
        ]
        for (const [path, init] of calls) {
          const response = yield* wire.fetch(path, init)
          yield* Effect.promise(() => response.arrayBuffer())
          assert.match(response.headers.get("x-request-id") ?? "", uuid, path)
          for (const [name, value] of Object.entries(securityHeaders)) {
            assert.strictEqual(response.headers.get(name), value, `${path} ${name}`)
          }
          assert.match(response.headers.get("strict-transport-security") ?? "", /max-age=\d{8}/)
          assert.isNull(response.headers.get("x-powered-by"))
          const names = [...response.headers.keys()]
          assert.isFalse(
            names.some((name) => name.startsWith("access-control-")),
            "no origin is allowed"
          )
        }
      })
    )

    it.effect("also on what Node refuses before it is a request", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const malformed = yield* wire.raw(["NOT HTTP\r\n\r\n"])
        assert.match(malformed.text, /^HTTP\/1.1 400 Bad Request\r\n/)
        assert.match(malformed.text, /"code":"InvalidRequest"/)
        assert.match(malformed.text, /x-request-id: [0-9a-f-]{36}\r\n/)
        const large = yield* wire.raw([`GET / HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(20_000)}\r\n\r\n`])
        assert.match(large.text, /^HTTP\/1.1 431 /)
        assert.match(large.text, /"code":"HeadersTooLarge"/)
        const hostless = yield* wire.raw(["GET /cached HTTP/1.1\r\nConnection: close\r\n\r\n"])
        assert.match(hostless.text, /^HTTP\/1.1 400 /)
        assert.match(hostless.text, /Host header/)
        const oldest = yield* wire.raw(["GET /cached HTTP/1.0\r\n\r\n"])
        assert.match(oldest.text, /^HTTP\/1.1 200 /)
      })
    )
  })

  describe("routing", () => {
    it.effect("answers an unknown path with 404", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        yield* assertProblem(yield* wire.fetch("/nothing"), 404, "NotFound")
        yield* assertProblem(yield* wire.fetch("/nothing", { method: "DELETE" }), 404, "NotFound")
        yield* assertProblem(yield* wire.fetch("/nothing", { method: "OPTIONS" }), 404, "NotFound")
      })
    )

    it.effect("answers a known path with a wrong method with 405 and the methods there are", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const response = yield* wire.fetch(`/things/${id}`, { method: "DELETE" })
        assert.strictEqual(response.headers.get("allow"), "GET, HEAD, OPTIONS, PUT")
        yield* assertProblem(response, 405, "MethodNotAllowed")
        const head = yield* wire.fetch("/things", { method: "HEAD" })
        assert.strictEqual(head.status, 405)
        assert.strictEqual(head.headers.get("allow"), "OPTIONS, POST")
      })
    )

    it.effect("answers HEAD where there is a GET, without a body", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const { text } = yield* wire.raw(["HEAD /cached HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
        assert.match(text, /^HTTP\/1.1 200 /)
        assert.match(text, /content-length: 6\r\n/i)
        assert.match(text, /\r\n\r\n$/)
      })
    )

    it.effect("answers OPTIONS with the methods there are", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const response = yield* wire.fetch("/cached", { method: "OPTIONS" })
        assert.strictEqual(response.status, 204)
        assert.strictEqual(response.headers.get("allow"), "GET, HEAD, OPTIONS")
      })
    )
  })

  describe("invalid requests", () => {
    it.effect("lists each refused field, as the caller wrote it, without what was sent", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const secret = "hunter2"
        const response = yield* wire.fetch(
          "/things",
          post(JSON.stringify({ email: 1, password: secret, tags: [{ name: "a" }, { name: 2 }] }))
        )
        const body = yield* assertProblem(response, 400, "InvalidRequest")
        assert.deepStrictEqual(
          body.errors.map((error: { readonly path: ReadonlyArray<string | number> }) => error.path),
          [["email"], ["password"], ["tags", 1, "name"]]
        )
        assert.notInclude(JSON.stringify(body), secret)
        for (const error of body.errors) assert.isString(error.message)
      })
    )

    it.effect("refuses malformed JSON, a missing body and a bad id in the path or query", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        for (const body of ["{", "", "nul", `{"email":"a@b.c","password":"x"`]) {
          yield* assertProblem(yield* wire.fetch("/things", post(body)), 400, "InvalidRequest")
        }
        const path = yield* assertProblem(yield* wire.fetch("/things/7"), 400, "InvalidRequest")
        assert.deepStrictEqual(path.errors[0].path, ["id"])
        const query = yield* assertProblem(yield* wire.fetch(`/things/${id}?limit=x`), 400, "InvalidRequest")
        assert.deepStrictEqual(query.errors[0].path, ["limit"])
      })
    )

    it.effect("refuses another content type with 415", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const response = yield* wire.fetch("/things", post("<a/>", { "content-type": "application/xml" }))
        yield* assertProblem(response, 415, "UnsupportedMediaType")
      })
    )

    it.effect("has no 500 for bytes that nobody can store", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        for (const path of ["/%", "/%zz", "/things/%E0%A4%A", "/%ff%fe", "/things/%ED%A0%80"]) {
          const response = yield* wire.fetch(path)
          assert.include([400, 404], response.status, path)
          yield* Effect.promise(() => response.text())
        }
        yield* assertProblem(yield* wire.fetch("/things/a%00b", { method: "PUT" }), 400, "InvalidRequest")
        yield* assertProblem(yield* wire.fetch("/cached?q=%00"), 400, "InvalidRequest")
        for (const text of ["a\\u0000b", "\\ud800 alone", "\\udc00\\ud800"]) {
          yield* assertProblem(yield* wire.fetch("/things", post(thingWith(text))), 400, "InvalidRequest")
        }
        const key = `{"\\u0000":1,"email":"abc","password":"long enough to do"}`
        yield* assertProblem(yield* wire.fetch("/things", post(key)), 400, "InvalidRequest")
        // An escaped backslash, and a whole pair, are fine.
        for (const text of ["a\\\\u0000", "\\ud83d\\ude00 pair"]) {
          assert.strictEqual((yield* wire.fetch("/things", post(thingWith(text)))).status, 201, text)
        }
        const query = yield* wire.fetch(`/cached?q=%ED%A0%80&%=%`)
        assert.strictEqual(query.status, 200)
      })
    )
  })

  describe("limits of size", () => {
    it.effect("refuses a body by its announced length, before it arrives", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const { text, closed } = yield* wire.raw([
          "POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n"
        ])
        assert.match(text, /^HTTP\/1.1 413 /)
        assert.match(text, /connection: close/i)
        assert.match(text, /"code":"PayloadTooLarge"/)
        assert.isTrue(closed)
      })
    )

    it.effect("refuses a chunked body as soon as it is too long", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const chunk = "x".repeat(300_000)
        const line = `${chunk.length.toString(16)}\r\n${chunk}\r\n`
        const { text } = yield* wire.raw([
          "POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
          line,
          line,
          line,
          line
        ])
        assert.match(text, /^HTTP\/1.1 413 /)
        assert.match(text, /"code":"PayloadTooLarge"/)
      })
    )

    it.effect("answers a client that sends the whole of it first", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const response = yield* wire.fetch("/things", post(bodyOf(1_200_000)))
        yield* assertProblem(response, 413, "PayloadTooLarge")
      })
    )

    it.effect("takes more where a route has a limit of its own", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const fits = yield* wire.fetch("/large", post(bodyOf(2_000_000)))
        assert.deepStrictEqual(yield* json(fits), { length: 2_000_000 })
        yield* assertProblem(yield* wire.fetch("/large", post(bodyOf(3_200_000))), 413, "PayloadTooLarge")
      })
    )

    it.effect("takes a body that waits for 100 Continue", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const payload = `{"email":"abc","password":"long enough to do"}`
        const head = `POST /things HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ${payload.length}\r\n\r\n`
        const { text } = yield* wire.raw([head, payload], { pause: 100 })
        assert.match(text, /^HTTP\/1.1 100 Continue\r\n\r\nHTTP\/1.1 201 /)
        const unknown = yield* wire.raw([
          "GET /cached HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: magic\r\n\r\n"
        ])
        assert.match(unknown.text, /^HTTP\/1.1 200 /)
      })
    )
  })

  describe("defects", () => {
    it.effect("answers them with a bare 500, and logs each once with its cause", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        for (const [how, secret] of [
          ["defect", "secret of the database"],
          ["typed", "typed secret"],
          ["interrupt", "interrupted"]
        ] as const) {
          const response = yield* wire.fetch(`/fail/${how}`)
          const body = yield* assertProblem(response, 500, "InternalError")
          assert.deepStrictEqual(Object.keys(body).toSorted(), [
            "code",
            "detail",
            "request_id",
            "status",
            "title",
            "type"
          ])
          assert.notInclude(JSON.stringify(body), secret)
          const errors = logged.filter(
            (line) => line.level === "ERROR" && line.annotations["request_id"] === body.request_id
          )
          assert.strictEqual(errors.length, 1, how)
          if (how !== "interrupt") assert.include(JSON.stringify(errors[0]), secret)
        }
      })
    )

    it.effect("minds no interruption when the connection is closed: nobody is there to be told", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        const requestId = "0190c9a0-5555-7aaa-8bbb-123456789abc"
        const { text } = yield* wire.raw([
          `GET /fail/gone HTTP/1.1\r\nHost: x\r\nX-Request-ID: ${requestId}\r\n\r\n`
        ])
        assert.strictEqual(text, "")
        const lines = yield* eventually(
          "it is logged",
          Effect.sync(() => logged.filter((line) => line.annotations["request_id"] === requestId)),
          ({ length }) => length > 0
        )
        assert.deepStrictEqual(
          lines.map(({ annotations, level }) => [level, annotations["status"]]),
          [["INFO", 499]]
        )
      })
    )

    it.effect("lets a problem through wherever it comes from, with the headers it needs", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const unknown = yield* wire.fetch("/fail/Unauthenticated")
        assert.strictEqual(unknown.headers.get("www-authenticate"), `Bearer realm="agent-army"`)
        yield* assertProblem(unknown, 401, "Unauthenticated")
        const missing = yield* wire.fetch("/things/00000000-0000-0000-0000-000000000000")
        const body = yield* assertProblem(missing, 404, "NotFound")
        assert.strictEqual(body.detail, "There is no thing of that id")
        const away = yield* wire.fetch("/fail/DependencyUnavailable")
        assert.match(away.headers.get("retry-after") ?? "", /^\d+$/)
        yield* assertProblem(away, 503, "DependencyUnavailable")
      })
    )

    it.effect("logs a stream that breaks off, and does not end it cleanly", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        const { text } = yield* wire.raw(["GET /broken HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 500 })
        assert.match(text, /data: one/)
        assert.notMatch(text, /\r\n0\r\n\r\n$/)
        const errors = logged.filter((line) => JSON.stringify(line).includes("broken off"))
        assert.strictEqual(errors.length, 1)
        assert.match(String(errors[0]?.annotations["request_id"]), uuid)
      })
    )

    it.effect("does not log a client that leaves as an error", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        const before = logged.filter((line) => line.level === "ERROR").length
        yield* wire.raw(["GET /slow/400 HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 60 })
        yield* wire.raw(
          [
            "POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
          ],
          { until: 60 }
        )
        yield* eventually(
          "both are logged as gone",
          Effect.sync(() => logged.filter((line) => line.annotations["status"] === 499)),
          ({ length }) => length === 2
        )
        assert.isTrue(logged.some((line) => line.message === "slow was interrupted"))
        assert.strictEqual(logged.filter((line) => line.level === "ERROR").length, before)
      })
    )
  })

  describe("access log and metrics", () => {
    it.effect("writes one line a request, with the route and not the path", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        const response = yield* wire.fetch(`/things/${id}?limit=3`)
        const mine = logged.filter(
          (line) => line.annotations["request_id"] === response.headers.get("x-request-id")
        )
        assert.strictEqual(mine.length, 1)
        const annotations = mine[0]?.annotations ?? {}
        assert.strictEqual(annotations["method"], "GET")
        assert.strictEqual(annotations["route"], "/things/:id")
        assert.strictEqual(annotations["status"], 200)
        assert.isNumber(annotations["duration_ms"])
        assert.notInclude(JSON.stringify(mine), id)
      })
    )

    it.effect("leaves health and metrics out of it", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const logged = yield* Logged
        const before = logged.length
        yield* wire.fetch("/health")
        yield* wire.fetch("/health/ready")
        yield* wire.fetch("/metrics")
        assert.strictEqual(logged.length, before)
      })
    )

    it.effect("counts by route, with labels that callers cannot invent", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        yield* wire.fetch(`/things/${id}`)
        yield* wire.fetch(`/no/such/${Math.random()}`)
        yield* wire.raw(["PROPFIND /cached HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
        const response = yield* wire.fetch("/metrics")
        assert.strictEqual(response.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        const text = yield* Effect.promise(() => response.text())
        assert.match(
          text,
          /^http_requests_total\{method="GET",endpoint="\/things\/:id",status_code="200"\} \d+$/m
        )
        assert.match(
          text,
          /^http_requests_total\{method="GET",endpoint="unmatched",status_code="404"\} \d+$/m
        )
        assert.match(text, /method="OTHER",endpoint="unmatched",status_code="405"/)
        assert.match(text, /^http_requests_total\{method="POST",endpoint="\/things",status_code="500"\} 0$/m)
        assert.notInclude(text, "/no/such")
        assert.notInclude(text, "PROPFIND")
        const bounds = [
          ...text.matchAll(/seconds_bucket\{method="GET",endpoint="\/things\/:id",le="([^"]+)"/g)
        ]
        assert.deepStrictEqual(
          bounds.map(([, bound]) => bound),
          ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]
        )
      })
    )
  })

  describe("health", () => {
    it.effect("tells the build, and is ready once started", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const health = yield* Health
        const alive = yield* wire.fetch("/health")
        assert.deepStrictEqual(yield* json(alive), {
          status: "ok",
          environment: "development",
          version: "0.0.0"
        })
        assert.strictEqual((yield* wire.fetch("/health/ready")).status, 503)
        assert.strictEqual((yield* wire.fetch("/health/ready?scope=instance")).status, 503)
        assert.strictEqual((yield* wire.fetch("/health/startup")).status, 503)
        yield* health.markStarted
        assert.strictEqual((yield* wire.fetch("/health/startup")).status, 200)
        assert.strictEqual((yield* wire.fetch("/health/ready?scope=instance")).status, 200)
        const ready = yield* wire.fetch("/health/ready")
        assert.deepStrictEqual(yield* json(ready), { status: "ok", checks: {} })
        yield* assertProblem(yield* wire.fetch("/health/ready?scope=all"), 400, "InvalidRequest")
      })
    )
  })
})

layer(lab({ requestTimeout: "300 millis", maxBodySize: ByteSize.bytes(100_000) }), {
  excludeTestServices: true
})("Face, in haste", (it) => {
  it.effect("answers a body that does not arrive in time with 408, and closes", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const { text, closed, reset } = yield* wire.raw(
        [
          "POST /things HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
          `"`,
          "a"
        ],
        { pause: 120 }
      )
      assert.match(text, /^HTTP\/1.1 408 Request Timeout/)
      assert.match(text, /"code":"RequestTimeout"/)
      assert.match(text, /connection: close/i)
      assert.isTrue(closed)
      assert.isFalse(reset)
    })
  )

  it.effect("interrupts a handler that takes too long", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const logged = yield* Logged
      yield* assertProblem(yield* wire.fetch("/slow/5000"), 408, "RequestTimeout")
      assert.isTrue(logged.some((line) => line.message === "slow was interrupted"))
      assert.isFalse(logged.some((line) => line.level === "ERROR"))
    })
  )

  it.effect("covers a stream only until its head", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const { text } = yield* wire.raw(["GET /sse HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 900 })
      assert.isAbove(text.split("data: tick").length, 12)
    })
  )
})

const preflight = (origin: string, path = "/things") =>
  [
    path,
    {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,idempotency-key"
      }
    }
  ] as const

layer(lab({ allowedOrigins: ["https://a.example", "https://b.example"] }), { excludeTestServices: true })(
  "Face, with origins",
  (it) => {
    it.effect("lets those call, with a preflight that is kept", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const answer = yield* wire.fetch(...preflight("https://b.example"))
        assert.strictEqual(answer.status, 204)
        assert.strictEqual(answer.headers.get("access-control-allow-origin"), "https://b.example")
        assert.match(answer.headers.get("access-control-allow-methods") ?? "", /POST/)
        const allowed = answer.headers.get("access-control-allow-headers") ?? ""
        assert.isTrue(
          allowed.startsWith(
            "Authorization,X-API-Key,X-Tenant-ID,Content-Type,If-Match,If-None-Match,Idempotency-Key,X-Request-ID,Last-Event-ID,"
          ),
          allowed
        )
        // What the vendors' clients send from a browser besides.
        assert.includeMembers(allowed.split(","), [
          "Anthropic-Version",
          "X-Stainless-Timeout",
          "X-LLM-Resume"
        ])
        assert.strictEqual(answer.headers.get("access-control-max-age"), "7200")
        assert.match(answer.headers.get("x-request-id") ?? "", uuid)
        assert.isNull(answer.headers.get("access-control-allow-credentials"))

        for (const path of ["/cached", "/nothing", "/fail/defect"]) {
          const response = yield* wire.fetch(path, { headers: { origin: "https://a.example" } })
          assert.strictEqual(response.headers.get("access-control-allow-origin"), "https://a.example", path)
          assert.strictEqual(response.headers.get("vary"), "Origin", path)
          assert.strictEqual(
            response.headers.get("access-control-expose-headers"),
            "ETag,X-Request-ID,Location,Retry-After,RateLimit,RateLimit-Policy,Idempotency-Replayed,Retry-After-Ms,X-Should-Retry,Request-ID,X-LLM-Provider,X-LLM-Model,X-LLM-Guard"
          )
        }
      })
    )

    it.effect("lets nobody else", () =>
      Effect.gen(function* () {
        const wire = yield* Wire
        const answer = yield* wire.fetch(...preflight("https://evil.example"))
        assert.isNull(answer.headers.get("access-control-allow-origin"))
        const response = yield* wire.fetch("/cached", { headers: { origin: "https://evil.example" } })
        assert.isNull(response.headers.get("access-control-allow-origin"))
        assert.strictEqual(response.headers.get("vary"), "Origin")
      })
    )
  }
)

layer(lab({ allowedOrigins: ["*"] }), { excludeTestServices: true })("Face, with every origin", (it) => {
  it.effect("says so, and never with credentials", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const answer = yield* wire.fetch(...preflight("https://any.example"))
      assert.strictEqual(answer.headers.get("access-control-allow-origin"), "*")
      assert.isNull(answer.headers.get("access-control-allow-credentials"))
    })
  )
})

describe("Health", () => {
  const read = (probes: Parameters<typeof Health.layer>[0]) =>
    Effect.gen(function* () {
      const health = yield* Health
      yield* health.markStarted
      return { health, first: yield* health.ready }
    }).pipe(Effect.provide(Health.layer(probes)))

  it.live(
    "asks the dependencies concurrently, each for a second at most, even one that does not let go",
    () =>
      Effect.gen(function* () {
        const startedAt = yield* Clock.currentTimeMillis
        const { first } = yield* read({
          database: Effect.uninterruptible(Effect.sleep("4 seconds")),
          redis: Effect.void,
          other: Effect.die(new Error("connect ECONNREFUSED 10.0.0.7:5432"))
        })
        assert.isBelow((yield* Clock.currentTimeMillis) - startedAt, 1500)
        assert.strictEqual(first.status, "unavailable")
        assert.strictEqual(first.checks["database"]?.status, "unavailable")
        assert.strictEqual(first.checks["redis"]?.status, "ok")
        assert.strictEqual(first.checks["other"]?.status, "unavailable")
        assert.notInclude(JSON.stringify(first), "10.0.0.7")
      })
  )

  it.live("shares one result between many", () =>
    Effect.gen(function* () {
      let asked = 0
      const probe = Effect.andThen(
        Effect.sync(() => asked++),
        Effect.sleep("20 millis")
      )
      yield* Effect.gen(function* () {
        const health = yield* Health
        yield* Effect.all(
          Array.from({ length: 50 }, () => health.ready),
          { concurrency: "unbounded" }
        )
        yield* health.ready
      }).pipe(Effect.provide(Health.layer({ database: probe })))
      assert.strictEqual(asked, 1)
    })
  )

  it.live("is not ready while it drains", () =>
    Effect.gen(function* () {
      const { health, first } = yield* read({})
      assert.strictEqual(first.status, "ok")
      yield* health.markDraining
      yield* health.awaitDraining
      assert.strictEqual((yield* health.ready).status, "unavailable")
      assert.strictEqual((yield* health.instance).status, "unavailable")
      // It did start, once; a startup probe that failed now would have it killed.
      assert.strictEqual((yield* health.startup).status, "ok")
    })
  )
})

const timed = <A extends object, E, R>(self: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.timed(self), ([took, result]) => ({ ...result, at: Duration.toMillis(took) }))

describe("HttpListener", () => {
  const start = (listen: Parameters<typeof serveLab>[1]) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(lab({}, listen), scope)
      return { scope, wire: Context.get(context, Wire), health: Context.get(context, Health) }
    })

  it.live("finishes a running request, closes idle connections, and takes no new one", () =>
    Effect.gen(function* () {
      const { scope, wire, health } = yield* start({ finishWithin: "3 seconds" })
      const idle = wire.raw(["GET /cached HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 5000 })
      const running = wire.raw(["GET /slow/600 HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 5000 })
      const [kept, finished, refused] = yield* Effect.all(
        [
          timed(idle),
          timed(running),
          Effect.sleep("200 millis").pipe(
            Effect.andThen(Effect.forkChild(Scope.close(scope, Exit.void))),
            Effect.andThen(Effect.sleep("50 millis")),
            Effect.andThen(health.instance),
            Effect.tap((report) => Effect.sync(() => assert.strictEqual(report.status, "unavailable"))),
            Effect.andThen(wire.raw(["GET /cached HTTP/1.1\r\nHost: x\r\n\r\n"]))
          )
        ],
        { concurrency: "unbounded" }
      )
      assert.match(kept.text, /200 OK/)
      assert.isBelow(kept.at, 500)
      assert.match(finished.text, /"done":true/)
      assert.isBelow(finished.at, 1500)
      assert.isTrue(refused.reset)
    })
  )

  it.live("ends in time with streams that do not", () =>
    Effect.gen(function* () {
      const { scope, wire } = yield* start({ finishWithin: "700 millis" })
      const stream = yield* Effect.forkChild(
        wire.raw(["GET /sse HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 5000 })
      )
      const polite = yield* Effect.forkChild(
        wire.raw(["GET /polite-sse HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 5000 })
      )
      // Half a request, none at all, and an answer that nobody reads.
      const unread = yield* Effect.forkChild(
        wire.raw(["GET /heavy HTTP/1.1\r\nHost: x\r\n\r\n"], { until: 5000, deaf: 1500 })
      )
      yield* Effect.forkChild(wire.raw(["GET /cached HT"], { until: 5000 }))
      yield* Effect.forkChild(wire.raw([], { until: 5000 }))
      yield* Effect.sleep("200 millis")
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(took), 1500)
      assert.match((yield* Fiber.join(stream)).text, /data: tick/)
      const farewell = (yield* Fiber.join(polite)).text
      assert.match(farewell, /data: bye\n\n/)
      assert.isBelow((yield* Fiber.join(unread)).text.length, 32_000_000)
      assert.match(farewell, /\r\n0\r\n\r\n$/)
    })
  )

  it.live("ends in time with a WebSocket whose other end does not answer the close", () =>
    Effect.gen(function* () {
      const { scope, wire } = yield* start({ finishWithin: "500 millis" })
      const socket = yield* Effect.forkChild(
        wire.raw(
          [
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
          ],
          { until: 9000 }
        )
      )
      yield* Effect.sleep("200 millis")
      const [took] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(took), 2500)
      assert.match((yield* Fiber.join(socket)).text, /^HTTP\/1.1 101 /)
    })
  )

  it.live("cuts off a client that sends its headers a byte at a time", () =>
    Effect.gen(function* () {
      const { scope, wire } = yield* start({ headersWithin: "200 millis" })
      const { text } = yield* wire.raw(["GET / HTTP/1.1\r\n", "X: 1\r\n"], { until: 9000 })
      assert.match(text, /^HTTP\/1.1 408 /)
      assert.match(text, /"code":"RequestTimeout"/)
      yield* Scope.close(scope, Exit.void)
    })
  )

  it.live("ends the process with 0 on SIGTERM, after the running request", () =>
    Effect.promise(async () => {
      const program = fileURLToPath(new URL("./fixtures/serve.ts", import.meta.url))
      const child = spawn(process.execPath, [program], { stdio: ["ignore", "pipe", "inherit"] })
      const port = await new Promise<string>((resolve) =>
        child.stdout.on("data", (chunk) => {
          const found = /listening on (\d+)/.exec(String(chunk))?.[1]
          if (found !== undefined) resolve(found)
        })
      )
      const answer = fetch(`http://127.0.0.1:${port}/slow/500`)
      const open = await fetch(`http://127.0.0.1:${port}/sse`)
      await delay(150)
      const exited = new Promise((resolve) => child.on("exit", (code, signal) => resolve([code, signal])))
      child.kill("SIGTERM")
      assert.strictEqual((await answer).status, 200)
      assert.deepStrictEqual(await exited, [0, null])
      await open.body?.cancel().catch(() => undefined)
    })
  )
})
