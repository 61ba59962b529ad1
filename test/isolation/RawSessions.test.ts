// The app's login in the hands of somebody else: no pool of ours, no TypeScript, only Postgres and its walls.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { randomBytes } from "node:crypto"
import { sqlMessageOf, sqlStateOf } from "../../src/services/DbErrors.ts"
import { onRealClock, TestPlatform } from "../support/Platform.ts"
import { claimOf, inRolledBack, rawSession, rowsOf, tenantInDatabase } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

const tables = ["users", "sessions", "api_keys", "records", "audit_log", "audit_head", "data_keys", "secrets"]
const INSUFFICIENT_PRIVILEGE = "42501"

const twoTenants = Effect.all({ a: tenantInDatabase("skyvera"), b: tenantInDatabase("jigtree") })

const become = ({ role }: TenantInDatabase) => `SET LOCAL ROLE ${role}`
const present = (claim: string) => `SET LOCAL app.claim = '${claim}'`

layer(TestPlatform, onRealClock)("A session as aa_app", (it) => {
  it.effect("reads no tenant's table and no row of the registry, without a tenant", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const session = yield* rawSession
      for (const { schema } of [a, b]) {
        for (const table of tables) {
          const refused = yield* Effect.flip(inRolledBack(session, [`SELECT * FROM ${schema}.${table}`]))
          assert.strictEqual(sqlStateOf(refused), INSUFFICIENT_PRIVILEGE, `${schema}.${table}`)
        }
      }
      assert.deepStrictEqual(yield* inRolledBack(session, ["SELECT * FROM shared.tenants"]), [])
      assert.deepStrictEqual(yield* inRolledBack(session, ["SELECT * FROM shared.tenant_migrations"]), [])
      const keys = yield* Effect.flip(inRolledBack(session, ["SELECT * FROM shared.claim_keys"]))
      assert.strictEqual(sqlStateOf(keys), INSUFFICIENT_PRIVILEGE)

      // What the same session may see with the right claim, or the empty answers above would say nothing.
      const registry = yield* inRolledBack(session, [
        present(yield* claimOf("platform")),
        `SELECT slug FROM shared.tenants WHERE id IN ('${a.id}', '${b.id}')`
      ])
      assert.strictEqual(registry.length, 2)
    })
  )

  it.effect("in one tenant's role has no way into another's schema", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const session = yield* rawSession
      // Even with the other's valid claim: this is the role's wall alone.
      const enter = [become(a), present(yield* claimOf(b.id))]
      for (const table of tables) {
        const refused = yield* Effect.flip(
          inRolledBack(session, [...enter, `SELECT * FROM ${b.schema}.${table}`])
        )
        assert.strictEqual(sqlStateOf(refused), INSUFFICIENT_PRIVILEGE, table)
        assert.match(sqlMessageOf(refused), /permission denied/)
      }
    })
  )

  it.effect("in a tenant's role without its claim reads no row and writes none", () =>
    Effect.gen(function* () {
      const { b } = yield* twoTenants
      const session = yield* rawSession
      const before = yield* rowsOf(b.schema)
      const rows = `${b.schema}.records`
      assert.deepStrictEqual(yield* inRolledBack(session, [become(b), `SELECT * FROM ${rows}`]), [])
      assert.deepStrictEqual(
        yield* inRolledBack(session, [become(b), `UPDATE ${rows} SET data = '{}' RETURNING id`]),
        []
      )
      assert.deepStrictEqual(
        yield* inRolledBack(session, [become(b), `DELETE FROM ${rows} RETURNING id`]),
        []
      )
      for (const tenant of ["NULL", `'${b.id}'`, "gen_random_uuid()"]) {
        const refused = yield* Effect.flip(
          inRolledBack(session, [
            become(b),
            `INSERT INTO ${rows} (id, tenant_id, collection, data) VALUES (gen_random_uuid(), ${tenant}, 'x', '1')`
          ])
        )
        assert.match(sqlMessageOf(refused), /row-level security policy|null value/, tenant)
      }
      assert.strictEqual(yield* rowsOf(b.schema), before)
    })
  )

  it.effect("believes a tenant's own claim, and writes under it for nobody else", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const session = yield* rawSession
      const enter = [become(b), present(yield* claimOf(b.id))]
      const [row] = yield* inRolledBack(session, [
        ...enter,
        `SELECT data->>'canary' AS canary FROM ${b.schema}.records`
      ])
      assert.strictEqual(row?.["canary"], b.canary)
      const refused = yield* Effect.flip(
        inRolledBack(session, [
          ...enter,
          `INSERT INTO ${b.schema}.records (id, tenant_id, collection, data) VALUES (gen_random_uuid(), '${a.id}', 'x', '1')`
        ])
      )
      assert.match(sqlMessageOf(refused), /row-level security policy/)
    })
  )

  it.effect("believes no claim that is forged, cut, rearranged, expired, or another tenant's", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const session = yield* rawSession
      const right = yield* claimOf(b.id)
      const ofA = yield* claimOf(a.id)
      const [version = "", keyId = "", subject = "", expiry = "", mac = ""] = right.split(".")
      const macOfA = ofA.split(".").at(-1) ?? ""
      const wrong: Readonly<Record<string, string>> = {
        none: "",
        "a name and no signature": b.id,
        "an empty MAC": `${version}.${keyId}.${subject}.${expiry}.`,
        "a MAC of zeros": `${version}.${keyId}.${subject}.${expiry}.${"0".repeat(64)}`,
        "signed with another key": yield* claimOf(b.id, { key: randomBytes(32) }),
        "signed with another key, under an id that is not installed": yield* claimOf(b.id, {
          key: randomBytes(32),
          keyId: "deadbeef"
        }),
        "another key id": [version, "deadbeef", subject, expiry, mac].join("."),
        "cut at the end": right.slice(0, -1),
        "cut at the beginning": right.slice(1),
        "without its MAC": right.slice(0, right.lastIndexOf(".")),
        "longer by a field": `${right}.${mac}`,
        "longer by a blank": `${right} `,
        "with fields swapped": [version, keyId, expiry, subject, mac].join("."),
        "with a later expiry": [version, keyId, subject, Number(expiry) + 1, mac].join("."),
        "with its MAC in capitals": [version, keyId, subject, expiry, mac.toUpperCase()].join("."),
        "of another version": [`v2`, keyId, subject, expiry, mac].join("."),
        "of another version, signed": yield* claimOf(b.id, { version: "v2" }),
        expired: yield* claimOf(b.id, { expiry: 1_700_000_000 }),
        "with an expiry that is no number": [version, keyId, subject, "infinity", mac].join("."),
        "another tenant's": ofA,
        "another tenant's with this one's name": ofA.replace(a.id, b.id),
        "this one's with another's MAC": [version, keyId, subject, expiry, macOfA].join("."),
        "the platform's": yield* claimOf("platform"),
        "of 100,000 characters": right + "0".repeat(100_000)
      }
      const read = `SELECT data FROM ${b.schema}.records`
      for (const [what, claim] of Object.entries(wrong)) {
        assert.deepStrictEqual(yield* inRolledBack(session, [become(b), present(claim), read]), [], what)
      }
      assert.strictEqual((yield* inRolledBack(session, [become(b), present(right), read])).length, 1)
    })
  )

  it.effect("may not become an owner, the migrator, the backup or a superuser, and makes no object", () =>
    Effect.gen(function* () {
      const { a } = yield* twoTenants
      const session = yield* rawSession
      const refusedWith = (statements: ReadonlyArray<string>) =>
        Effect.map(Effect.flip(inRolledBack(session, statements)), sqlStateOf)
      for (const role of ["aa_owner", "aa_migrator", "aa_backup", "pg_read_all_data", "pg_monitor"]) {
        assert.strictEqual(yield* refusedWith([`SET LOCAL ROLE ${role}`]), INSUFFICIENT_PRIVILEGE, role)
      }
      assert.strictEqual(
        yield* refusedWith(["SET LOCAL SESSION AUTHORIZATION aa_owner"]),
        INSUFFICIENT_PRIVILEGE
      )
      for (const enter of [[], [become(a), present(yield* claimOf(a.id))]]) {
        for (const statement of [
          "CREATE SCHEMA mine",
          "CREATE TEMP TABLE records (id uuid)",
          "CREATE TABLE public.mine (id uuid)",
          "CREATE TABLE shared.mine (id uuid)",
          `CREATE TABLE ${a.schema}.mine (id uuid)`,
          `CREATE VIEW ${a.schema}.mine AS SELECT 1`,
          `CREATE FUNCTION ${a.schema}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
          "CREATE ROLE mine",
          `GRANT ${a.role} TO aa_app WITH ADMIN OPTION`
        ]) {
          assert.strictEqual(yield* refusedWith([...enter, statement]), INSUFFICIENT_PRIVILEGE, statement)
        }
      }
    })
  )
})
