import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Redacted, Schema } from "effect"
import { ApiKeyId } from "../../src/domain/Principal.ts"
import { makeClient } from "../../src/http/Client.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp, TestDatabase } from "../support/Platform.ts"
import { send } from "../support/RawHttp.ts"
import { provisionTenant } from "../support/Tenants.ts"

const read = (key: string, url?: string) =>
  Effect.map(
    send({ method: "GET", path: "/api/v1/records/notes", headers: { "x-api-key": key } }, url),
    ({ status }) => status
  )

layer(TestApp, onRealClock)("API keys", (it) => {
  it.effect("once revoked, are refused on another instance within a second, also while Redis is away", () =>
    Effect.gen(function* () {
      // Nothing listens there.
      const other = yield* startServer({ REDIS_URL: "redis://127.0.0.1:1" })
      const tenant = yield* provisionTenant("skyvera")
      const made = yield* tenant.asUser.auth.createApiKey({ payload: { name: "short" } })
      assert.strictEqual(yield* read(made.key, other.url), 200)
      const told = yield* Clock.currentTimeMillis
      yield* tenant.asUser.auth.revokeApiKey({ params: { id: made.id } })
      yield* eventually("it is refused", read(made.key, other.url), (status) => status === 401)
      assert.isBelow((yield* Clock.currentTimeMillis) - told, 1_000)
      assert.strictEqual(yield* read(made.key), 401)
      const again = yield* Effect.flip(tenant.asUser.auth.revokeApiKey({ params: { id: made.id } }))
      assert.strictEqual(again._tag, "NotFound")
      const { items } = yield* tenant.asUser.audit.list({ query: { action: "api_key.revoked" } })
      assert.strictEqual(items[0]?.target?.id, made.id)
    })
  )

  it.effect("rotate: the old one works on for the overlap, and no longer", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("skyvera")
      const { auth } = tenant.asUser
      const old = yield* auth.createApiKey({ payload: { name: "import", scopes: ["records:read"] } })
      const next = yield* auth.rotateApiKey({ params: { id: old.id }, payload: { overlap_seconds: 1 } })
      assert.strictEqual(next.name, "import")
      assert.deepStrictEqual(next.scopes, ["records:read"])
      assert.deepStrictEqual(yield* Effect.all([read(old.key), read(next.key)]), [200, 200])
      const twice = yield* Effect.flip(auth.rotateApiKey({ params: { id: old.id }, payload: {} }))
      assert.strictEqual(twice._tag, "Conflict")
      yield* eventually("the overlap is over", read(old.key), (status) => status === 401)
      assert.strictEqual(yield* read(next.key), 200)
      const listed = yield* auth.listApiKeys({ query: {} })
      assert.strictEqual(listed.items.find(({ id }) => id === old.id)?.rotated_to, next.id)

      // Without an overlap, and without a body, the old one ends at once.
      const bare = yield* send({
        method: "POST",
        path: `/api/v1/auth/api-keys/${next.id}/rotate`,
        headers: { authorization: `Bearer ${Redacted.value(tenant.accessToken)}` }
      })
      assert.strictEqual(bare.status, 201, bare.text)
      assert.strictEqual(yield* read(next.key), 401)
      const gone = yield* Effect.flip(auth.rotateApiKey({ params: { id: next.id }, payload: {} }))
      assert.strictEqual(gone._tag, "NotFound")
      const { items } = yield* tenant.asUser.audit.list({ query: { action: "api_key.rotated" } })
      assert.strictEqual(items.length, 2)
    })
  )

  it.effect("of two rotations at once, only one makes a key", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("skyvera")
      const old = yield* tenant.asUser.auth.createApiKey({ payload: { name: "twice" } })
      const rotate = tenant.asUser.auth
        .rotateApiKey({ params: { id: old.id }, payload: { overlap_seconds: 60 } })
        .pipe(
          Effect.as("made"),
          Effect.catchTag("Conflict", () => Effect.succeed("conflict"))
        )
      const outcomes = yield* Effect.all([rotate, rotate, rotate], { concurrency: "unbounded" })
      assert.deepStrictEqual(outcomes.toSorted(), ["conflict", "conflict", "made"])
    })
  )

  it.effect("are another's to a member, who can neither revoke nor rotate them", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("skyvera")
      const { superuser: sql } = yield* TestDatabase
      const made = yield* tenant.asUser.auth.createApiKey({ payload: { name: "the admin's" } })
      const users = sql(`${tenant.schema}.users`)
      const keys = sql(`${tenant.schema}.api_keys`)
      yield* sql`INSERT INTO ${users} (id, tenant_id, email, hashed_password)
        SELECT gen_random_uuid(), tenant_id, 'other@example.com', hashed_password FROM ${users}`
      yield* sql`UPDATE ${keys} SET user_id = (SELECT id FROM ${users} WHERE email = 'other@example.com')
        WHERE id = ${made.id}`
      yield* sql`UPDATE ${users} SET role = 'member' WHERE email = ${tenant.email}`
      const { url } = yield* startServer()
      const anonymous = yield* makeClient({ baseUrl: url })
      const tokens = yield* anonymous.signIn.login({
        headers: { "x-tenant-id": tenant.slug },
        payload: { email: tenant.email, password: Redacted.make(tenant.password) }
      })
      const member = yield* makeClient({ baseUrl: url, bearer: Redacted.make(tokens.access_token) })
      const params = { id: made.id }
      const outcomes = yield* Effect.all([
        Effect.flip(member.auth.revokeApiKey({ params })),
        Effect.flip(member.auth.rotateApiKey({ params, payload: {} }))
      ])
      assert.deepStrictEqual(
        outcomes.map(({ _tag }) => _tag),
        ["NotFound", "NotFound"]
      )
      assert.strictEqual(yield* read(made.key), 200)
    })
  )

  it.effect("have their last use recorded, off the request's path, and never set back", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("skyvera")
      const { superuser: sql } = yield* TestDatabase
      const keys = sql(`${tenant.schema}.api_keys`)
      const future = "2999-01-01T00:00:00.000Z"
      const ahead = yield* tenant.asUser.auth.createApiKey({ payload: { name: "ahead" } })
      yield* sql`UPDATE ${keys} SET last_used_at = ${future}::timestamptz WHERE id = ${ahead.id}`
      const made = yield* tenant.asUser.auth.createApiKey({ payload: { name: "used" } })
      yield* read(ahead.key)
      yield* read(made.key)
      const usesOf = (id: ApiKeyId) =>
        sql<{ at: Date | null }>`SELECT last_used_at AS at FROM ${keys} WHERE id = ${id}`
      yield* eventually("it is written", usesOf(made.id), ([row]) => row?.at instanceof Date)
      assert.strictEqual((yield* usesOf(ahead.id))[0]?.at?.toISOString(), future)
      assert.isTrue(Schema.is(ApiKeyId)(made.id))
    })
  )
})
