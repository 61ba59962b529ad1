import { Context, Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql"
import type { RoleName, SchemaName, TenantId } from "../domain/Tenant.ts"

/** The tenant whose schema a migration is being run in. */
export class MigratingTenant extends Context.Service<
  MigratingTenant,
  { readonly id: TenantId; readonly schema: SchemaName; readonly role: RoleName }
>()("agent-army/services/MigratingTenant") {}

type Privilege = "SELECT" | "INSERT" | "UPDATE" | "DELETE"

/**
 * Puts a new table of a tenant behind its walls: row security enabled and forced, the restrictive policy on the
 * signed claim for every command and role, permissive policies for what those who work there may do, and the grants. The
 * runner refuses a migration that leaves a table without them.
 */
export const wall: (
  table: string,
  privileges: readonly [Privilege, ...ReadonlyArray<Privilege>]
) => Effect.Effect<void, SqlError.SqlError, SqlClient.SqlClient | MigratingTenant> = Effect.fnUntraced(
  function* (table, privileges) {
    const sql = yield* SqlClient.SqlClient
    const { role, schema } = yield* MigratingTenant
    const name = sql(`${schema}.${table}`)
    yield* sql`ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY`
    yield* sql`ALTER TABLE ${name} FORCE ROW LEVEL SECURITY`
    yield* sql`CREATE POLICY tenant_claim ON ${name} AS RESTRICTIVE FOR ALL TO PUBLIC
      USING ((SELECT shared.current_tenant()) = tenant_id)
      WITH CHECK ((SELECT shared.current_tenant()) = tenant_id)`
    if (privileges.includes("DELETE")) {
      yield* sql`CREATE POLICY tenant_access ON ${name} FOR ALL TO aa_owner, ${sql(role)}
        USING (true) WITH CHECK (true)`
    } else {
      // A policy for each privilege and no more: what has none is out of the owner's reach as well.
      for (const privilege of privileges) {
        const reads = privilege === "INSERT" ? "" : "USING (true)"
        const writes = privilege === "SELECT" ? "" : "WITH CHECK (true)"
        yield* sql`CREATE POLICY ${sql(`tenant_${privilege.toLowerCase()}`)} ON ${name}
          FOR ${sql.literal(privilege)} TO aa_owner, ${sql(role)} ${sql.literal(`${reads} ${writes}`)}`
      }
    }
    yield* sql`GRANT ${sql.literal(privileges.join(", "))} ON ${name} TO ${sql(role)}`
    yield* sql`GRANT SELECT ON ${name} TO aa_backup`
  }
)
