import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant } from "../../src/services/MigratingTenant.ts"

/** What a key may ask of models in a minute, within what its tenant may: `KeyLimits`. The table keeps its walls. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant
  yield* sql`ALTER TABLE ${sql(`${schema}.api_keys`)} ADD COLUMN limits jsonb NOT NULL DEFAULT '{}'`
})
