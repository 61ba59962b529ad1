import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/**
 * The generations of signing and claim keys, each sealed under SECRETS_MASTER_KEY. Read without a claim, since the key
 * that would sign the claim may be one of these: what is read is sealed. Written only by the owner under the
 * platform's claim. A row without `sealed` is a key of the settings, or one whose secret has been destroyed.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE shared.platform_keys (
    kind text NOT NULL CHECK (kind IN ('signing', 'claim')),
    kid text NOT NULL,
    sealed bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    active_from timestamptz NOT NULL,
    retired_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (kind, kid)
  )`
  yield* sql`ALTER TABLE shared.platform_keys ENABLE ROW LEVEL SECURITY`
  yield* sql`ALTER TABLE shared.platform_keys FORCE ROW LEVEL SECURITY`
  yield* sql`CREATE POLICY keys_read ON shared.platform_keys FOR SELECT TO aa_owner, aa_app, aa_backup USING (true)`
  yield* sql`CREATE POLICY keys_insert ON shared.platform_keys FOR INSERT TO aa_owner
    WITH CHECK ((SELECT shared.is_platform()))`
  yield* sql`CREATE POLICY keys_update ON shared.platform_keys FOR UPDATE TO aa_owner
    USING ((SELECT shared.is_platform())) WITH CHECK ((SELECT shared.is_platform()))`
  yield* sql`GRANT SELECT ON shared.platform_keys TO aa_app, aa_backup`
})
