import { Effect } from "effect"
import { SqlClient } from "effect/sql"

/**
 * The platform's registry, and the function that believes a transaction's signed claim only if its MAC is right.
 * Runs as `aa_owner`. The reasons stand in `docs/decisions/0002-signed-claim.md`.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  // What a function or type is made with, PUBLIC may use by default. Not here.
  yield* sql`ALTER DEFAULT PRIVILEGES FOR ROLE aa_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC`
  yield* sql`ALTER DEFAULT PRIVILEGES FOR ROLE aa_owner REVOKE USAGE ON TYPES FROM PUBLIC`

  // The padded blocks of HMAC instead of the key: verifying is then two calls of the built-in sha256().
  yield* sql`CREATE TABLE shared.claim_keys (
    kid text PRIMARY KEY CHECK (kid ~ '^[0-9a-f]{8}$'),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
    created_at timestamptz NOT NULL DEFAULT now()
  )`

  // SECURITY DEFINER, because nobody but its owner may read the keys. Comparing digests of both MACs instead of
  // the MACs takes the meaning out of how long the comparison lasts.
  yield* sql`CREATE FUNCTION shared.claim_subject() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
      claim text := current_setting('app.claim', true);
      parts text[];
      keys record;
      mac bytea;
    BEGIN
      IF claim IS NULL OR claim = '' OR length(claim) > 200 THEN
        RETURN NULL;
      END IF;
      parts := string_to_array(claim, '.');
      IF cardinality(parts) <> 5 OR parts[1] <> 'v1' OR parts[4] !~ '^[0-9]{1,12}$' THEN
        RETURN NULL;
      END IF;
      IF parts[4]::bigint < extract(epoch FROM now()) THEN
        RETURN NULL;
      END IF;
      SELECT k.inner_pad, k.outer_pad INTO keys FROM shared.claim_keys AS k WHERE k.kid = parts[2];
      IF NOT FOUND THEN
        RETURN NULL;
      END IF;
      mac := sha256(keys.outer_pad || sha256(keys.inner_pad ||
        convert_to(left(claim, length(claim) - length(parts[5]) - 1), 'UTF8')));
      IF sha256(convert_to(encode(mac, 'hex'), 'UTF8')) <> sha256(convert_to(parts[5], 'UTF8')) THEN
        RETURN NULL;
      END IF;
      RETURN parts[3];
    END
    $$`

  // Both are one expression, so that Postgres inlines them.
  yield* sql`CREATE FUNCTION shared.current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    RETURN NULLIF(shared.claim_subject(), 'platform')::uuid`
  yield* sql`CREATE FUNCTION shared.is_platform() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(shared.claim_subject() = 'platform', false)`

  // Every tenant's role calls these through its policies. They tell a transaction nothing but its own claim, and a
  // grant to each of ten thousand roles would make every look-up walk a list of that length.
  yield* sql`GRANT USAGE ON SCHEMA shared TO PUBLIC`
  yield* sql`GRANT EXECUTE ON FUNCTION shared.claim_subject(), shared.current_tenant(), shared.is_platform() TO PUBLIC`

  yield* sql`CREATE TABLE shared.tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$'),
    name text NOT NULL,
    schema_name text NOT NULL UNIQUE CHECK (schema_name = 'tenant_' || replace(slug, '-', '_')),
    status text NOT NULL DEFAULT 'provisioning'
      CHECK (status IN ('provisioning', 'active', 'suspended', 'deleting')),
    is_active boolean NOT NULL GENERATED ALWAYS AS (status = 'active') STORED,
    placement text NOT NULL DEFAULT 'primary',
    settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE TABLE shared.tenant_migrations (
    tenant_id uuid NOT NULL REFERENCES shared.tenants ON DELETE CASCADE,
    id integer NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id)
  )`

  for (const table of ["tenants", "tenant_migrations"]) {
    const name = sql(`shared.${table}`)
    yield* sql`ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY`
    yield* sql`ALTER TABLE ${name} FORCE ROW LEVEL SECURITY`
    yield* sql`CREATE POLICY platform_claim ON ${name} AS RESTRICTIVE FOR ALL TO PUBLIC
      USING ((SELECT shared.is_platform())) WITH CHECK ((SELECT shared.is_platform()))`
    yield* sql`CREATE POLICY registry_access ON ${name} FOR ALL TO aa_owner, aa_app USING (true) WITH CHECK (true)`
    yield* sql`GRANT SELECT ON ${name} TO aa_app, aa_backup`
  }
  // Versions only; no tenant's business.
  yield* sql`GRANT SELECT ON shared.migrations TO aa_app, aa_backup`
})
