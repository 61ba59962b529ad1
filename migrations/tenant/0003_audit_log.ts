import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/**
 * What was done in the tenant that matters to its security, append-only: neither the tenant's role nor the owner has a
 * privilege or a policy to change or delete an entry. `audit_head` holds the place and the hash of the last entry: its row
 * is what makes writers wait for each other, and an end that was cut off shows by it.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.audit_head`)} (
    tenant_id uuid PRIMARY KEY DEFAULT shared.current_tenant(),
    seq bigint NOT NULL DEFAULT 0,
    hash bytea
  )`
  yield* sql`INSERT INTO ${sql(`${schema}.audit_head`)} DEFAULT VALUES`
  yield* wall("audit_head", ["SELECT", "UPDATE"])

  yield* sql`CREATE TABLE ${sql(`${schema}.audit_log`)} (
    seq bigint PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    id uuid NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    actor jsonb NOT NULL,
    action text NOT NULL,
    target jsonb,
    details jsonb NOT NULL,
    request_id uuid,
    previous_hash bytea,
    hash bytea NOT NULL
  )`
  yield* wall("audit_log", ["SELECT", "INSERT"])
})
