// Nobody rewrites what was done: not the app, not the owner of the tables, and a superuser only so that it shows.
import { assert, layer } from "@effect/vitest"
import { Effect, Option, Predicate } from "effect"
import type { SqlError, Statement } from "effect/sql"
import { AuditLog } from "../../src/services/AuditLog.ts"
import { sqlStateOf } from "../../src/services/DbErrors.ts"
import { TenantDb, tenantDb } from "../../src/services/TenantDb.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { onRealClock, TestApp, TestDatabase } from "../support/Platform.ts"
import { claimOf, inRolledBack, rawSession, tenantInDatabase } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"

const INSUFFICIENT_PRIVILEGE = "42501"

const within = (tenant: TenantInDatabase) =>
  Effect.map(TenantPool, (pool) => Effect.provideService(TenantDb, tenantDb(pool, tenant)))

const act = (id: number) =>
  ({ action: "api_key.created", target: { type: "api_key", id: String(id) }, details: { id } }) as const

/** A tenant with a few acts after its provisioning, which is the first. */
const withActs = Effect.fnUntraced(function* (count: number) {
  const audit = yield* AuditLog
  const tenant = yield* tenantInDatabase("skyvera")
  const inTenant = yield* within(tenant)
  yield* Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    (index) => inTenant(audit.record(act(index)))
  )
  return { tenant, check: inTenant(audit.check) }
})

layer(TestApp, onRealClock)("The audit log", (it) => {
  it.effect("is a whole chain, whoever writes at once", () =>
    Effect.gen(function* () {
      const audit = yield* AuditLog
      const tenant = yield* tenantInDatabase("skyvera")
      const inTenant = yield* within(tenant)
      yield* Effect.forEach(
        Array.from({ length: 40 }, (_, index) => index),
        (index) => inTenant(audit.record(act(index))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* inTenant(audit.check), { entries: 41, brokenAt: Option.none() })
      const page = yield* inTenant(audit.list({}, { after: undefined, limit: 200 }))
      assert.deepStrictEqual(
        page.items.map(({ seq }) => seq),
        Array.from({ length: 41 }, (_, index) => 41 - index)
      )
    })
  )

  it.effect("has no entry of an act that did not happen", () =>
    Effect.gen(function* () {
      const audit = yield* AuditLog
      const { check, tenant } = yield* withActs(1)
      const pool = yield* TenantPool
      const inTenant = yield* within(tenant)
      const failed = yield* tenantDb(pool, tenant)
        .transaction(() => Effect.andThen(audit.record(act(2)), Effect.fail("no" as const)))
        .pipe(inTenant, Effect.flip)
      assert.strictEqual(failed, "no")
      assert.deepStrictEqual(yield* check, { entries: 2, brokenAt: Option.none() })
    })
  )

  it.effect("can't be changed by the app, with the tenant's role and claim", () =>
    Effect.gen(function* () {
      const { tenant } = yield* withActs(2)
      const session = yield* rawSession
      const enter = [`SET LOCAL ROLE ${tenant.role}`, `SET LOCAL app.claim = '${yield* claimOf(tenant.id)}'`]
      const log = `${tenant.schema}.audit_log`
      for (const statement of [
        `UPDATE ${log} SET action = 'tenant.updated'`,
        `DELETE FROM ${log}`,
        `TRUNCATE ${log}`,
        `DROP TABLE ${log}`,
        `DELETE FROM ${tenant.schema}.audit_head`
      ]) {
        const refused = yield* Effect.flip(inRolledBack(session, [...enter, statement]))
        assert.strictEqual(sqlStateOf(refused), INSUFFICIENT_PRIVILEGE, statement)
      }
      // The same session may read it, or the refusals would say nothing.
      assert.strictEqual((yield* inRolledBack(session, [...enter, `SELECT * FROM ${log}`])).length, 3)
    })
  )

  it.effect("can't be changed as the owner of the tables either", () =>
    Effect.gen(function* () {
      const { tenant } = yield* withActs(2)
      const { superuser: sql } = yield* TestDatabase
      const claim = yield* claimOf(tenant.id)
      for (const statement of [
        sql`UPDATE ${sql(`${tenant.schema}.audit_log`)} SET action = 'tenant.updated' RETURNING seq`,
        sql`DELETE FROM ${sql(`${tenant.schema}.audit_log`)} RETURNING seq`
      ]) {
        const rows = yield* sql.withTransaction(
          sql`SELECT set_config('role', 'aa_owner', true), set_config('app.claim', ${claim}, true)`.pipe(
            Effect.andThen(statement)
          )
        )
        assert.deepStrictEqual(rows, [])
      }
    })
  )

  it.effect("shows what a superuser changed in it, took out of it, or cut off its end", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const tampered = Effect.fnUntraced(function* (
        tamper: (log: Statement.Identifier) => Effect.Effect<unknown, SqlError.SqlError>
      ) {
        const { check, tenant } = yield* withActs(4)
        assert.deepStrictEqual(yield* check, { entries: 5, brokenAt: Option.none() })
        yield* tamper(sql(`${tenant.schema}.audit_log`))
        return (yield* check).brokenAt
      })
      assert.deepStrictEqual(
        yield* tampered((log) => sql`UPDATE ${log} SET details = '{"id": 9}' WHERE seq = 3`),
        Option.some(3)
      )
      assert.deepStrictEqual(
        yield* tampered((log) => sql`UPDATE ${log} SET actor = '{"type": "system"}' WHERE seq = 1`),
        Option.some(1)
      )
      assert.deepStrictEqual(yield* tampered((log) => sql`DELETE FROM ${log} WHERE seq = 2`), Option.some(3))
      assert.deepStrictEqual(yield* tampered((log) => sql`DELETE FROM ${log} WHERE seq >= 4`), Option.some(4))
    })
  )

  it.effect("tells what operators did, and who, and the tenant's admins read it", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const { asService, asUser, id, slug } = yield* provisionTenant("skyvera")
      yield* control.tenants.update({
        params: { tenant: id },
        payload: { settings: { "guard.level": "strict" } }
      })
      yield* control.tenants.suspend({ params: { tenant: slug } })
      yield* control.tenants.activate({ params: { tenant: id } })
      const { items } = yield* asService.audit.list({ query: {} })
      const ofOperator = items.filter(({ actor }) => actor.type === "operator")
      assert.deepStrictEqual(
        ofOperator.map(({ action }) => action),
        ["tenant.activated", "tenant.suspended", "tenant.updated", "tenant.provisioned"]
      )
      assert.isTrue(ofOperator.every(({ request_id }) => Predicate.isString(request_id)))
      assert.deepStrictEqual(ofOperator[2]?.details, { settings: { "guard.level": "strict" } })

      const one = yield* asUser.audit.list({ query: { action: "tenant.suspended", target_id: id, limit: 1 } })
      assert.deepStrictEqual(
        one.items.map(({ action }) => action),
        ["tenant.suspended"]
      )
      assert.isNull(one.next_cursor)
      const first = yield* asUser.audit.list({ query: { limit: 2 } })
      const cursor = Buffer.from(first.next_cursor ?? "", "base64url").toString()
      const second = yield* asUser.audit.list({ query: { limit: 2, cursor } })
      assert.deepStrictEqual(
        [...first.items, ...second.items].map(({ seq }) => seq),
        items.slice(0, 4).map(({ seq }) => seq)
      )
    })
  )
})
