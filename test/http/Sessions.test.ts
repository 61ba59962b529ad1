import { assert, layer } from "@effect/vitest"
import { Arbitrary, Effect, Redacted, Result, Schema } from "effect"
import { Sessions } from "../../src/services/Sessions.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, TestApp, TestDatabase } from "../support/Platform.ts"
import { addUser, provisionTenant, signInPair } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const GRACE = "11 seconds"

/** Refreshes with an old or new token: so many back from the latest, which is the likeliest; after the grace, or soon. */
const Steps = Schema.Array(
  Schema.Struct({
    back: Schema.Int.check(Schema.isBetween({ minimum: -3, maximum: 3 })),
    later: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 4 }))
  })
).check(Schema.isMinLength(4), Schema.isMaxLength(10))

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const me = (token: string) => send("/api/v1/auth/me", { headers: bearer(token) })
const refresh = (token: string, headers: Record<string, string> = {}) =>
  sendJson("POST", "/api/v1/auth/refresh", { refresh_token: token }, headers)

/** A new pair, from an answer that has to be one. */
const refreshed = Effect.fnUntraced(function* (token: string) {
  const answer = yield* refresh(token)
  assert.strictEqual(answer.status, 200, answer.text)
  assert.strictEqual(answer.headers.get("cache-control"), "no-store")
  return {
    access: String(member(answer.json, "access_token")),
    refresh: String(member(answer.json, "refresh_token"))
  }
})

/** As if every session of the tenant had been rotated so much earlier. */
const timePasses = Effect.fnUntraced(function* (tenant: TestTenant) {
  const { superuser: sql } = yield* TestDatabase
  yield* sql`UPDATE ${sql(`${tenant.schema}.sessions`)} SET rotated_at = rotated_at - ${GRACE}::interval`
})

const actions = (tenant: TestTenant) =>
  Effect.map(tenant.asService.audit.list({ query: {} }), ({ items }) => items.map(({ action }) => action))

