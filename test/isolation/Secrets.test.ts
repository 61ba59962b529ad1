// A tenant's secrets, which nobody else reads: no other tenant, no SQL, nobody who has the database, Redis or the logs.
import { NodeHttpClient, NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import {
  Clock,
  Context,
  Duration,
  Effect,
  Exit,
  FileSystem,
  Layer,
  Option,
  Redacted,
  References,
  Tracer
} from "effect"
import { randomBytes } from "node:crypto"
import { UserId, UserPrincipal } from "../../src/domain/Principal.ts"
import { CollectionName } from "../../src/domain/Record.ts"
import { SecretName } from "../../src/domain/Secret.ts"
import { StateKey } from "../../src/domain/State.ts"
import { roleNameOf, schemaNameOf } from "../../src/domain/Tenant.ts"
import { Installation } from "../../src/layers/Installation.ts"
import { sqlStateOf } from "../../src/services/DbErrors.ts"
import { MasterKey } from "../../src/services/MasterKey.ts"
import { SecretVault } from "../../src/services/SecretVault.ts"
import { TenantContext } from "../../src/services/TenantContext.ts"
import { TenantSecrets } from "../../src/services/TenantSecrets.ts"
import { TenantServicesLayer } from "../../src/services/TenantServices.ts"
import type { TenantServices } from "../../src/services/TenantServices.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, operatorKey, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { credentialsOf, everything, send } from "../support/RawHttp.ts"
import { claimOf, inRolledBack, rawSession, rowsOf } from "../support/RawSession.ts"
import { startProcess } from "../support/Serve.ts"
import { provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const INSUFFICIENT_PRIVILEGE = "42501"
const WITHIN = Duration.seconds(1)

const vendor = SecretName.make("openai_api_key")
const other = SecretName.make("anthropic_api_key")
const path = `/api/v1/secrets/${vendor}`
const bearer = ({ accessToken }: TestTenant) => ({ authorization: `Bearer ${Redacted.value(accessToken)}` })

/** A text that stands nowhere by chance. */
const canary = () => `canary-${randomBytes(12).toString("hex")}`

const put = (tenant: TestTenant, name: SecretName, value: string) =>
  tenant.asUser.secrets.put({ params: { name }, payload: { value: Redacted.make(value) } })

/** A program of the tenant's on the platform beside the server: it has another memory of what it read. */
const onSecondInstance =
  (tenant: TestTenant) =>
  <A, E, R>(program: Effect.Effect<A, E, R | TenantServices>) =>
    program.pipe(
      Effect.provide(TenantServicesLayer, { local: true }),
      Effect.provideService(TenantContext, {
        tenantId: tenant.id,
        slug: tenant.slug,
        schema: schemaNameOf(tenant.slug),
        environment: "testing",
        settings: {},
        principal: new UserPrincipal({
          tenantId: tenant.id,
          tenantSlug: tenant.slug,
          userId: UserId.make("0190c9a0-3333-7aaa-8bbb-123456789abc"),
          email: tenant.email,
          role: "admin",
          sessionId: ""
        }),
        scopes: [],
        requestId: ""
      })
    )

const open = (tenant: TestTenant, name = vendor) =>
  TenantSecrets.use((secrets) => secrets.open(name)).pipe(
    Effect.map(Option.map(Redacted.value)),
    Effect.map(Option.getOrUndefined),
    onSecondInstance(tenant)
  )

/** The same, with nothing remembered of before. */
const openAnew = Effect.fnUntraced(function* (tenant: TestTenant, name = vendor) {
  const vault = yield* SecretVault
  yield* vault.forget(tenant.id, name)
  return yield* Effect.exit(open(tenant, name)).pipe(
    // What does not open is logged as an error, and is what most of this looks for.
    Effect.provideService(References.MinimumLogLevel, "None")
  )
})

const assertUnreadable = Effect.fnUntraced(function* (tenant: TestTenant, name: SecretName, what: string) {
  const refused = yield* Effect.flip(yield* openAnew(tenant, name))
  assert.strictEqual(refused._tag, "DependencyUnavailable", what)
})

/** All that stands in the database, in every schema, as a superuser sees it. Bytes are in hex. */
const everyRow = Effect.gen(function* () {
  const { superuser: sql } = yield* TestDatabase
  const tables = yield* sql<{ at: string }>`SELECT schemaname || '.' || tablename AS at FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`
  const rows = yield* Effect.forEach(
    tables,
    ({ at }) => sql<{ row: string }>`SELECT t::text AS row FROM ${sql(at)} t`
  )
  return rows
    .flat()
    .map(({ row }) => row)
    .join("\n")
})

/** All that stands in Redis. */
const everyValue = Effect.gen(function* () {
  const { redis } = yield* TestDatabase
  return yield* Effect.promise(async () => {
    const read = async (key: string): Promise<unknown> => {
      switch (await redis.type(key)) {
        case "string":
          return redis.get(key)
        case "stream":
          return redis.xrange(key, "-", "+")
        case "hash":
          return redis.hgetall(key)
        case "list":
          return redis.lrange(key, 0, -1)
        case "set":
          return redis.smembers(key)
        default:
          return redis.zrange(key, "0", "-1")
      }
    }
    const keys = await redis.keys("*")
    return JSON.stringify(await Promise.all(keys.map(async (key) => [key, await read(key)])))
  })
})

/** A text as it may stand somewhere. */
const formsOf = (text: string) => [
  text,
  Buffer.from(text).toString("hex"),
  Buffer.from(text)
    .toString("base64")
    .replace(/.{2}=*$/, "")
]

/** A tracer that keeps every span. */
const spying = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, spied: Effect.provideService(Tracer.Tracer, tracer) }
}

