// The first six faults of the system that this one replaces. Each test would fail on a system that has the fault.
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Layer, Option, Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { createHash, randomBytes, randomUUID } from "node:crypto"
import { inject } from "vitest"
import { formatApiKey, parseApiKey } from "../../src/domain/ApiKey.ts"
import { ApiKeyId } from "../../src/domain/Principal.ts"
import { Installation } from "../../src/layers/Installation.ts"
import { ApiKeys } from "../../src/services/ApiKeys.ts"
import { checkAppLogin } from "../../src/services/AppLogin.ts"
import { Claims } from "../../src/services/Claims.ts"
import { PlatformDb } from "../../src/services/PlatformDb.ts"
import { tenantDb } from "../../src/services/TenantDb.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, operatorKey, startServer, TestApp, TestDatabase } from "../support/Platform.ts"
import { credentialsOf, everything, send } from "../support/RawHttp.ts"
import { claimOf, tenantInDatabase, tenantPool } from "../support/RawSession.ts"
import { provisionTenant, uniqueSlug } from "../support/Tenants.ts"

const readNotes = { method: "GET", path: "/api/v1/records/notes" } as const

/** A login that is not as it should be, and what `checkAppLogin` has to name. */
const unsafeLogins: Readonly<
  Record<
    string,
    {
      readonly attributes: string
      readonly grants?: (login: string) => ReadonlyArray<string>
      readonly named: RegExp
    }
  >
> = {
  "a superuser": { attributes: "SUPERUSER", named: /SUPERUSER/ },
  "one that skips row security": { attributes: "BYPASSRLS", named: /BYPASSRLS/ },
  "one that makes roles": { attributes: "CREATEROLE", named: /CREATEROLE/ },
  "one that makes databases": { attributes: "CREATEDB", named: /CREATEDB/ },
  "one that replicates": { attributes: "REPLICATION", named: /REPLICATION/ },
  "the owner of a table": {
    attributes: "",
    grants: (login) => [
      `CREATE TABLE public.of_${login} (id int)`,
      `ALTER TABLE public.of_${login} OWNER TO ${login}`
    ],
    named: /ownership of objects/
  },
  "a member of the tables' owner": {
    attributes: "",
    grants: (login) => [`GRANT aa_owner TO ${login} WITH INHERIT FALSE, SET TRUE`],
    named: /membership in a role that is no tenant's/
  },
  "a member that inherits": {
    attributes: "",
    grants: (login) => [`GRANT aa_backup TO ${login} WITH INHERIT TRUE, SET FALSE`],
    named: /INHERIT of a role it is a member of/
  },
  "a member that may admit others": {
    attributes: "",
    grants: (login) => [`GRANT aa_backup TO ${login} WITH ADMIN OPTION`],
    named: /ADMIN of a role it is a member of/
  }
}

const urlFor = (user: string, password: string) =>
  Effect.map(TestDatabase, ({ name }) => {
    const { host, port } = inject("servers").postgres
    return Redacted.make(`postgres://${user}:${encodeURIComponent(password)}@${host}:${port}/${name}`)
  })

/** A login of a test's own, gone with it. */
const login = Effect.fnUntraced(function* (
  attributes: string,
  grants: (login: string) => ReadonlyArray<string>
) {
  const { superuser: sql } = yield* TestDatabase
  const name = `probe_${randomBytes(6).toString("hex")}`
  const password = randomBytes(12).toString("hex")
  yield* Effect.acquireRelease(
    sql.unsafe(`CREATE ROLE ${name} LOGIN NOINHERIT ${attributes} PASSWORD '${password}'`),
    () => Effect.ignore(Effect.andThen(sql.unsafe(`DROP OWNED BY ${name}`), sql.unsafe(`DROP ROLE ${name}`)))
  )
  yield* sql.unsafe(`GRANT CONNECT ON DATABASE ${(yield* TestDatabase).name} TO ${name}`)
  yield* sql.unsafe(`GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO ${name}`)
  for (const grant of grants(name)) yield* sql.unsafe(grant)
  return { name, url: yield* urlFor(name, password) }
})

/** The check of the start, for another login. */
const check = Effect.fnUntraced(function* (url: Redacted.Redacted<string>) {
  const { tenantClaimKey } = yield* Installation
  const db = PlatformDb.layer.pipe(
    Layer.provide(TenantPool.layer({ url, size: 1 })),
    Layer.provide(Claims.layer(tenantClaimKey))
  )
  return yield* checkAppLogin.pipe(Effect.provideContext(yield* Layer.build(Layer.fresh(db))))
})

