import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/** Answers to requests that carried an `Idempotency-Key`. The reasons stand in `docs/decisions/0008-idempotency.md`. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.idempotency_keys`)} (
    id bytea PRIMARY KEY CHECK (length(id) = 32),
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    body_hash bytea NOT NULL CHECK (length(body_hash) = 32),
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX idempotency_keys_created ON ${sql(`${schema}.idempotency_keys`)} (created_at)`
  yield* wall("idempotency_keys", ["SELECT", "INSERT", "UPDATE", "DELETE"])
})
