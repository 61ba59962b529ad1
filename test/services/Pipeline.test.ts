import { PgTypes } from "@effect/sql-pg"
import { assert, describe, it as plainIt, layer } from "@effect/vitest"
import { DateTime, Effect, Fiber, Layer, Schema } from "effect"
import { SqlError } from "effect/sql"
import type { Statement } from "effect/sql"
import { Installation } from "../../src/layers/Installation.ts"
import { Claims } from "../../src/services/Claims.ts"
import { sqlStateOf } from "../../src/services/DbErrors.ts"
import { plainSocket } from "../../src/services/Pipeline.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { onRealClock, TestDatabase, TestPlatform } from "../support/Platform.ts"
import { tenantInDatabase } from "../support/RawSession.ts"

/** One connection, so that what a statement leaves on it is the next one's to meet. */
const OneConnection = Layer.unwrap(
  Effect.gen(function* () {
    const { appUrl } = yield* TestDatabase
    const { tenantClaimKey } = yield* Installation
    return TenantPool.layer({ url: appUrl, size: 1 }).pipe(Layer.provide(Claims.layer(tenantClaimKey)))
  })
)

const one = Layer.fresh(OneConnection).pipe(Layer.provideMerge(TestPlatform))

const backend = Effect.flatMap(TenantPool, (pool) =>
  pool.query("platform", (sql) => sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`)
)

describe("The socket of a connection URL", () => {
  plainIt("is left to the driver where TLS is asked for, or the URL is none", () => {
    for (const url of ["postgres://u@h/d?sslmode=require", "postgres://u@h/d?sslmode=prefer", "nonsense"]) {
      assert.isUndefined(plainSocket(url), url)
    }
    assert.isDefined(plainSocket("postgres://u@h/d"))
    assert.isDefined(plainSocket("postgres://u@h/d?sslmode=disable"))
  })
})

layer(one, onRealClock)("A lone statement", (it) => {
  it.effect("answers what the same statement answers in a transaction", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const statements: ReadonlyArray<(sql: Statement.Constructor) => Statement.Statement<object>> = [
        (sql) => sql`SELECT ${"text"}::text AS a, ${7} AS b, ${true} AS c, ${null}::text AS d`,
        (sql) => sql`SELECT ${-2_147_483_648} AS a, ${2_147_483_647} AS b`,
        (sql) => sql`SELECT ${2 ** 40} AS a, ${0.5} AS b`,
        (sql) => sql`SELECT ${123n} AS a`,
        (sql) =>
          sql`SELECT ${DateTime.toDate(DateTime.makeUnsafe(0))} AS a, ${new Uint8Array([0, 255])} AS b`,
        (sql) => sql`SELECT ${PgTypes.jsonb({ deep: [1, { er: null }] })} AS a, ${["x", "y"]}::text[] AS b`,
        (sql) => sql`SELECT repeat(${"è"}, 2000000) AS a`,
        (sql) => sql`SELECT n, n::text AS t FROM generate_series(1, 5000) AS n`,
        (sql) => sql`SELECT 1 AS a WHERE false`
      ]
      for (const statement of statements) {
        const alone = yield* pool.query("platform", statement)
        const twice = yield* pool.query("platform", statement)
        const inTransaction = yield* pool.transaction("platform", statement)
        assert.deepStrictEqual(alone, inTransaction)
        assert.deepStrictEqual(twice, inTransaction)
      }
    })
  )

  it.effect("that fails changes nothing, and leaves the connection to the next", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const tenant = yield* tenantInDatabase("skyvera")
      const records = (sql: Statement.Constructor) => sql(`${tenant.schema}.records`)
      const before = yield* backend
      // Written first, failed after.
      const failed = yield* Effect.flip(
        pool.query(
          tenant,
          (sql) =>
            sql`WITH gone AS (DELETE FROM ${records(sql)} RETURNING id) SELECT 1 / (count(*) - 1) FROM gone`
        )
      )
      assert.isTrue(SqlError.isSqlError(failed) && sqlStateOf(failed) === "22012")
      for (const wrong of ["SELECT nonsense", "SELECT * FROM no_such_table", "SELECT 1; SELECT 2"]) {
        assert.isTrue(
          SqlError.isSqlError(yield* Effect.flip(pool.query(tenant, (sql) => sql.unsafe(wrong)))),
          wrong
        )
      }
      const [left] = yield* pool.query(tenant, (sql) => sql`SELECT count(*)::int AS n FROM ${records(sql)}`)
      assert.deepStrictEqual(left, { n: 1 })
      assert.deepStrictEqual(yield* backend, before)
    })
  )

  it.effect("keeps a bounded number of statements prepared", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      for (let index = 0; index < 600; index++) {
        const [row] = yield* pool.query("platform", (sql) => sql`SELECT ${sql.literal(String(index))} AS n`)
        assert.deepStrictEqual(row, { n: index })
      }
      const [prepared] = yield* pool.query(
        "platform",
        (sql) =>
          sql<{ n: number }>`SELECT count(*)::int AS n FROM pg_prepared_statements WHERE name ~ '^p[0-9]+$'`
      )
      assert.isAtMost(prepared?.n ?? Infinity, 501)
      assert.isAtLeast(prepared?.n ?? 0, 400)
      // The first of them was closed long ago.
      assert.deepStrictEqual(yield* pool.query("platform", (sql) => sql`SELECT 0 AS n`), [{ n: 0 }])
    })
  )

  it.effect("goes on after a migration has changed what it answers", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const tenant = yield* tenantInDatabase("skyvera")
      const { superuser } = yield* TestDatabase
      const all = pool.query(tenant, (sql) => sql`SELECT * FROM ${sql(`${tenant.schema}.records`)}`)
      const decode = Schema.decodeUnknownEffect(Schema.Tuple([Schema.Record(Schema.String, Schema.Unknown)]))
      const [before] = yield* decode(yield* all)
      const connection = yield* backend
      yield* superuser`ALTER TABLE ${superuser(`${tenant.schema}.records`)} ADD COLUMN mood text DEFAULT 'new'`
      const [after] = yield* decode(yield* all)
      assert.deepStrictEqual(after, { ...before, mood: "new" })
      assert.deepStrictEqual(yield* backend, connection)
    })
  )

  it.effect("that is interrupted takes its connection with it, and Postgres stops working on it", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const { name, superuser: sql } = yield* TestDatabase
      const [before] = yield* backend
      const slow = yield* Effect.forkChild(
        pool.query("platform", (sql) => sql`SELECT pg_sleep(14)`),
        { startImmediately: true }
      )
      const running = sql<{ n: number }>`SELECT count(*)::int AS n FROM pg_stat_activity
        WHERE datname = ${name} AND state = 'active' AND query LIKE '%pg_sleep(14)%' AND pid <> pg_backend_pid()`
      yield* Effect.repeat(running, { until: ([row]) => row?.n === 1 })
      yield* Fiber.interrupt(slow)
      const [after] = yield* backend
      assert.notStrictEqual(after?.pid, before?.pid)
      yield* Effect.repeat(running, { until: ([row]) => row?.n === 0 })
    })
  )
})
