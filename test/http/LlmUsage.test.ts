import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Redacted, Schema } from "effect"
import { randomUUID } from "node:crypto"
import { ask } from "../support/ChatClient.ts"
import { eventually } from "../support/Eventually.ts"
import { member } from "../support/Http.ts"
import { groupsFor, TestLlmApp } from "../support/LlmApp.ts"
import { onRealClock, TestDatabase, TestServer } from "../support/Platform.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const prices = {
  "openai/mock-n10": { input: "1", output: "2" },
  "openai/mock-cached-n10": { input: "1", output: "2", cached_input: "0.0000000003", cache_write: "3" },
  "anthropic/mock-n10": { input: "5", output: "7" }
}

const tenantWith = Effect.fnUntraced(function* (settings: Readonly<Record<string, unknown>> = {}) {
  const tenant = yield* provisionTenant("usage")
  yield* (yield* operator).tenants.update({
    params: { tenant: tenant.id },
    payload: { settings: { "llm.prices": prices, ...settings } }
  })
  yield* groupsFor(tenant, {
    ailing: ["openai/fault-503", "anthropic/mock-n10"],
    dying: ["openai/fault-cut"]
  })
  return tenant
})

const usage = (
  tenant: TestTenant,
  query: Parameters<TestTenant["asService"]["llm"]["usage"]>[0]["query"] = {}
) => tenant.asService.llm.usage({ query })

/** Rows are written beside the calls. */
const usageOf = (tenant: TestTenant, attempts: number, groupBy: "model" | "day" | "key" = "model") =>
  eventually(
    `${attempts} attempts are written`,
    usage(tenant, { group_by: groupBy }),
    ({ total }) => total.attempts >= attempts
  )

const raw = Effect.fnUntraced(function* (tenant: TestTenant, query: string) {
  const { url } = yield* TestServer
  return yield* Effect.promise(async () => {
    const response = await fetch(`${url}/api/v1/llm/usage?${query}`, {
      headers: { authorization: `Bearer ${Redacted.value(tenant.apiKey)}` }
    })
    return {
      status: response.status,
      json: Schema.decodeSync(Schema.fromJsonString(Schema.Json))(await response.text())
    }
  })
})

/** A row of some time ago. */
const rowAt = (tenant: TestTenant, at: string, tokens: number) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) => sql`INSERT INTO ${sql(`${tenant.schema}.llm_usage`)} (
      id, tenant_id, created_at, operation, asked, provider, model, status, input_tokens, cached_read_tokens,
      cached_write_tokens, output_tokens, reasoning_tokens, estimated, cost_usd, latency_ms, retry, streamed, resumed, own_key
    ) VALUES (${randomUUID()}::uuid, ${tenant.id}::uuid, ${at}::timestamptz, 'chat', 'm', 'openai', 'm', 'ok', ${tokens}, 0,
      0, 0, 0, false, 0.0000001, 1, 0, false, false, false)`
  )

