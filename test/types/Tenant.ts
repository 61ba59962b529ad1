// Programs that must not compile. Never run: `tsc` checks that each line marked so is an error, and
// `test/isolation/Types.test.ts` that it is the error which the mark names.
import { Effect, Layer, Redacted, Schema } from "effect"
import type { FileSystem, Path } from "effect"
import type { Etag, HttpPlatform, HttpRouter } from "effect/http"
import { HttpApi, HttpApiBuilder, HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import { UserId, UserPrincipal } from "../../src/domain/Principal.ts"
import { CollectionName, RecordId } from "../../src/domain/Record.ts"
import { SecretName } from "../../src/domain/Secret.ts"
import { StreamName } from "../../src/domain/Event.ts"
import { StateKey } from "../../src/domain/State.ts"
import { TenantId, TenantSlug } from "../../src/domain/Tenant.ts"
import { AccessControl, OperatorOnly } from "../../src/http/Access.ts"
import { Authentication, CurrentPrincipal } from "../../src/http/Authentication.ts"
import { TenantScope } from "../../src/http/TenantScope.ts"
import { ApiKeys } from "../../src/services/ApiKeys.ts"
import type { AuditLog } from "../../src/services/AuditLog.ts"
import type { EventReader } from "../../src/services/EventReader.ts"
import type { LlmGateway } from "../../src/services/llm/LlmGateway.ts"
import type { LlmBudgets } from "../../src/services/llm/LlmBudgets.ts"
import type { LlmLimits } from "../../src/services/llm/LlmLimits.ts"
import type { LlmUsage } from "../../src/services/llm/LlmUsage.ts"
import type { Providers } from "../../src/services/llm/Providers.ts"
import type { PromptGuard } from "../../src/services/PromptGuard.ts"
import { Records } from "../../src/services/Records.ts"
import type { Redis } from "../../src/services/Redis.ts"
import type { SecretVault } from "../../src/services/SecretVault.ts"
import { States } from "../../src/services/States.ts"
import { TenantCache } from "../../src/services/TenantCache.ts"
import { TenantContext } from "../../src/services/TenantContext.ts"
import { TenantDb } from "../../src/services/TenantDb.ts"
import type { TenantPool } from "../../src/services/TenantPool.ts"
import { TenantEvents } from "../../src/services/TenantEvents.ts"
import { TenantLlm } from "../../src/services/TenantLlm.ts"
import { TenantSecrets } from "../../src/services/TenantSecrets.ts"
import { TenantServicesLayer } from "../../src/services/TenantServices.ts"
import type { TenantServices } from "../../src/services/TenantServices.ts"
import { Users } from "../../src/services/Users.ts"

/** What exists at boot, before there is any request. */
type AtBoot =
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
  | Users
  | ApiKeys
  | Records
  | States

/** Accepts only what needs nothing beyond the services of the boot. */
declare const run: <A, E>(program: Effect.Effect<A, E, AtBoot>) => void
declare const build: <A, E>(layer: Layer.Layer<A, E, AtBoot>) => void

declare const page: { readonly after: undefined; readonly limit: number }
const collection = CollectionName.make("notes")
const id = RecordId.make("0190c9a0-1111-7aaa-8bbb-123456789abc")
const key = StateKey.make("mood")
const user = new UserPrincipal({
  tenantId: TenantId.make("0190c9a0-2222-7aaa-8bbb-123456789abc"),
  tenantSlug: TenantSlug.make("skyvera"),
  userId: UserId.make("0190c9a0-3333-7aaa-8bbb-123456789abc"),
  email: "ada@skyvera.example",
  role: "admin",
  sessionId: ""
})

declare const skyvera: TenantContext["Service"]
declare const anyOfTheTenant: Effect.Effect<void, never, TenantServices>
const inContext = Effect.provideService(TenantContext, skyvera)
const withServices = Effect.provide(TenantServicesLayer, { local: true })
const usesRows = Effect.asVoid(TenantDb)

// The capabilities themselves.

// @ts-expect-error -- 'TenantDb' is not assignable
run(TenantDb.use((db) => db.query((sql) => sql`SELECT 1`)))
// @ts-expect-error -- 'TenantDb' is not assignable
run(TenantDb.use((db) => db.transaction((sql) => sql`SELECT 1`)))
// @ts-expect-error -- 'TenantCache' is not assignable
run(TenantCache.use((cache) => cache.get("mood")))
// @ts-expect-error -- 'TenantEvents' is not assignable
run(Effect.scoped(TenantEvents.use((events) => events.subscribe(StreamName.make("tickets"), undefined))))
// @ts-expect-error -- 'TenantSecrets' is not assignable
run(TenantSecrets.use((secrets) => secrets.open(SecretName.make("openai_api_key"))))
// @ts-expect-error -- 'TenantLlm' is not assignable
run(TenantLlm.use((llm) => llm.embed({ model: "embedding", input: "Hi" })))

// Each method of each service that works in a tenant.

// @ts-expect-error -- 'TenantDb' is not assignable
run(Users.use((users) => users.get(user.userId)))
// @ts-expect-error -- 'TenantDb' is not assignable
run(Users.use((users) => users.findForSignIn("ada@skyvera.example")))
// @ts-expect-error -- 'TenantDb' is not assignable
run(ApiKeys.use((keys) => keys.create(user, { name: "mine" })))
// @ts-expect-error -- 'TenantDb' is not assignable
run(ApiKeys.use((keys) => keys.list(user, page)))
// @ts-expect-error -- 'TenantDb' is not assignable
run(inContext(Records.use((records) => records.create(collection, {}))))
// @ts-expect-error -- 'TenantDb' is not assignable
run(inContext(Records.use((records) => records.replace(collection, id, {}, undefined))))
// @ts-expect-error -- 'TenantContext' is not assignable
run(withServices(Records.use((records) => records.create(collection, {}))))
// @ts-expect-error -- 'TenantDb' is not assignable
run(Records.use((records) => records.get(collection, id)))
// @ts-expect-error -- 'TenantDb' is not assignable
run(Records.use((records) => records.list(collection, page)))
// @ts-expect-error -- 'TenantDb' is not assignable
run(Records.use((records) => records.remove(collection, id, undefined)))
// @ts-expect-error -- 'TenantCache' is not assignable
run(States.use((states) => states.get(key)))
// @ts-expect-error -- 'TenantCache' is not assignable
run(States.use((states) => states.put(key, "calm", undefined)))
// @ts-expect-error -- 'TenantCache' is not assignable
run(States.use((states) => states.remove(key)))

// @ts-expect-error -- 'TenantContext' is not assignable
build(TenantServicesLayer)
// @ts-expect-error -- 'TenantContext' is not assignable
run(anyOfTheTenant.pipe(withServices))

// With a tenant it compiles, or the lines above would say nothing.
run(anyOfTheTenant.pipe(withServices, inContext))
run(Records.use((records) => records.create(collection, {})).pipe(withServices, inContext))

// A tenant's name is no tenant: only what was checked becomes an identifier.

// @ts-expect-error -- is not assignable to type 'string & Brand<"TenantId">'
export const unchecked: TenantId = "0190c9a0-2222-7aaa-8bbb-123456789abc"
// @ts-expect-error -- is not assignable to type 'string'
export const printed: string = Redacted.make("aa_development_…")

// Groups of endpoints, behind the middleware that they were given and no other.

const list = HttpApiEndpoint.get("list", "/", { success: Schema.Void })

/** What a server gives to any group; `R` beyond it has been forgotten. */
type OfTheServer =
  | HttpRouter.HttpRouter
  | HttpPlatform.HttpPlatform
  | Etag.Generator
  | FileSystem.FileSystem
  | Path.Path
type Middleware = Authentication | TenantScope | AccessControl | OperatorOnly
declare const closed: <A, E>(routes: Layer.Layer<A, E, OfTheServer | Middleware>) => void

class Right extends HttpApi.make("right").add(
  HttpApiGroup.make("group")
    .add(list)
    .middleware(AccessControl)
    .middleware(TenantScope)
    .middleware(Authentication)
) {}
closed(
  HttpApiBuilder.layer(Right).pipe(
    Layer.provide(
      HttpApiBuilder.group(Right, "group", (handlers) => handlers.handleAll({ list: () => anyOfTheTenant }))
    )
  )
)

class WithoutScope extends HttpApi.make("withoutScope").add(
  HttpApiGroup.make("group").add(list).middleware(Authentication)
) {}
const withoutScope = HttpApiBuilder.layer(WithoutScope).pipe(
  Layer.provide(
    HttpApiBuilder.group(WithoutScope, "group", (handlers) => handlers.handleAll({ list: () => usesRows }))
  )
)
// @ts-expect-error -- Request<"Requires", TenantDb>' is not assignable
closed(withoutScope)

class WrongOrder extends HttpApi.make("wrongOrder").add(
  HttpApiGroup.make("group").add(list).middleware(Authentication).middleware(TenantScope)
) {}
const wrongOrder = HttpApiBuilder.layer(WrongOrder).pipe(
  Layer.provide(
    HttpApiBuilder.group(WrongOrder, "group", (handlers) => handlers.handleAll({ list: () => usesRows }))
  )
)
// @ts-expect-error -- 'CurrentPrincipal' is not assignable
closed(wrongOrder)

class RuleOutside extends HttpApi.make("ruleOutside").add(
  HttpApiGroup.make("group")
    .add(list)
    .middleware(TenantScope)
    .middleware(AccessControl)
    .middleware(Authentication)
) {}
const ruleOutside = HttpApiBuilder.layer(RuleOutside).pipe(
  Layer.provide(
    HttpApiBuilder.group(RuleOutside, "group", (handlers) => handlers.handleAll({ list: () => usesRows }))
  )
)
// @ts-expect-error -- 'TenantContext' is not assignable
closed(ruleOutside)

class ControlPlane extends HttpApi.make("controlPlane").add(
  HttpApiGroup.make("group").add(list).middleware(OperatorOnly).middleware(Authentication)
) {}
const controlPlane = <R>(handler: Effect.Effect<void, never, R>) =>
  HttpApiBuilder.layer(ControlPlane).pipe(
    Layer.provide(
      HttpApiBuilder.group(ControlPlane, "group", (handlers) => handlers.handleAll({ list: () => handler }))
    )
  )
closed(controlPlane(Effect.asVoid(CurrentPrincipal)))
// @ts-expect-error -- Request<"Requires", TenantContext>' is not assignable
closed(controlPlane(Effect.asVoid(TenantContext)))
// @ts-expect-error -- Request<"Requires", TenantDb>' is not assignable
closed(controlPlane(usesRows))
// @ts-expect-error -- Request<"Requires", TenantCache>' is not assignable
closed(controlPlane(Effect.asVoid(TenantCache)))

class Unauthenticated extends HttpApi.make("unauthenticated").add(
  HttpApiGroup.make("group").add(list).middleware(OperatorOnly)
) {}
const unauthenticated = HttpApiBuilder.layer(Unauthenticated).pipe(
  Layer.provide(
    HttpApiBuilder.group(Unauthenticated, "group", (handlers) =>
      handlers.handleAll({ list: () => Effect.void })
    )
  )
)
// @ts-expect-error -- 'CurrentPrincipal' is not assignable
closed(unauthenticated)
