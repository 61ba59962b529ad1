import type { Migration } from "../src/services/Migrations.ts"
import audit from "./shared/0002_audit.ts"
import idempotency from "./shared/0003_idempotency.ts"
import operatorKeys from "./shared/0004_operator_keys.ts"
import platform from "./shared/0001_platform.ts"
import platformKeys from "./shared/0005_platform_keys.ts"

/** The registry's migrations, in order. A number is never used twice, and what has run is never changed. */
export const sharedMigrations: ReadonlyArray<Migration<never>> = [
  { id: 1, name: "platform", up: platform },
  { id: 2, name: "audit", up: audit },
  { id: 3, name: "idempotency", up: idempotency },
  { id: 4, name: "operator_keys", up: operatorKeys },
  { id: 5, name: "platform_keys", up: platformKeys }
]
