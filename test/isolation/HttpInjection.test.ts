// Every text that a caller can send, filled with SQL, and with what Redis and URLs give a meaning to. The attacker has
// valid credentials of A.
import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { CollectionName } from "../../src/domain/Record.ts"
import { StateKey } from "../../src/domain/State.ts"
import { onRealClock, TestApp, TestDatabase } from "../support/Platform.ts"
import { keysOfData } from "../support/RedisKeys.ts"
import { credentialsOf, everything, send } from "../support/RawHttp.ts"
import type { Call } from "../support/RawHttp.ts"
import { rowsOf } from "../support/RawSession.ts"
import { provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const injections = (b: TestTenant): ReadonlyArray<string> => [
  `' OR '1'='1`,
  `" OR ""="`,
  `'; SELECT data FROM ${b.schema}.records; --`,
  `' UNION ALL SELECT id, collection, data, version, created_at, updated_at FROM ${b.schema}.records --`,
  `x'); DROP SCHEMA ${b.schema} CASCADE; --`,
  `$1) OR true --`,
  `\\'; SET ROLE aa_t_${b.id.replaceAll("-", "")}; --`,
  `{{${b.id}}}:state:mood`,
  `}:../t:{${b.id}}:state:mood`,
  `*`,
  `x\r\nGET t:{${b.id}}:state:mood\r\n`,
  `../../records/notes`,
  `%27%20OR%201=1`,
  `\u0000`,
  `${b.id}`,
  `ſ'‘’"\u{1F4A3}`
]

const encoded = encodeURIComponent
const asCursor = (text: string) => Buffer.from(text).toString("base64url")
/** What a header can carry at all. */
const inHeader = (text: string) => text.replaceAll(/[^\t\u0020-\u007e]/g, "?")
const anId = "0190c9a0-1111-7aaa-8bbb-123456789abc"

/** Each place where a text can stand. */
const places: Readonly<Record<string, (text: string) => Call>> = {
  "the collection of a list": (text) => ({ method: "GET", path: `/api/v1/records/${encoded(text)}` }),
  "the collection of a new record": (text) => ({
    method: "POST",
    path: `/api/v1/records/${encoded(text)}`,
    body: { data: 1 }
  }),
  "the id of a record": (text) => ({ method: "GET", path: `/api/v1/records/notes/${encoded(text)}` }),
  "the id of a record to replace": (text) => ({
    method: "PUT",
    path: `/api/v1/records/notes/${encoded(text)}`,
    body: { data: 1 }
  }),
  "the id of a record to delete": (text) => ({
    method: "DELETE",
    path: `/api/v1/records/notes/${encoded(text)}`
  }),
  "a cursor": (text) => ({ method: "GET", path: `/api/v1/records/notes?cursor=${encoded(text)}` }),
  "what a cursor holds": (text) => ({
    method: "GET",
    path: `/api/v1/records/notes?cursor=${asCursor(text)}`
  }),
  "what a cursor of keys holds": (text) => ({
    method: "GET",
    path: `/api/v1/auth/api-keys?cursor=${asCursor(text)}`
  }),
  "a limit": (text) => ({ method: "GET", path: `/api/v1/records/notes?limit=${encoded(text)}` }),
  "a JSON value": (text) => ({ method: "POST", path: "/api/v1/records/notes", body: { data: text } }),
  "a JSON key": (text) => ({
    method: "POST",
    path: "/api/v1/records/notes",
    body: { data: { [text]: [{ [text]: text }] } }
  }),
  "a JSON value deep inside": (text) => ({
    method: "POST",
    path: "/api/v1/records/notes",
    body: { data: [[[{ __proto__: { text }, constructor: text }]]] }
  }),
  "a field that nobody asked for": (text) => ({
    method: "POST",
    path: "/api/v1/records/notes",
    body: { data: 1, tenant_id: text, id: text, version: text, collection: text }
  }),
  "a key of state": (text) => ({ method: "GET", path: `/api/v1/state/${encoded(text)}` }),
  "a key of state to set": (text) => ({
    method: "PUT",
    path: `/api/v1/state/${encoded(text)}`,
    body: { value: 1 }
  }),
  "a key of state to delete": (text) => ({ method: "DELETE", path: `/api/v1/state/${encoded(text)}` }),
  "a value of state": (text) => ({
    method: "PUT",
    path: "/api/v1/state/mine",
    body: { value: { [text]: text } }
  }),
  "a time to live": (text) => ({
    method: "PUT",
    path: "/api/v1/state/mine",
    body: { value: 1, ttl_seconds: text }
  }),
  "the name of an API key": (text) => ({
    method: "POST",
    path: "/api/v1/auth/api-keys",
    body: { name: text.slice(0, 99) }
  }),
  "a scope of an API key": (text) => ({
    method: "POST",
    path: "/api/v1/auth/api-keys",
    body: { name: "mine", scopes: [text] }
  }),
  "the end of an API key's life": (text) => ({
    method: "POST",
    path: "/api/v1/auth/api-keys",
    body: { name: "mine", expires_at: text }
  }),
  "an e-mail address": (text) => ({
    method: "POST",
    path: "/api/v1/auth/login",
    headers: { "x-tenant-id": "jigtree" },
    body: { email: text, password: text }
  }),
  "X-Tenant-ID of a sign-in": (text) => ({
    method: "POST",
    path: "/api/v1/auth/login",
    headers: { "x-tenant-id": inHeader(text) },
    body: { email: "ada@skyvera.example", password: "x" }
  }),
  "X-Tenant-ID": (text) => ({
    method: "GET",
    path: "/api/v1/records/notes",
    headers: { "x-tenant-id": inHeader(text) }
  }),
  "If-Match": (text) => ({
    method: "PUT",
    path: `/api/v1/records/notes/${anId}`,
    headers: { "if-match": inHeader(text) },
    body: { data: 1 }
  }),
  "If-Match of a delete": (text) => ({
    method: "DELETE",
    path: `/api/v1/records/notes/${anId}`,
    headers: { "if-match": `"1", ${inHeader(text)}` }
  }),
  "X-Request-ID": (text) => ({
    method: "GET",
    path: "/api/v1/records/notes",
    headers: { "x-request-id": inHeader(text) }
  }),
  "X-API-Key": (text) => ({
    method: "GET",
    path: "/api/v1/records/notes",
    headers: { "x-api-key": inHeader(text) }
  }),
  "a Bearer": (text) => ({
    method: "GET",
    path: "/api/v1/records/notes",
    headers: { authorization: `Bearer ${inHeader(text)}` }
  }),
  "a path of nobody's": (text) => ({ method: "GET", path: `/api/v1/${encoded(text)}` })
}

const Created = Schema.fromJsonString(Schema.Struct({ id: Schema.String, data: Schema.Json }))
const decodeCreated = Schema.decodeEffect(Created)

const redisOf = Effect.fnUntraced(function* (id: string) {
  const { redis } = yield* TestDatabase
  const keys = yield* keysOfData(`*${id}*`)
  return { keys, values: yield* Effect.promise(() => redis.mget(keys)) }
})

layer(TestApp, onRealClock)("SQL sent through the API", (it) => {
  it.effect(
    "is a text like any other: nothing of another tenant comes back or changes, and nothing breaks",
    () =>
      Effect.gen(function* () {
        const a = yield* provisionTenant("skyvera")
        const b = yield* provisionTenant("jigtree")
        const secret = `secret-of-${b.slug}`
        const notes = { collection: CollectionName.make("notes") }
        yield* b.asUser.records.create({ params: notes, payload: { data: { secret } } })
        yield* b.asUser.state.put({ params: { key: StateKey.make("mood") }, payload: { value: secret } })
        const before = { rows: yield* rowsOf(b.schema), redis: yield* redisOf(b.id) }

        const { "access token": token = {} } = credentialsOf(a)
        const attacks = Object.entries(places).flatMap(([place, call]) =>
          injections(b).map((text) => ({ place, text, call: call(text) }))
        )
        yield* Effect.forEach(
          attacks,
          ({ call, place, text }) =>
            Effect.gen(function* () {
              const answer = yield* send({ ...call, headers: { ...token, ...call.headers } })
              const what = `${place}: ${text}: ${answer.status} ${answer.text}`
              assert.isBelow(answer.status, 500, what)
              assert.notInclude(everything(answer), secret, what)
              assert.notMatch(answer.text, /syntax error|relation|SQLSTATE|pg_|node_modules/, what)
            }),
          { concurrency: 4 }
        )
        assert.deepStrictEqual({ rows: yield* rowsOf(b.schema), redis: yield* redisOf(b.id) }, before)
      })
  )

  it.effect("comes back as it was written", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const { "API key": key = {} } = credentialsOf(a)
      const texts = injections(a).filter((text) => text !== "\u0000")
      for (const text of texts) {
        const data = { [text]: [text, { [text]: text }] }
        const made = yield* send({
          method: "POST",
          path: "/api/v1/records/notes",
          headers: key,
          body: { data }
        })
        assert.strictEqual(made.status, 201, text)
        const { id } = yield* decodeCreated(made.text)
        const read = yield* send({ method: "GET", path: `/api/v1/records/notes/${id}`, headers: key })
        assert.deepStrictEqual((yield* decodeCreated(read.text)).data, data)
      }
    })
  )
})
