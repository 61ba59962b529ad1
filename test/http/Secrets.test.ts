import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import type { AuditAction } from "../../src/domain/Audit.ts"
import type { Scope } from "../../src/domain/Principal.ts"
import { SecretName } from "../../src/domain/Secret.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp, TestDatabase } from "../support/Platform.ts"
import { addUser, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const openai = { name: SecretName.make("openai_api_key") }
const path = "/api/v1/secrets/openai_api_key"
const some = () => ({ value: Redacted.make("a value") })
const bearer = (token: Redacted.Redacted<string>) => ({ authorization: `Bearer ${Redacted.value(token)}` })

/** A text that stands nowhere by chance. */
const canary = () => `canary-${randomBytes(8).toString("hex")}`

const acts = Effect.fnUntraced(function* (tenant: TestTenant) {
  const { items } = yield* tenant.asUser.audit.list({ query: {} })
  return items
    .filter(({ action }) => action.startsWith("secret."))
    .map(({ action, actor, details, target }) => ({ action, by: actor.name, details, target }))
    .toReversed()
})

layer(TestApp, onRealClock)("A tenant's secrets", (it) => {
  it.effect("are set, listed by name and version, and deleted", () =>
    Effect.gen(function* () {
      const { asUser } = yield* provisionTenant("acme")
      const { secrets } = asUser
      assert.deepStrictEqual(yield* secrets.list({ query: {} }), { items: [], next_cursor: null })

      yield* secrets.put({ params: openai, payload: some() })
      const [first] = (yield* secrets.list({ query: {} })).items
      assert.deepStrictEqual([first?.name, first?.version], [openai.name, 1])
      yield* secrets.put({ params: openai, payload: some() })
      const { items } = yield* secrets.list({ query: {} })
      assert.deepStrictEqual(
        items.map(({ name, version }) => [name, version]),
        [[openai.name, 2]]
      )
      const [second] = items
      assert.isDefined(first)
      assert.isDefined(second)
      assert.isTrue(DateTime.Equivalence(second.created_at, first.created_at))
      assert.isTrue(DateTime.isGreaterThan(second.updated_at, first.updated_at))

      yield* secrets.remove({ params: openai })
      assert.strictEqual((yield* Effect.flip(secrets.remove({ params: openai })))._tag, "NotFound")
      assert.deepStrictEqual((yield* secrets.list({ query: {} })).items, [])
    })
  )

  it.effect("answer as the contract says, and with a value nowhere", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = bearer(tenant.accessToken)
      const value = canary()
      const put = yield* sendJson("PUT", path, { value }, headers)
      assert.deepStrictEqual([put.status, put.text], [204, ""])
      const list = yield* send("/api/v1/secrets", { headers })
      assert.strictEqual(list.status, 200)
      assert.notInclude(list.text, value)
      const items = member(list.json, "items")
      assert.isTrue(Array.isArray(items))
      const [item] = Array.isArray(items) ? items : []
      assert.sameMembers(Object.keys(Object(item)), ["name", "version", "created_at", "updated_at"])
      // There is no way to ask for one.
      assert.strictEqual((yield* send(path, { headers })).status, 405)
      const gone = yield* send(path, { method: "DELETE", headers })
      assert.deepStrictEqual([gone.status, gone.text], [204, ""])
      const never = yield* send(path, { method: "DELETE", headers })
      assert.deepStrictEqual([never.status, code(never)], [404, "NotFound"])
    })
  )

  it.effect("are paged in the order of their names", () =>
    Effect.gen(function* () {
      const { asUser } = yield* provisionTenant("acme")
      const names = ["b", "a-2", "a_1", "a", "0"].map((name) => SecretName.make(name))
      yield* Effect.forEach(names, (name) => asUser.secrets.put({ params: { name }, payload: some() }))
      const seen: Array<string> = []
      let cursor: string | undefined
      do {
        const page = yield* asUser.secrets.list({
          query: { limit: 2, ...(cursor === undefined ? {} : { cursor }) }
        })
        seen.push(...page.items.map(({ name }) => name))
        cursor = page.next_cursor === null ? undefined : Buffer.from(page.next_cursor, "base64url").toString()
      } while (cursor !== undefined)
      // By bytes, whatever the database's locale.
      assert.deepStrictEqual(seen, ["0", "a", "a-2", "a_1", "b"])
    })
  )

  it.effect("are an admin's, and of keys that have their scopes", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const member = yield* addUser(tenant)
      const admin = yield* addUser(tenant, "admin")
      const key = (...scopes: ReadonlyArray<Scope>) =>
        Effect.map(tenant.asUser.auth.createApiKey({ payload: { name: "some", scopes } }), (made) => ({
          "x-api-key": made.key
        }))
      const callers = [
        [{}, [401, 401, 401]],
        [{ authorization: `Bearer ${operatorKey}` }, [403, 403, 403]],
        [bearer(member.accessToken), [403, 403, 403]],
        [yield* key("records:read", "records:write", "users:*"), [403, 403, 403]],
        [yield* key("secrets:read"), [403, 200, 403]],
        [yield* key("secrets:write"), [204, 403, 204]],
        [yield* key("secrets:*"), [204, 200, 204]],
        [bearer(admin.accessToken), [204, 200, 204]]
      ] as const
      for (const [headers, expected] of callers) {
        const put = yield* sendJson("PUT", path, { value: "x" }, headers)
        const list = yield* send("/api/v1/secrets", { headers })
        const remove = yield* send(path, { method: "DELETE", headers })
        const statuses = [put, list, remove].map(({ status }) => status)
        assert.deepStrictEqual(statuses, [...expected], JSON.stringify(expected))
      }
      // A member's key can't have what the member has not.
      const refused = yield* Effect.flip(
        member.asUser.auth.createApiKey({ payload: { name: "more", scopes: ["secrets:read"] } })
      )
      assert.strictEqual(refused._tag, "Forbidden")
    })
  )

  it.effect("have 1 byte to 16 KiB, and no refusal repeats one", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = bearer(tenant.accessToken)
      const put = (body: unknown, at = path) => sendJson("PUT", at, body, headers)
      for (const value of ["x", "x".repeat(16_384), "é".repeat(8_192), "\uFEFF two\nlines "]) {
        assert.strictEqual((yield* put({ value })).status, 204, `${value.length}`)
      }
      const value = canary()
      const long = value + "x".repeat(16_384)
      const wide = value + "é".repeat(8_192)
      for (const [what, body] of Object.entries({
        "none at all": {},
        empty: { value: "" },
        "too long": { value: long },
        "too long in bytes": { value: wide },
        "no text": { value: [value] },
        "an object": { value: { [value]: value } },
        "another name": { valeu: value },
        "the value alone": JSON.stringify(value),
        "not JSON": value,
        "cut off": `{"value":"${value}`,
        "something after it": `{"value":"${value}"} ${value}`,
        "half of a pair": `{"value":"${value}\\ud800"}`,
        null: { value: null }
      })) {
        const answer = yield* put(body)
        assert.deepStrictEqual([answer.status, code(answer)], [400, "InvalidRequest"], what)
        assert.notInclude(answer.text + JSON.stringify([...answer.headers]), value, what)
      }
      assert.include((yield* put({ value: long })).text, "Expected 16 KiB or less")
      for (const name of ["Upper", "a%20b", "a.b", "-a", "_a", "x".repeat(101), "%00", "é"]) {
        const answer = yield* put({ value }, `/api/v1/secrets/${name}`)
        assert.deepStrictEqual([answer.status, code(answer)], [400, "InvalidRequest"], name)
        assert.notInclude(answer.text, value)
      }
      assert.strictEqual((yield* put({ value }, `/api/v1/secrets/${"x".repeat(100)}`)).status, 204)
      const cursor = Buffer.from("a\0").toString("base64url")
      assert.strictEqual((yield* send(`/api/v1/secrets?cursor=${cursor}`, { headers })).status, 400)
    })
  )

  it.effect("leave an entry each in the audit log: who, which, and what version", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      yield* tenant.asUser.secrets.put({ params: openai, payload: some() })
      yield* tenant.asUser.secrets.put({ params: openai, payload: some() })
      yield* tenant.asUser.secrets.remove({ params: openai })
      yield* Effect.flip(tenant.asUser.secrets.remove({ params: openai }))
      const entry = (action: AuditAction, version: number) => ({
        action,
        by: tenant.email,
        details: { name: openai.name, version },
        target: { type: "secret", id: openai.name }
      })
      assert.deepStrictEqual(yield* acts(tenant), [
        entry("secret.set", 1),
        entry("secret.set", 2),
        entry("secret.removed", 2)
      ])
    })
  )

  it.effect("are neither set nor deleted where the log has no entry of it", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      const headers = bearer(tenant.accessToken)
      yield* sendJson("PUT", path, { value: "x" }, headers)
      yield* sql`CREATE FUNCTION ${sql(`${tenant.schema}.refuse`)}() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE ''no''; END'`
      yield* sql`CREATE TRIGGER refuse BEFORE INSERT ON ${sql(`${tenant.schema}.audit_log`)}
        FOR EACH ROW EXECUTE FUNCTION ${sql(`${tenant.schema}.refuse`)}()`
      const table = sql(`${tenant.schema}.secrets`)
      const before = yield* sql`SELECT t::text FROM ${table} t`
      assert.strictEqual((yield* sendJson("PUT", path, { value: "y" }, headers)).status, 500)
      assert.strictEqual((yield* send(path, { method: "DELETE", headers })).status, 500)
      assert.deepStrictEqual(yield* sql`SELECT t::text FROM ${table} t`, before)
      assert.strictEqual(before.length, 1)
    })
  )
})
