// An attacker who writes SQL inside tenant A's transaction, and leaves something behind for the next tenant on the same
// connection. The pool has one connection, so that the next tenant is sure to get it.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { inspect } from "node:util"
import { tenantDb } from "../../src/services/TenantDb.ts"
import { onRealClock, TestPlatform } from "../support/Platform.ts"
import { rowsOf, tenantInDatabase, tenantPool } from "../support/RawSession.ts"

const setUp = Effect.gen(function* () {
  const a = yield* tenantInDatabase("skyvera")
  const b = yield* tenantInDatabase("jigtree")
  const pool = yield* tenantPool(1)
  const ofA = tenantDb(pool, a)
  const ofB = tenantDb(pool, b)
  const readAsB = ofB.query(
    (sql, table) => sql<{ canary: string }>`SELECT data->>'canary' AS canary FROM ${table("records")}`
  )
  // Both have been here before: their statements are prepared on the connection.
  yield* readAsB
  yield* ofA.query((sql) => sql`SELECT 1`)
  /** One statement after the other, as A: all that the attacker gets to see. */
  const asA = (...statements: ReadonlyArray<string>) =>
    ofA
      .transaction((sql) => Effect.forEach(statements, (text) => sql.unsafe(text).unprepared))
      .pipe(
        Effect.exit,
        Effect.map((exit) => inspect(exit, { depth: 20 }))
      )
  return { a, b, asA, ofA, ofB, readAsB }
})

/** Puts a statement of the attacker's in the place of each prepared one whose text is like `pattern`. */
const replacePrepared = (pattern: string, types: string, instead: string) => `
  DO $attack$ DECLARE victim record; BEGIN
    FOR victim IN SELECT name FROM pg_prepared_statements WHERE statement LIKE '${pattern}' LOOP
      EXECUTE format('DEALLOCATE %I', victim.name);
      EXECUTE format('PREPARE %I ${types} AS %s', victim.name, $with$${instead}$with$);
    END LOOP;
  END $attack$`

/** Settings that would garble or refuse what the next tenant writes and reads. */
const settings = {
  client_encoding: "LATIN1",
  default_transaction_read_only: "on",
  row_security: "off",
  statement_timeout: "1",
  transaction_timeout: "1",
  search_path: "nowhere",
  standard_conforming_strings: "off"
}

layer(TestPlatform, onRealClock)("What a tenant leaves in the session", (it) => {
  it.effect(
    "is no statement in the place of the entrance, that would keep the next tenant's claim for it",
    () =>
      Effect.gen(function* () {
        const { asA, b, ofA, readAsB } = yield* setUp
        const before = yield* rowsOf(b.schema)
        const replaceEntrance = replacePrepared(
          "%set_config(''role''%",
          "(text, text, text)",
          `SELECT set_config('role', $1, true), set_config('search_path', $2, true),
          set_config('app.stolen', CASE WHEN set_config('app.claim', $3, true) LIKE '%${b.id}%' THEN $3
            ELSE current_setting('app.stolen', true) END, false)`
        )
        for (const attack of [
          asA(replaceEntrance),
          Effect.exit(ofA.query((sql) => sql.unsafe(replaceEntrance)))
        ]) {
          yield* attack
          assert.deepStrictEqual(yield* readAsB, [{ canary: b.canary }])
          const seen = yield* asA(
            `DO $$ BEGIN EXECUTE format('SET app.claim = %L', current_setting('app.stolen', true)); END $$`,
            "SELECT current_setting('app.claim', true)",
            "RESET ROLE",
            `SET ROLE ${b.role}`,
            `SELECT data FROM ${b.schema}.records`
          )
          assert.notInclude(seen, b.canary)
          assert.notInclude(seen, `.${b.id}.`)
        }
        assert.strictEqual(yield* rowsOf(b.schema), before)
      })
  )

  it.effect("is no statement in the place of the next tenant's own", () =>
    Effect.gen(function* () {
      const { asA, b, readAsB } = yield* setUp
      yield* asA(replacePrepared("%canary%", "", "SELECT 'forged' AS canary"))
      assert.deepStrictEqual(yield* readAsB, [{ canary: b.canary }])
    })
  )

  it.effect("is no setting, however it was set", () =>
    Effect.gen(function* () {
      for (const [name, value] of Object.entries(settings)) {
        for (const statement of [
          `SELECT set_config('${name}', '${value}', false)`,
          `UPDATE pg_settings SET setting = '${value}' WHERE name = '${name}'`,
          `SET ${name} = '${value}'`,
          `DO $$ BEGIN EXECUTE 'SET ${name} = ''${value}'''; END $$`
        ]) {
          const { asA, b, ofB, readAsB } = yield* setUp
          yield* asA(statement)
          const [row] = yield* ofB.query(
            (sql, table) => sql<{ text: string; bytes: number }>`
              INSERT INTO ${table("records")} (id, collection, data) VALUES (gen_random_uuid(), ${"é"}, '{}')
              RETURNING collection AS text, octet_length(collection) AS bytes`
          )
          assert.deepStrictEqual(row, { text: "é", bytes: 2 }, statement)
          assert.include(
            (yield* readAsB).map(({ canary }) => canary),
            b.canary,
            statement
          )
        }
      }
    })
  )

  it.effect("is no role, claim, cursor or listener of its own making", () =>
    Effect.gen(function* () {
      const { a, asA, ofB } = yield* setUp
      yield* asA("COMMIT", `SET SESSION ROLE ${a.role}`, "SET SESSION app.claim = 'mine'")
      yield* asA("DECLARE mine CURSOR WITH HOLD FOR SELECT 1")
      yield* asA("LISTEN mine")
      yield* asA("PREPARE mine AS SELECT 1")
      const left = yield* ofB.transaction((sql) =>
        Effect.andThen(
          sql.unsafe("COMMIT"),
          sql`SELECT current_setting('role') AS role, coalesce(current_setting('app.claim', true), '') AS claim,
            (SELECT count(*)::int FROM pg_cursors WHERE is_holdable) AS cursors,
            (SELECT count(*)::int FROM pg_listening_channels()) AS channels,
            (SELECT count(*)::int FROM pg_prepared_statements WHERE from_sql) AS statements`
        )
      )
      assert.deepStrictEqual(left, [{ role: "none", claim: "", cursors: 0, channels: 0, statements: 0 }])
    })
  )
})
