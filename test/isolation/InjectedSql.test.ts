// An attacker who writes any SQL inside tenant A's transaction: what a query built by concatenation would give away.
// The attacks are data. Each also runs against a tenant without row security, to show that it is an attack at all.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { inspect } from "node:util"
import { tenantDb } from "../../src/services/TenantDb.ts"
import type { TenantPool } from "../../src/services/TenantPool.ts"
import { onRealClock, TestDatabase, TestPlatform } from "../support/Platform.ts"
import { rowsOf, tenantInDatabase, tenantPool } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

interface Attack {
  /** Sent one after the other: what a driver that allows stacked statements would send at once. */
  readonly statements: (victim: TenantInDatabase, attacker: TenantInDatabase) => ReadonlyArray<string>
  /** Gets the canary of a tenant that has no row security. Those that do not are stopped by an earlier wall. */
  readonly getsPastTheRole: boolean
}

const rows = ({ schema }: TenantInDatabase) => `${schema}.records`
const role = ({ role }: TenantInDatabase) => role
const readB = (b: TenantInDatabase) => `SELECT data::text AS stolen FROM ${rows(b)}`
const become = (b: TenantInDatabase) => ["RESET ROLE", `SET ROLE ${role(b)}`]
const becomeAs = (name: string) => [`RESET ROLE`, `SET ROLE ${name}`]

const stopped = (statements: Attack["statements"]): Attack => ({ statements, getsPastTheRole: false })
const pastTheRole = (statements: Attack["statements"]): Attack => ({ statements, getsPastTheRole: true })

