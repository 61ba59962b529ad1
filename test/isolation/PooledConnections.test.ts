// A pool of one connection, so that whatever one tenant left behind, the next would find.
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import type { Scope } from "effect"
import type { SqlError, Statement } from "effect/sql"
import { tenantDb } from "../../src/services/TenantDb.ts"
import type { TenantPool } from "../../src/services/TenantPool.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, TestDatabase, TestPlatform } from "../support/Platform.ts"
import { rowsOf, tenantInDatabase, tenantPool } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

type Pool = TenantPool["Service"]

/** The session beneath all transactions: a look between the end of ours and the end that the pool puts behind it. */
const beneath = (pool: Pool) =>
  pool.transaction("platform", (sql) =>
    Effect.andThen(
      sql.unsafe("COMMIT"),
      Effect.map(
        sql<{ pid: number; role: string; path: string; claim: string | null; temp: boolean }>`
          SELECT pg_backend_pid() AS pid, current_setting('role') AS role, current_setting('search_path') AS path,
            current_setting('app.claim', true) AS claim, pg_my_temp_schema() <> 0 AS temp`,
        ([row]) => row
      )
    )
  )

const pidIn = (pool: Pool, tenant: TenantInDatabase) =>
  Effect.map(
    pool.query(tenant, (sql) => sql<{ pid: number }>`SELECT pg_backend_pid() AS pid`),
    ([row]) => row?.pid ?? 0
  )

/** What Postgres says of a backend: nothing, once it is gone. */
const activity = (pid: number) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) =>
      sql<{ state: string; query: string; in_transaction: boolean }>`
        SELECT state, query, xact_start IS NOT NULL AS in_transaction FROM pg_stat_activity WHERE pid = ${pid}`
  )

const asleep = (pid: number) =>
  eventually(
    "the statement is running",
    activity(pid),
    ([row]) => row?.state === "active" && row.query.includes("pg_sleep")
  )

/** A row, and then whatever else happens in the same transaction. */
const writeAnd = <A, E, R>(pool: Pool, tenant: TenantInDatabase, then: Effect.Effect<A, E, R>) =>
  tenantDb(pool, tenant).transaction((sql, table) =>
    Effect.andThen(
      sql`INSERT INTO ${table("records")} (id, collection, data) VALUES (gen_random_uuid(), 'half', '1')`,
      then
    )
  )

const sleepIn = (pool: Pool, tenant: TenantInDatabase) =>
  tenantDb(pool, tenant).transaction((sql, table) =>
    Effect.andThen(
      sql`INSERT INTO ${table("records")} (id, collection, data) VALUES (gen_random_uuid(), 'half', '1')`,
      sql`SELECT pg_sleep(30)`
    )
  )

const failStatement = (pool: Pool, tenant: TenantInDatabase) =>
  tenantDb(pool, tenant).transaction((sql, table) =>
    Effect.andThen(
      sql`INSERT INTO ${table("records")} (id, collection, data) VALUES (gen_random_uuid(), 'half', '1')`,
      sql`SELECT 1 / 0`
    )
  )

const setUp = Effect.gen(function* () {
  const pool = yield* tenantPool(1)
  const a = yield* tenantInDatabase("skyvera")
  const b = yield* tenantInDatabase("jigtree")
  const fresh = yield* beneath(pool)
  assert.deepStrictEqual(
    { ...fresh, pid: 0, claim: fresh?.claim ?? "" },
    { pid: 0, role: "none", path: '"$user", public', claim: "", temp: false }
  )
  return { pool, a, b, pid: yield* pidIn(pool, a) }
})

/** After A: the bare session is as new, A has no row too many, and B finds itself in B. */
const assertNothingLeft = Effect.fnUntraced(function* (pool: Pool, b: TenantInDatabase) {
  const left = yield* beneath(pool)
  assert.deepStrictEqual(
    { ...left, pid: 0, claim: left?.claim ?? "" },
    { pid: 0, role: "none", path: '"$user", public', claim: "", temp: false }
  )
  const rows = yield* tenantDb(pool, b).query(
    (sql) =>
      sql<{
        canary: string
        role: string
      }>`SELECT data->>'canary' AS canary, current_user::text AS role FROM records`
  )
  assert.deepStrictEqual(rows, [{ canary: b.canary, role: b.role }])
  return left?.pid ?? 0
})