layer(TestApp, onRealClock)("A secret", (it) => {
  it.effect("is not another tenant's: not to see, not to change, not to delete", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const value = canary()
      yield* put(a, vendor, value)
      yield* put(a, other, value)
      const before = yield* rowsOf(a.schema)
      for (const [credential, headers] of Object.entries(credentialsOf(b))) {
        const ask = (method: "GET" | "PUT" | "DELETE", at: string, body?: unknown) =>
          send({ method, path: at, headers, ...(body === undefined ? {} : { body }) })
        const list = yield* ask("GET", "/api/v1/secrets")
        assert.strictEqual(list.text, `{"items":[],"next_cursor":null}`, credential)
        const removed = yield* ask("DELETE", path)
        assert.strictEqual(removed.status, 404, credential)
        // Of the same name: B's own, and nothing of A's.
        assert.strictEqual((yield* ask("PUT", path, { value: "theirs" })).status, 204)
        for (const answer of [list, removed]) assert.notInclude(everything(answer), value)
        assert.strictEqual(yield* open(b, other), undefined)
        assert.strictEqual((yield* ask("DELETE", path)).status, 204)
      }
      assert.strictEqual(yield* rowsOf(a.schema), before)
      assert.deepStrictEqual([yield* open(a), yield* open(a, other)], [value, value])
    })
  )

  it.effect("is out of reach for SQL under another tenant's role, and under its own role the key stays", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      yield* put(a, vendor, canary())
      yield* put(b, vendor, canary())
      const session = yield* rawSession
      const roleOf = ({ id }: TestTenant) => `SET LOCAL ROLE ${roleNameOf(id)}`
      const claim = (tenant: TestTenant) =>
        Effect.map(claimOf(tenant.id), (signed) => `SET LOCAL app.claim = '${signed}'`)
      for (const table of ["secrets", "data_keys"]) {
        const refused = yield* Effect.flip(
          inRolledBack(session, [roleOf(b), yield* claim(b), `SELECT * FROM ${a.schema}.${table}`])
        )
        assert.strictEqual(sqlStateOf(refused), INSUFFICIENT_PRIVILEGE, table)
        // Even where the schema's wall had fallen: with the role of A, and the claim of B.
        const seen = yield* inRolledBack(session, [
          roleOf(a),
          yield* claim(b),
          `SELECT * FROM ${a.schema}.${table}`
        ])
        assert.deepStrictEqual(seen, [], table)
      }
      const own = [roleOf(a), yield* claim(a)]
      for (const write of [
        `UPDATE ${a.schema}.data_keys SET sealed = ''`,
        `DELETE FROM ${a.schema}.data_keys`,
        `TRUNCATE ${a.schema}.data_keys`
      ]) {
        const refused = yield* Effect.flip(inRolledBack(session, [...own, write]))
        assert.strictEqual(sqlStateOf(refused), INSUFFICIENT_PRIVILEGE, write)
      }
      // It may read them, or the refusals would say nothing.
      assert.strictEqual(
        (yield* inRolledBack(session, [...own, `SELECT * FROM ${a.schema}.data_keys`])).length,
        1
      )
    })
  )

  it.effect("does not open where it was moved: to another name, version or tenant, or changed", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const { superuser: sql } = yield* TestDatabase
      const { secretsMasterKey } = yield* Installation
      const master = Context.get(yield* Layer.build(MasterKey.layer(secretsMasterKey)), MasterKey)
      const value = canary()
      yield* put(a, vendor, value)
      yield* put(a, other, "other")
      yield* put(b, vendor, "theirs")
      const secrets = ({ schema }: TestTenant) => sql(`${schema}.secrets`)
      const keys = ({ schema }: TestTenant) => sql(`${schema}.data_keys`)
      const sealedOf = Effect.fnUntraced(function* (tenant: TestTenant, name: SecretName) {
        const [row] = yield* sql<{ sealed: Uint8Array }>`
          SELECT sealed FROM ${secrets(tenant)} WHERE name = ${name}`
        return row?.sealed ?? new Uint8Array()
      })
      const place = (tenant: TestTenant, name: SecretName, sealed: Uint8Array) =>
        sql`UPDATE ${secrets(tenant)} SET sealed = ${sealed} WHERE name = ${name}`
      const ofVendor = yield* sealedOf(a, vendor)
      const ofOther = yield* sealedOf(a, other)

      yield* place(a, other, ofVendor)
      yield* assertUnreadable(a, other, "another name")
      yield* place(a, other, ofOther)
      assert.deepStrictEqual(yield* openAnew(a, other), Exit.succeed("other"))

      yield* sql`UPDATE ${secrets(a)} SET version = 2 WHERE name = ${vendor}`
      yield* assertUnreadable(a, vendor, "another version")
      yield* sql`UPDATE ${secrets(a)} SET version = 1 WHERE name = ${vendor}`

      for (const index of [0, 1, 13, ofVendor.length - 1]) {
        const changed = Uint8Array.from(ofVendor, (byte, at) => (at === index ? byte ^ 1 : byte))
        yield* place(a, vendor, changed)
        yield* assertUnreadable(a, vendor, `byte ${index}`)
      }
      yield* place(a, vendor, new Uint8Array())
      yield* assertUnreadable(a, vendor, "nothing")
      yield* place(a, vendor, ofVendor)
      assert.deepStrictEqual(yield* openAnew(a), Exit.succeed(value))

      yield* place(b, vendor, ofVendor)
      yield* assertUnreadable(b, vendor, "another tenant")
      const [stored] = yield* sql<{ sealed: Uint8Array }>`SELECT sealed FROM ${keys(a)}`
      const keyOfA = stored?.sealed ?? new Uint8Array()
      yield* sql`UPDATE ${keys(b)} SET sealed = ${keyOfA}`
      yield* assertUnreadable(b, vendor, "another tenant, with its key")
      // Even under the same key, which takes the master key to come about.
      const bytes = yield* master.open(keyOfA, `data key of tenant ${a.id}`)
      yield* sql`UPDATE ${keys(b)} SET sealed = ${yield* master.seal(bytes, `data key of tenant ${b.id}`)}`
      yield* assertUnreadable(b, vendor, "another tenant, under the same key")
      const answer = yield* send({ method: "PUT", path, headers: bearer(b), body: { value: "new" } })
      assert.strictEqual(answer.status, 204)
      assert.deepStrictEqual(yield* openAnew(b), Exit.succeed("new"))
    })
  )

  it.effect("stands nowhere in plain text: no table, no key of Redis, no span, no answer kept", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const value = canary()
      const control = canary()
      const headers = { ...bearer(a), "idempotency-key": "the same" }
      for (let version = 1; version <= 2; version++) {
        const answer = yield* send({ method: "PUT", path, headers, body: { value } })
        assert.deepStrictEqual([answer.status, answer.text], [204, ""])
        assert.notProperty(answer.headers, "idempotency-replayed")
      }
      const { spans, spied } = spying()
      yield* Effect.gen(function* () {
        const secrets = yield* TenantSecrets
        yield* secrets.put(other, Redacted.make(value))
        assert.deepStrictEqual(Option.map(yield* secrets.open(other), Redacted.value), Option.some(value))
      }).pipe(onSecondInstance(a), spied)
      const told = spans.map((span) =>
        JSON.stringify([span.name, [...span.attributes], span.events, span.status], (_, found: unknown) =>
          typeof found === "bigint" ? String(found) : found
        )
      )
      assert.include(told.join("\n"), "TenantSecrets.put")

      // What is searched for is found where it stands.
      yield* a.asUser.records.create({
        params: { collection: CollectionName.make("notes") },
        payload: { data: control }
      })
      yield* a.asUser.state.put({ params: { key: StateKey.make("mood") }, payload: { value: control } })
      const rows = yield* everyRow
      const values = yield* everyValue
      assert.include(rows, control)
      assert.include(values, control)
      assert.include(rows, vendor)
      for (const form of formsOf(value)) {
        for (const found of [rows, values, ...told]) assert.notInclude(found, form)
      }
      const { superuser: sql } = yield* TestDatabase
      assert.deepStrictEqual(yield* sql`SELECT id FROM ${sql(`${a.schema}.idempotency_keys`)}`, [])
    })
  )

  it.effect("is in use at once where it was set or removed, and within a second elsewhere", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      /** On the second instance, from a moment on at which it remembers what was before. */
      const follows = Effect.fnUntraced(function* <A, E, R>(
        act: Effect.Effect<A, E, R>,
        before: string | undefined,
        after: string | undefined
      ) {
        assert.strictEqual(yield* open(a), before)
        yield* act
        const told = yield* Clock.currentTimeMillis
        yield* eventually(`it is ${after}`, open(a), (value) => value === after)
        assert.isBelow((yield* Clock.currentTimeMillis) - told, Duration.toMillis(WITHIN))
      })
      yield* follows(put(a, vendor, "one"), undefined, "one")
      yield* follows(put(a, vendor, "two"), "one", "two")
      yield* follows(a.asUser.secrets.remove({ params: { name: vendor } }), "two", undefined)

      yield* TenantSecrets.use((secrets) => secrets.put(vendor, Redacted.make("three"))).pipe(
        onSecondInstance(a)
      )
      assert.strictEqual(yield* open(a), "three")
      yield* TenantSecrets.use((secrets) => secrets.put(vendor, Redacted.make("four"))).pipe(
        onSecondInstance(a)
      )
      assert.strictEqual(yield* open(a), "four")
      yield* TenantSecrets.use((secrets) => secrets.remove(vendor)).pipe(onSecondInstance(a))
      assert.strictEqual(yield* open(a), undefined)
    })
  )

  it.effect("is read once and then remembered, and so is that there is none", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      yield* put(a, vendor, "value")
      for (const name of [vendor, other]) {
        const { spans, spied } = spying()
        yield* Effect.all(
          Array.from({ length: 200 }, () => open(a, name)),
          { concurrency: 10 }
        ).pipe(spied)
        const reads = spans.filter((span) => span.name === "SecretVault.read").length
        assert.isAtLeast(reads, 1)
        assert.isAtMost(reads, 5, name)
      }
    })
  )

  it.effect("set by many at once, on two instances, counts each, has one key, and opens", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const values = Array.from({ length: 12 }, (_, index) => `value ${index}`)
      yield* Effect.forEach(
        values,
        (value, index) =>
          index % 2 === 0
            ? put(a, vendor, value)
            : TenantSecrets.use((secrets) => secrets.put(vendor, Redacted.make(value))).pipe(
                onSecondInstance(a)
              ),
        { concurrency: "unbounded" }
      )
      const { items } = yield* a.asUser.secrets.list({ query: {} })
      assert.deepStrictEqual(
        items.map(({ version }) => version),
        [values.length]
      )
      assert.include(values, yield* yield* openAnew(a))
      const { superuser: sql } = yield* TestDatabase
      assert.strictEqual((yield* sql`SELECT 1 FROM ${sql(`${a.schema}.data_keys`)}`).length, 1)
    })
  )
})