const attacks: Readonly<Record<string, Attack>> = {
  "a plain SELECT": stopped((b) => [readB(b)]),
  "a UNION": stopped((b) => [`SELECT 'x' AS stolen UNION ALL ${readB(b)}`]),
  "a search path of its own": stopped((b) => [
    `SET search_path TO ${b.schema}`,
    "SELECT data::text AS stolen FROM records"
  ]),
  "RESET ROLE; SET ROLE": pastTheRole((b) => [...become(b), readB(b)]),
  "SET LOCAL ROLE without a RESET": pastTheRole((b) => [`SET LOCAL ROLE ${role(b)}`, readB(b)]),
  "set_config('role') and a second statement": stopped((b) => [
    `SELECT set_config('role', '${role(b)}', true)`,
    readB(b)
  ]),
  "set_config('role') and query_to_xml in one statement": stopped((b) => [
    `SELECT set_config('role', '${role(b)}', true), query_to_xml('${readB(b)}', true, false, '')::text AS stolen`
  ]),
  "set_config('app.claim') with a guess and query_to_xml in one statement": stopped((b) => [
    `SELECT set_config('role', '${role(b)}', true), set_config('app.claim', '${b.id}', true),
      query_to_xml('${readB(b)}', true, false, '')::text AS stolen`
  ]),
  "a CTE that calls set_config, then a scan": stopped((b) => [
    `WITH r AS MATERIALIZED (SELECT set_config('role', '${role(b)}', true))
      SELECT data::text AS stolen FROM r, ${rows(b)}`
  ]),
  "UPDATE pg_settings": stopped((b) => [
    `UPDATE pg_settings SET setting = '${role(b)}' WHERE name = 'role'`,
    readB(b)
  ]),
  "row_security = off": stopped((b) => ["SET row_security = off", readB(b)]),
  "row_security = off in the other role": pastTheRole((b) => [
    "SET row_security = off",
    ...become(b),
    readB(b)
  ]),
  table_to_xml: pastTheRole((b) => [
    ...become(b),
    `SELECT table_to_xml('${rows(b)}', true, false, '')::text AS stolen`
  ]),
  schema_to_xml: pastTheRole((b) => [
    ...become(b),
    `SELECT schema_to_xml('${b.schema}', true, false, '')::text AS stolen`
  ]),
  database_to_xml: pastTheRole((b) => [
    ...become(b),
    `SELECT database_to_xml(true, false, '')::text AS stolen`
  ]),
  cursor_to_xml: pastTheRole((b) => [
    ...become(b),
    `DECLARE c CURSOR FOR ${readB(b)}`,
    `SELECT cursor_to_xml('c', 10, true, false, '')::text AS stolen`
  ]),
  ts_stat: pastTheRole((b) => [
    ...become(b),
    `SELECT word AS stolen FROM ts_stat('SELECT to_tsvector(''simple'', data::text) FROM ${rows(b)}')`
  ]),
  "a DO block that tells by its error": pastTheRole((b) => [
    `DO $$ DECLARE found text; BEGIN EXECUTE 'SET ROLE ${role(b)}';
      EXECUTE '${readB(b)}' INTO found; RAISE EXCEPTION '%', found; END $$`
  ]),
  "a DO block that carries the loot into its own table": pastTheRole((b, a) => [
    `DO $$ DECLARE found text; BEGIN EXECUTE 'SET ROLE ${role(b)}'; EXECUTE '${readB(b)}' INTO found;
      EXECUTE 'SET ROLE ${role(a)}';
      EXECUTE format('INSERT INTO ${rows(a)} (id, collection, data) VALUES (gen_random_uuid(), ''loot'', %L)',
        to_jsonb(found)); END $$`,
    `SELECT data::text AS stolen FROM ${rows(a)} WHERE collection = 'loot'`
  ]),
  "a cast error that quotes the value": pastTheRole((b) => [
    ...become(b),
    `SELECT (data->>'canary')::int AS stolen FROM ${rows(b)}`
  ]),
  "an EXECUTE of a prepared statement": pastTheRole((b) => [
    `PREPARE p AS SELECT 1 AS stolen`,
    "DEALLOCATE p",
    ...become(b),
    `PREPARE p AS ${readB(b)}`,
    "EXECUTE p"
  ]),
  "EXPLAIN ANALYZE": stopped((b) => [
    ...become(b),
    `EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM ${rows(b)} WHERE data @> '{}'`
  ]),
  "UPDATE … RETURNING": pastTheRole((b) => [
    ...become(b),
    `UPDATE ${rows(b)} SET collection = 'stolen' RETURNING data::text AS stolen`
  ]),
  "DELETE … RETURNING": pastTheRole((b) => [
    ...become(b),
    `DELETE FROM ${rows(b)} RETURNING data::text AS stolen`
  ]),
  MERGE: pastTheRole((b) => [
    ...become(b),
    `MERGE INTO ${rows(b)} r USING (VALUES (1)) v(x) ON true
      WHEN MATCHED THEN UPDATE SET collection = 'stolen' RETURNING r.data::text AS stolen`
  ]),
  "an INSERT under the other tenant's name": stopped((b) => [
    ...become(b),
    `INSERT INTO ${rows(b)} (id, tenant_id, collection, data) VALUES (gen_random_uuid(), '${b.id}', 'planted', '1')`
  ]),
  "ON CONFLICT DO UPDATE": pastTheRole((b) => [
    ...become(b),
    `INSERT INTO ${rows(b)} (id, collection, data) SELECT id, 'x', '1' FROM ${rows(b)}
      ON CONFLICT (id) DO UPDATE SET collection = 'stolen' RETURNING data::text AS stolen`
  ]),
  "SELECT … FOR UPDATE": pastTheRole((b) => [...become(b), `${readB(b)} FOR UPDATE`]),
  "COMMIT, and on in the bare session": pastTheRole((b) => ["COMMIT", `SET ROLE ${role(b)}`, readB(b)]),
  "ROLLBACK, and a transaction of its own": pastTheRole((b) => [
    "ROLLBACK",
    "BEGIN",
    `SET LOCAL ROLE ${role(b)}`,
    `SET LOCAL app.claim = 'v1.00000000.${b.id}.99999999999.00'`,
    readB(b)
  ]),
  "set_config as the login itself": pastTheRole((b) => [
    "RESET ROLE",
    `SELECT set_config('role', '${role(b)}', true), set_config('app.claim', '${b.id}', true)`,
    readB(b)
  ]),
  "its own claim with the other's id": pastTheRole((b, a) => [
    ...become(b),
    `DO $$ BEGIN EXECUTE format('SET app.claim = %L',
      replace(current_setting('app.claim'), '${a.id}', '${b.id}')); END $$`,
    readB(b)
  ]),
  "a hundred guesses at the MAC": pastTheRole((b) => [
    ...become(b),
    `DO $$ DECLARE found text; BEGIN FOR k IN 1..100 LOOP
      EXECUTE format('SET app.claim = %L', 'v1.' || k || '.${b.id}.99999999999.' || md5(k::text));
      SELECT string_agg(data::text, ',') INTO found FROM ${rows(b)};
      IF shared.claim_subject() IS NOT NULL OR found IS NOT NULL THEN RAISE EXCEPTION 'found %', found; END IF;
      END LOOP; END $$`
  ]),
  "another database object of the name": stopped((b) => [
    "CREATE TEMP TABLE records (data text)",
    ...become(b),
    "SELECT data AS stolen FROM records"
  ]),
  "a function of the name of the one that verifies": stopped((b, a) => [
    `CREATE FUNCTION ${a.schema}.current_tenant() RETURNS uuid LANGUAGE sql AS $$ SELECT '${b.id}'::uuid $$`,
    readB(b)
  ]),
  "an operator of its own": stopped((b, a) => [
    `CREATE OPERATOR ${a.schema}.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = uuid_ne)`,
    readB(b)
  ]),
  "COPY … TO STDOUT": stopped((b) => [`COPY ${rows(b)} TO STDOUT`]),
  "COPY … TO PROGRAM": stopped((b) => [...become(b), `COPY (${readB(b)}) TO PROGRAM 'cat'`]),
  "COPY … TO a file": stopped((b) => [...become(b), `COPY (${readB(b)}) TO '/tmp/stolen'`]),
  pg_read_file: stopped(() => ["SELECT pg_read_file('postgresql.conf') AS stolen"]),
  "large objects": stopped(() => ["SELECT lo_import('/etc/passwd')"]),
  "SET ROLE aa_backup, which skips row security": stopped((b) => [...becomeAs("aa_backup"), readB(b)]),
  "SET ROLE aa_owner": stopped((b) => [...becomeAs("aa_owner"), readB(b)]),
  "SET ROLE aa_migrator": stopped((b) => [...becomeAs("aa_migrator"), "SET ROLE aa_owner", readB(b)]),
  "SET SESSION AUTHORIZATION": stopped((b) => ["SET SESSION AUTHORIZATION aa_owner", readB(b)]),
  "ALTER TABLE … DISABLE ROW LEVEL SECURITY": stopped((b) => [
    ...become(b),
    `ALTER TABLE ${rows(b)} DISABLE ROW LEVEL SECURITY`,
    readB(b)
  ]),
  "DROP POLICY": stopped((b) => [...become(b), `DROP POLICY tenant_claim ON ${rows(b)}`, readB(b)]),
  TRUNCATE: stopped((b) => [...become(b), `TRUNCATE ${rows(b)}`]),
  "a GRANT to itself": pastTheRole((b, a) => [
    ...become(b),
    `GRANT SELECT ON ${rows(b)} TO ${role(a)}`,
    readB(b)
  ]),
  "the registry": stopped(() => ["RESET ROLE", "SELECT slug AS stolen FROM shared.tenants"]),
  "the registry in a tenant's role": stopped(() => ["SELECT slug AS stolen FROM shared.tenants"]),
  "the keys of the claims": stopped(() => [
    "RESET ROLE",
    "SELECT inner_pad AS stolen FROM shared.claim_keys"
  ]),
  "the statistics of the columns": stopped((b) => [
    ...become(b),
    `SELECT most_common_vals::text || histogram_bounds::text AS stolen FROM pg_stats WHERE schemaname = '${b.schema}'`
  ]),
  "the raw statistics": stopped(() => ["SELECT stavalues1::text AS stolen FROM pg_statistic"]),
  "the passwords of the roles": stopped(() => ["RESET ROLE", "SELECT rolpassword AS stolen FROM pg_authid"])
}