layer(TestApp, onRealClock)("a refresh", (it) => {
  it.effect("gives a new pair of the same session, and stores no token", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const log = yield* acme.asService.audit.list({ query: { limit: 1 } })
      assert.deepStrictEqual(
        log.items.map(({ action, actor }) => [action, actor.type, actor.name]),
        [["session.created", "user", acme.email]]
      )
      assert.match(first.refresh_token, /^aa_rt_[0-9a-f]{64}_[A-Za-z0-9_-]{86}$/)
      const second = yield* refreshed(first.refresh_token)
      assert.notStrictEqual(second.refresh, first.refresh_token)
      assert.strictEqual((yield* me(second.access)).status, 200)
      assert.strictEqual((yield* me(first.access_token)).status, 200)
      const { superuser: sql } = yield* TestDatabase
      const stored = JSON.stringify(yield* sql`SELECT * FROM ${sql(`${acme.schema}.sessions`)}`)
      for (const token of [first.refresh_token, second.refresh]) {
        assert.notInclude(stored, token.slice(-86, -43))
        assert.notInclude(stored, token.slice(-43))
      }
    })
  )

  it.effect("with a spent token ends the session, and whoever has its tokens is out", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const second = yield* refreshed(first.refresh_token)
      yield* timePasses(acme)
      const reused = yield* refresh(first.refresh_token)
      assert.strictEqual(reused.status, 401)
      assert.strictEqual(code(reused), "Unauthenticated")
      assert.isNotNull(reused.headers.get("www-authenticate"))
      assert.strictEqual((yield* refresh(second.refresh)).status, 401)
      const { superuser: sql } = yield* TestDatabase
      const left = yield* sql`SELECT 1 FROM ${sql(`${acme.schema}.sessions`)}`
      // The one that provisioning signed in with is another.
      assert.strictEqual(left.length, 1)
      assert.strictEqual((yield* actions(acme))[0], "session.revoked")
    })
  )

  it.effect("whose answer got lost may be repeated, until a successor is used", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const lost = yield* refreshed(first.refresh_token)
      const second = yield* refreshed(first.refresh_token)
      const third = yield* refreshed(second.refresh)
      assert.strictEqual((yield* me(third.access)).status, 200)
      // Within the ten seconds, but the successor was used.
      assert.strictEqual((yield* refresh(first.refresh_token)).status, 401)
      assert.strictEqual((yield* refresh(third.refresh)).status, 401)
      assert.strictEqual((yield* refresh(lost.refresh)).status, 401)
    })
  )

  it.effect("by several at once with one token answers them all, and ends nothing", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const pairs = yield* Effect.all(
        Array.from({ length: 8 }, () => refreshed(first.refresh_token)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(pairs.map((pair) => pair.refresh)).size, 8)
      for (const pair of pairs) assert.strictEqual((yield* me(pair.access)).status, 200)
      // Whichever of the answers a client kept is good.
      yield* refreshed(pairs[3]?.refresh ?? "")
    })
  )

  it.effect("with anything else has one answer, and ends no session of anybody's", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { refresh_token: token } = yield* signInPair(acme.slug, acme.email, acme.password)
      const id = { "x-request-id": "6f1c1f0e-58a5-4b5a-9a86-6d9c1d3c1b11" }
      const other = yield* provisionTenant("other")
      const wrong = [
        "",
        "aa_rt_",
        "x".repeat(1000),
        `${token}x`,
        token.toUpperCase(),
        // Whoever knows the ids of a session, from an access token, knows neither its family nor its secret.
        `${token.slice(0, -86)}${"A".repeat(86)}`,
        `${token.slice(0, -86)}${"A".repeat(43)}${token.slice(-43)}`,
        token.replace(acme.id.replaceAll("-", ""), other.id.replaceAll("-", "")),
        token.replace(
          acme.id.replaceAll("-", ""),
          "0".repeat(12) + "4" + "0".repeat(3) + "8" + "0".repeat(15)
        )
      ]
      const texts = new Set<string>()
      for (const value of wrong) {
        const answer = yield* refresh(value, id)
        assert.strictEqual(answer.status, 401, value)
        assert.strictEqual(code(answer), "Unauthenticated", value)
        texts.add(answer.text)
      }
      assert.strictEqual(texts.size, 1)
      yield* refreshed(token)
    })
  )

  it.effect("moves the end of the session, up to thirty days after the sign-in", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { superuser: sql } = yield* TestDatabase
      const sessions = sql(`${acme.schema}.sessions`)
      yield* sql`DELETE FROM ${sessions}`
      const { refresh_token: token } = yield* signInPair(acme.slug, acme.email, acme.password)
      const days = Effect.map(
        sql<{
          days: number
        }>`SELECT round(extract(epoch FROM expires_at - now()) / 86400)::int AS days FROM ${sessions}`,
        ([row]) => row?.days
      )
      assert.strictEqual(yield* days, 7)
      yield* sql`UPDATE ${sessions} SET created_at = now() - interval '20 days', expires_at = now() + interval '1 hour'`
      const second = yield* refreshed(token)
      assert.strictEqual(yield* days, 7)
      yield* sql`UPDATE ${sessions} SET created_at = now() - interval '28 days'`
      const third = yield* refreshed(second.refresh)
      assert.strictEqual(yield* days, 2)
      yield* sql`UPDATE ${sessions} SET expires_at = now()`
      assert.strictEqual((yield* refresh(third.refresh)).status, 401)
      // The next sign-in sweeps it away.
      yield* signInPair(acme.slug, acme.email, acme.password)
      assert.strictEqual((yield* sql`SELECT 1 FROM ${sessions}`).length, 1)
    })
  )

  it.effect("does what the model says, in any order of old and new tokens", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const sessions = yield* Sessions
      const seen = { answered: 0, repeated: 0, refused: 0 }

      const play = Effect.fnUntraced(function* (steps: typeof Steps.Type) {
        const { refreshToken } = yield* sessions.signIn({
          tenant: acme.slug,
          email: acme.email,
          password: Redacted.make(acme.password)
        })
        const issued = [refreshToken]
        let model = { alive: true, usable: new Set([0]), previous: -1, recent: false }
        for (const { back, later } of steps) {
          if (later === 0) {
            yield* timePasses(acme)
            model.recent = false
          }
          const index = Math.max(0, issued.length - 1 - Math.max(0, back))
          const token = issued[index]
          if (token === undefined) return false
          const repeats = model.recent && index === model.previous
          const expected = model.alive && (model.usable.has(index) || repeats)
          const answer = yield* Effect.result(sessions.refresh({ refreshToken: token, tenant: undefined }))
          if (Result.isSuccess(answer) !== expected) return false
          if (Result.isFailure(answer)) {
            model.alive = false
            seen.refused++
            continue
          }
          const latest = issued.push(answer.success.refreshToken) - 1
          if (repeats) model.usable.add(latest)
          else model = { alive: true, usable: new Set([latest]), previous: index, recent: true }
          seen[repeats ? "repeated" : "answered"]++
        }
        return true
      })

      const result = yield* Arbitrary.checkEffect(Arbitrary.schema(Steps), play, { runs: 40 })
      assert.isUndefined(Arbitrary.formatCheckFailure(result))
      // Each way was gone, or the sequences would say little.
      for (const count of Object.values(seen)) assert.isAbove(count, 5)
    })
  )
})

