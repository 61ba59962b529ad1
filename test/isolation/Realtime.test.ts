// Realtime voice of two tenants: keys, secrets, sessions, rows and budgets, none of which is the other's.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { SecretName } from "../../src/domain/Secret.ts"
import { eventually } from "../support/Eventually.ts"
import { FakeRealtime } from "../support/FakeRealtime.ts"
import { member, send, sendJson } from "../support/Http.ts"
import { onRealClock, TestDatabase } from "../support/Platform.ts"
import {
  at,
  bearer,
  closeOf,
  dial,
  heard,
  openWith,
  providerKey,
  refusedDial,
  tenantWith,
  TestRealtimeApp
} from "../support/RealtimeApp.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const rowsOf = (tenant: TestTenant) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) =>
      sql<Record<string, unknown>>`SELECT * FROM ${sql(`${tenant.schema}.llm_usage`)} ORDER BY id`
  )

const mint = Effect.fnUntraced(function* (tenant: TestTenant, session: Readonly<Record<string, unknown>>) {
  const answer = yield* sendJson(
    "POST",
    "/v1/realtime/client_secrets",
    { session: { model: "openai/rt", ...session } },
    bearer(tenant.apiKey)
  )
  assert.strictEqual(answer.status, 200, answer.text)
  return String(member(answer.json, "value"))
})

const create = { type: "response.create" }

