import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/**
 * What chains an audit log: the hash of an entry over its content and the hash before it. jsonb has one text for one
 * value, whatever the order of its keys was. And the platform's own log, of acts that belong to no tenant.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE FUNCTION shared.audit_hash(
      previous bytea, tenant uuid, seq bigint, id uuid, created_at timestamptz, actor jsonb, action text, target jsonb,
      details jsonb, request_id uuid
    ) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE
    RETURN sha256(coalesce(previous, ''::bytea) || convert_to(jsonb_build_array(
      tenant, seq, id, (extract(epoch FROM created_at) * 1000000)::bigint, actor, action, target, details, request_id
    )::text, 'UTF8'))`
  // It tells nothing but what it is told.
  yield* sql`GRANT EXECUTE ON FUNCTION shared.audit_hash TO PUBLIC`

  yield* sql`CREATE TABLE shared.audit_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    seq bigint NOT NULL DEFAULT 0,
    hash bytea
  )`
  yield* sql`INSERT INTO shared.audit_head DEFAULT VALUES`
  yield* sql`CREATE TABLE shared.audit_log (
    seq bigint PRIMARY KEY,
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
  for (const table of ["audit_head", "audit_log"]) {
    const name = sql(`shared.${table}`)
    yield* sql`ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY`
    yield* sql`ALTER TABLE ${name} FORCE ROW LEVEL SECURITY`
    yield* sql`CREATE POLICY platform_claim ON ${name} AS RESTRICTIVE FOR ALL TO PUBLIC
      USING ((SELECT shared.is_platform())) WITH CHECK ((SELECT shared.is_platform()))`
    yield* sql`CREATE POLICY log_read ON ${name} FOR SELECT TO aa_owner, aa_backup USING (true)`
    yield* sql`GRANT SELECT ON ${name} TO aa_backup`
  }
  yield* sql`CREATE POLICY log_append ON shared.audit_log FOR INSERT TO aa_owner WITH CHECK (true)`
  yield* sql`CREATE POLICY head_update ON shared.audit_head FOR UPDATE TO aa_owner USING (true) WITH CHECK (true)`
})
