import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { HttpApi } from "effect/http-api"
import { Api } from "../../src/http/Api.ts"
import { Authentication } from "../../src/http/Authentication.ts"
import { RateLimit } from "../../src/http/RateLimit.ts"
import { ownLimit } from "../../src/http/RateLimitLayer.ts"
import type { SignInBudgets } from "../../src/services/SignInLimits.ts"
import { Tenants } from "../../src/services/Tenants.ts"
import { eventually } from "../support/Eventually.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import type { Answer } from "../support/Http.ts"
import { onRealClock, startServer, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const notes = "/api/v1/records/notes"
const read = (tenant: TestTenant, headers: Record<string, string> = {}) =>
  send(notes, { headers: { "x-api-key": Redacted.value(tenant.apiKey), ...headers } })

/** A tenant that may do so much a minute; what it did so far counts as nothing. */
const limitedTenant = Effect.fnUntraced(function* (limit: number) {
  const tenant = yield* provisionTenant("acme")
  const tenants = yield* Tenants
  const { redis } = yield* TestDatabase
  yield* tenants.update(tenant.id, { settings: { "rate.requests_per_minute": limit } })
  yield* eventually(
    "the setting is in force",
    read(tenant),
    (answer) => answer.headers.get("ratelimit-policy")?.includes(`q=${limit};`) === true
  )
  yield* Effect.promise(async () => {
    const keys = await redis.keys(`t:{${tenant.id}}:rate:*`)
    if (keys.length > 0) await redis.del(keys)
  })
  return tenant
})

const times = <A, E, R>(count: number, effect: Effect.Effect<A, E, R>) =>
  Effect.forEach(Array.from({ length: count }), () => effect)
const statuses = (answers: ReadonlyArray<Answer>) => answers.map(({ status }) => status)
const on =
  (url: string) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provideService(effect, TestServer, { url })

const refused = (answer: Answer) => {
  assert.deepStrictEqual([answer.status, code(answer)], [429, "RateLimited"])
  const wait = Number(answer.headers.get("retry-after"))
  assert.isTrue(Number.isInteger(wait) && wait >= 1, String(wait))
  assert.strictEqual(member(answer.json, "retry_after"), wait)
}

layer(TestApp, onRealClock)("rate limits", (it) => {
  it.effect("hold for every endpoint that asks for a credential", () =>
    Effect.sync(() => {
      const without: Array<string> = []
      HttpApi.reflect(Api, {
        onGroup: () => {},
        onEndpoint: ({ endpoint, group, middleware }) => {
          const keys = new Set([...middleware].map(({ key }) => key))
          if (keys.has(Authentication.key) && !keys.has(RateLimit.key)) {
            without.push(`${group.identifier}.${endpoint.identifier}`)
          }
        }
      })
      assert.deepStrictEqual(without, [])
    })
  )

  it.effect("are told with every answer, and a key has half of its tenant's when that is large", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const answer = yield* read(tenant)
      assert.strictEqual(answer.headers.get("ratelimit-policy"), `"tenant";q=6000;w=60, "key";q=3000;w=60`)
      assert.match(answer.headers.get("ratelimit") ?? "", /^"tenant";r=\d+;t=\d+, "key";r=\d+;t=\d+$/)
      assert.deepStrictEqual([1, 600, 1_000, 6_000].map(ownLimit), [1, 600, 600, 3_000])
      const missing = yield* send(`${notes}/0190c9a0-1111-7aaa-8bbb-123456789abc`, {
        headers: { "x-api-key": Redacted.value(tenant.apiKey) }
      })
      assert.strictEqual(missing.status, 404)
      assert.isTrue(missing.headers.has("ratelimit"))
    })
  )

  it.effect(
    "are shared by two instances to the last request, and one tenant's flood takes nothing of another's",
    () =>
      Effect.gen(function* () {
        const tenant = yield* limitedTenant(10)
        const other = yield* provisionTenant("other")
        // Two that have counted nothing of it yet: this one may remember a refusal, or what it was left with.
        const { url: first } = yield* startServer()
        const { url } = yield* startServer()
        // With a credential each, so that the tenant's is the one limit that both come to.
        const asUser = send(notes, {
          headers: { authorization: `Bearer ${Redacted.value(tenant.accessToken)}` }
        })
        const answers = yield* Effect.all([times(10, on(first)(read(tenant))), times(10, on(url)(asUser))], {
          concurrency: 2
        })
        const flat = answers.flat()
        assert.strictEqual(flat.filter(({ status }) => status === 200).length, 10)
        for (const answer of flat.filter(({ status }) => status !== 200)) refused(answer)
        const last = yield* on(first)(read(tenant, { "x-forwarded-for": "203.0.113.9" }))
        refused(last)
        assert.match(last.headers.get("ratelimit") ?? "", /^"tenant";r=0;t=\d+/)
        assert.strictEqual((yield* read(other)).status, 200)
        assert.strictEqual((yield* on(url)(read(other))).status, 200)
      })
  )

  it.effect("hold for each instance alone while Redis is away, and nobody waits for it", () =>
    Effect.gen(function* () {
      const tenant = yield* limitedTenant(5)
      const { url } = yield* startServer({ REDIS_URL: "redis://127.0.0.1:1" })
      const answers = yield* on(url)(times(6, read(tenant)))
      assert.deepStrictEqual(statuses(answers), [200, 200, 200, 200, 200, 429])
      const wrong = yield* on(url)(
        sendJson(
          "POST",
          "/api/v1/auth/login",
          { email: tenant.email, password: "x" },
          { "x-tenant-id": tenant.slug }
        )
      )
      assert.strictEqual(wrong.status, 401)
    })
  )
})

