import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant } from "../../src/services/MigratingTenant.ts"

/**
 * Sessions whose refresh tokens rotate. Hashes are SHA-256, in hex. `family_hash` is of what all tokens of a session
 * share, `refresh_hashes` of those that may be used next, `previous_hash` of the one they were given for, at
 * `rotated_at`. Sessions from before have none of them: they last, and can't be refreshed.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`ALTER TABLE ${sql(`${schema}.sessions`)}
    DROP COLUMN refresh_hash,
    ADD COLUMN family_hash text NOT NULL DEFAULT '',
    ADD COLUMN refresh_hashes text[] NOT NULL DEFAULT '{}',
    ADD COLUMN previous_hash text,
    ADD COLUMN rotated_at timestamptz`
  yield* sql`CREATE INDEX sessions_expiry ON ${sql(`${schema}.sessions`)} (expires_at)`
})
