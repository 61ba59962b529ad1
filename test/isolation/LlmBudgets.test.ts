// A budget is hard: whoever asks at one time, on however many instances, and whatever becomes of them.
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer, Result } from "effect"
import type { Schema } from "effect"
import { moneyOf } from "../../src/domain/Money.ts"
import { LlmBudgets, monthOf } from "../../src/services/llm/LlmBudgets.ts"
import { schemaNameOf } from "../../src/domain/Tenant.ts"
import type { TenantSettings } from "../../src/domain/TenantSettings.ts"
import { ask } from "../support/ChatClient.ts"
import { eventually } from "../support/Eventually.ts"
import { member } from "../support/Http.ts"
import { FakeProvider, groupsFor, lastBody, TestLlmApp } from "../support/LlmApp.ts"
import { onRealClock, TestDatabase } from "../support/Platform.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const month = monthOf(1_785_000_000_000)
const refOf = ({ id, slug }: TestTenant) => ({ id, schema: schemaNameOf(slug) })

/** One more instance, until the scope ends. */
const instance = Effect.map(Layer.build(Layer.fresh(LlmBudgets.layer)), (context) =>
  Context.get(context, LlmBudgets)
)

const cents = (count: number) => moneyOf(`${(count / 100).toFixed(2)}`)

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index)

/** What the database says: spent and leased, in dollars. */
const standing = (tenant: TestTenant) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) => sql<{ readonly spent: number; readonly leased: number; readonly leases: number }>`
      SELECT (SELECT coalesce(sum(spent_usd), 0)::float8 FROM ${sql(`${tenant.schema}.llm_months`)}) AS spent,
        (SELECT coalesce(sum(amount_usd), 0)::float8 FROM ${sql(`${tenant.schema}.llm_leases`)}) AS leased,
        (SELECT count(*)::int FROM ${sql(`${tenant.schema}.llm_leases`)}) AS leases`
  ).pipe(Effect.map(([row]) => row ?? { spent: -1, leased: -1, leases: -1 }))

const price = { input: "0", output: "1000" }

const tenantWith = Effect.fnUntraced(function* (settings: TenantSettings) {
  const tenant = yield* provisionTenant("budget")
  yield* (yield* operator).tenants.update({ params: { tenant: tenant.id }, payload: { settings } })
  yield* groupsFor(tenant, {
    words: ["openai/mock-n50"],
    either: ["openai/mock-n50", "openai/mock-n20"],
    unpriced: ["openai/mock-n30", "openai/mock-n20"]
  })
  return tenant
})

