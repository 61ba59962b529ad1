// Twenty tenants on five connections, in a thousand random schedules of requests that succeed, fail, are interrupted, and
// leave fibers behind. A failure prints the schedule, shrunk, and the token that replays it.
import { assert, layer } from "@effect/vitest"
import { Arbitrary, Context, Effect, Exit, Fiber, Layer, Option, Schema, Stream } from "effect"
import { TenantCache } from "../../src/services/TenantCache.ts"
import { TenantContext } from "../../src/services/TenantContext.ts"
import { TenantDb } from "../../src/services/TenantDb.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { TenantServicesLayer } from "../../src/services/TenantServices.ts"
import { UserId, UserPrincipal } from "../../src/domain/Principal.ts"
import { onRealClock, TestDatabase, TestPlatform } from "../support/Platform.ts"
import { turns } from "../support/EventLoop.ts"
import { tenantInDatabase, tenantPool } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

const TENANTS = 20
const CONNECTIONS = 5
const SCHEDULES = 1000
const INTERRUPTED_BELOW = 12

const kinds = [
  "query",
  "transaction",
  "savepoints",
  "stream",
  "cache",
  "unique violation",
  "syntax error",
  "failed statement",
  "failed statement that is ignored",
  "failure of its own",
  "a fiber left behind"
] as const

const Step = Schema.Struct({
  tenant: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: TENANTS - 1 })),
  kind: Schema.Literals(kinds),
  /** Turns of the event loop before it begins, and inside of it. */
  pause: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 6 })),
  /** Turns of the event loop until it is interrupted, if it is: each costs a connection, and so the most time. */
  interruptAfter: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 99 }))
})
const Schedule = Schema.Array(Step).check(Schema.isMinLength(5), Schema.isMaxLength(11))

class Crowd extends Context.Service<
  Crowd,
  { readonly tenants: ReadonlyArray<TenantInDatabase>; readonly pool: TenantPool["Service"] }
>()("test/Crowd") {
  static readonly layer = Layer.effect(
    Crowd,
    Effect.gen(function* () {
      const names = Array.from({ length: TENANTS }, (_, index) => `tenant-${index}`)
      const tenants = yield* Effect.forEach(names, (name) => tenantInDatabase(name), { concurrency: 2 })
      return { tenants, pool: yield* tenantPool(CONNECTIONS) }
    })
  )
}

/** A program in a tenant, with services of its own as a request has them. */
const asRequestOf = (tenant: TenantInDatabase) =>
  Effect.fnUntraced(
    function* <A, E>(program: Effect.Effect<A, E, TenantDb | TenantCache>) {
      return yield* Effect.provide(program, TenantServicesLayer, { local: true })
    },
    Effect.provideService(TenantContext, {
      tenantId: tenant.id,
      slug: tenant.slug,
      schema: tenant.schema,
      environment: "testing",
      settings: {},
      principal: new UserPrincipal({
        tenantId: tenant.id,
        tenantSlug: tenant.slug,
        userId: UserId.make("0190c9a0-3333-7aaa-8bbb-123456789abc"),
        email: "ada@example.com",
        role: "admin",
        sessionId: ""
      }),
      scopes: [],
      requestId: ""
    })
  )

/** What a tenant's request got to see: each must be its own. */
interface Sight {
  readonly by: string
  readonly seen: string | undefined
}

type Canary = { readonly canary: string }

