import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/** Operator keys beside the one of the settings. The app reads them under the platform's claim; only the owner writes. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE shared.operator_keys (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz
  )`
  yield* sql`CREATE UNIQUE INDEX operator_keys_name ON shared.operator_keys (name) WHERE revoked_at IS NULL`
  yield* sql`ALTER TABLE shared.operator_keys ENABLE ROW LEVEL SECURITY`
  yield* sql`ALTER TABLE shared.operator_keys FORCE ROW LEVEL SECURITY`
  yield* sql`CREATE POLICY platform_claim ON shared.operator_keys AS RESTRICTIVE FOR ALL TO PUBLIC
    USING ((SELECT shared.is_platform())) WITH CHECK ((SELECT shared.is_platform()))`
  yield* sql`CREATE POLICY registry_access ON shared.operator_keys FOR ALL TO aa_owner, aa_app
    USING (true) WITH CHECK (true)`
  yield* sql`GRANT SELECT ON shared.operator_keys TO aa_app, aa_backup`
})
