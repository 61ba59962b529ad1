// Three properties of Effect 4.1 that leak one tenant into another, or into the server, unless something is done about
// them. Each test shows the trap where it can, and that our cure holds.
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Option, Schema, Scope, Tracer } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { UserId, UserPrincipal } from "../../src/domain/Principal.ts"
import { Authentication, CurrentPrincipal, PresentedCredentials } from "../../src/http/Authentication.ts"
import { TenantScope } from "../../src/http/TenantScope.ts"
import { TenantScopeLayer } from "../../src/http/TenantScopeLayer.ts"
import { AuditLog } from "../../src/services/AuditLog.ts"
import { EventReader } from "../../src/services/EventReader.ts"
import { LlmGateway } from "../../src/services/llm/LlmGateway.ts"
import { LlmBudgets } from "../../src/services/llm/LlmBudgets.ts"
import { LlmLimits } from "../../src/services/llm/LlmLimits.ts"
import { LlmUsage } from "../../src/services/llm/LlmUsage.ts"
import { Providers } from "../../src/services/llm/Providers.ts"
import { PromptGuard } from "../../src/services/PromptGuard.ts"
import { Redis } from "../../src/services/Redis.ts"
import { SecretVault } from "../../src/services/SecretVault.ts"
import { TenantContext } from "../../src/services/TenantContext.ts"
import { TenantDb, tenantDb } from "../../src/services/TenantDb.ts"
import { TenantCache } from "../../src/services/TenantCache.ts"
import { TenantPool } from "../../src/services/TenantPool.ts"
import { Tenants } from "../../src/services/Tenants.ts"
import { TenantServicesLayer } from "../../src/services/TenantServices.ts"
import { onRealClock, TestPlatform } from "../support/Platform.ts"
import { rowsOf, tenantInDatabase, tenantPool } from "../support/RawSession.ts"
import type { TenantInDatabase } from "../support/RawSession.ts"

const principalOf = ({ id, slug }: TenantInDatabase) =>
  new UserPrincipal({
    tenantId: id,
    tenantSlug: slug,
    userId: UserId.make("0190c9a0-3333-7aaa-8bbb-123456789abc"),
    email: "ada@example.com",
    role: "admin",
    sessionId: ""
  })

const contextOf = (tenant: TenantInDatabase): TenantContext["Service"] => ({
  tenantId: tenant.id,
  slug: tenant.slug,
  schema: tenant.schema,
  environment: "testing",
  settings: {},
  principal: principalOf(tenant),
  scopes: [],
  requestId: ""
})

const asTenant = (tenant: TenantInDatabase) => Effect.provideService(TenantContext, contextOf(tenant))

/** Whose row the database of the moment gives, and whose value the cache. */
const whose = Effect.gen(function* () {
  const db = yield* TenantDb
  const cache = yield* TenantCache
  const [row] = yield* db.query(
    (sql) =>
      sql<{ canary: string }>`SELECT data->>'canary' AS canary FROM records WHERE collection = 'secrets'`
  )
  yield* cache.set("probe", row?.canary ?? "")
  return row?.canary
})

const twoTenants = Effect.all({ a: tenantInDatabase("skyvera"), b: tenantInDatabase("jigtree") })

const probe = HttpApiEndpoint.get("probe", "/probe", { success: Schema.Void })

class Probes extends HttpApi.make("probes").add(
  HttpApiGroup.make("probes").add(probe).middleware(TenantScope).middleware(Authentication)
) {}

/** An endpoint as a middleware is told of it. */
const described = () => {
  const found: Array<Parameters<TenantScope["Service"]>[1]> = []
  HttpApi.reflect(Probes, {
    onGroup: () => {},
    onEndpoint: ({ endpoint, group }) => found.push({ endpoint, group })
  })
  const [first] = found
  assert.isDefined(first)
  return first
}

