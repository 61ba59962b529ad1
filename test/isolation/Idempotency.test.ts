// One key, sent by several: by two tenants, and by two principals of one. Each acts for itself and sees nothing of the other's.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { onRealClock, TestApp, TestDatabase } from "../support/Platform.ts"
import { credentialsOf, everything, send } from "../support/RawHttp.ts"
import { provisionTenant } from "../support/Tenants.ts"

const create = (headers: Readonly<Record<string, string>>, text: string) =>
  send({
    method: "POST",
    path: "/api/v1/records/notes",
    headers: { ...headers, "idempotency-key": "the same" },
    body: { data: text }
  })

layer(TestApp, onRealClock)("Another's Idempotency-Key", (it) => {
  it.effect("acts for whoever sends it, and gives nobody another's answer", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const second = yield* a.asUser.auth.createApiKey({ payload: { name: "second" } })
      const senders = [
        { "x-api-key": Redacted.value(a.apiKey) },
        { "x-api-key": Redacted.value(b.apiKey) },
        { "x-api-key": second.key },
        { authorization: `Bearer ${Redacted.value(a.accessToken)}` },
        { authorization: `Bearer ${Redacted.value(b.accessToken)}` }
      ]
      const answers = yield* Effect.forEach(senders, (headers) => create(headers, "same body"))
      for (const answer of answers) {
        assert.strictEqual(answer.status, 201)
        assert.notProperty(answer.headers, "idempotency-replayed")
      }
      assert.strictEqual(new Set(answers.map(({ text }) => text)).size, senders.length)
      // And another body is no conflict with what others sent.
      const c = yield* provisionTenant("crossover")
      assert.strictEqual(
        (yield* create({ "x-api-key": Redacted.value(c.apiKey) }, "another body")).status,
        201
      )
    })
  )

  it.effect("is one principal's by whichever header the credential comes", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("skyvera")
      const { "API key": inHeader, "API key as Bearer": asBearer } = credentialsOf(tenant)
      const first = yield* create(inHeader ?? {}, "x")
      const again = yield* create(asBearer ?? {}, "x")
      assert.strictEqual(again.text, first.text)
      assert.strictEqual(again.headers["idempotency-replayed"], "true")
    })
  )

  it.effect("does not open an answer that was moved to its row", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      yield* create({ "x-api-key": Redacted.value(a.apiKey) }, `secret of ${a.slug}`)
      yield* create({ "x-api-key": Redacted.value(b.apiKey) }, `secret of ${a.slug}`)
      const { superuser: sql } = yield* TestDatabase
      const table = (schema: string) => sql(`${schema}.idempotency_keys`)
      yield* sql`UPDATE ${table(b.schema)} SET answer = (SELECT answer FROM ${table(a.schema)})`
      const again = yield* create({ "x-api-key": Redacted.value(b.apiKey) }, `secret of ${a.slug}`)
      assert.strictEqual(again.status, 409)
      assert.notInclude(everything(again), a.slug)
    })
  )
})