/** All that the attacker gets to see: rows, or what an error says. */
const shown = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.timeout("5 seconds"),
    Effect.exit,
    Effect.map((exit) => inspect(exit, { depth: 20 }))
  )

/** The canary has the slug in it, which stands in the registry too. The attacker writes schema and role, never that. */
const assertNothingOf = (victim: TenantInDatabase, seen: string, what: string) =>
  assert.isFalse(seen.includes(victim.slug), `${what}: ${seen}`)

/** Runs an attack as the text of the attacker's own transaction. */
const strike = (pool: TenantPool["Service"], attacker: TenantInDatabase, statements: ReadonlyArray<string>) =>
  shown(
    tenantDb(pool, attacker).transaction((sql) =>
      Effect.forEach(statements, (statement) => sql.unsafe(statement).unprepared)
    )
  )

const threeTenants = Effect.gen(function* () {
  const { superuser: sql } = yield* TestDatabase
  const a = yield* tenantInDatabase("skyvera")
  const b = yield* tenantInDatabase("jigtree")
  const bare = yield* tenantInDatabase("bare")
  for (const table of ["users", "sessions", "api_keys", "records"]) {
    yield* sql`ALTER TABLE ${sql(`${bare.schema}.${table}`)} DISABLE ROW LEVEL SECURITY`
  }
  return { a, b, bare }
})