const few = { limit: 3, windowSeconds: 600 }
const many = { limit: 1_000, windowSeconds: 600 }
const budgets: SignInBudgets = {
  pair: few,
  address: many,
  account: many,
  tenant: many,
  sharedAddressFactor: 1,
  credentials: many
}

const login = (tenant: string, email: string, password: string, headers: Record<string, string> = {}) =>
  sendJson("POST", "/api/v1/auth/login", { email, password }, { "x-tenant-id": tenant, ...headers })

/** All that tells two answers apart, but for the date and the request's id. */
const told = ({ headers, status, text }: Answer) => {
  const id = headers.get("x-request-id") ?? ""
  const kept = [...headers].filter(([name]) => name !== "date" && name !== "x-request-id")
  return JSON.stringify([
    status,
    kept.map(([name, value]) => [name, value.replace(/t=\d+/g, "t")]),
    text.replaceAll(id, "")
  ])
}

layer(TestApp, onRealClock)("limits on signing in", (it) => {
  it.effect("answer for accounts and tenants that do not exist as for those that do, to the last byte", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const tries = Effect.fnUntraced(function* (slug: string, email: string) {
        // Each on counters of addresses that begin alike.
        const { redis } = yield* TestDatabase
        yield* Effect.promise(async () => {
          const keys = await redis.keys("p:rate:login:*")
          if (keys.length > 0) await redis.del(keys)
        })
        const { url } = yield* startServer({}, budgets)
        return yield* on(url)(times(5, login(slug, email, "wrong")))
      })
      const existing = yield* tries(tenant.slug, tenant.email)
      assert.deepStrictEqual(statuses(existing), [401, 401, 401, 429, 429])
      for (const others of [
        yield* tries(tenant.slug, "nobody@acme.example"),
        yield* tries("no-such-tenant", tenant.email)
      ]) {
        const words = (answers: ReadonlyArray<Answer>) =>
          answers.map(told).map((text) => text.replace(/retry.after[^,\]}]+/g, "").replace(/in \d+ s/, ""))
        assert.deepStrictEqual(words(others), words(existing))
      }
    }).pipe(Effect.scoped)
  )

  it.effect("count failures, forget them at a success, and no header gives a new address", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { url } = yield* startServer({}, budgets)
      const wrong = (index: number) =>
        login(tenant.slug, tenant.email, "wrong", { "x-forwarded-for": `203.0.113.${index}` })
      yield* on(url)(wrong(1))
      yield* on(url)(wrong(2))
      const right = login(tenant.id, tenant.email.toUpperCase(), tenant.password)
      assert.deepStrictEqual(statuses(yield* on(url)(times(5, right))), [200, 200, 200, 200, 200])
      assert.deepStrictEqual(
        statuses(yield* on(url)(Effect.forEach([3, 4, 5, 6], wrong))),
        [401, 401, 401, 429]
      )
      refused(yield* on(url)(right))
    })
  )

  it.effect("let an address that signed in before pass when strangers used up the account's", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { url } = yield* startServer({}, { ...budgets, pair: many, account: few })
      const right = login(tenant.slug, tenant.email, tenant.password)
      const { redis } = yield* TestDatabase
      const known = Effect.promise(() => redis.keys(`t:{${tenant.id}}:rate:login:known:*`))
      // The test's own signing in made the address known: to begin with, it is strange.
      yield* Effect.promise(async () => redis.del(await redis.keys(`t:{${tenant.id}}:rate:login:*`)))
      const wrong = login(tenant.slug, tenant.email, "wrong")
      assert.deepStrictEqual(statuses(yield* on(url)(times(4, wrong))), [401, 401, 401, 429])
      refused(yield* on(url)(right))
      // The default server has larger limits, and the address becomes known by it.
      assert.strictEqual((yield* right).status, 200)
      assert.strictEqual((yield* known).length, 1)
      assert.strictEqual((yield* on(url)(right)).status, 200)
    })
  )

  it.effect("keep no e-mail address in Redis", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { redis } = yield* TestDatabase
      yield* login(tenant.slug, tenant.email, "wrong")
      const keys = yield* Effect.promise(() => redis.keys("*rate:login*"))
      assert.isNotEmpty(keys)
      for (const key of keys) {
        assert.notInclude(key, "@")
        assert.match(key, /^(t:\{[0-9a-f-]{36}\}|p):/)
      }
    })
  )

  it.effect("stop an address that guesses keys, but none that has a good one", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const { redis } = yield* TestDatabase
      yield* Effect.promise(async () => {
        const keys = await redis.keys("p:rate:credentials:*")
        if (keys.length > 0) await redis.del(keys)
      })
      const { url } = yield* startServer({}, { ...budgets, credentials: few })
      assert.strictEqual((yield* on(url)(read(tenant))).status, 200)
      const guesses = yield* on(url)(
        Effect.forEach([1, 2, 3, 4, 5], (index) =>
          send(notes, {
            headers: { authorization: `Bearer aa_guess_${index}`, "x-forwarded-for": `203.0.113.${index}` }
          })
        )
      )
      assert.deepStrictEqual(statuses(guesses), [401, 401, 401, 429, 429])
      for (const answer of guesses.slice(3)) refused(answer)
      assert.strictEqual((yield* on(url)(read(tenant))).status, 200)
    })
  )
})
