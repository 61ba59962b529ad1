// What a session, a role or a user was, it is no longer on any instance a second later: with Redis and without.
import { assert, layer } from "@effect/vitest"
import { Clock, Duration, Effect, Redacted } from "effect"
import { decodeJwt, importJWK, SignJWT } from "jose"
import { Installation } from "../../src/layers/Installation.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp } from "../support/Platform.ts"
import { comparable, send } from "../support/RawHttp.ts"
import type { Call } from "../support/RawHttp.ts"
import { rowsOf } from "../support/RawSession.ts"
import { addUser, provisionTenant, signInPair, uniqueSlug } from "../support/Tenants.ts"

const WITHIN = Duration.seconds(1)

const read: Call = { method: "GET", path: "/api/v1/records/notes" }
const list: Call = { method: "GET", path: "/api/v1/users" }
const bearer = (token: Redacted.Redacted<string>) => ({ authorization: `Bearer ${Redacted.value(token)}` })
const refresh = (token: string, headers: Readonly<Record<string, string>> = {}): Call => ({
  method: "POST",
  path: "/api/v1/auth/refresh",
  headers,
  body: { refresh_token: token }
})

/** On another instance: the call is answered so before the act, and otherwise within a second of it, and from then on. */
const turns = Effect.fnUntraced(function* <A, E, R>(
  what: string,
  call: Call,
  url: string,
  [before, after]: readonly [number, number],
  act: Effect.Effect<A, E, R>
) {
  const ask = send(call, url)
  assert.strictEqual((yield* ask).status, before, what)
  yield* act
  const told = yield* Clock.currentTimeMillis
  yield* eventually(what, ask, ({ status }) => status === after)
  assert.isBelow((yield* Clock.currentTimeMillis) - told, Duration.toMillis(WITHIN), what)
  for (let again = 0; again < 3; again++) assert.strictEqual((yield* ask).status, after, what)
})

layer(TestApp, onRealClock)("On another instance, within a second", (it) => {
  for (const [redis, env] of [
    ["with Redis", {}],
    // A port that nobody listens on.
    ["without Redis", { REDIS_URL: "redis://127.0.0.1:1" }]
  ] as const) {
    it.effect(`what has ended is refused, and another role counts, ${redis}`, () =>
      Effect.gen(function* () {
        const { url } = yield* startServer(env)
        const tenant = yield* provisionTenant("skyvera")
        const { users } = tenant.asUser

        const leaver = yield* addUser(tenant)
        const left = { ...read, headers: bearer(leaver.accessToken) }
        yield* turns("logout", left, url, [200, 401], leaver.asUser.auth.logout())

        const careful = yield* addUser(tenant)
        const elsewhere = yield* signInPair(tenant.slug, careful.email, careful.password)
        const other = { ...read, headers: bearer(Redacted.make(elsewhere.access_token)) }
        const change = careful.asUser.auth.changePassword({
          payload: {
            current_password: Redacted.make(careful.password),
            new_password: Redacted.make("a hat for every heron")
          }
        })
        yield* turns("password", other, url, [200, 401], change)
        const own = yield* send({ ...read, headers: bearer(careful.accessToken) }, url)
        assert.strictEqual(own.status, 200)

        const robbed = yield* addUser(tenant)
        const next = yield* send(refresh(robbed.refreshToken))
        const { refresh_token: successor } = JSON.parse(next.text)
        yield* send(refresh(successor))
        const stolen = { ...read, headers: bearer(robbed.accessToken) }
        yield* turns("reuse", stolen, url, [200, 401], send(refresh(robbed.refreshToken)))

        const admin = yield* addUser(tenant, "admin")
        const made = yield* admin.asUser.auth.createApiKey({ payload: { name: "theirs" } })
        const params = { id: admin.id }
        const byToken = { headers: bearer(admin.accessToken) }
        const byKey = { headers: { "x-api-key": made.key } }
        const demote = users.update({ params, payload: { role: "member" } })
        yield* turns("role", { ...list, ...byToken }, url, [200, 403], demote)
        assert.strictEqual((yield* send({ ...list, ...byKey }, url)).status, 403)
        const promote = users.update({ params, payload: { role: "admin" } })
        yield* turns("role of a key's maker", { ...list, ...byKey }, url, [403, 200], promote)
        assert.strictEqual((yield* send({ ...list, ...byToken }, url)).status, 200)

        yield* send({ ...read, ...byKey }, url)
        const sleep = users.update({ params, payload: { is_active: false } })
        yield* turns("deactivation", { ...read, ...byToken }, url, [200, 401], sleep)
        yield* eventually(
          "the key is refused too",
          send({ ...read, ...byKey }, url),
          ({ status }) => status === 401,
          WITHIN
        )

        const doomed = yield* addUser(tenant)
        const theirs = yield* doomed.asUser.auth.createApiKey({ payload: { name: "theirs" } })
        const remove = users.remove({ params: { id: doomed.id } })
        const byTheirs = { ...read, headers: { "x-api-key": theirs.key } }
        yield* turns("deletion", byTheirs, url, [200, 401], remove)
        const last = yield* send({ ...read, headers: bearer(doomed.accessToken) }, url)
        assert.strictEqual(last.status, 401)
      })
    )
  }
})