layer(TestPlatform, onRealClock)("SQL injected into a tenant's transaction", (it) => {
  it.effect("sees and changes nothing of another tenant, whatever it is", () =>
    Effect.gen(function* () {
      const { a, b } = yield* threeTenants
      const pool = yield* tenantPool(2)
      const before = yield* rowsOf(b.schema)
      for (const [title, { statements }] of Object.entries(attacks)) {
        const seen = yield* strike(pool, a, statements(b, a))
        assertNothingOf(b, seen, title)
        assert.strictEqual(yield* rowsOf(b.schema), before, title)
      }
    })
  )

  it.effect("sees and changes nothing of another tenant as the one statement of a query", () =>
    Effect.gen(function* () {
      const { a, b } = yield* threeTenants
      const pool = yield* tenantPool(2)
      const before = yield* rowsOf(b.schema)
      for (const [title, { statements }] of Object.entries(attacks)) {
        for (const statement of statements(b, a)) {
          const seen = yield* shown(tenantDb(pool, a).query((sql) => sql.unsafe(statement)))
          assertNothingOf(b, seen, `${title}: ${statement}`)
        }
        // One message holds one statement: two are refused as a whole.
        const stacked = yield* shown(
          tenantDb(pool, a).query((sql) => sql.unsafe(statements(b, a).join("; ")))
        )
        assertNothingOf(b, stacked, title)
        if (statements(b, a).length > 1) assert.match(stacked, /cannot insert multiple commands/, title)
        assert.strictEqual(yield* rowsOf(b.schema), before, title)
      }
    })
  )

  it.effect("reads only its own tenant through a value that was concatenated into a query", () =>
    Effect.gen(function* () {
      const { a, b } = yield* threeTenants
      const pool = yield* tenantPool(2)
      const find = (collection: string) =>
        shown(
          tenantDb(pool, a).query((sql) =>
            sql.unsafe(`SELECT data::text AS data FROM ${rows(a)} WHERE collection = '${collection}'`)
          )
        )
      // The hole is there: the attacker reads what was not asked for, of its own.
      assert.include(yield* find("x' OR true --"), a.canary)
      const breakIns = [
        `x' UNION ALL SELECT data::text FROM ${rows(b)} --`,
        `x' UNION ALL SELECT query_to_xml('SELECT set_config(''role'', ''${b.role}'', true), data FROM ${rows(b)}', true, false, '')::text --`,
        `x' AND set_config('role', '${b.role}', true) <> '' UNION ALL SELECT query_to_xml('${readB(b)}', true, false, '')::text --`,
        `x' OR set_config('role', '${b.role}', true) || set_config('app.claim', '${b.id}', true) <> '' --`,
        `x' UNION ALL SELECT set_config('role', '${b.role}', true) || query_to_xml('${readB(b)}', true, false, '')::text --`,
        `x'; RESET ROLE; SET ROLE ${b.role}; ${readB(b)} --`,
        `x' UNION ALL SELECT slug FROM shared.tenants --`
      ]
      for (const breakIn of breakIns) assertNothingOf(b, yield* find(breakIn), breakIn)
    })
  )

  it.effect("would see it without row security: half of these attacks get past a role", () =>
    Effect.gen(function* () {
      const { a, bare } = yield* threeTenants
      const pool = yield* tenantPool(2)
      for (const [title, { getsPastTheRole, statements }] of Object.entries(attacks)) {
        const seen = yield* strike(pool, a, statements(bare, a))
        assert.strictEqual(seen.includes(bare.canary), getsPastTheRole, `${title}: ${seen}`)
        // Some of them destroy what they find.
        yield* tenantDb(pool, bare).transaction((sql, table) =>
          Effect.andThen(
            sql`DELETE FROM ${table("records")}`,
            sql`INSERT INTO ${table("records")} (id, collection, data)
              VALUES (gen_random_uuid(), 'secrets', ${JSON.stringify({ canary: bare.canary })}::jsonb)`
          )
        )
      }
    })
  )
})
