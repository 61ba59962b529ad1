import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/** One row for each attempt at a provider, with the provider's own usage. Rows are written once and never changed. */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.llm_usage`)} (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    request_id uuid,
    key_id uuid,
    asked text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    status text NOT NULL,
    http_status integer,
    streamed boolean NOT NULL,
    resumed boolean NOT NULL,
    input_tokens bigint NOT NULL CHECK (input_tokens >= 0),
    cached_read_tokens bigint NOT NULL CHECK (cached_read_tokens >= 0),
    cached_write_tokens bigint NOT NULL CHECK (cached_write_tokens >= 0),
    output_tokens bigint NOT NULL CHECK (output_tokens >= 0),
    reasoning_tokens bigint NOT NULL CHECK (reasoning_tokens >= 0),
    estimated boolean NOT NULL,
    cost_usd numeric CHECK (cost_usd >= 0),
    latency_ms integer NOT NULL,
    first_token_ms integer,
    provider_request_id text,
    metadata jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX llm_usage_created ON ${sql(`${schema}.llm_usage`)} (created_at)`
  yield* wall("llm_usage", ["SELECT", "INSERT"])
})
