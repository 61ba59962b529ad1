import { Effect, Redacted } from "effect"
import { SqlError } from "effect/sql"
import type { SqlClient } from "effect/sql"
import { createHash, randomBytes, randomUUID } from "node:crypto"
import { formatApiKey, prefixOf } from "../src/domain/ApiKey.ts"
import { ApiKeyId } from "../src/domain/Principal.ts"
import { TenantSlug } from "../src/domain/Tenant.ts"
import { makeClient } from "../src/http/Client.ts"
import { BenchFailed } from "./Processes.ts"
import { COLLECTION, RECORDS, recordId } from "./Records.ts"

/** Some of them at a time: each hashes a password, and the platform hashes two at once. */
const PROVISIONED_AT_ONCE = 4

const SECRET_LENGTH = 43

/** Provisions a tenant with an admin by HTTP, as an operator does. */
export const provisionTenant = Effect.fn("provisionTenant")(function* (
  url: URL,
  operatorKey: Redacted.Redacted<string>,
  slug: string
) {
  const client = yield* makeClient({ baseUrl: url.origin, bearer: operatorKey })
  const tenant = yield* client.tenants.provision({
    payload: {
      slug: TenantSlug.make(slug),
      name: slug,
      admin_email: `admin@${slug}.example`,
      admin_password: Redacted.make(`correct horse ${slug}`)
    }
  })
  return yield* client.tenants.update({
    params: { tenant: tenant.id },
    payload: { settings: { "rate.requests_per_minute": UNLIMITED } }
  })
})

/** What the measurements ask of one tenant is far beyond the default limit. */
const UNLIMITED = 1_000_000_000

/** A tenant with an API key that may read records, publish, subscribe and speak, and its records. */
const seedTenant = Effect.fn("seedTenant")(function* (
  url: URL,
  operatorKey: Redacted.Redacted<string>,
  sql: SqlClient.SqlClient,
  slug: string
) {
  const { id: tenantId, schema_name } = yield* provisionTenant(url, operatorKey, slug)
  const keyId = ApiKeyId.make(randomUUID())
  const secret = randomBytes(32).toString("hex").slice(0, SECRET_LENGTH)
  const table = (name: string) => sql(`${schema_name}.${name}`)

  yield* sql`INSERT INTO ${table("api_keys")} (id, tenant_id, user_id, name, key_hash, prefix, scopes)
    SELECT ${keyId}, ${tenantId}, id, 'bench', ${createHash("sha256").update(secret).digest()},
      ${prefixOf("testing", keyId)}, ARRAY['records:read', 'events:read', 'events:write', 'llm:use'] FROM ${table("users")} LIMIT 1`
  // `recordId` in SQL; the first and the last are compared below.
  yield* sql`INSERT INTO ${table("records")} (id, tenant_id, collection, data)
    SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, ${tenantId}, ${COLLECTION},
      jsonb_build_object('tenant', ${slug}::text, 'n', n, 'title', 'title ' || n, 'body', repeat('x', 100))
    FROM generate_series(1, ${RECORDS}::int) n`
  const found =
    yield* sql`SELECT 1 FROM ${table("records")} WHERE id IN (${recordId(1)}, ${recordId(RECORDS)})`
  if (found.length !== 2)
    return yield* new BenchFailed({ message: "The records have other ids than expected" })
  yield* sql`VACUUM ANALYZE ${table("records")}`
  yield* sql`VACUUM ANALYZE ${table("api_keys")}`

  return { slug, apiKey: Redacted.value(formatApiKey("testing", keyId, tenantId, Redacted.make(secret))) }
})

/** So many tenants with their keys and records, provisioned by the platform, their rows written by the superuser. */
export const seedTenants = Effect.fn("seedTenants")(
  function* (url: URL, operatorKey: Redacted.Redacted<string>, sql: SqlClient.SqlClient, count: number) {
    const slugs = Array.from({ length: count }, (_, index) => `bench-${index}`)
    const tenants = yield* Effect.forEach(slugs, (slug) => seedTenant(url, operatorKey, sql, slug), {
      concurrency: PROVISIONED_AT_ONCE
    })
    yield* sql`VACUUM ANALYZE shared.tenants`
    return tenants
  },
  Effect.catchIf(SqlError.isSqlError, (error) => Effect.fail(new BenchFailed({ message: error.message })))
)
