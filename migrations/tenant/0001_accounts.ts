import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/** Who may sign in to a tenant, and with what. Names are qualified: no search path decides where a table stands. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.users`)} (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    email text NOT NULL,
    name text,
    hashed_password text NOT NULL,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member')),
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE UNIQUE INDEX users_email ON ${sql(`${schema}.users`)} (tenant_id, lower(email))`
  yield* wall("users", ["SELECT", "INSERT", "UPDATE", "DELETE"])

  yield* sql`CREATE TABLE ${sql(`${schema}.sessions`)} (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    user_id uuid NOT NULL REFERENCES ${sql(`${schema}.users`)} ON DELETE CASCADE,
    refresh_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
  )`
  yield* sql`CREATE INDEX sessions_user ON ${sql(`${schema}.sessions`)} (user_id)`
  yield* wall("sessions", ["SELECT", "INSERT", "UPDATE", "DELETE"])

  yield* sql`CREATE TABLE ${sql(`${schema}.api_keys`)} (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    user_id uuid NOT NULL REFERENCES ${sql(`${schema}.users`)} ON DELETE CASCADE,
    name text NOT NULL,
    key_hash bytea NOT NULL CHECK (length(key_hash) = 32),
    prefix text NOT NULL,
    scopes text[] NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    expires_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX api_keys_user ON ${sql(`${schema}.api_keys`)} (user_id)`
  yield* wall("api_keys", ["SELECT", "INSERT", "UPDATE", "DELETE"])
})