layer(TestPlatform, onRealClock)("A pooled connection", (it) => {
  describe("keeps nothing of a tenant, and is kept itself,", () => {
    it.effect("after COMMIT", () =>
      Effect.gen(function* () {
        const { a, b, pid, pool } = yield* setUp
        const db = tenantDb(pool, a)
        yield* db.query((sql) => sql`SELECT 1`)
        yield* db.transaction((sql) => sql`SELECT 1`)
        assert.deepStrictEqual((yield* activity(pid))[0]?.in_transaction, false)
        assert.strictEqual(yield* assertNothingLeft(pool, b), pid)
      })
    )

    it.effect("after ROLLBACK", () =>
      Effect.gen(function* () {
        const { a, b, pid, pool } = yield* setUp
        const before = yield* rowsOf(a.schema)
        assert.strictEqual(yield* Effect.flip(writeAnd(pool, a, Effect.fail("no"))), "no")
        assert.isTrue(Exit.hasDies(yield* Effect.exit(writeAnd(pool, a, Effect.die("a defect")))))
        assert.deepStrictEqual((yield* activity(pid))[0]?.in_transaction, false)
        assert.strictEqual(yield* assertNothingLeft(pool, b), pid)
        assert.strictEqual(yield* rowsOf(a.schema), before)
      })
    )

    it.effect("after an error of a statement's", () =>
      Effect.gen(function* () {
        const { a, b, pid, pool } = yield* setUp
        const before = yield* rowsOf(a.schema)
        assert.strictEqual((yield* Effect.flip(failStatement(pool, a)))._tag, "SqlError")
        const failed = yield* Effect.flip(tenantDb(pool, a).query((sql) => sql`SELECT 1 / 0`))
        assert.strictEqual(failed._tag, "SqlError")
        assert.deepStrictEqual((yield* activity(pid))[0]?.in_transaction, false)
        assert.strictEqual(yield* assertNothingLeft(pool, b), pid)
        assert.strictEqual(yield* rowsOf(a.schema), before)
      })
    )

    it.effect("after a transaction that went on past its failed statement, and so could not commit", () =>
      Effect.gen(function* () {
        const { a, b, pid, pool } = yield* setUp
        const before = yield* rowsOf(a.schema)
        const exit = yield* tenantDb(pool, a)
          .transaction((sql, table) =>
            Effect.andThen(
              sql`INSERT INTO ${table("records")} (id, collection, data) VALUES (gen_random_uuid(), 'half', '1')`,
              Effect.ignore(sql`SELECT 1 / 0`)
            )
          )
          .pipe(Effect.exit)
        assert.isTrue(Exit.hasDies(exit))
        assert.deepStrictEqual((yield* activity(pid))[0]?.in_transaction, false)
        assert.strictEqual(yield* assertNothingLeft(pool, b), pid)
        assert.strictEqual(yield* rowsOf(a.schema), before)
      })
    )

    it.effect("after a statement that Postgres cancelled", () =>
      Effect.gen(function* () {
        const { a, b, pid, pool } = yield* setUp
        const { superuser: sql } = yield* TestDatabase
        const before = yield* rowsOf(a.schema)
        const sleeping = yield* Effect.forkScoped(sleepIn(pool, a))
        yield* asleep(pid)
        yield* sql`SELECT pg_cancel_backend(${pid})`
        assert.isTrue(Exit.isFailure(yield* Fiber.await(sleeping)))
        assert.deepStrictEqual((yield* activity(pid))[0]?.in_transaction, false)
        assert.strictEqual(yield* assertNothingLeft(pool, b), pid)
        assert.strictEqual(yield* rowsOf(a.schema), before)
      })
    )
  })

  describe("is thrown away with all that it held", () => {
    const thrownAway = (
      title: string,
      end: (
        pool: Pool,
        a: TenantInDatabase,
        pid: number
      ) => Effect.Effect<void, never, Scope.Scope | TestDatabase>
    ) =>
      it.effect(title, () =>
        Effect.gen(function* () {
          const { a, b, pid, pool } = yield* setUp
          const before = yield* rowsOf(a.schema)
          yield* end(pool, a, pid)
          assert.notStrictEqual(yield* assertNothingLeft(pool, b), pid)
          yield* eventually("the old backend is gone", activity(pid), (rows) => rows.length === 0)
          assert.strictEqual(yield* rowsOf(a.schema), before)
        })
      )

    thrownAway("when a fiber is interrupted in the middle of a transaction's statement", (pool, a, pid) =>
      Effect.gen(function* () {
        const sleeping = yield* Effect.forkScoped(sleepIn(pool, a))
        yield* asleep(pid).pipe(Effect.orDie)
        yield* Fiber.interrupt(sleeping)
      })
    )

    thrownAway("when a fiber is interrupted in the middle of a lone statement", (pool, a, pid) =>
      Effect.gen(function* () {
        const sleeping = yield* Effect.forkScoped(tenantDb(pool, a).query((sql) => sql`SELECT pg_sleep(30)`))
        yield* asleep(pid).pipe(Effect.orDie)
        yield* Fiber.interrupt(sleeping)
      })
    )

    thrownAway("when a fiber is interrupted between two statements", (pool, a) =>
      Effect.gen(function* () {
        const written = yield* Deferred.make<void>()
        const waiting = yield* Effect.forkScoped(
          writeAnd(pool, a, Effect.andThen(Deferred.succeed(written, undefined), Effect.never))
        )
        yield* Deferred.await(written)
        yield* Fiber.interrupt(waiting)
      })
    )

    thrownAway("when a transaction times out", (pool, a) =>
      Effect.asVoid(Effect.exit(Effect.timeout(sleepIn(pool, a), "200 millis")))
    )

    thrownAway("when its backend is terminated", (pool, a, pid) =>
      Effect.gen(function* () {
        const { superuser: sql } = yield* TestDatabase
        const sleeping = yield* Effect.forkScoped(sleepIn(pool, a))
        yield* asleep(pid).pipe(Effect.orDie)
        yield* Effect.orDie(sql`SELECT pg_terminate_backend(${pid})`)
        assert.isTrue(Exit.isFailure(yield* Fiber.await(sleeping)))
      })
    )
  })

  describe("is out of reach of a fiber that outlives its transaction", () => {
    /** A fiber that A leaves behind, and that looks into B's table while B is in its transaction. */
    const outlives = (
      title: string,
      look: (
        sql: Statement.Constructor,
        table: Statement.Identifier
      ) => Effect.Effect<unknown, SqlError.SqlError>
    ) =>
      it.effect(title, () =>
        Effect.gen(function* () {
          const { a, b, pool } = yield* setUp
          const bIsIn = yield* Deferred.make<void>()
          const outliving = yield* tenantDb(pool, a).transaction((sql) =>
            Effect.forkDetach(Effect.andThen(Deferred.await(bIsIn), look(sql, sql(`${b.schema}.records`))))
          )
          yield* tenantDb(pool, b).transaction((sql) =>
            Effect.gen(function* () {
              yield* sql`SELECT 1`
              yield* Deferred.succeed(bIsIn, undefined)
              const exit = yield* Fiber.await(outliving)
              assert.match(String(exit), /This transaction has ended/)
              // What A's fiber tried has not disturbed B either.
              assert.strictEqual((yield* sql`SELECT data FROM records`).length, 1)
            })
          )
        })
      )

    outlives("for statements", (sql, table) => sql`SELECT data FROM ${table}`)
    outlives(
      "for statements that are not prepared",
      (sql, table) => sql`SELECT data FROM ${table}`.unprepared
    )
    outlives(
      "for statements whose rows are plain values",
      (sql, table) => sql`SELECT data FROM ${table}`.values
    )
    outlives("for raw statements", (sql, table) => sql`SELECT data FROM ${table}`.raw)
    outlives("for streams", (sql, table) => Stream.runCollect(sql`SELECT data FROM ${table}`.stream))
  })

  it.effect("takes no temporary object from a tenant", () =>
    Effect.gen(function* () {
      const { a, b, pool } = yield* setUp
      const refused = yield* Effect.flip(
        tenantDb(pool, a).transaction((sql) => sql`CREATE TEMP TABLE records AS SELECT 1 AS mine`)
      )
      assert.strictEqual(refused._tag, "SqlError")
      yield* assertNothingLeft(pool, b)
    })
  )
})
