import { assert, layer } from "@effect/vitest"
import { Effect, Redacted, Result } from "effect"
import { randomUUID } from "node:crypto"
import { UserId } from "../../src/domain/Principal.ts"
import type { Scope } from "../../src/domain/Principal.ts"
import { makeClient } from "../../src/http/Client.ts"
import { send, sendJson } from "../support/Http.ts"
import { onRealClock, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { addUser, provisionTenant, signInPair } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const keyOf = Effect.fnUntraced(function* (tenant: TestTenant, scopes: ReadonlyArray<Scope>) {
  const { url } = yield* TestServer
  const { key } = yield* tenant.asUser.auth.createApiKey({ payload: { name: "key", scopes } })
  return yield* makeClient({ baseUrl: url, apiKey: Redacted.make(key) })
})

const strong = Redacted.make("staple a purple giraffe")
const tagOf = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), ({ _tag }) => _tag)

layer(TestApp, onRealClock)("users", (it) => {
  it.effect("are made, listed, read, changed and deleted by an admin, and each act is in the log", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const made = yield* sendJson(
        "POST",
        "/api/v1/users",
        { email: "ada@acme.example" },
        { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
      )
      assert.strictEqual(made.status, 201)
      const { created_at, id, password, updated_at, ...rest } = JSON.parse(made.text)
      assert.deepStrictEqual(rest, { email: "ada@acme.example", name: null, role: "member", is_active: true })
      assert.isString(created_at)
      assert.isString(updated_at)
      yield* signInPair(acme.slug, "ADA@acme.example", password)

      const { users } = acme.asUser
      const params = { id: UserId.make(id) }
      const given = yield* users.create({
        payload: { email: "bob@acme.example", name: "Bob", role: "admin", password: strong }
      })
      assert.notProperty(given, "password")
      const first = yield* users.list({ query: { limit: 2 } })
      const cursor = Buffer.from(first.next_cursor ?? "", "base64url").toString()
      const second = yield* users.list({ query: { limit: 2, cursor } })
      assert.deepStrictEqual(
        [...first.items, ...second.items].map(({ email }) => email),
        [acme.email, "ada@acme.example", "bob@acme.example"]
      )
      assert.isNull(second.next_cursor)
      const changed = yield* users.update({ params, payload: { name: "Ada", email: "ada@new.example" } })
      assert.deepStrictEqual(
        [changed.name, changed.email, changed.role],
        ["Ada", "ada@new.example", "member"]
      )
      assert.deepStrictEqual(yield* users.get({ params }), changed)
      assert.isNull((yield* users.update({ params, payload: { name: null } })).name)
      yield* users.remove({ params })
      assert.strictEqual(yield* tagOf(users.get({ params })), "NotFound")
      assert.strictEqual(yield* tagOf(users.update({ params, payload: {} })), "NotFound")
      assert.strictEqual(yield* tagOf(users.remove({ params })), "NotFound")

      const log = yield* acme.asUser.audit.list({ query: { target_id: id } })
      assert.deepStrictEqual(
        log.items.map(({ action }) => action),
        ["user.deleted", "user.updated", "user.updated", "user.created"]
      )
      assert.notInclude(JSON.stringify(log), password)
    })
  )

  it.effect("have addresses that are theirs alone in the tenant, in any case, and free in another", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const other = yield* provisionTenant("other")
      const { id } = yield* acme.asUser.users.create({ payload: { email: "ada@x.example" } })
      const again = { payload: { email: "ADA@X.example" } }
      assert.strictEqual(yield* tagOf(acme.asUser.users.create(again)), "Conflict")
      const bob = yield* acme.asUser.users.create({ payload: { email: "bob@x.example" } })
      assert.strictEqual(
        yield* tagOf(acme.asUser.users.update({ params: { id: bob.id }, ...again })),
        "Conflict"
      )
      yield* acme.asUser.users.update({ params: { id }, ...again })
      yield* other.asUser.users.create(again)
      const both = yield* Effect.all(
        [1, 2].map(() => Effect.result(acme.asUser.users.create({ payload: { email: "eve@x.example" } }))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(both.filter(Result.isSuccess).length, 1)
    })
  )

  it.effect("take no password that is easily guessed", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      for (const weak of ["short", "password1234", `${acme.slug}!`, "ada.lovelace1815"]) {
        const answer = yield* sendJson(
          "POST",
          "/api/v1/users",
          { email: "ada.lovelace@x.example", password: weak },
          { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
        )
        assert.strictEqual(answer.status, 400, weak)
        assert.include(answer.text, `"path":["password"]`)
      }
    })
  )

  it.effect("are nothing that a member, or a key without the scopes, gets to see or change", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const member = yield* addUser(acme)
      const plain = yield* keyOf(acme, ["records:read", "records:write"])
      const params = { id: member.id }
      for (const { users } of [member.asUser, plain]) {
        assert.deepStrictEqual(
          [
            yield* tagOf(users.list({ query: {} })),
            yield* tagOf(users.get({ params })),
            yield* tagOf(users.create({ payload: { email: "eve@x.example" } })),
            yield* tagOf(users.update({ params, payload: { role: "admin" } })),
            yield* tagOf(users.remove({ params }))
          ],
          Array.from({ length: 5 }, () => "Forbidden")
        )
      }
      const reader = yield* keyOf(acme, ["users:read"])
      assert.strictEqual((yield* reader.users.list({ query: {} })).items.length, 2)
      assert.strictEqual(yield* tagOf(reader.users.remove({ params })), "Forbidden")
    })
  )

  it.effect("become admins, or are changed as such, only by who has all that an admin has", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const member = yield* addUser(acme)
      const admin = yield* addUser(acme, "admin")
      const { users } = yield* keyOf(acme, ["users:*"])
      const mine = { id: member.id }
      const theirs = { id: admin.id }
      assert.deepStrictEqual(
        [
          yield* tagOf(users.create({ payload: { email: "eve@x.example", role: "admin" } })),
          yield* tagOf(users.update({ params: mine, payload: { role: "admin" } })),
          yield* tagOf(users.update({ params: theirs, payload: { password: strong } })),
          yield* tagOf(users.update({ params: theirs, payload: { email: "eve@x.example" } })),
          yield* tagOf(users.update({ params: theirs, payload: { is_active: false } })),
          yield* tagOf(users.remove({ params: theirs }))
        ],
        Array.from({ length: 6 }, () => "Forbidden")
      )
      yield* users.create({ payload: { email: "fine@x.example" } })
      yield* users.update({ params: mine, payload: { name: "Fine" } })
      yield* acme.asService.users.create({ payload: { email: "eve@x.example", role: "admin" } })
      assert.strictEqual((yield* admin.asUser.auth.me()).role, "admin")
      // A stolen access token is not enough to take over the account.
      assert.strictEqual(
        yield* tagOf(admin.asUser.users.update({ params: theirs, payload: { password: strong } })),
        "Forbidden"
      )
      assert.strictEqual(
        yield* tagOf(users.update({ params: { id: UserId.make(randomUUID()) }, payload: { name: "x" } })),
        "NotFound"
      )
    })
  )

  it.effect("always have an active admin among them", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { id } = yield* acme.asUser.auth.me()
      const { users } = acme.asUser
      const params = { id }
      const sleeping = yield* addUser(acme, "admin")
      yield* users.update({ params: { id: sleeping.id }, payload: { is_active: false } })
      assert.deepStrictEqual(
        [
          yield* tagOf(users.update({ params, payload: { role: "member" } })),
          yield* tagOf(users.update({ params, payload: { is_active: false } })),
          yield* tagOf(users.remove({ params }))
        ],
        ["Conflict", "Conflict", "Conflict"]
      )
      yield* users.remove({ params: { id: sleeping.id } })
      yield* users.update({ params, payload: { name: "Still there", role: "admin" } })
      yield* addUser(acme, "admin")
      yield* users.remove({ params })
    })
  )

  it.effect("two admins who demote or delete each other at once: one of them stays", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      for (let round = 0; round < 3; round++) {
        const first = yield* addUser(acme, "admin")
        const second = yield* addUser(acme, "admin")
        yield* sql`UPDATE ${sql(`${acme.schema}.users`)} SET is_active = false
          WHERE id NOT IN (${first.id}, ${second.id})`
        const against = (id: UserId, by: typeof first) =>
          round === 0
            ? Effect.result(
                Effect.asVoid(by.asUser.users.update({ params: { id }, payload: { role: "member" } }))
              )
            : round === 1
              ? Effect.result(by.asUser.users.remove({ params: { id } }))
              : Effect.result(
                  Effect.asVoid(by.asUser.users.update({ params: { id }, payload: { is_active: false } }))
                )
        const results = yield* Effect.all([against(second.id, first), against(first.id, second)], {
          concurrency: "unbounded"
        })
        assert.strictEqual(results.filter(Result.isSuccess).length, 1)
        const left =
          yield* sql`SELECT id FROM ${sql(`${acme.schema}.users`)} WHERE role = 'admin' AND is_active`
        assert.strictEqual(left.length, 1)
        yield* sql`UPDATE ${sql(`${acme.schema}.users`)} SET is_active = true WHERE email = ${acme.email}`
      }
    })
  )

  it.effect("bring to an end with them their sessions and keys", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      const user = yield* addUser(acme)
      yield* user.asUser.auth.createApiKey({ payload: { name: "theirs" } })
      const count = (table: string) =>
        Effect.map(
          sql`SELECT 1 FROM ${sql(`${acme.schema}.${table}`)} WHERE user_id = ${user.id}`,
          (rows) => rows.length
        )
      const params = { id: user.id }
      yield* acme.asUser.users.update({ params, payload: { is_active: false } })
      assert.deepStrictEqual([yield* count("sessions"), yield* count("api_keys")], [0, 1])
      const gone = yield* sendJson("POST", "/api/v1/auth/refresh", { refresh_token: user.refreshToken })
      assert.strictEqual(gone.status, 401)
      // Active again, they sign in anew: what ended stays so.
      yield* acme.asUser.users.update({ params, payload: { is_active: true } })
      yield* signInPair(acme.slug, user.email, user.password)
      yield* acme.asUser.users.update({
        params,
        payload: { password: Redacted.make("a hat for every heron") }
      })
      assert.strictEqual(yield* count("sessions"), 0)
      yield* signInPair(acme.slug, user.email, "a hat for every heron")
      yield* acme.asUser.users.remove({ params })
      assert.deepStrictEqual([yield* count("sessions"), yield* count("api_keys")], [0, 0])
      assert.strictEqual((yield* send("/api/v1/users")).status, 401)
    })
  )
})