layer(TestApp, onRealClock)("A session", (it) => {
  it.effect("of one tenant is none of another's, even in a token that we signed", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const before = yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)])
      const ofA = decodeJwt(Redacted.value(a.accessToken))
      const ofB = decodeJwt(Redacted.value(b.accessToken))
      const { tokenSigningKeys } = yield* Installation
      const [jwk] = Redacted.value(tokenSigningKeys).keys
      assert.isDefined(jwk)
      const key = yield* Effect.promise(() =>
        importJWK({ kty: "OKP", crv: "Ed25519", x: jwk?.x ?? "", d: jwk?.d ?? "" }, "EdDSA")
      )
      const { kid } = JSON.parse(
        Buffer.from(Redacted.value(a.accessToken).split(".")[0] ?? "", "base64url").toString()
      )
      const ask = Effect.fnUntraced(function* (claims: Readonly<Record<string, unknown>>) {
        const token = yield* Effect.promise(() =>
          new SignJWT(claims).setProtectedHeader({ alg: "EdDSA", kid, typ: "JWT" }).sign(key)
        )
        return (yield* send({ ...read, headers: bearer(Redacted.make(token)) })).status
      })
      assert.strictEqual(yield* ask(ofA), 200)
      for (const wrong of [
        // A's session as B's: there is none of that id.
        { ...ofA, tenant_id: b.id, tenant_slug: b.slug },
        { ...ofA, tenant_id: b.id, tenant_slug: b.slug, sub: ofB.sub },
        // Somebody else's session.
        { ...ofA, sub: ofB.sub },
        { ...ofA, sid: ofB["sid"] },
        { ...ofA, sid: "' OR true --" }
      ]) {
        assert.strictEqual(yield* ask(wrong), 401)
      }
      assert.deepStrictEqual(yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)]), before)
    })
  )

  it.effect("is refreshed for its own tenant: one that is named beside it has to be the same", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const pair = yield* signInPair(a.slug, a.email, a.password)
      const before = yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)])
      const answers = new Set<string>()
      for (const named of [b.id, b.slug, uniqueSlug("nobody"), "*"]) {
        const answer = yield* send(refresh(pair.refresh_token, { "x-tenant-id": named }))
        assert.strictEqual(answer.status, 403, named)
        assert.include(answer.text, `"code":"CrossTenantAccess"`)
        answers.add(comparable(answer))
      }
      assert.strictEqual(answers.size, 1)
      // Who holds no token of the session does not learn by the header which tenant an id is.
      const guessed = `${pair.refresh_token.slice(0, -86)}${"A".repeat(86)}`
      for (const named of [a.slug, b.slug]) {
        const answer = yield* send(refresh(guessed, { "x-tenant-id": named }))
        assert.strictEqual(answer.status, 401, named)
      }
      // Nothing of it was spent.
      assert.deepStrictEqual(yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)]), before)
      const { status } = yield* send(refresh(pair.refresh_token, { "x-tenant-id": a.id.toUpperCase() }))
      assert.strictEqual(status, 200)
    })
  )
})
