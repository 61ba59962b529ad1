import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { HttpApi } from "effect/http-api"
import { randomUUID } from "node:crypto"
import { CollectionName } from "../../src/domain/Record.ts"
import { Api } from "../../src/http/Api.ts"
import { Idempotent, IdempotentOperation } from "../../src/http/Idempotent.ts"
import { eventually } from "../support/Eventually.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import {
  onRealClock,
  operatorKey,
  startServer,
  TestApp,
  TestDatabase,
  TestServer
} from "../support/Platform.ts"
import { provisionTenant, uniqueSlug } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const byKey = (tenant: TestTenant, key: string) => ({
  "x-api-key": Redacted.value(tenant.apiKey),
  "idempotency-key": key
})
const byUser = (tenant: TestTenant, key: string) => ({
  authorization: `Bearer ${Redacted.value(tenant.accessToken)}`,
  "idempotency-key": key
})
const collection = CollectionName.make("notes")
const notes = "/api/v1/records/notes"
const create = (tenant: TestTenant, key: string, body: unknown = { data: "once" }) =>
  sendJson("POST", notes, body, byKey(tenant, key))

const countOf = Effect.fnUntraced(function* ({ schema }: TestTenant, table: string) {
  const { superuser: sql } = yield* TestDatabase
  const [row] = yield* sql<{ count: number }>`SELECT count(*)::int AS count FROM ${sql(`${schema}.${table}`)}`
  return row?.count
})

