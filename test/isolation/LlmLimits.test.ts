// What a tenant may ask of models in a minute: all its calls together, on all instances, and no other tenant's.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { TenantSettings } from "../../src/domain/TenantSettings.ts"
import { ask } from "../support/ChatClient.ts"
import { eventually } from "../support/Eventually.ts"
import { member } from "../support/Http.ts"
import { attemptsOf, FakeProvider, groupsFor, lastBody, TestLlmApp } from "../support/LlmApp.ts"
import { onRealClock } from "../support/Platform.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"

const tenantWith = Effect.fnUntraced(function* (settings: TenantSettings, model: string) {
  const tenant = yield* provisionTenant("limits")
  yield* (yield* operator).tenants.update({ params: { tenant: tenant.id }, payload: { settings } })
  yield* groupsFor(tenant, { words: [`openai/${model}`] })
  return tenant
})

const all = <A, E, R>(count: number, one: Effect.Effect<A, E, R>) =>
  Effect.all(
    Array.from({ length: count }, () => one),
    { concurrency: "unbounded" }
  )

const count = (answers: ReadonlyArray<{ readonly status: number }>, status: number) =>
  answers.filter((answer) => answer.status === status).length

layer(TestLlmApp, onRealClock)("A limit per minute", (it) => {
  it.effect("of five requests lets five of twenty through, and asks no provider for the others", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider
      const tenant = yield* tenantWith({ "llm.requests_per_minute": 5 }, "mock-n3")
      const before = (yield* attemptsOf(fake, "mock-n3")).length
      const answers = yield* all(20, ask(tenant, { model: "words" }))
      assert.deepStrictEqual([count(answers, 200), count(answers, 429)], [5, 15])
      assert.strictEqual((yield* attemptsOf(fake, "mock-n3")).length - before, 5)
      for (const { error, headers, status } of answers) {
        if (status !== 429) continue
        assert.isAbove(Number(headers.get("retry-after")), 0)
        assert.strictEqual(member(error, "code"), "RateLimited")
      }
      // Another one's is its own.
      const other = yield* tenantWith({ "llm.requests_per_minute": 5 }, "mock-n3")
      assert.strictEqual((yield* ask(other, { model: "words" })).status, 200)
    })
  )

  it.effect("of tokens is held for the most that calls under way may come to", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.tokens_per_minute": 1_000 }, "mock-n4-d20")
      // What counts is the limit that its dialect knows.
      const free = yield* ask(tenant, { model: "words", max_output_tokens: -1_000_000, max_tokens: 1_000 })
      assert.strictEqual(free.status, 400)
      // 300 of output and some of the prompt: three fit in, of which each comes to a few.
      const answers = yield* all(10, ask(tenant, { model: "words", max_tokens: 300 }))
      assert.deepStrictEqual([count(answers, 200), count(answers, 429)], [3, 7])
    })
  )

  it.effect("of tokens gets back what a call did not come to", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.tokens_per_minute": 1_000 }, "mock-n4")
      for (const stream of [true, false, true, false, true, false]) {
        const answer = yield* eventually(
          "what the call before did not use is there again",
          ask(tenant, { model: "words", max_tokens: 900, stream }),
          ({ status }) => status === 200,
          "5 seconds"
        )
        assert.isUndefined(answer.error)
      }
    })
  )

  it.effect("of tokens counts what calls came to", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.tokens_per_minute": 1_000 }, "mock-n200")
      const statuses: Array<number> = []
      for (let call = 0; call < 6; call++) {
        const stream = call % 2 === 0
        statuses.push((yield* ask(tenant, { model: "words", max_tokens: 205, stream })).status)
      }
      // 1,000 a minute is 17 a second: none of the four that fit in is forgotten meanwhile.
      assert.deepStrictEqual(statuses, [200, 200, 200, 200, 429, 429])
    })
  )

  it.effect(
    "of tokens bounds an answer that has no limit of its own, and refuses what fits in no minute",
    () =>
      Effect.gen(function* () {
        const fake = yield* FakeProvider
        const tenant = yield* tenantWith({ "llm.tokens_per_minute": 1_000 }, "mock-n2")
        assert.strictEqual((yield* ask(tenant, { model: "words" })).status, 200)
        const most = Number(member(yield* lastBody(fake), "max_completion_tokens"))
        assert.isAbove(most, 900)
        assert.isBelow(most, 1_000)
        const tooMuch = yield* ask(tenant, { model: "words", max_tokens: 1_000 })
        assert.deepStrictEqual([tooMuch.status, member(tooMuch.error, "code")], [400, "InvalidRequest"])
      })
  )

  it.effect("of a key holds beside its tenant's, and passes to the key that follows it", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.requests_per_minute": 8 }, "mock-n6")
      const limits = { "llm.requests_per_minute": 3, "llm.tokens_per_minute": 500 }
      const { key, ...made } = yield* tenant.asUser.auth.createApiKey({ payload: { name: "small", limits } })
      assert.deepStrictEqual(made.limits, limits)
      const bySmall = { ...tenant, apiKey: Redacted.make(key) }
      const tooMuch = yield* ask(bySmall, { model: "words", max_tokens: 500 })
      assert.strictEqual(tooMuch.status, 400)
      const answers = yield* all(6, ask(bySmall, { model: "words", max_tokens: 20 }))
      assert.deepStrictEqual([count(answers, 200), count(answers, 429)], [3, 3])
      const next = yield* tenant.asUser.auth.rotateApiKey({ params: { id: made.id }, payload: {} })
      assert.deepStrictEqual(next.limits, limits)
      // What the small key was refused cost its tenant nothing: five of eight are left.
      const others = yield* all(6, ask(tenant, { model: "words" }))
      assert.deepStrictEqual([count(others, 200), count(others, 429)], [5, 1])
    })
  )
})
