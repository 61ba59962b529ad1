import { Context, Effect, Layer } from "effect"
import type { Statement } from "effect/sql"
import type { TenantRef } from "../domain/Tenant.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantPool } from "./TenantPool.ts"
import type { DbError } from "./DbErrors.ts"

/**
 * Names a table of this tenant's, qualified by its schema. Qualified names make each tenant's statements its own,
 * so that their prepared plans survive when a connection goes from one tenant to the next.
 */
export type TenantTable = (name: string) => Statement.Identifier

/**
 * The tenant's rows. Its layer asks for `TenantContext`, so that the database is out of reach until a tenant is
 * known, and the compiler is who says so. Every statement runs in a transaction that has entered the tenant's
 * role, schema and signed claim; all three end with it.
 *
 * Fails with `DependencyUnavailable` when Postgres is away or has no connection to spare within two seconds, and
 * with `SqlError` when a statement is refused. One tenant's transaction inside another's is a defect.
 *
 * @effect-leakable-service
 */
export class TenantDb extends Context.Service<
  TenantDb,
  {
    /** One statement in a transaction of its own: one write, one answer. */
    readonly query: <A>(
      statement: (sql: Statement.Constructor, table: TenantTable) => Statement.Statement<A>
    ) => Effect.Effect<ReadonlyArray<A>, DbError>
    /** Several statements in one transaction; a savepoint where one of this tenant is open already. */
    readonly transaction: <A, E, R>(
      use: (sql: Statement.Constructor, table: TenantTable) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | DbError, R>
  }
>()("agent-army/services/TenantDb") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<TenantDb["Service"], never, TenantContext | TenantPool> = Effect.gen(
    function* () {
      const tenant = yield* TenantContext
      const pool = yield* TenantPool
      return tenantDb(pool, { id: tenant.tenantId, schema: tenant.schema })
    }
  )
  static readonly layer = Layer.effect(TenantDb, this.make)
}

/**
 * The rows of a tenant that nobody has signed in to yet: for the services that find out who is calling, and so
 * must look before there is a `TenantContext`. Everybody else asks for `TenantDb`.
 */
export const tenantDb = (pool: TenantPool["Service"], tenant: TenantRef): TenantDb["Service"] => {
  const qualified = (sql: Statement.Constructor) => (name: string) => sql(`${tenant.schema}.${name}`)
  return TenantDb.of({
    query: (statement) => pool.query(tenant, (sql) => statement(sql, qualified(sql))),
    transaction: (use) => pool.transaction(tenant, (sql) => use(sql, qualified(sql)))
  })
}
