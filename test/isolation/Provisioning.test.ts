// A tenant is there as a whole or not at all, whenever the process, the connection or the server goes away.
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Redacted } from "effect"
import { Statement } from "effect/sql"
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { TenantSlug } from "../../src/domain/Tenant.ts"
import { Installation } from "../../src/layers/Installation.ts"
import { Provisioning } from "../../src/services/Provisioning.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, operatorKey, startServer, TestApp, TestDatabase } from "../support/Platform.ts"
import { send } from "../support/RawHttp.ts"
import { inRolledBack, rawSession } from "../support/RawSession.ts"
import { uniqueSlug } from "../support/Tenants.ts"

const authorization = { authorization: `Bearer ${operatorKey}` }

/** What there is of tenants in this database, and of the roles that an attempt was about to make. */
const remains = Effect.fnUntraced(function* (roles: ReadonlyArray<string>) {
  const { superuser: sql } = yield* TestDatabase
  const [found] = yield* sql<{ orphans: ReadonlyArray<string> }>`
    SELECT coalesce(array_agg(orphan), '{}') AS orphans FROM (
      SELECT 'a schema without a row: ' || nspname AS orphan FROM pg_namespace
        WHERE nspname LIKE 'tenant\\_%' AND nspname NOT IN (SELECT schema_name FROM shared.tenants)
      UNION ALL SELECT 'a row without a schema: ' || slug FROM shared.tenants
        WHERE schema_name NOT IN (SELECT nspname FROM pg_namespace)
      UNION ALL SELECT 'a row without a role: ' || slug FROM shared.tenants
        WHERE 'aa_t_' || replace(id::text, '-', '') NOT IN (SELECT rolname FROM pg_roles)
      UNION ALL SELECT 'a row without migrations: ' || slug FROM shared.tenants
        WHERE id NOT IN (SELECT tenant_id FROM shared.tenant_migrations)
      UNION ALL SELECT 'migrations without a row: ' || tenant_id FROM shared.tenant_migrations
        WHERE tenant_id NOT IN (SELECT id FROM shared.tenants)
      UNION ALL SELECT 'a role without a row: ' || rolname FROM pg_roles
        WHERE rolname IN (SELECT jsonb_array_elements_text(${JSON.stringify(roles)}::jsonb))
          AND rolname NOT IN (SELECT 'aa_t_' || replace(id::text, '-', '') FROM shared.tenants)
    ) orphans`
  return found?.orphans ?? ["nothing was found out"]
})

/** Ends every session of the migrator, and waits until each is gone. */
const terminateMigrator = Effect.gen(function* () {
  const { superuser: sql } = yield* TestDatabase
  yield* sql`SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE usename = 'aa_migrator' AND datname = current_database()`
}).pipe(Effect.orDie)

const roleIn = (text: string) => /CREATE ROLE \\?"(aa_t_[0-9a-f]{32})\\?"/.exec(text)?.[1]

/** Provisions, and lets `happen` happen just before the statement of that number. */
const provisionUntil = Effect.fnUntraced(function* (
  slug: TenantSlug,
  number: number,
  happen: Effect.Effect<void, never, TestDatabase>,
  admin: { readonly adminEmail?: string; readonly adminPassword?: Redacted.Redacted<string> } = {}
) {
  const provisioning = yield* Provisioning
  const context = yield* Effect.context<TestDatabase>()
  const roles: Array<string> = []
  let statements = 0
  const exit = yield* provisioning.provision({ slug, name: "Crashing", ...admin }).pipe(
    Effect.provideService(Statement.CurrentTransformer, (statement) => {
      const role = roleIn(statement.compile()[0])
      if (role !== undefined) roles.push(role)
      return ++statements === number
        ? Effect.as(Effect.provideContext(happen, context), statement)
        : Effect.succeed(statement)
    }),
    Effect.exit
  )
  return { exit, roles, statements }
})
const admin = { adminEmail: "ada@crash.example", adminPassword: Redacted.make("correct horse battery") }

const slugsLike = Effect.fnUntraced(function* (slug: string) {
  const { superuser: sql } = yield* TestDatabase
  return yield* sql`SELECT slug FROM shared.tenants WHERE slug LIKE ${`${slug}%`}`
})