const keysOnPool = Effect.fnUntraced(function* (pool: TenantPool["Service"]) {
  const { superuser: sql } = yield* TestDatabase
  // When keys were used is written later, off the way of any check: that is not what is counted.
  const reading = TenantPool.of({
    ...pool,
    query: (entrance, statement) =>
      statement(sql).compile()[0].startsWith("UPDATE") ? Effect.succeed([]) : pool.query(entrance, statement)
  })
  const keys = ApiKeys.layer({ environment: "testing" }).pipe(
    Layer.provide(Layer.succeed(TenantPool, reading)),
    Layer.provide(SecureRandom.layerWebCrypto)
  )
  return Context.get(yield* Layer.build(Layer.fresh(keys)), ApiKeys)
})

layer(TestApp, onRealClock)("The original's fault", (it) => {
  it.effect("1, that anybody creates and lists tenants: here an operator's key is asked for", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const slug = uniqueSlug("anybody")
      const create = { method: "POST", path: "/api/v1/tenants", body: { slug, name: "Anybody" } } as const
      assert.strictEqual((yield* send(create)).status, 401)
      assert.strictEqual((yield* send({ method: "GET", path: "/api/v1/tenants" })).status, 401)
      assert.deepStrictEqual(yield* sql`SELECT slug FROM shared.tenants WHERE slug = ${slug}`, [])

      const authorization = { authorization: `Bearer ${operatorKey}` }
      assert.strictEqual((yield* send({ ...create, headers: authorization })).status, 201)
      const listed = yield* send({ method: "GET", path: `/api/v1/tenants/${slug}`, headers: authorization })
      assert.strictEqual(listed.status, 200)
    })
  )

  it.effect("2, that X-Tenant-ID selects the tenant: here it selects nothing", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      for (const other of [b.id, b.slug]) {
        const headers = { "x-tenant-id": other }
        assert.strictEqual((yield* send({ ...readNotes, headers })).status, 401)
        for (const own of Object.values(credentialsOf(a))) {
          const answer = yield* send({ ...readNotes, headers: { ...own, ...headers } })
          assert.strictEqual(answer.status, 403)
          assert.notInclude(everything(answer), b.id)
        }
      }
    })
  )

  describe("3, that it logs in as an owner or superuser: here the start refuses", () => {
    for (const [who, { attributes, grants = () => [], named }] of Object.entries(unsafeLogins)) {
      it.effect(who, () =>
        Effect.gen(function* () {
          const { name, url } = yield* login(attributes, grants)
          const refused = yield* Effect.flip(check(url))
          assert.strictEqual(refused._tag, "UnsafeLogin")
          assert.match(refused.message, named)
          assert.include(refused.message, name)
        })
      )
    }

    it.effect("and lets in the login that has just enough", () =>
      Effect.gen(function* () {
        const { appUrl } = yield* TestDatabase
        yield* check(appUrl)
        const { url } = yield* login("", () => [])
        yield* check(url)
      })
    )

    it.effect("the whole server, with the superuser's and with the migrator's login", () =>
      Effect.gen(function* () {
        const { migratorUrl } = yield* TestDatabase
        const { password, superuser } = inject("servers").postgres
        for (const url of [yield* urlFor(superuser, password), migratorUrl]) {
          const refused = yield* Effect.flip(startServer({ DATABASE_URL: Redacted.value(url) }))
          assert.strictEqual(refused._tag, "UnsafeLogin")
        }
      })
    )
  })

  it.effect("4, that whoever runs SQL may name another tenant: here the name has to be signed", () =>
    Effect.gen(function* () {
      const pool = yield* TenantPool
      const a = yield* tenantInDatabase("skyvera")
      const b = yield* tenantInDatabase("jigtree")
      const asIf = (name: string, value: string) =>
        tenantDb(pool, a).transaction((sql) =>
          Effect.gen(function* () {
            yield* sql.unsafe("RESET ROLE")
            yield* sql.unsafe(`SET LOCAL ROLE ${b.role}`)
            yield* sql.unsafe(`SET LOCAL ${name} = '${value}'`)
            return yield* sql`SELECT data FROM ${sql(`${b.schema}.records`)}`
          })
        )
      for (const name of ["app.claim", "app.current_tenant_id", "app.tenant_id"]) {
        for (const value of [b.id, b.slug, "platform", yield* claimOf(b.id, { key: randomBytes(32) })]) {
          assert.deepStrictEqual(yield* asIf(name, value), [], `${name} = ${value}`)
        }
      }
    })
  )

  it.effect("5, that checking a key costs tenants times keys: here it is one look into one index", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const a = yield* tenantInDatabase("skyvera")
      const others = yield* Effect.forEach([1, 2, 3], (n) => tenantInDatabase(`other-${n}`))
      const secret = Redacted.make("0".repeat(43))
      const hash = createHash("sha256").update(Redacted.value(secret)).digest("hex")
      const userId = randomUUID()
      const checked = Array.from({ length: 20 }, () => ApiKeyId.make(randomUUID()))
      for (const { id, schema } of [a, ...others]) {
        yield* sql`INSERT INTO ${sql(`${schema}.users`)} (id, tenant_id, email, hashed_password)
          VALUES (${userId}, ${id}, 'ada@example.com', '')`
        yield* sql`INSERT INTO ${sql(`${schema}.users`)} (id, tenant_id, email, hashed_password)
          SELECT gen_random_uuid(), ${id}, 'user' || n || '@example.com', '' FROM generate_series(1, 2000) n`
        yield* sql`INSERT INTO ${sql(`${schema}.api_keys`)} (id, tenant_id, user_id, name, key_hash, prefix, scopes)
          SELECT gen_random_uuid(), ${id}, ${userId}, 'key', decode(${hash}, 'hex'), '', ARRAY['records:read']
          FROM generate_series(1, 5000)`
        yield* sql`INSERT INTO ${sql(`${schema}.api_keys`)} (id, tenant_id, user_id, name, key_hash, prefix, scopes)
          SELECT id::uuid, ${id}, ${userId}, 'key', decode(${hash}, 'hex'), '', ARRAY['records:read']
          FROM jsonb_array_elements_text(${JSON.stringify(checked)}::jsonb) id`
        yield* sql`ANALYZE ${sql(`${schema}.users`)}, ${sql(`${schema}.api_keys`)}`
      }
      const scans = sql<{ schema: string; table: string; seq: number; idx: number; rows: number }>`
        SELECT schemaname AS schema, relname AS table, seq_scan::int AS seq, coalesce(idx_scan, 0)::int AS idx,
          coalesce(idx_tup_fetch, 0)::int AS rows
        FROM pg_stat_user_tables WHERE schemaname LIKE 'tenant\\_%'`
      yield* sql`SELECT pg_stat_force_next_flush()`
      const before = yield* scans
      // On a connection of its own: a backend hands over what it has counted when it ends.
      yield* Effect.scoped(
        Effect.gen(function* () {
          const keys = yield* keysOnPool(yield* tenantPool(1))
          for (const id of checked) {
            const parsed = parseApiKey(formatApiKey("testing", id, a.id, secret))
            const principal = Option.isSome(parsed) ? yield* keys.verify(parsed.value) : Option.none()
            assert.strictEqual(Option.getOrUndefined(principal)?.tenantId, a.id)
          }
        })
      )
      const difference = eventually(
        "the counts have arrived",
        Effect.map(scans, (after) =>
          after
            .map((now) => {
              const then = before.find(({ schema, table }) => schema === now.schema && table === now.table)
              return {
                at: `${now.schema}.${now.table}`,
                seq: now.seq - (then?.seq ?? 0),
                idx: now.idx - (then?.idx ?? 0),
                rows: now.rows - (then?.rows ?? 0)
              }
            })
            // Tenants of other tests may still have a key's last use written.
            .filter(
              ({ at, idx, seq }) =>
                idx + seq > 0 && [a, ...others].some(({ schema }) => at.startsWith(`${schema}.`))
            )
        ),
        (changed) => changed.some(({ at }) => at === `${a.schema}.api_keys`)
      )
      // The other tenants' tables, with the same keys in them, are not in the list: nobody has looked there.
      assert.sameDeepMembers(
        [...(yield* difference)],
        [
          { at: `${a.schema}.api_keys`, seq: 0, idx: checked.length, rows: checked.length },
          { at: `${a.schema}.users`, seq: 0, idx: checked.length, rows: checked.length }
        ]
      )
    })
  )

  it.effect(
    "6, that an error in the middleware is a 500, and a mismatch is overlooked: here both are answered",
    () =>
      Effect.gen(function* () {
        const a = yield* provisionTenant("skyvera")
        const key = Redacted.value(a.apiKey)
        const token = Redacted.value(a.accessToken)
        const garbage = [
          "",
          "Bearer",
          "Bearer ",
          "bearer x",
          "Basic eDp4",
          "Bearer a.b.c",
          "Bearer aa_testing_",
          "\t",
          "Bearer " + "x".repeat(4000)
        ]
        for (const authorization of garbage) {
          const answer = yield* send({ ...readNotes, headers: { authorization } })
          assert.strictEqual(answer.status, 401, authorization)
          assert.include(answer.text, `"code":"Unauthenticated"`)
        }
        for (const wrong of [key.slice(1), `${key}x`, key.toUpperCase(), "aa_testing_", "aa_", "' OR 1=1"]) {
          assert.strictEqual(
            (yield* send({ ...readNotes, headers: { "x-api-key": wrong } })).status,
            401,
            wrong
          )
        }
        for (const tenant of ["nobody", "0", "''", "%", "x".repeat(4000), randomUUID()]) {
          const headers = { authorization: `Bearer ${token}`, "x-tenant-id": tenant }
          const answer = yield* send({ ...readNotes, headers })
          assert.strictEqual(answer.status, 403, tenant)
          assert.include(answer.text, `"code":"CrossTenantAccess"`)
        }
      })
  )
})