const perform = Effect.fnUntraced(function* (
  tenant: TenantInDatabase,
  { kind, pause }: typeof Step.Type,
  sights: Array<Sight>,
  leftBehind: Array<Fiber.Fiber<unknown, unknown>>
) {
  const db = yield* TenantDb
  const cache = yield* TenantCache
  const see = (rows: ReadonlyArray<Canary>) =>
    Effect.sync(() => {
      for (const { canary } of rows) sights.push({ by: tenant.canary, seen: canary })
    })
  // By the search path, which would lead elsewhere in another tenant's transaction.
  type Sql = Parameters<Parameters<typeof db.transaction>[0]>[0]
  const look = (sql: Sql) =>
    Effect.flatMap(sql<Canary>`SELECT data->>'canary' AS canary FROM records LIMIT 3`, see)
  const write = (sql: Sql, collection: string) =>
    sql`INSERT INTO records (id, collection, data)
      VALUES (gen_random_uuid(), ${collection}, ${JSON.stringify({ canary: tenant.canary })}::jsonb)`
  const duplicate = (sql: Sql) =>
    sql`INSERT INTO records (id, collection, data) SELECT id, 'twice', data FROM records LIMIT 1`

  switch (kind) {
    case "query": {
      const rows = yield* db.query(
        (sql) => sql<Canary>`SELECT data->>'canary' AS canary FROM records LIMIT 3`
      )
      return yield* see(rows)
    }
    case "transaction":
      return yield* db.transaction((sql) =>
        Effect.all([look(sql), turns(pause), write(sql, "kept"), look(sql)], { discard: true })
      )
    case "savepoints":
      return yield* db.transaction((sql) =>
        Effect.gen(function* () {
          yield* Effect.ignore(db.transaction(() => Effect.andThen(write(sql, "undone"), duplicate(sql))))
          yield* turns(pause)
          yield* db.transaction(() => look(sql))
        })
      )
    case "stream":
      return yield* db.transaction((sql) =>
        Stream.runForEach(sql<Canary>`SELECT data->>'canary' AS canary FROM records LIMIT 3`.stream, (row) =>
          see([row])
        )
      )
    case "cache": {
      yield* cache.set("canary", tenant.canary)
      yield* turns(pause)
      const found = yield* cache.get("canary")
      return yield* see(Option.isNone(found) ? [] : [{ canary: found.value.value }])
    }
    case "unique violation":
      return yield* Effect.ignore(db.query(duplicate))
    case "syntax error":
      return yield* Effect.ignore(db.transaction((sql) => Effect.andThen(write(sql, "undone"), sql`SELEC 1`)))
    case "failed statement":
      return yield* Effect.ignore(
        db.transaction((sql) =>
          Effect.all([write(sql, "undone"), turns(pause), duplicate(sql)], { discard: true })
        )
      )
    case "failed statement that is ignored":
      return yield* Effect.exit(
        db.transaction((sql) => Effect.andThen(write(sql, "undone"), Effect.ignore(sql`SELECT 1 / 0`)))
      )
    case "failure of its own":
      return yield* Effect.ignore(
        db.transaction((sql) =>
          Effect.all([write(sql, "undone"), look(sql), Effect.fail("no")], { discard: true })
        )
      )
    case "a fiber left behind":
      return yield* db.transaction((sql) =>
        Effect.gen(function* () {
          const late = Effect.andThen(turns(pause * 3), pause % 2 === 0 ? look(sql) : lookByStream(sql, see))
          leftBehind.push(yield* Effect.forkDetach(late))
          yield* look(sql)
        })
      )
  }
})

const lookByStream = (
  sql: Parameters<Parameters<TenantDb["Service"]["transaction"]>[0]>[0],
  see: (rows: ReadonlyArray<Canary>) => Effect.Effect<void>
) =>
  Stream.runForEach(sql<Canary>`SELECT data->>'canary' AS canary FROM records LIMIT 3`.stream, (row) =>
    see([row])
  )

/** One schedule: every request begun, some interrupted, all awaited, and what each of them saw. */
const play = Effect.fnUntraced(function* (schedule: typeof Schedule.Type) {
  const { pool, tenants } = yield* Crowd
  const sights: Array<Sight> = []
  const leftBehind: Array<Fiber.Fiber<unknown, unknown>> = []
  const requests = yield* Effect.forEach(schedule, (step) => {
    const tenant = tenants[step.tenant]
    assert.isDefined(tenant)
    const request = Effect.andThen(
      turns(step.pause),
      asRequestOf(tenant)(perform(tenant, step, sights, leftBehind))
    ).pipe(Effect.provideService(TenantPool, pool))
    return Effect.map(Effect.forkChild(request), (fiber) => ({ fiber, step }))
  })
  yield* Effect.forEach(
    requests,
    ({ fiber, step }) =>
      step.interruptAfter < INTERRUPTED_BELOW
        ? Effect.andThen(turns(step.interruptAfter), Fiber.interrupt(fiber))
        : Effect.map(Fiber.await(fiber), (exit) =>
            assert.isTrue(Exit.isSuccess(exit), `${step.kind}: ${exit}`)
          ),
    { concurrency: "unbounded" }
  )
  yield* Effect.forEach(leftBehind, Fiber.await)
  for (const { by, seen } of sights) assert.strictEqual(seen, by)
  return true
})

/** What stands in a tenant's table: what it committed itself, and nothing else. True if there is anything. */
const assertOwnRows = Effect.fnUntraced(function* (tenant: TenantInDatabase) {
  const { superuser: sql } = yield* TestDatabase
  const rows = yield* sql<{ collection: string; canary: string; tenant_id: string }>`
    SELECT DISTINCT collection, data->>'canary' AS canary, tenant_id FROM ${sql(`${tenant.schema}.records`)}`
  for (const row of rows) {
    assert.include(["secrets", "kept"], row.collection)
    assert.deepStrictEqual([row.canary, row.tenant_id], [tenant.canary, tenant.id])
  }
  return rows.some(({ collection }) => collection === "kept")
})

layer(Crowd.layer.pipe(Layer.provideMerge(TestPlatform)), onRealClock)(
  "Tenants on shared connections",
  (it) => {
    it.effect(
      "never see a row or a key of each other's, however their requests interleave, fail and are interrupted",
      () =>
        Effect.gen(function* () {
          const { tenants } = yield* Crowd
          const result = yield* Arbitrary.checkEffect(Arbitrary.schema(Schedule), play, { runs: SCHEDULES })
          assert.isUndefined(Arbitrary.formatCheckFailure(result))
          assert.include(yield* Effect.forEach(tenants, assertOwnRows), true)
        }),
      120_000
    )
  }
)
