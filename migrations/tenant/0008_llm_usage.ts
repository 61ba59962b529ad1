import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/**
 * What the tenant's LLM calls used: a row for each attempt at a provider, never changed. `asked` is the model's name in the
 * request, `provider` and `model` are who was asked for it; `cost_usd` is exact, and null for a model without a price.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.llm_usage`)} (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    created_at timestamptz NOT NULL DEFAULT now(),
    request_id uuid,
    key_id uuid,
    operation text NOT NULL,
    asked text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    status text NOT NULL,
    fault text,
    http_status integer,
    input_tokens bigint NOT NULL,
    cached_read_tokens bigint NOT NULL,
    cached_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    estimated boolean NOT NULL,
    cost_usd numeric,
    latency_ms integer NOT NULL,
    first_token_ms integer,
    provider_request_id text,
    retry integer NOT NULL,
    streamed boolean NOT NULL,
    resumed boolean NOT NULL,
    own_key boolean NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}'
  )`
  yield* sql`CREATE INDEX llm_usage_created ON ${sql(`${schema}.llm_usage`)} (created_at)`
  yield* wall("llm_usage", ["SELECT", "INSERT"])
})
