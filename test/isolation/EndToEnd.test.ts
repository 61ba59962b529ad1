// The check that the original system left to a person: provision two tenants, write as one, read as the other, and look
// into Redis and Postgres by hand. Read this first: it shows the whole platform from outside.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { CollectionName } from "../../src/domain/Record.ts"
import { StateKey } from "../../src/domain/State.ts"
import { onRealClock, TestApp, TestDatabase } from "../support/Platform.ts"
import { keysOfData } from "../support/RedisKeys.ts"
import { provisionTenant } from "../support/Tenants.ts"

const notes = { collection: CollectionName.make("notes") }
const mood = { key: StateKey.make("mood") }

layer(TestApp, onRealClock)("Skyvera and Jigtree", (it) => {
  it.effect("what Skyvera writes, Jigtree can't reach: not by HTTP, not by SQL, not in Redis", () =>
    Effect.gen(function* () {
      const skyvera = yield* provisionTenant("skyvera")
      const jigtree = yield* provisionTenant("jigtree")

      // Written as Skyvera.
      const record = yield* skyvera.asUser.records.create({
        params: notes,
        payload: { data: { text: "our plan" } }
      })
      yield* skyvera.asService.state.put({ params: mood, payload: { value: "calm" } })

      // Read as Skyvera, by both of its credentials.
      const mine = yield* skyvera.asService.records.get({ params: { ...notes, id: record.id } })
      assert.deepStrictEqual(mine, record)
      assert.strictEqual((yield* skyvera.asUser.state.get({ params: mood })).value, "calm")

      // Read as Jigtree: neither is there.
      for (const client of [jigtree.asUser, jigtree.asService]) {
        const missing = yield* Effect.flip(client.records.get({ params: { ...notes, id: record.id } }))
        assert.strictEqual(missing._tag, "NotFound")
        assert.deepStrictEqual((yield* client.records.list({ params: notes, query: {} })).items, [])
        assert.strictEqual((yield* Effect.flip(client.state.get({ params: mood })))._tag, "NotFound")
      }

      // psql, as a superuser: the row stands in Skyvera's schema, and Jigtree's table is empty.
      const { superuser: sql } = yield* TestDatabase
      const rowsIn = (schema: string) => sql`SELECT id, tenant_id FROM ${sql(`${schema}.records`)}`
      assert.deepStrictEqual(yield* rowsIn(skyvera.schema), [{ id: record.id, tenant_id: skyvera.id }])
      assert.deepStrictEqual(yield* rowsIn(jigtree.schema), [])

      // redis-cli: the key stands under Skyvera's prefix, and nothing under Jigtree's.
      const keysOf = (id: string) => keysOfData(`t:{${id}}:*`)
      assert.deepStrictEqual(yield* keysOf(skyvera.id), [`t:{${skyvera.id}}:state:mood`])
      assert.deepStrictEqual(yield* keysOf(jigtree.id), [])
    })
  )
})
