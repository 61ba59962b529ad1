// Each wall with another one taken away. A superuser takes it away for real, in tenants that only this file has.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { sqlMessageOf, sqlStateOf } from "../../src/services/DbErrors.ts"
import { onRealClock, TestDatabase, TestPlatform } from "../support/Platform.ts"
import { claimOf, inRolledBack, rawSession, tenantInDatabase } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

const twoTenants = Effect.all({ a: tenantInDatabase("skyvera"), b: tenantInDatabase("jigtree") })

/** Everything that an entered transaction of `tenant` has, and nothing more. */
const entered = (tenant: TenantInDatabase) =>
  Effect.map(claimOf(tenant.id), (claim) => [
    `SET LOCAL ROLE ${tenant.role}`,
    `SET LOCAL search_path TO ${tenant.schema}, pg_temp`,
    `SET LOCAL app.claim = '${claim}'`
  ])

const readRecords = ({ schema }: TenantInDatabase) =>
  `SELECT data->>'canary' AS canary FROM ${schema}.records`

layer(TestPlatform, onRealClock)("With one wall taken away", (it) => {
  it.effect("row security hides a tenant whose schema and tables were granted to another's role", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const { superuser: sql } = yield* TestDatabase
      yield* sql`GRANT USAGE ON SCHEMA ${sql(b.schema)} TO ${sql(a.role)}`
      yield* sql`GRANT ALL ON ALL TABLES IN SCHEMA ${sql(b.schema)} TO ${sql(a.role)}`
      // The permissive policy names its roles; let it in as well, so that the restrictive one stands alone.
      yield* sql`CREATE POLICY breach ON ${sql(`${b.schema}.records`)} TO ${sql(a.role)} USING (true) WITH CHECK (true)`
      const session = yield* rawSession
      const enter = yield* entered(a)
      assert.deepStrictEqual(yield* inRolledBack(session, [...enter, readRecords(b)]), [])
      for (const write of [
        `UPDATE ${b.schema}.records SET data = '{}' RETURNING id`,
        `DELETE FROM ${b.schema}.records RETURNING id`
      ]) {
        assert.deepStrictEqual(yield* inRolledBack(session, [...enter, write]), [], write)
      }
      const refused = yield* Effect.flip(
        inRolledBack(session, [
          ...enter,
          `INSERT INTO ${b.schema}.records (id, tenant_id, collection, data) VALUES (gen_random_uuid(), '${b.id}', 'x', '1')`
        ])
      )
      assert.match(sqlMessageOf(refused), /row-level security policy "tenant_claim"/)
      assert.deepStrictEqual(yield* inRolledBack(session, [...enter, readRecords(a)]), [{ canary: a.canary }])
    })
  )

  it.effect("role and schema hide a tenant whose restrictive policy says true", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const { superuser: sql } = yield* TestDatabase
      yield* sql`ALTER POLICY tenant_claim ON ${sql(`${b.schema}.records`)} USING (true) WITH CHECK (true)`
      const session = yield* rawSession
      const refused = yield* Effect.flip(inRolledBack(session, [...(yield* entered(a)), readRecords(b)]))
      assert.strictEqual(sqlStateOf(refused), "42501")
      assert.match(sqlMessageOf(refused), /permission denied for schema/)
    })
  )

  it.effect("the signed claim hides a tenant whose role another tenant's transaction has taken on", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const session = yield* rawSession
      const enter = [...(yield* entered(a)), "RESET ROLE", `SET LOCAL ROLE ${b.role}`]
      assert.deepStrictEqual(yield* inRolledBack(session, [...enter, "SELECT current_user::text AS role"]), [
        { role: b.role }
      ])
      assert.deepStrictEqual(yield* inRolledBack(session, [...enter, readRecords(b)]), [])
    })
  )

  it.effect("row security binds the owner of the tables too", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const { superuser: sql } = yield* TestDatabase
      const claimOfA = yield* claimOf(a.id)
      const seen = yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* sql`SELECT set_config('role', 'aa_owner', true), set_config('app.claim', ${claimOfA}, true)`
          return {
            a: yield* sql.unsafe(readRecords(a)),
            b: yield* sql.unsafe(readRecords(b))
          }
        })
      )
      assert.deepStrictEqual(seen, { a: [{ canary: a.canary }], b: [] })
    })
  )
})
