import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/** The same for the control plane's requests. Only the migrator's login, as the owner, reads and writes it. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE shared.idempotency_keys (
    id bytea PRIMARY KEY CHECK (length(id) = 32),
    body_hash bytea NOT NULL CHECK (length(body_hash) = 32),
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX idempotency_keys_created ON shared.idempotency_keys (created_at)`
  yield* sql`ALTER TABLE shared.idempotency_keys ENABLE ROW LEVEL SECURITY`
  yield* sql`ALTER TABLE shared.idempotency_keys FORCE ROW LEVEL SECURITY`
  yield* sql`CREATE POLICY platform_claim ON shared.idempotency_keys AS RESTRICTIVE FOR ALL TO PUBLIC
    USING ((SELECT shared.is_platform())) WITH CHECK ((SELECT shared.is_platform()))`
  yield* sql`CREATE POLICY registry_access ON shared.idempotency_keys FOR ALL TO aa_owner
    USING (true) WITH CHECK (true)`
  yield* sql`GRANT SELECT ON shared.idempotency_keys TO aa_backup`
})
