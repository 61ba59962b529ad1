import { Schema } from "effect"
import { HttpApiMiddleware } from "effect/http-api"
import { Conflict, DependencyUnavailable, IdempotencyKeyReused, InvalidRequest } from "../domain/Problems.ts"
import type { TenantContext } from "../services/TenantContext.ts"
import type { TenantDb } from "../services/TenantDb.ts"
import type { CurrentPrincipal } from "./Authentication.ts"

/** Printable ASCII, so that proxies and logs pass it on as it is. */
export const IdempotencyKey = Schema.String.check(
  Schema.isPattern(/^[\x20-\x7e]{1,255}$/, { message: "Expected 1 to 255 printable ASCII characters" })
)

/** Lets a request with an `Idempotency-Key` act once, in the tenant's rows: `.middleware(Idempotent)` on each endpoint that creates. */
export class Idempotent extends HttpApiMiddleware.Service<
  Idempotent,
  {
    requires: TenantContext | TenantDb
  }
>()("agent-army/http/Idempotent", {
  error: [IdempotencyKeyReused, Conflict, InvalidRequest, DependencyUnavailable]
}) {}

/** The same for the control plane. */
export class IdempotentOperation extends HttpApiMiddleware.Service<
  IdempotentOperation,
  {
    requires: CurrentPrincipal
  }
>()("agent-army/http/IdempotentOperation", {
  error: [IdempotencyKeyReused, Conflict, InvalidRequest, DependencyUnavailable]
}) {}