layer(TestLlmApp, onRealClock)("GET /api/v1/llm/usage", (it) => {
  it.effect("adds up calls, attempts, tokens and exact dollars, by model, day and key", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith()
      for (const stream of [false, true]) yield* ask(tenant, { model: "openai/mock-n10", stream })
      yield* ask(tenant, { model: "openai/mock-cached-n10" })
      yield* ask(tenant, { model: "ailing" })
      const report = yield* usageOf(tenant, 8)
      const figures = (group: string) => report.items.find((item) => item.group === group)
      assert.deepInclude(figures("openai/mock-n10"), {
        requests: 2,
        attempts: 2,
        prompt_tokens: 24,
        completion_tokens: 20,
        cached_tokens: 0,
        estimated_tokens: 0,
        cost_usd: "0.000064"
      })
      // 4 new at 1, 5 read at 3e-10, 3 written at 3, 10 said at 2, each a million.
      assert.deepInclude(figures("openai/mock-cached-n10"), {
        prompt_tokens: 12,
        cached_tokens: 5,
        cost_usd: "0.0000330000000015"
      })
      // Asked and asked again; then the other vendor.
      assert.deepInclude(figures("openai/fault-503"), { requests: 1, attempts: 4, cost_usd: "0" })
      assert.deepInclude(figures("anthropic/mock-n10"), { requests: 1, attempts: 1, cost_usd: "0.00013" })
      assert.deepInclude(report.total, { requests: 4, attempts: 8, cost_usd: "0.0002270000000015" })
      assert.isNull(report.budget)

      const today = DateTime.formatIsoDateUtc(yield* DateTime.now)
      const days = yield* usageOf(tenant, 8, "day")
      assert.deepStrictEqual(
        days.items.map(({ group }) => group),
        [today]
      )
      assert.deepStrictEqual(days.total, report.total)
      const { items: keys } = yield* tenant.asUser.auth.listApiKeys({ query: {} })
      const byKey = yield* usageOf(tenant, 8, "key")
      assert.deepStrictEqual(
        byKey.items.map(({ group }) => group),
        keys.map(({ id }) => String(id))
      )
    })
  )

  it.effect("says what was estimated", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith()
      yield* ask(tenant, { model: "dying", stream: true })
      const { items, total } = yield* usageOf(tenant, 1)
      assert.isAbove(total.estimated_tokens, 30)
      assert.strictEqual(total.estimated_tokens, total.prompt_tokens + total.completion_tokens)
      assert.lengthOf(items, 1)
    })
  )

  it.effect("is of the time that is asked for: from the first instant to before the last", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith()
      yield* rowAt(tenant, "2026-02-01T00:00:00Z", 1)
      yield* rowAt(tenant, "2026-02-28T23:59:59.999Z", 10)
      yield* rowAt(tenant, "2026-03-01T00:00:00Z", 100)
      const tokens = (query: string) =>
        Effect.map(raw(tenant, query), ({ json }) => member(member(json, "total"), "prompt_tokens"))
      assert.strictEqual(yield* tokens("from=2026-02-01&to=2026-03-01"), 11)
      assert.strictEqual(yield* tokens("from=2026-02-01T00:00:00.001Z&to=2026-03-01T00:00:00.001Z"), 110)
      assert.strictEqual(
        yield* tokens(`from=${encodeURIComponent("2026-02-01T01:00:00+01:00")}&to=2026-02-02`),
        1
      )
      assert.strictEqual(yield* tokens("from=2026-04-01&to=2026-04-02"), 0)
      // The month so far.
      assert.strictEqual(yield* tokens(""), 0)
      const { json } = yield* raw(tenant, "from=2026-02-01&to=2026-03-02&group_by=day")
      assert.deepStrictEqual(
        Schema.decodeUnknownSync(
          Schema.Array(Schema.Struct({ group: Schema.String, cost_usd: Schema.String }))
        )(member(json, "items")),
        ["2026-02-01", "2026-02-28", "2026-03-01"].map((group) => ({ group, cost_usd: "0.0000001" }))
      )
    })
  )

  it.effect("refuses a time that is none, backwards, or too long, and a grouping that is none", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith()
      for (const query of [
        "from=yesterday",
        "from=2026-03-01&to=2026-02-01",
        "from=2024-01-01&to=2026-02-01",
        "group_by=planet"
      ]) {
        const { json, status } = yield* raw(tenant, query)
        assert.strictEqual(status, 400, query)
        assert.strictEqual(member(json, "code"), "InvalidRequest", query)
        assert.match(JSON.stringify(member(json, "errors")), query.startsWith("from") ? /from/ : /group_by/)
      }
    })
  )

  it.effect("says how the month's budget stands", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.monthly_budget_usd": "12.50" })
      yield* ask(tenant, { model: "openai/mock-n10" })
      const { budget } = yield* usageOf(tenant, 1)
      assert.deepStrictEqual(budget, { monthly_usd: "12.50", spent_usd: "0.000032", reserved_usd: "0" })
    })
  )

  it.effect("is for who may see it, and of its own tenant alone", () =>
    Effect.gen(function* () {
      const [tenant, other] = [yield* tenantWith(), yield* tenantWith()]
      yield* ask(tenant, { model: "openai/mock-n10" })
      yield* usageOf(tenant, 1)
      assert.strictEqual((yield* usage(other)).total.attempts, 0)
      const { key } = yield* tenant.asUser.auth.createApiKey({
        payload: { name: "asks only", scopes: ["llm:use"] }
      })
      const { status } = yield* raw({ ...tenant, apiKey: Redacted.make(key) }, "")
      assert.strictEqual(status, 403)
    })
  )
})
