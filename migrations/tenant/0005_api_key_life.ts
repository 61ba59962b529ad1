import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant } from "../../src/services/MigratingTenant.ts"

/** How an API key ends: revoked, or followed by another. The table keeps its walls. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant
  const keys = sql(`${schema}.api_keys`)

  yield* sql`ALTER TABLE ${keys}
    ADD COLUMN revoked_at timestamptz,
    ADD COLUMN rotated_to uuid UNIQUE REFERENCES ${keys} ON DELETE SET NULL`
})