const OnDatabase = Layer.mergeAll(TestDatabase.layer, NodeHttpClient.layerUndici, NodeServices.layer)

layer(OnDatabase, onRealClock)("The log of a server", (it) => {
  it.effect("says that the master key is another one, and has no secret, whatever went wrong", () =>
    Effect.gen(function* () {
      const { appUrl, migratorUrl, redisUrl, superuser: sql } = yield* TestDatabase
      const fs = yield* FileSystem.FileSystem
      const dataDir = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-secrets-" })
      const env = {
        DATABASE_URL: Redacted.value(appUrl),
        DATABASE_ADMIN_URL: Redacted.value(migratorUrl),
        REDIS_URL: Redacted.value(redisUrl),
        OPERATOR_API_KEY: operatorKey,
        LOG_LEVEL: "trace"
      }
      const right = yield* startProcess(dataDir, env)
      const there = Effect.provideService(TestServer, { url: yield* right.url })
      const a = yield* provisionTenant("skyvera").pipe(there)
      const value = canary()
      const ask = (url: string, method: "GET" | "PUT" | "DELETE", body?: unknown) =>
        send(
          {
            method,
            path: method === "GET" ? "/api/v1/secrets" : path,
            headers: bearer(a),
            ...(body === undefined ? {} : { body })
          },
          url
        ).pipe(there)
      const here = yield* right.url
      assert.strictEqual((yield* ask(here, "PUT", { value })).status, 204)
      assert.strictEqual((yield* ask(here, "PUT", { value: [value] })).status, 400)
      assert.strictEqual((yield* ask(here, "PUT", { value: value + "x".repeat(20_000) })).status, 400)

      const wrong = yield* startProcess(dataDir, {
        ...env,
        SECRETS_MASTER_KEY: randomBytes(32).toString("base64")
      })
      const elsewhere = yield* wrong.url
      const refused = yield* ask(elsewhere, "PUT", { value })
      assert.strictEqual(refused.status, 503)
      assert.include(refused.text, "This server's keys do not open the tenant's secrets")
      assert.notInclude(everything(refused), value)
      assert.strictEqual((yield* ask(elsewhere, "GET")).status, 200)
      const told = yield* eventually("it is logged", wrong.said, (lines) =>
        lines.some((line) => line.includes("SECRETS_MASTER_KEY does not open"))
      )
      assert.include(told.join("\n"), `SECRETS_MASTER_KEY does not open the data key of tenant ${a.id}`)

      // A defect in the middle of it is logged with its cause.
      yield* sql`CREATE FUNCTION ${sql(`${a.schema}.refuse`)}() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN RAISE ''broken on purpose''; END'`
      yield* sql`CREATE TRIGGER refuse BEFORE UPDATE ON ${sql(`${a.schema}.secrets`)}
        FOR EACH ROW EXECUTE FUNCTION ${sql(`${a.schema}.refuse`)}()`
      const broken = yield* ask(here, "PUT", { value })
      assert.strictEqual(broken.status, 500)
      assert.notInclude(broken.text, value)
      yield* eventually("that is logged too", right.said, (lines) =>
        lines.some((line) => line.includes("broken on purpose"))
      )
      assert.strictEqual((yield* ask(elsewhere, "DELETE")).status, 204)

      yield* right.signal("SIGTERM")
      yield* wrong.signal("SIGTERM")
      yield* Effect.all([right.exitCode, wrong.exitCode])
      const lines = [...(yield* right.said), ...(yield* wrong.said)].join("\n")
      for (const form of formsOf(value)) assert.notInclude(lines, form)
    })
  )
})
