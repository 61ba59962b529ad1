import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant } from "../../src/services/MigratingTenant.ts"

/** Tokens of sound, which are none of the others' kinds and have prices of their own. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`ALTER TABLE ${sql(`${schema}.llm_usage`)}
    ADD COLUMN audio_input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN audio_cached_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN audio_output_tokens bigint NOT NULL DEFAULT 0`
})
