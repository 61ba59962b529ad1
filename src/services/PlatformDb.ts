import { Context, Effect, Layer } from "effect"
import type { Statement } from "effect/sql"
import { TenantPool } from "./TenantPool.ts"
import type { DbError } from "./DbErrors.ts"

/**
 * The platform's own registry (`shared.*`), read with the platform's claim on the same pool as the tenants. The
 * app's login may only read there, and without the claim sees no row: SQL injected into a tenant's statement
 * can leave the tenant's role, but can't sign for the registry. What writes there is `AdminDb`.
 */
export class PlatformDb extends Context.Service<
  PlatformDb,
  {
    readonly query: <A>(
      statement: (sql: Statement.Constructor) => Statement.Statement<A>
    ) => Effect.Effect<ReadonlyArray<A>, DbError>
  }
>()("agent-army/services/PlatformDb") {
  static readonly layer = Layer.effect(
    PlatformDb,
    Effect.gen(function* () {
      const pool = yield* TenantPool
      return PlatformDb.of({ query: (statement) => pool.query("platform", statement) })
    })
  )
}