layer(TestApp, onRealClock)("an account", (it) => {
  it.effect("signs out: the session's tokens are worth nothing, the others are", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const out = yield* sendJson("POST", "/api/v1/auth/logout", "", bearer(first.access_token))
      assert.strictEqual(out.status, 204)
      assert.strictEqual((yield* me(first.access_token)).status, 401)
      assert.strictEqual((yield* refresh(first.refresh_token)).status, 401)
      yield* acme.asUser.auth.me()
      assert.strictEqual((yield* actions(acme))[0], "session.ended")
    })
  )

  it.effect("changes its password, and ends all its other sessions and nobody else's", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const user = yield* addUser(acme)
      const other = yield* signInPair(acme.slug, user.email, user.password)
      const next = "a hat for every heron"
      yield* user.asUser.auth.changePassword({
        payload: { current_password: Redacted.make(user.password), new_password: Redacted.make(next) }
      })
      assert.strictEqual((yield* actions(acme))[0], "password.changed")
      assert.strictEqual((yield* refresh(other.refresh_token)).status, 401)
      yield* refreshed(user.refreshToken)
      yield* user.asUser.auth.me()
      yield* acme.asUser.auth.me()
      assert.strictEqual(
        (yield* Effect.flip(signInPair(acme.slug, user.email, user.password)))._tag,
        "InvalidCredentials"
      )
      yield* signInPair(acme.slug, user.email, next)
    })
  )

  it.effect("changes it only with the current one, and to none that is easily guessed", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const user = yield* addUser(acme)
      const change = (current_password: string, new_password: string) =>
        sendJson(
          "POST",
          "/api/v1/auth/password",
          { current_password, new_password },
          bearer(Redacted.value(user.accessToken))
        )
      const wrong = yield* change("not the password", "a hat for every heron")
      assert.deepStrictEqual([wrong.status, code(wrong)], [401, "InvalidCredentials"])
      for (const weak of ["too short", "password1234", "qwertyuiopas", `${acme.slug}1`, "x".repeat(1025)]) {
        const answer = yield* change(user.password, weak)
        assert.deepStrictEqual([answer.status, code(answer)], [400, "InvalidRequest"], weak)
        assert.include(answer.text, `"path":["new_password"]`)
        assert.notInclude(answer.text, weak)
      }
      yield* signInPair(acme.slug, user.email, user.password)
    })
  )

  it.effect("that two change at once has one of the two passwords, and one of them is told so", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const user = yield* addUser(acme)
      const changed = yield* Effect.all(
        ["a hat for every heron", "two boats and a bishop"].map((next) =>
          Effect.result(
            user.asUser.auth.changePassword({
              payload: { current_password: Redacted.make(user.password), new_password: Redacted.make(next) }
            })
          )
        ),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(changed.filter(Result.isSuccess).length, 1)
    })
  )
})