layer(TestApp, onRealClock)("an Idempotency-Key", (it) => {
  it.effect("is taken by every endpoint that creates something", () =>
    Effect.sync(() => {
      const without: Array<string> = []
      HttpApi.reflect(Api, {
        onGroup: () => {},
        onEndpoint: ({ endpoint, group, middleware, successes }) => {
          const keys = new Set([...middleware].map(({ key }) => key))
          const creates = endpoint.method === "POST" && successes.has(201)
          if (creates && !keys.has(Idempotent.key) && !keys.has(IdempotentOperation.key)) {
            without.push(`${group.identifier}.${endpoint.identifier}`)
          }
        }
      })
      assert.deepStrictEqual(without, [])
    })
  )

  it.effect("gives the first answer again, with its headers, and acts once", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const first = yield* create(tenant, "a key")
      const again = yield* create(tenant, "a key")
      assert.deepStrictEqual([first.status, again.status], [201, 201])
      assert.strictEqual(again.text, first.text)
      for (const name of ["content-type", "etag", "cache-control"]) {
        assert.strictEqual(again.headers.get(name), first.headers.get(name), name)
      }
      assert.strictEqual(first.headers.get("etag"), `"1"`)
      assert.isNull(first.headers.get("idempotency-replayed"))
      assert.strictEqual(again.headers.get("idempotency-replayed"), "true")
      assert.notStrictEqual(again.headers.get("x-request-id"), first.headers.get("x-request-id"))
      assert.strictEqual(yield* countOf(tenant, "records"), 1)
    })
  )

  it.effect("acts anew under another key, on another path, and without one", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      yield* create(tenant, "1")
      yield* create(tenant, "2")
      yield* sendJson("POST", "/api/v1/records/tasks", { data: "once" }, byKey(tenant, "1"))
      yield* tenant.asService.records.create({ params: { collection }, payload: { data: 1 } })
      yield* tenant.asService.records.create({ params: { collection }, payload: { data: 1 } })
      assert.strictEqual(yield* countOf(tenant, "records"), 5)
    })
  )

  it.effect("with another body is refused, and acts no more", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      yield* create(tenant, "k", { data: 1 })
      const other = yield* create(tenant, "k", { data: 2 })
      assert.deepStrictEqual([other.status, code(other)], [422, "IdempotencyKeyReused"])
      assert.strictEqual(yield* countOf(tenant, "records"), 1)
    })
  )

  it.effect("is 1 to 255 printable ASCII characters", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      for (const key of ["", "é", "x".repeat(256), "a\tb"]) {
        const answer = yield* create(tenant, key)
        assert.deepStrictEqual([answer.status, code(answer)], [400, "InvalidRequest"], key)
      }
      assert.strictEqual((yield* create(tenant, "x".repeat(255))).status, 201)
      assert.strictEqual(yield* countOf(tenant, "idempotency_keys"), 1)
    })
  )

  it.effect("keeps a refusal, but none that only the body's shape earned", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const operator = (slug: string, key: string) =>
        sendJson(
          "POST",
          "/api/v1/tenants",
          { slug, name: "Taken" },
          { authorization: `Bearer ${operatorKey}`, "idempotency-key": key }
        )
      const key = randomUUID()
      const taken = yield* operator(tenant.slug, key)
      const again = yield* operator(tenant.slug, key)
      assert.deepStrictEqual([taken.status, again.status], [409, 409])
      assert.strictEqual(again.headers.get("idempotency-replayed"), "true")
      assert.strictEqual(member(again.json, "request_id"), again.headers.get("x-request-id"))

      assert.strictEqual((yield* create(tenant, "k", { text: "no data" })).status, 400)
      assert.strictEqual((yield* create(tenant, "k")).status, 201)
    })
  )

  it.effect("makes one record of twenty requests at once, on two instances", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const second = yield* startServer()
      const answers = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, index) => index),
        (index) =>
          index % 2 === 0
            ? create(tenant, "at once")
            : Effect.provideService(create(tenant, "at once"), TestServer, second),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(new Set(answers.map(({ status }) => status)), new Set([201]))
      assert.strictEqual(new Set(answers.map(({ text }) => text)).size, 1)
      assert.strictEqual(answers.filter(({ headers }) => !headers.has("idempotency-replayed")).length, 1)
      assert.strictEqual(yield* countOf(tenant, "records"), 1)
    })
  )

  it.effect("makes one tenant of two requests at once, and shows its password again", () =>
    Effect.gen(function* () {
      const slug = uniqueSlug("twice")
      const ask = sendJson(
        "POST",
        "/api/v1/tenants",
        { slug, name: "Twice", admin_email: "admin@twice.example" },
        { authorization: `Bearer ${operatorKey}`, "idempotency-key": slug }
      )
      const [first, second] = yield* Effect.all([ask, ask], { concurrency: 2 })
      assert.deepStrictEqual([first.status, second.status], [201, 201])
      assert.strictEqual(first.text, second.text)
      assert.isString(member(member(first.json, "admin"), "password"))
    })
  )

  it.effect("shows a new API key again, which stands nowhere in the database", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const ask = sendJson("POST", "/api/v1/auth/api-keys", { name: "ci" }, byUser(tenant, "ci"))
      const first = yield* ask
      const again = yield* ask
      assert.strictEqual(again.text, first.text)
      const key = member(first.json, "key")
      assert.isString(key)
      const works = yield* send(notes, { headers: { "x-api-key": String(key) } })
      assert.strictEqual(works.status, 200)
      const { superuser: sql } = yield* TestDatabase
      const rows = yield* sql<{ id: Buffer; answer: Buffer }>`
        SELECT id, answer FROM ${sql(`${tenant.schema}.idempotency_keys`)}`
      assert.strictEqual(rows.length, 1)
      const secret = String(key).split("_").at(-1) ?? ""
      for (const { answer } of rows) assert.notInclude(Buffer.from(answer).toString("latin1"), secret)
    })
  )

  it.effect("is forgotten after a day, and removed in passing", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      yield* create(tenant, "old")
      yield* create(tenant, "older")
      yield* sql`UPDATE ${sql(`${tenant.schema}.idempotency_keys`)} SET created_at = now() - interval '25 hours'`
      const anew = yield* create(tenant, "old", { data: "another" })
      assert.strictEqual(anew.status, 201)
      assert.isNull(anew.headers.get("idempotency-replayed"))
      assert.strictEqual(yield* countOf(tenant, "idempotency_keys"), 1)
    })
  )

  it.effect("leaves nothing when the connection dies between the act and its commit", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      const table = sql(`${tenant.schema}.idempotency_keys`)
      // The statement that stores the answer comes after the act: hold it up there.
      yield* sql`CREATE FUNCTION ${sql(`${tenant.schema}.hold`)}() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(10); RETURN NEW; END'`
      yield* sql`CREATE TRIGGER hold BEFORE UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION ${sql(`${tenant.schema}.hold`)}()`
      const held = yield* Effect.forkChild(create(tenant, "k"))
      const [victim] = yield* eventually(
        "the answer is being stored",
        sql<{ pid: number }>`SELECT pid FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event = 'PgSleep' AND usename = 'aa_app'`,
        (rows) => rows.length === 1
      )
      yield* sql`SELECT pg_terminate_backend(${victim?.pid ?? 0})`
      const { status } = yield* Fiber.join(held)
      assert.strictEqual(status, 503)
      assert.strictEqual(yield* countOf(tenant, "records"), 0)
      assert.strictEqual(yield* countOf(tenant, "idempotency_keys"), 0)

      yield* sql`DROP TRIGGER hold ON ${table}`
      assert.strictEqual((yield* create(tenant, "k")).status, 201)
      assert.strictEqual((yield* create(tenant, "k")).headers.get("idempotency-replayed"), "true")
      assert.strictEqual(yield* countOf(tenant, "records"), 1)
    })
  )
})