const provisionCall = (slug: string) => ({
  method: "POST" as const,
  path: "/api/v1/tenants",
  headers: authorization,
  body: { slug, name: "Tenant" }
})

layer(TestApp, onRealClock)("Provisioning", (it) => {
  it.effect("leaves nothing when it is cut off before any of its statements, and the slug stays free", () =>
    Effect.gen(function* () {
      const counted = yield* provisionUntil(uniqueSlug("counted"), 0, Effect.void)
      assert.isTrue(Exit.isSuccess(counted.exit))
      assert.isAbove(counted.statements, 30)

      const slug = uniqueSlug("crashing")
      const ends: Readonly<Record<string, Effect.Effect<void, never, TestDatabase>>> = {
        "the connection is terminated": terminateMigrator,
        "the fiber is interrupted": Effect.interrupt,
        "a defect comes up": Effect.die(new Error("on purpose"))
      }
      for (const [what, end] of Object.entries(ends)) {
        // The connection goes before each of them; what ends the fiber alone, before every fourth.
        const step = end === terminateMigrator ? 1 : 4
        for (let number = 1; number <= counted.statements; number += step) {
          const { exit, roles } = yield* provisionUntil(slug, number, end)
          const when = `${what} before statement ${number} of ${counted.statements}`
          assert.isTrue(Exit.isFailure(exit), when)
          assert.deepStrictEqual(yield* remains(roles), [], when)
          assert.deepStrictEqual(yield* slugsLike(slug), [], when)
        }
      }
      // The first admin comes last. Without one the statements before are the same, and no password is hashed.
      const whole = yield* provisionUntil(uniqueSlug("counted"), 0, Effect.void, admin)
      assert.isAbove(whole.statements, counted.statements)
      for (let number = counted.statements; number <= whole.statements; number++) {
        const { exit, roles } = yield* provisionUntil(slug, number, terminateMigrator, admin)
        assert.isTrue(Exit.isFailure(exit))
        assert.deepStrictEqual(yield* remains(roles), [])
      }

      const afterwards = yield* provisionUntil(slug, 0, Effect.void, admin)
      assert.isTrue(Exit.isSuccess(afterwards.exit))
      assert.deepStrictEqual(yield* remains(afterwards.roles), [])
    })
  )

  it.effect("leaves whole tenants only when its process is killed", () =>
    Effect.gen(function* () {
      const { appUrl, migratorUrl, redisUrl, superuser: sql } = yield* TestDatabase
      const { tenantClaimKey, tokenSigningKeys } = yield* Installation
      const env = {
        PATH: process.env["PATH"],
        ENVIRONMENT: "testing",
        DATABASE_URL: Redacted.value(appUrl),
        DATABASE_ADMIN_URL: Redacted.value(migratorUrl),
        REDIS_URL: Redacted.value(redisUrl),
        OPERATOR_API_KEY: operatorKey,
        TOKEN_SIGNING_KEYS: JSON.stringify(Redacted.value(tokenSigningKeys)),
        TENANT_CLAIM_KEY: Buffer.from(Redacted.value(tenantClaimKey)).toString("base64")
      }
      const program = fileURLToPath(new URL("../support/provisioner.ts", import.meta.url))

      /** Kills the process when it has said so many statements; gives the roles that it was about to make. */
      const killAfter = (prefix: string, statements: number) =>
        Effect.callback<ReadonlyArray<string>>((resume) => {
          const child = spawn(process.execPath, [program, prefix], {
            env,
            stdio: ["ignore", "pipe", "inherit"]
          })
          const roles: Array<string> = []
          let said = 0
          createInterface(child.stdout).on("line", (line) => {
            const role = roleIn(line)
            if (role !== undefined) roles.push(role)
            if (++said === statements) child.kill("SIGKILL")
          })
          child.once("close", (_code, signal) =>
            resume(signal === "SIGKILL" ? Effect.succeed(roles) : Effect.die(new Error("It ended by itself")))
          )
          return Effect.sync(() => child.kill("SIGKILL"))
        })

      // In the first tenant, and at two random moments of the ones after it.
      for (const statements of [
        17,
        50 + Math.floor(Math.random() * 40),
        100 + Math.floor(Math.random() * 100)
      ]) {
        const prefix = uniqueSlug("killed")
        const roles = yield* killAfter(prefix, statements)
        yield* eventually(
          "the sessions of the dead process are gone",
          sql`SELECT pid FROM pg_stat_activity WHERE usename = 'aa_migrator' AND datname = current_database()
            AND state <> 'idle'`,
          (rows) => rows.length === 0
        )
        const when = `killed after ${statements} statements`
        assert.isAbove(roles.length, 0, when)
        assert.deepStrictEqual(yield* remains(roles), [], when)
        // The one that it was killed in can be made now.
        const next = `${prefix}-${(yield* slugsLike(prefix)).length}`
        assert.strictEqual((yield* send(provisionCall(next))).status, 201, when)
      }
    })
  )

  it.effect("of two at once with one slug makes one, and tells the other that it is taken", () =>
    Effect.gen(function* () {
      const second = yield* startServer()
      for (let round = 0; round < 5; round++) {
        const slug = uniqueSlug("twice")
        const answers = yield* Effect.all(
          [send(provisionCall(slug)), send(provisionCall(slug), second.url)],
          {
            concurrency: "unbounded"
          }
        )
        assert.sameMembers(
          answers.map(({ status }) => status),
          [201, 409]
        )
        assert.strictEqual((yield* slugsLike(slug)).length, 1)
      }
      assert.deepStrictEqual(yield* remains([]), [])
    })
  )

  it.effect("refuses a slug that would read as a part of the platform, of Postgres, or as an id", () =>
    Effect.gen(function* () {
      const id = "7d3bb5f4-26b1-4c11-8a0f-4c4a3c5f6f01"
      const reserved = [
        "shared",
        "public",
        "pg-catalog",
        "pg-toast",
        "information-schema",
        "postgres",
        "admin",
        id
      ]
      const malformed = [
        "ab",
        "-abc",
        "abc-",
        "ABC",
        "a_b",
        "a.b",
        `a"b`,
        "a b",
        "ä-b",
        "a".repeat(51),
        "",
        "a\u0000b"
      ]
      for (const slug of [...reserved, ...malformed]) {
        const { status, text } = yield* send(provisionCall(slug))
        assert.strictEqual(status, 400, slug)
        assert.include(text, `"code":"InvalidRequest"`, slug)
      }
      assert.deepStrictEqual(yield* remains([]), [])
    })
  )

  it.effect("gives each tenant a role that no login inherits, and that alone may enter its schema", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* TestDatabase
      const slug = uniqueSlug("alone")
      assert.strictEqual((yield* send(provisionCall(slug))).status, 201)
      const rows = yield* sql`
        SELECT r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolbypassrls,
          (SELECT array_agg(m.member::regrole::text || ':' || m.inherit_option || ':' || m.set_option)
            FROM pg_auth_members m WHERE m.roleid = r.oid AND m.member::regrole::text = 'aa_app') AS members,
          (SELECT array_agg(a.grantee::regrole::text || ':' || a.privilege_type ORDER BY a.grantee = r.oid)
            FROM pg_namespace n, aclexplode(n.nspacl) a
            WHERE n.nspname = t.schema_name AND a.grantee <> n.nspowner) AS grantees
        FROM shared.tenants t JOIN pg_roles r ON r.rolname = 'aa_t_' || replace(t.id::text, '-', '')
        WHERE t.slug = ${slug}`
      const [tenant] = yield* sql<{ role: string }>`
        SELECT 'aa_t_' || replace(id::text, '-', '') AS role FROM shared.tenants WHERE slug = ${slug}`
      assert.deepStrictEqual(rows, [
        {
          rolcanlogin: false,
          rolinherit: false,
          rolsuper: false,
          rolbypassrls: false,
          members: ["aa_app:false:true"],
          grantees: ["aa_backup:USAGE", `${tenant?.role}:USAGE`]
        }
      ])
      const session = yield* rawSession
      const refused = yield* Effect.flip(
        inRolledBack(session, [`SELECT * FROM ${`tenant_${slug.replaceAll("-", "_")}`}.records`])
      )
      assert.strictEqual(refused._tag, "SqlError")
    })
  )
})
