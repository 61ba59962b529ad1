import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Redacted } from "effect"
import { OperatorKeys } from "../../src/services/OperatorKeys.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp, TestDatabase } from "../support/Platform.ts"
import { send } from "../support/RawHttp.ts"
import { provisionTenant, uniqueSlug } from "../support/Tenants.ts"

layer(TestApp, onRealClock)("Operator keys", (it) => {
  it.effect("open the control plane by name, and on no instance for a second after they are revoked", () =>
    Effect.gen(function* () {
      const other = yield* startServer()
      const keys = yield* OperatorKeys
      const { superuser: sql } = yield* TestDatabase
      const { key, operatorKey } = yield* keys.create({ name: "maria" })
      const tenant = yield* provisionTenant("skyvera")
      const headers = { authorization: `Bearer ${Redacted.value(key)}` }
      const suspended = yield* send(
        { method: "POST", path: `/api/v1/tenants/${tenant.slug}/suspend`, headers },
        other.url
      )
      assert.strictEqual(suspended.status, 200)
      const [act] = yield* sql<{ actor: unknown }>`
        SELECT actor FROM ${sql(`${tenant.schema}.audit_log`)} WHERE action = 'tenant.suspended'`
      assert.deepStrictEqual(act?.actor, { type: "operator", id: operatorKey.id, name: "maria" })

      const list = Effect.map(
        send({ method: "GET", path: "/api/v1/tenants", headers }, other.url),
        ({ status }) => status
      )
      const bent = `${Redacted.value(key).slice(0, -43)}${"0".repeat(43)}`
      const wrong = yield* send({
        method: "GET",
        path: "/api/v1/tenants",
        headers: { authorization: `Bearer ${bent}` }
      })
      assert.strictEqual(wrong.status, 401)
      yield* eventually("its use is written", keys.list, ([found]) => found?.last_used_at !== null)
      assert.strictEqual(yield* list, 200)
      const told = yield* Clock.currentTimeMillis
      yield* keys.revoke("maria")
      yield* eventually("it is refused", list, (status) => status === 401)
      assert.isBelow((yield* Clock.currentTimeMillis) - told, 1_000)
    })
  )

  it.effect("that get a revoked key's name get none of its answers", () =>
    Effect.gen(function* () {
      const keys = yield* OperatorKeys
      const slug = uniqueSlug("acme")
      const provision = (key: Redacted.Redacted<string>) =>
        send({
          method: "POST",
          path: "/api/v1/tenants",
          headers: { authorization: `Bearer ${Redacted.value(key)}`, "idempotency-key": slug },
          body: { slug, name: "Acme", admin_email: "admin@acme.example" }
        })
      const first = yield* keys.create({ name: "nina" })
      assert.include((yield* provision(first.key)).text, "password")
      yield* keys.revoke("nina")
      const second = yield* keys.create({ name: "nina" })
      const answer = yield* provision(second.key)
      assert.strictEqual(answer.status, 409)
      assert.notInclude(answer.text, "password")
    })
  )
})
