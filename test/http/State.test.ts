import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { CollectionName } from "../../src/domain/Record.ts"
import { StateKey } from "../../src/domain/State.ts"
import { code, send, sendJson } from "../support/Http.ts"
import { onRealClock, startServer, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const mood = { key: StateKey.make("mood:today") }

layer(TestApp, onRealClock)("realtime state", (it) => {
  it.effect("is set, read and deleted", () =>
    Effect.gen(function* () {
      const { asService } = yield* provisionTenant("acme")
      yield* asService.state.put({ params: mood, payload: { value: { calm: [1, null] } } })
      const read = yield* asService.state.get({ params: mood })
      assert.deepStrictEqual({ ...read }, { key: mood.key, value: { calm: [1, null] }, ttl_seconds: null })
      yield* asService.state.remove({ params: mood })
      assert.strictEqual((yield* Effect.flip(asService.state.get({ params: mood })))._tag, "NotFound")
      assert.strictEqual((yield* Effect.flip(asService.state.remove({ params: mood })))._tag, "NotFound")
    })
  )

  it.effect("ends at its time, and says how long it has", () =>
    Effect.gen(function* () {
      const { asService } = yield* provisionTenant("acme")
      yield* asService.state.put({ params: mood, payload: { value: 1, ttl_seconds: 60 } })
      const read = yield* asService.state.get({ params: mood })
      assert.isTrue(read.ttl_seconds !== null && read.ttl_seconds > 50 && read.ttl_seconds <= 60)
      yield* asService.state.put({ params: mood, payload: { value: 2, ttl_seconds: 1 } })
      const gone = yield* Effect.flip(asService.state.get({ params: mood })).pipe(
        Effect.retry({ times: 10_000 }),
        Effect.timeout("3 seconds")
      )
      assert.strictEqual(gone._tag, "NotFound")
      // Written without a time, the value stays: the old one's time is not kept.
      yield* asService.state.put({ params: mood, payload: { value: 3, ttl_seconds: 60 } })
      yield* asService.state.put({ params: mood, payload: { value: 4 } })
      assert.isNull((yield* asService.state.get({ params: mood })).ttl_seconds)
    })
  )

  it.effect("refuses keys and times that make no sense", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(acme.apiKey) }
      for (const key of ["a%0ab", "a*", "a%20b", "x".repeat(201), "%7Bt%7D", "a%00"]) {
        const answer = yield* sendJson("PUT", `/api/v1/state/${key}`, { value: 1 }, headers)
        assert.strictEqual(answer.status, 400, key)
        assert.strictEqual(code(answer), "InvalidRequest", key)
      }
      for (const ttl_seconds of [0, -1, 1.5, 31_536_001, "60"]) {
        const answer = yield* sendJson("PUT", "/api/v1/state/ok", { value: 1, ttl_seconds }, headers)
        assert.strictEqual(answer.status, 400, String(ttl_seconds))
      }
    })
  )

  it.effect("every key of the platform in Redis stands under a tenant's prefix", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      yield* acme.asService.state.put({ params: mood, payload: { value: 1 } })
      const { redis } = yield* TestDatabase
      const keys = yield* Effect.promise(() => redis.keys("*"))
      assert.include(keys, `t:{${acme.id}}:state:mood:today`)
      for (const key of keys) assert.match(key, /^(t:\{[0-9a-f-]{36}\}:|p:)/)
    })
  )
})

layer(TestApp, onRealClock)("without Redis", (it) => {
  it.effect("what does not need it goes on, what does answers DependencyUnavailable at once", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      // A port that nobody listens on.
      const lonely = yield* startServer({ REDIS_URL: "redis://127.0.0.1:1" })
      const there = Effect.provideService(TestServer, lonely)
      const headers = { "x-api-key": Redacted.value(acme.apiKey) }

      const record = yield* sendJson("POST", "/api/v1/records/notes", { data: 1 }, headers).pipe(there)
      assert.strictEqual(record.status, 201)
      const collection = CollectionName.make("notes")
      assert.strictEqual(
        (yield* acme.asService.records.list({ params: { collection }, query: {} })).items.length,
        1
      )

      for (let attempt = 0; attempt < 5; attempt++) {
        const started = performance.now()
        const state = yield* send("/api/v1/state/mood", { headers }).pipe(there)
        assert.strictEqual(state.status, 503)
        assert.strictEqual(code(state), "DependencyUnavailable")
        assert.isNotNull(state.headers.get("retry-after"))
        assert.isBelow(performance.now() - started, 2_000)
      }
      const ready = yield* send("/health/ready").pipe(there)
      assert.strictEqual(ready.status, 503)
      assert.include(ready.text, `"database":{"status":"ok"`)
      assert.strictEqual((yield* send("/health").pipe(there)).status, 200)
    })
  )
})