layer(TestLlmApp, onRealClock)("A budget", (it) => {
  it.effect("of a hundred is spent a hundred times, by a thousand who ask at once on three instances", () =>
    Effect.gen(function* () {
      const tenant = refOf(yield* provisionTenant("budget"))
      const instances = [yield* instance, yield* instance, yield* instance]
      // The month has its row, so that nothing but its lock keeps them apart.
      for (const budgets of instances) {
        const first = yield* budgets.reserve(tenant, month, cents(100), cents(1))
        first.settle(0n)
        first.written()
      }
      const reserve = (index: number) =>
        Effect.flatMap(Effect.fromNullishOr(instances[index % 3]), (budgets) =>
          budgets.reserve(tenant, month, cents(100), cents(1))
        ).pipe(Effect.result)
      const asked = yield* Effect.forEach(upTo(1_000), reserve, { concurrency: "unbounded" })
      const granted = asked.filter(Result.isSuccess)
      assert.isAtMost(granted.length, 100)
      // Part of a lease that was too small for anybody may be on its way back.
      assert.isAtLeast(granted.length, 95)
      for (const refused of asked.filter(Result.isFailure)) {
        assert.strictEqual(refused.failure._tag, "BudgetExceeded")
      }
      // Nobody was called after all: all of it can be spent again, by any of them.
      for (const { success } of granted) {
        success.settle(0n)
        success.written()
      }
      const again = yield* eventually(
        "the whole is one instance's",
        Effect.result(
          Effect.flatMap(Effect.fromNullishOr(instances[0]), (budgets) =>
            budgets.reserve(tenant, month, cents(100), cents(100))
          )
        ),
        Result.isSuccess,
        "20 seconds"
      )
      assert.isTrue(Result.isSuccess(again))
    }).pipe(Effect.scoped)
  )

  it.effect("is granted no further than it goes, however many instances ask at one time", () =>
    Effect.gen(function* () {
      const tenant = refOf(yield* provisionTenant("budget"))
      const instances = yield* Effect.forEach(upTo(8), () => instance)
      for (const day of upTo(12)) {
        const of = `20${30 + day}-01-01`
        const [first] = instances
        if (first === undefined) return
        const row = yield* first.reserve(tenant, of, cents(100), 1n)
        row.settle(0n)
        row.written()
        const asked = yield* Effect.forEach(
          instances.slice(1),
          (budgets) => Effect.result(budgets.reserve(tenant, of, cents(400), cents(100))),
          { concurrency: "unbounded" }
        )
        // The first one holds half a dollar, of which nobody knows yet that it needs none.
        assert.isAtMost(asked.filter(Result.isSuccess).length, 3)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("is what an instance that died held, until its lease is old", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const whole = yield* provisionTenant("budget")
      const tenant = refOf(whole)
      const dead = yield* instance
      const other = yield* instance
      yield* dead.reserve(tenant, month, cents(100), cents(60))
      const refused = yield* Effect.flip(other.reserve(tenant, month, cents(100), cents(50)))
      assert.strictEqual(refused._tag, "BudgetExceeded")
      yield* sql`UPDATE ${sql(`${whole.schema}.llm_leases`)} SET renewed_at = now() - interval '6 minutes'
        WHERE instance = ${dead.instance}::uuid`
      yield* eventually(
        "it goes to another",
        Effect.result(other.reserve(tenant, month, cents(100), cents(50))),
        Result.isSuccess
      )
    }).pipe(Effect.scoped)
  )

  it.effect("is nobody else's: neither another tenant's nor another month's", () =>
    Effect.gen(function* () {
      const [one, two] = [refOf(yield* provisionTenant("budget")), refOf(yield* provisionTenant("budget"))]
      const budgets = yield* instance
      const all = (tenant: typeof one, of = month) => budgets.reserve(tenant, of, cents(100), cents(100))
      yield* all(one)
      assert.strictEqual((yield* Effect.flip(all(one)))._tag, "BudgetExceeded")
      yield* all(two)
      yield* all(one, monthOf(1_790_000_000_000))
    }).pipe(Effect.scoped)
  )

  it.effect("that is held goes on without a database; what is not held waits for one", () =>
    Effect.gen(function* () {
      const { name, superuser: sql } = yield* TestDatabase
      const tenant = refOf(yield* provisionTenant("budget"))
      const budgets = yield* instance
      // Half of the rest comes with it.
      yield* budgets.reserve(tenant, month, cents(100), cents(1))
      yield* Effect.acquireUseRelease(
        Effect.andThen(
          sql`ALTER DATABASE ${sql(name)} CONNECTION LIMIT 0`,
          sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'aa_app' AND datname = ${name}`
        ),
        () =>
          Effect.gen(function* () {
            yield* budgets.reserve(tenant, month, cents(100), cents(40))
            const unsaid = yield* Effect.flip(budgets.reserve(tenant, month, cents(100), cents(20)))
            assert.strictEqual(unsaid._tag, "DependencyUnavailable")
          }),
        () => Effect.orDie(sql`ALTER DATABASE ${sql(name)} CONNECTION LIMIT -1`)
      )
      yield* eventually(
        "it is there again",
        Effect.result(budgets.reserve(tenant, month, cents(100), cents(20))),
        Result.isSuccess
      )
    }).pipe(Effect.scoped)
  )

  it.effect("lets four hundred streams at once spend it to the cent, and no further", () =>
    Effect.gen(function* () {
      // A stream is 50 tokens of a tenth of a cent.
      const tenant = yield* tenantWith({
        "llm.monthly_budget_usd": "2.00",
        "llm.prices": { "openai/mock-n50": price }
      })
      const seen = yield* Effect.forEach(
        upTo(400),
        () => ask(tenant, { model: "words", stream: true, max_tokens: 50 }),
        {
          concurrency: 100
        }
      )
      const whole = seen.filter(({ done }) => done)
      const refused = seen.filter(({ status }) => status === 402)
      assert.lengthOf(whole, 40)
      assert.lengthOf(refused, 360)
      assert.strictEqual(member(refused[0]?.error, "code"), "BudgetExceeded")
      assert.strictEqual(refused[0]?.headers.get("x-should-retry"), "false")
      const { budget, total } = yield* eventually(
        "all is written",
        tenant.asService.llm.usage({ query: {} }),
        ({ budget, total }) => total.attempts >= 40 && budget?.reserved_usd === "0"
      )
      assert.strictEqual(total.cost_usd, "2")
      assert.deepStrictEqual(budget, { monthly_usd: "2.00", spent_usd: "2", reserved_usd: "0" })
      yield* eventually(
        "no lease is left",
        standing(tenant),
        ({ leased, leases, spent }) => spent === 2 && leased === 0 && leases === 0
      )
      // More of it, and the next call is made.
      yield* (yield* operator).tenants.update({
        params: { tenant: tenant.id },
        payload: { settings: { "llm.monthly_budget_usd": "2.05" } }
      })
      yield* eventually(
        "the new budget is in force",
        ask(tenant, { model: "words", max_tokens: 50 }),
        ({ status }) => status === 200
      )
      assert.strictEqual((yield* ask(tenant, { model: "words", max_tokens: 50 })).status, 402)
    })
  )

  it.effect("bounds a call that has no bound of its own, and touches no other", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider
      const settings = { "llm.prices": { "openai/mock-n50": { input: "1", output: "1" } } }
      const tenant = yield* tenantWith({ ...settings, "llm.monthly_budget_usd": "100" })
      const sent = Effect.fnUntraced(function* (
        of: TestTenant,
        members: Readonly<Record<string, Schema.Json>> = {}
      ) {
        const { status } = yield* ask(of, { model: "words", ...members })
        assert.strictEqual(status, 200)
        return yield* lastBody(fake)
      })
      assert.strictEqual(member(yield* sent(tenant), "max_completion_tokens"), 16_384)
      const own = yield* sent(tenant, { max_tokens: 77 })
      assert.strictEqual(member(own, "max_tokens"), 77)
      assert.isUndefined(member(own, "max_completion_tokens"))
      // What is no limit in the dialect of the call is none here either, and holds nothing.
      for (const members of [{ max_output_tokens: 1 }, { max_output_tokens: -1e9 }, { n: 1.7 }, { n: -3 }]) {
        assert.strictEqual(member(yield* sent(tenant, members), "max_completion_tokens"), 16_384)
      }
      const refused = yield* ask(tenant, { model: "words", max_tokens: -1e9 })
      assert.strictEqual(refused.status, 400)
      const free = yield* tenantWith(settings)
      assert.isUndefined(member(yield* sent(free), "max_completion_tokens"))
    })
  )

  it.effect(
    "goes to the next model of a group where the first is too dear, and never to one without a price",
    () =>
      Effect.gen(function* () {
        const tenant = yield* tenantWith({
          "llm.monthly_budget_usd": "0.01",
          "llm.prices": { "openai/mock-n50": price, "openai/mock-n20": { input: "0", output: "1" } }
        })
        const few = yield* ask(tenant, { model: "words", max_tokens: 50, n: -3 })
        assert.strictEqual(few.status, 402)
        const either = yield* ask(tenant, { model: "either", max_tokens: 50 })
        assert.strictEqual(either.status, 200)
        assert.strictEqual(either.model, "mock-n20")
        assert.strictEqual((yield* ask(tenant, { model: "unpriced", max_tokens: 50 })).model, "mock-n20")
        const { status } = yield* ask(tenant, { model: "openai/mock-n30", max_tokens: 50 })
        assert.strictEqual(status, 400)
      })
  )
})