layer(TestRealtimeApp, onRealClock)("Realtime voice of two tenants", (it) => {
  it.effect(
    "goes out with each one's own key, under a name that tells nothing, and leaves rows of its own",
    () =>
      Effect.gen(function* () {
        const fake = yield* FakeRealtime
        const acme = yield* provisionTenant("acme")
        const globex = yield* provisionTenant("globex")
        yield* acme.asUser.secrets.put({
          params: { name: SecretName.make("openai_api_key") },
          payload: { value: Redacted.make("sk-of-acme-alone") }
        })
        const before = fake.sessions.length
        yield* Effect.forEach(
          Array.from({ length: 5 }).flatMap(() => [acme, globex]),
          (tenant) =>
            Effect.gen(function* () {
              const caller = yield* dial(tenant, "openai/rt-n5")
              caller.send({ ...create, event_id: tenant.slug })
              yield* heard(caller, "response.done")
              assert.lengthOf(
                caller.events.filter(({ type }) => type === "response.done"),
                1
              )
            }),
          { concurrency: 10, discard: true }
        )
        const seen = new Map<string, Set<string>>()
        for (const { frames, headers } of fake.sessions.slice(before)) {
          const name = String(at(JSON.parse(frames[0]?.text ?? "{}"), "event_id"))
          const told = `${headers.authorization} ${String(headers["openai-safety-identifier"])}`
          seen.set(name, (seen.get(name) ?? new Set()).add(told))
          assert.notInclude(JSON.stringify(headers), name)
        }
        const namesOf = ({ slug }: TestTenant) => [...(seen.get(slug) ?? [])].join()
        assert.match(namesOf(acme), /^Bearer sk-of-acme-alone aa_[0-9a-f]{40}$/)
        assert.match(namesOf(globex), new RegExp(`^Bearer ${providerKey} aa_[0-9a-f]{40}$`))
        assert.notStrictEqual(namesOf(acme).split(" ")[2], namesOf(globex).split(" ")[2])
        for (const [tenant, ownKey] of [
          [acme, true],
          [globex, false]
        ] as const) {
          const rows = yield* eventually("the rows are written", rowsOf(tenant), ({ length }) => length === 5)
          assert.isTrue(rows.every((row) => row["own_key"] === ownKey && row["tenant_id"] === tenant.id))
        }
      })
  )

  it.effect("never opens one with the other's client secret, however it is put together", () =>
    Effect.gen(function* () {
      const fake = yield* FakeRealtime
      const { redis } = yield* TestDatabase
      const acme = yield* provisionTenant("acme")
      const globex = yield* provisionTenant("globex")
      const secrets = {
        acme: yield* mint(acme, { instructions: "of acme" }),
        globex: yield* mint(globex, {})
      }
      const [, acmeId = "", acmeSecret = ""] = secrets.acme.split("_")
      const [, globexId = "", globexSecret = ""] = secrets.globex.split("_")
      assert.deepStrictEqual(
        [acmeId, globexId],
        [acme, globex].map(({ id }) => id.replaceAll("-", ""))
      )

      const before = fake.asked.length
      const forged = [
        `ek_${globexId}_${acmeSecret}`,
        `ek_${acmeId}_${globexSecret}`,
        `ek_${acmeId}_${acmeSecret.slice(0, -1)}`,
        `ek_${acmeId.toUpperCase()}_${acmeSecret}`,
        `ek_${acmeSecret}`,
        `ek_*_${acmeSecret}`,
        `ek_${acmeId}_${"*".repeat(43)}`
      ]
      for (const value of forged) {
        const answer = yield* refusedDial("", { headers: bearer(value) })
        assert.strictEqual(answer.status, 401, value)
        assert.notInclude(answer.text, acme.slug)
      }
      // The other's name beside it grants nothing.
      const crossed = yield* refusedDial("", {
        headers: { ...bearer(secrets.acme), "x-tenant-id": globex.slug }
      })
      assert.strictEqual(at(crossed.json, "error", "code"), "CrossTenantAccess")
      assert.strictEqual(fake.asked.length, before)

      // Moved beneath another tenant by whoever can write to Redis, it is nobody's.
      const [key = ""] = yield* Effect.promise(() => redis.keys(`t:{${globex.id}}:client-secret:*`))
      const [ofAcme = ""] = yield* Effect.promise(() => redis.keys(`t:{${acme.id}}:client-secret:*`))
      const stored = yield* Effect.promise(() => redis.get(ofAcme))
      yield* Effect.promise(() => redis.set(key, stored ?? ""))
      assert.strictEqual((yield* refusedDial("", { headers: bearer(secrets.globex) })).status, 401)

      const caller = yield* openWith("", { headers: bearer(secrets.acme) })
      yield* heard(caller, "session.updated")
      caller.send(create)
      yield* heard(caller, "response.done")
      yield* eventually("the row is written", rowsOf(acme), ({ length }) => length === 1)
      assert.lengthOf(yield* rowsOf(globex), 0)
    })
  )

  it.effect("is not shown to the other: no secret in any answer of theirs, none at rest", () =>
    Effect.gen(function* () {
      const { redis } = yield* TestDatabase
      const acme = yield* provisionTenant("acme")
      const globex = yield* provisionTenant("globex")
      const secret = yield* mint(acme, { instructions: "of acme alone" })
      const state = yield* send("/api/v1/state/client-secret", { headers: bearer(globex.apiKey) })
      assert.strictEqual(state.status, 404)
      const keys = yield* Effect.promise(() => redis.keys("*"))
      const values = yield* Effect.forEach(
        keys.filter((key) => key.includes("client-secret")),
        (key) => Effect.promise(() => redis.get(key))
      )
      const [, , random = ""] = secret.split("_")
      assert.notInclude([...keys, ...values].join(), random)
      const own = keys.filter((key) => key.includes(acme.id) && key.includes("client-secret"))
      assert.lengthOf(own, 1)
      assert.isTrue(own.every((key) => key.startsWith(`t:{${acme.id}}:`)))
    })
  )

  it.effect("goes on for one when the other is suspended or has spent its budget", () =>
    Effect.gen(function* () {
      const acme = yield* tenantWith({
        // A response can cost 0.16.
        "llm.prices": { "openai/rt": { input: "1", output: "1" } },
        "llm.monthly_budget_usd": "0.17"
      })
      const globex = yield* provisionTenant("globex")
      const initech = yield* provisionTenant("initech")
      const [spender, suspended, bystander] = yield* Effect.all([
        dial(acme, "openai/rt"),
        dial(initech, "openai/rt"),
        dial(globex, "openai/rt")
      ])
      spender.send(create)
      assert.strictEqual(at((yield* closeOf(spender)).reason), "The tenant's monthly budget is spent")
      yield* (yield* operator).tenants.suspend({ params: { tenant: initech.id } })
      yield* closeOf(suspended)
      bystander.send(create)
      yield* heard(bystander, "response.done")
      assert.isUndefined(bystander.closed())
    })
  )
})
