import type { Migration } from "../src/services/Migrations.ts"
import audit from "./shared/0002_audit.ts"
import idempotency from "./shared/0003_idempotency.ts"
import platform from "./shared/0001_platform.ts"

/** The registry's migrations, in order. A number is never used twice, and what has run is never changed. */
export const sharedMigrations: ReadonlyArray<Migration<never>> = [
  { id: 1, name: "platform", up: platform },
  { id: 2, name: "audit", up: audit },
  { id: 3, name: "idempotency", up: idempotency }
]
