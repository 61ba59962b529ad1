import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/**
 * The tenant's own secrets, and the key that they are sealed under, itself sealed under SECRETS_MASTER_KEY. A tenant's role can't change or
 * delete that key: without it no secret opens any more.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.data_keys`)} (
    tenant_id uuid PRIMARY KEY DEFAULT shared.current_tenant(),
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* wall("data_keys", ["SELECT", "INSERT"])

  // COLLATE "C", so that pages by name have one order on every system.
  yield* sql`CREATE TABLE ${sql(`${schema}.secrets`)} (
    name text COLLATE "C" PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    version integer NOT NULL DEFAULT 1,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* wall("secrets", ["SELECT", "INSERT", "UPDATE", "DELETE"])
})
