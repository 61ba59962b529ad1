import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { NodeHttpClient } from "@effect/platform-node"
import { randomUUID } from "node:crypto"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { schemaNameOf } from "../../../src/domain/Tenant.ts"
import { noUsage } from "../../../src/services/llm/Attempt.ts"
import { LlmUsage } from "../../../src/services/llm/LlmUsage.ts"
import type { Opening } from "../../../src/services/llm/UsageEntry.ts"
import { eventually } from "../../support/Eventually.ts"
import { onRealClock, TestApp, TestDatabase } from "../../support/Platform.ts"
import { provisionTenant, uniqueSlug } from "../../support/Tenants.ts"

interface Tenant {
  readonly id: string
  readonly schema: string
}

/** An attempt of a tenant's, opened and closed. */
const attempt = Effect.fnUntraced(function* (
  { id, schema }: Tenant,
  output: number,
  members: Partial<Omit<Opening, "id" | "openedAt">> = {}
) {
  const usage = yield* LlmUsage
  const entry = yield* usage.open({
    tenant: { id, schema },
    operation: "chat",
    asked: "reasoning",
    provider: "openai",
    model: "mock",
    requestId: randomUUID(),
    keyId: null,
    retry: 0,
    streamed: false,
    resumed: false,
    ownKey: false,
    metadata: {},
    estimatedInput: 12,
    reached: 256,
    price: { input: "1", output: "2" },
    ...members
  })
  yield* entry.close({
    status: "ok",
    fault: null,
    httpStatus: 200,
    usage: { ...noUsage, input: 10, output },
    estimated: false,
    latencyMillis: 5,
    firstTokenMillis: 2,
    providerRequestId: null
  })
  return entry.id
})

const rowsOf = ({ schema }: Tenant) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) =>
      sql<{ readonly id: string; readonly output_tokens: bigint; readonly cost_usd: string }>`
        SELECT id, output_tokens, cost_usd::text FROM ${sql(`${schema}.llm_usage`)} ORDER BY output_tokens`
  )

const written = (tenant: Tenant, count: number) =>
  eventually(`${count} rows are written`, rowsOf(tenant), ({ length }) => length >= count)

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)

/** Nobody can connect, and who was connected is cut off. */
const away = Effect.flatMap(TestDatabase, ({ name, superuser: sql }) =>
  Effect.andThen(
    sql`ALTER DATABASE ${sql(name)} CONNECTION LIMIT 0`,
    sql`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'aa_app' AND datname = ${name}`
  )
)
const back = Effect.flatMap(
  TestDatabase,
  ({ name, superuser: sql }) => sql`ALTER DATABASE ${sql(name)} CONNECTION LIMIT -1`
)

layer(TestApp.pipe(Layer.provideMerge(NodeHttpClient.layerUndici)), onRealClock)("the ledger", (it) => {
  it.effect("has a row for each attempt, in its tenant's schema alone", () =>
    Effect.gen(function* () {
      const [acme, globex] = [yield* provisionTenant("acme"), yield* provisionTenant("globex")]
      const made = yield* Effect.forEach(
        upTo(1_200),
        (output) => attempt(output % 3 === 0 ? globex : acme, output),
        { concurrency: "unbounded" }
      )
      const rows = [yield* written(acme, 800), yield* written(globex, 400)]
      assert.deepStrictEqual(
        rows
          .flat()
          .map(({ id }) => id)
          .toSorted(),
        made.toSorted()
      )
      for (const [index, found] of rows.entries()) {
        for (const row of found) {
          assert.strictEqual(Number(row.output_tokens) % 3 === 0, index === 1)
          assert.strictEqual(Number(row.cost_usd), (10 + 2 * Number(row.output_tokens)) / 1_000_000)
        }
      }
    })
  )

  it.effect("waits for a database that is away, and loses nothing", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const usage = yield* LlmUsage
      yield* Effect.acquireUseRelease(
        away,
        () =>
          Effect.gen(function* () {
            yield* Effect.forEach(upTo(300), (output) => attempt(tenant, output))
            yield* usage.flush
            assert.lengthOf(yield* rowsOf(tenant), 0)
          }),
        () => Effect.orDie(back)
      )
      const rows = yield* written(tenant, 300)
      assert.deepStrictEqual(
        rows.map(({ output_tokens }) => Number(output_tokens)),
        upTo(300)
      )
    })
  )

  it.effect("puts aside what the database refuses, and writes the others", () =>
    Effect.gen(function* () {
      const { dataDir } = yield* TestDatabase
      const tenant = yield* provisionTenant("acme")
      const refused = yield* Effect.forEach(upTo(100), (output) =>
        attempt(tenant, output, output === 37 ? { metadata: { text: "\u0000" } } : {})
      )
      const rows = yield* written(tenant, 99)
      assert.lengthOf(rows, 99)
      const aside = yield* eventually(
        "it is put aside",
        Effect.sync(() => readFileSync(join(dataDir, "llm-journal", "rejected.ndjson"), "utf8")),
        (text) => text !== ""
      ).pipe(Effect.retry({ times: 50 }))
      assert.include(aside, String(refused[36]))
      assert.notInclude(aside, String(refused[35]))
    })
  )

  it.effect("waits for a tenant that is not migrated yet, and forgets one that is gone", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const tenant = yield* provisionTenant("acme")
      const table = sql(`${tenant.schema}.llm_usage`)
      yield* sql`ALTER TABLE ${table} DROP COLUMN audio_output_tokens`
      const gone = { id: randomUUID(), schema: schemaNameOf(uniqueSlug("gone")) }
      yield* attempt(gone, 1)
      yield* attempt(tenant, 5)
      const usage = yield* LlmUsage
      yield* usage.flush
      assert.lengthOf(yield* rowsOf(tenant), 0)
      yield* sql`ALTER TABLE ${table} ADD COLUMN audio_output_tokens bigint NOT NULL DEFAULT 0`
      assert.lengthOf(yield* written(tenant, 1), 1)
    })
  )
})