layer(TestPlatform, onRealClock)("The trap", (it) => {
  describe("of the nested provide", () => {
    it.effect("is real: without `local`, B's services inside A's are A's", () =>
      Effect.gen(function* () {
        const { a, b } = yield* twoTenants
        const inB = whose.pipe(Effect.provide(TenantServicesLayer), asTenant(b))
        const seen = yield* inB.pipe(Effect.provide(TenantServicesLayer), asTenant(a))
        assert.strictEqual(seen, a.canary)
      })
    )

    it.effect("does not catch services that are provided locally", () =>
      Effect.gen(function* () {
        const { a, b } = yield* twoTenants
        const inB = whose.pipe(Effect.provide(TenantServicesLayer, { local: true }), asTenant(b))
        const both = Effect.all([whose, inB, whose])
        const seen = yield* both.pipe(Effect.provide(TenantServicesLayer, { local: true }), asTenant(a))
        assert.deepStrictEqual(seen, [a.canary, b.canary, a.canary])
      })
    )

    it.effect("does not catch a request: TenantScope gives B's services within a program of A's", () =>
      Effect.gen(function* () {
        const { a, b } = yield* twoTenants
        const scope = Context.get(
          yield* Layer.build(TenantScopeLayer({ environment: "testing" })),
          TenantScope
        )
        const request = (tenant: TenantInDatabase) =>
          scope(
            Effect.map(Effect.orDie(whose), (canary) => HttpServerResponse.text(canary ?? "")),
            described()
          ).pipe(
            Effect.provideService(CurrentPrincipal, principalOf(tenant)),
            Effect.provideService(
              HttpServerRequest.HttpServerRequest,
              HttpServerRequest.fromWeb(new Request("http://test/probe"))
            ),
            Effect.provideService(HttpServerRequest.ParsedSearchParams, {}),
            Effect.provideService(HttpRouter.RouteContext, {
              params: {},
              route: HttpRouter.route("GET", "/probe", HttpServerResponse.empty())
            }),
            Effect.flatMap((response) => Effect.promise(() => HttpServerResponse.toWeb(response).text()))
          )
        const seen = yield* request(b).pipe(Effect.provide(TenantServicesLayer), asTenant(a))
        assert.strictEqual(seen, b.canary)
        assert.strictEqual(yield* request(a), a.canary)
      })
    )
  })

  describe("of the nested transaction", () => {
    const writes = (db: TenantDb["Service"], collection: string) =>
      db.query(
        (sql, table) => sql`INSERT INTO ${table("records")} (id, collection, data)
          VALUES (gen_random_uuid(), ${collection}, '1')`
      )
    const collections = (db: TenantDb["Service"]) =>
      Effect.map(
        db.query(
          (sql, table) =>
            sql<{ collection: string }>`SELECT collection FROM ${table("records")} ORDER BY collection`
        ),
        (rows) => rows.map((row) => row.collection)
      )

    it.effect("does not spring: a tenant's transaction refuses another's, and goes on as it was", () =>
      Effect.gen(function* () {
        const { a, b } = yield* twoTenants
        const pool = yield* tenantPool(2)
        const ofA = tenantDb(pool, a)
        const ofB = tenantDb(pool, b)
        const before = yield* rowsOf(b.schema)
        const where = ofA.query(
          (sql) =>
            sql`SELECT current_user::text AS role, current_schema::text AS schema, current_setting('app.claim') AS claim`
        )
        yield* ofA.transaction(() =>
          Effect.gen(function* () {
            yield* writes(ofA, "before")
            const found = yield* where
            for (const nested of [
              ofB.transaction(() => writes(ofB, "nested")),
              ofB.query((sql) => sql`SELECT 1`),
              pool.query("platform", (sql) => sql`SELECT 1`),
              pool.transaction("platform", () => Effect.void)
            ]) {
              assert.isTrue(Exit.hasDies(yield* Effect.exit(nested)))
              assert.deepStrictEqual(yield* where, found)
            }
            yield* writes(ofA, "after")
          })
        )
        assert.deepStrictEqual(yield* collections(ofA), ["after", "before", "secrets"])
        assert.strictEqual(yield* rowsOf(b.schema), before)
      })
    )

    it.effect("leaves a tenant free to nest its own: as a savepoint, of which a part may fail", () =>
      Effect.gen(function* () {
        const { a } = yield* twoTenants
        const db = tenantDb(yield* tenantPool(1), a)
        yield* db.transaction(() =>
          Effect.gen(function* () {
            yield* writes(db, "outer")
            yield* db.transaction(() => writes(db, "kept"))
            const failed = yield* Effect.flip(
              db.transaction(() => Effect.andThen(writes(db, "undone"), Effect.fail("no" as const)))
            )
            assert.strictEqual(failed, "no")
            const refused = yield* Effect.exit(
              db.transaction((sql) => Effect.andThen(writes(db, "undone"), sql`SELECT 1 / 0`))
            )
            assert.isTrue(Exit.isFailure(refused))
            yield* db.transaction(() =>
              Effect.andThen(Effect.ignore(db.transaction(() => Effect.fail("no"))), writes(db, "deeper"))
            )
          })
        )
        assert.deepStrictEqual(yield* collections(db), ["deeper", "kept", "outer", "secrets"])
      })
    )

    it.effect("takes nothing of a failed transaction with it, savepoints that had succeeded included", () =>
      Effect.gen(function* () {
        const { a } = yield* twoTenants
        const db = tenantDb(yield* tenantPool(1), a)
        yield* Effect.flip(
          db.transaction(() =>
            Effect.andThen(
              db.transaction(() => writes(db, "inner")),
              Effect.fail("no")
            )
          )
        )
        assert.deepStrictEqual(yield* collections(db), ["secrets"])
      })
    )
  })

  describe("of the whole context", () => {
    it.effect("does not catch a request: its scope closes and its span is its own, not the server's", () =>
      Effect.gen(function* () {
        const { a } = yield* twoTenants
        const log: Array<string> = []
        const handlers = HttpApiBuilder.group(Probes, "probes", (handlers) =>
          handlers.handleAll({
            probe: () =>
              Effect.gen(function* () {
                const scope = yield* Scope.Scope
                yield* Scope.addFinalizer(
                  scope,
                  Effect.sync(() => log.push("released"))
                )
                log.push((yield* Effect.currentParentSpan.pipe(Effect.orDie)).traceId)
              })
          })
        )
        const ofTheRequest = Tracer.externalSpan({ spanId: "a".repeat(16), traceId: "a".repeat(32) })
        const atBoot = Tracer.externalSpan({ spanId: "b".repeat(16), traceId: "b".repeat(32) })
        const authenticated = Layer.succeed(
          Authentication,
          Authentication.of({
            bearer: (httpEffect) =>
              httpEffect.pipe(
                Effect.provideService(CurrentPrincipal, principalOf(a)),
                Effect.provideService(PresentedCredentials, { bearer: Option.none(), apiKey: Option.none() }),
                // As the router does, for the whole of a request.
                Effect.withParentSpan(ofTheRequest)
              )
          })
        )
        const platform = yield* Effect.context<
          | Tenants
          | TenantPool
          | Redis
          | EventReader
          | SecretVault
          | AuditLog
          | LlmGateway
          | LlmUsage
          | LlmBudgets
          | LlmLimits
          | PromptGuard
          | Providers
        >()
        const routes = HttpApiBuilder.layer(Probes).pipe(
          Layer.provide(handlers),
          Layer.provide([
            // What is built at boot is built within a span of the boot.
            TenantScopeLayer({ environment: "testing" }).pipe(Layer.provide(Layer.parentSpan(atBoot))),
            authenticated
          ]),
          Layer.provide(
            Layer.succeedContext(
              Context.pick(
                Tenants,
                TenantPool,
                Redis,
                EventReader,
                SecretVault,
                AuditLog,
                LlmGateway,
                LlmUsage,
                LlmBudgets,
                LlmLimits,
                PromptGuard,
                Providers
              )(platform)
            )
          ),
          Layer.provide(HttpServer.layerServices)
        )
        const { dispose, handler } = HttpRouter.toWebHandler(routes, { disableLogger: true })
        const request = new Request("http://test/probe", { headers: { authorization: "Bearer x" } })
        const response = yield* Effect.promise(() => handler(request))
        assert.strictEqual(response.status, 200)
        const afterTheRequest = [...log]
        log.push("shutting down")
        yield* Effect.promise(dispose)
        assert.deepStrictEqual(afterTheRequest, [ofTheRequest.traceId, "released"])
        assert.deepStrictEqual(log, [ofTheRequest.traceId, "released", "shutting down"])
      })
    )
  })
})
