import type { MigratingTenant } from "../src/services/MigratingTenant.ts"
import type { Migration } from "../src/services/Migrations.ts"
import accounts from "./tenant/0001_accounts.ts"
import apiKeyLimits from "./tenant/0011_api_key_limits.ts"
import apiKeyLife from "./tenant/0005_api_key_life.ts"
import auditLog from "./tenant/0003_audit_log.ts"
import idempotency from "./tenant/0006_idempotency.ts"
import sessions from "./tenant/0004_sessions.ts"
import llmBudgets from "./tenant/0010_llm_budgets.ts"
import llmUsageAudio from "./tenant/0009_llm_usage_audio.ts"
import llmUsage from "./tenant/0008_llm_usage.ts"
import records from "./tenant/0002_records.ts"
import secrets from "./tenant/0007_secrets.ts"

/** A tenant's migrations, in order. A number is never used twice, and what has run is never changed. */
export const tenantMigrations: ReadonlyArray<Migration<MigratingTenant>> = [
  { id: 1, name: "accounts", up: accounts },
  { id: 2, name: "records", up: records },
  { id: 3, name: "audit_log", up: auditLog },
  { id: 4, name: "sessions", up: sessions },
  { id: 5, name: "api_key_life", up: apiKeyLife },
  { id: 6, name: "idempotency", up: idempotency },
  { id: 7, name: "secrets", up: secrets },
  { id: 8, name: "llm_usage", up: llmUsage },
  { id: 9, name: "llm_usage_audio", up: llmUsageAudio },
  { id: 10, name: "llm_budgets", up: llmBudgets },
  { id: 11, name: "api_key_limits", up: apiKeyLimits }
]
