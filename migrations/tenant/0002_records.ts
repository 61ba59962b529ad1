import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/** The tenant's own JSON documents. Ids are UUIDv7: a list in their order is one in the order of creation. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.records`)} (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    collection text NOT NULL,
    data jsonb NOT NULL,
    version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX records_collection ON ${sql(`${schema}.records`)} (collection, id)`
  yield* wall("records", ["SELECT", "INSERT", "UPDATE", "DELETE"])
})
