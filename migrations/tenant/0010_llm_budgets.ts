import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { MigratingTenant, wall } from "../../src/services/MigratingTenant.ts"

/**
 * What a tenant's LLM calls came to in a month, and what of its budget the instances hold for calls under way. Leases change
 * under the lock of their month's row only. The reasons stand in `docs/decisions/0016-llm-budgets.md`.
 */
export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const { id, schema } = yield* MigratingTenant

  yield* sql`CREATE TABLE ${sql(`${schema}.llm_months`)} (
    month date PRIMARY KEY,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    spent_usd numeric NOT NULL DEFAULT 0
  )`
  yield* sql`INSERT INTO ${sql(`${schema}.llm_months`)} (month, tenant_id, spent_usd)
    SELECT date_trunc('month', created_at AT TIME ZONE 'UTC')::date, ${id}::uuid, coalesce(sum(cost_usd), 0)
    FROM ${sql(`${schema}.llm_usage`)} GROUP BY 1`
  yield* wall("llm_months", ["SELECT", "INSERT", "UPDATE"])

  yield* sql`CREATE TABLE ${sql(`${schema}.llm_leases`)} (
    month date NOT NULL,
    instance uuid NOT NULL,
    tenant_id uuid NOT NULL DEFAULT shared.current_tenant(),
    amount_usd numeric NOT NULL,
    renewed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (month, instance)
  )`
  yield* wall("llm_leases", ["SELECT", "INSERT", "UPDATE", "DELETE"])
})
