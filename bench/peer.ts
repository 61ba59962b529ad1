// The yardstick of `read`: the same endpoint as fastify and node-postgres have it, written as one would by hand. It
// enters a tenant through the same walls and believes what it read of keys and tenants for the same half second.
//
// The plan is in the environment variable PEER, since it holds secrets.
//
// @effect-diagnostics processEnv:off globalDate:off -- nothing of effect's is to run here but the plan's schema.
import { Redacted, Schema } from "effect"
import Fastify from "fastify"
import { createHash, createHmac, timingSafeEqual } from "node:crypto"
import { Pool } from "pg"
import type { QueryConfig, QueryResultRow } from "pg"
import { claimKeyId } from "../src/services/Claims.ts"
import { PeerPlan } from "./Plan.ts"

const REMEMBERED_MILLIS = 500
const CLAIM_LIFETIME_SECONDS = 15 * 60
const CLAIM_RENEW_BELOW_SECONDS = 10 * 60

interface Tenant {
  readonly id: string
  readonly slug: string
  readonly schema_name: string
  readonly status: string
}

interface Key {
  readonly key_hash: Uint8Array
  readonly scopes: ReadonlyArray<string>
  readonly expires_at: Date | null
}

interface StoredRecord {
  readonly id: string
  readonly collection: string
  readonly data: unknown
  readonly version: number
  readonly created_at: Date
  readonly updated_at: Date
}

const plan = Schema.decodeSync(Schema.fromJsonString(PeerPlan))(process.env["PEER"] ?? "")
const pool = new Pool({ connectionString: plan.databaseUrl, max: plan.poolSize, pipeline: plan.pipeline })

const claims = new Map<string, { readonly claim: string; readonly renewAt: number }>()
const keyId = claimKeyId(Redacted.make(plan.claimKey))

const claimOf = (subject: string): string => {
  const now = Math.floor(Date.now() / 1000)
  const found = claims.get(subject)
  if (found !== undefined && now < found.renewAt) return found.claim
  const body = `v1.${keyId}.${subject}.${now + CLAIM_LIFETIME_SECONDS}`
  const claim = `${body}.${createHmac("sha256", plan.claimKey).update(body).digest("hex")}`
  claims.set(subject, { claim, renewAt: now + CLAIM_LIFETIME_SECONDS - CLAIM_RENEW_BELOW_SECONDS })
  return claim
}

const enter = (role: string, schema: string, subject: string): QueryConfig => ({
  name: "enter",
  text: "SELECT set_config('role', $1, true), set_config('search_path', $2, true), set_config('app.claim', $3, true)",
  values: [role, `${schema}, pg_temp`, claimOf(subject)]
})

const enterTenant = (tenant: Tenant) =>
  enter(`aa_t_${tenant.id.replaceAll("-", "")}`, tenant.schema_name, tenant.id)

/** The first row of a statement in a transaction of its own, in which `entrance` goes before it. */
const first = async <Row extends QueryResultRow>(entrance: QueryConfig, statement: QueryConfig) => {
  const client = await pool.connect()
  try {
    if (plan.pipeline) {
      const [, , { rows }] = await Promise.all([
        client.query("BEGIN"),
        client.query(entrance),
        client.query<Row>(statement),
        client.query("COMMIT")
      ])
      client.release()
      return rows[0]
    }
    await client.query("BEGIN")
    await client.query(entrance)
    const { rows } = await client.query<Row>(statement)
    await client.query("COMMIT")
    client.release()
    return rows[0]
  } catch (error) {
    client.release(true)
    throw error
  }
}

/** Reads once for all that ask at the same time, and for those that ask within half a second. */
const remembering = <A>(read: (key: string) => Promise<A>) => {
  const kept = new Map<string, { readonly value: Promise<A>; expiresAt: number }>()
  return (key: string): Promise<A> => {
    const found = kept.get(key)
    if (found !== undefined && Date.now() < found.expiresAt) return found.value
    const entry = { value: read(key), expiresAt: Infinity }
    kept.set(key, entry)
    entry.value.then(
      () => (entry.expiresAt = Date.now() + REMEMBERED_MILLIS),
      () => kept.delete(key)
    )
    return entry.value
  }
}

const tenantOf = remembering((id) =>
  first<Tenant>(enter("none", "shared", "platform"), {
    name: "tenant",
    text: `SELECT id, slug, name, schema_name, status, is_active, placement, settings, created_at, updated_at
      FROM shared.tenants WHERE id = $1`,
    values: [id]
  })
)

const keyOf = remembering(async (place) => {
  const [tenantId = "", id = ""] = place.split("/")
  const tenant = await tenantOf(tenantId)
  if (tenant === undefined) return undefined
  return first<Key>(enterTenant(tenant), {
    name: `key ${tenant.slug}`,
    text: `SELECT k.key_hash, k.scopes, k.expires_at FROM "${tenant.schema_name}"."api_keys" k
      JOIN "${tenant.schema_name}"."users" u ON u.id = k.user_id AND u.is_active
      WHERE k.id = $1 AND k.is_active`,
    values: [id]
  })
})

const pattern = /^Bearer aa_([a-z]+)_([0-9a-f]{32})([0-9a-f]{32})_([A-Za-z0-9]{43})$/

const uuidOf = (hex: string): string =>
  `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`

/** The tenant that a key speaks for and what it may do there; undefined for whatever is no valid key. */
const authenticate = async (authorization: string | undefined) => {
  const [, environment, keyHex = "", tenantHex = "", secret = ""] = pattern.exec(authorization ?? "") ?? []
  if (environment !== plan.environment) return undefined
  const tenantId = uuidOf(tenantHex)
  const key = await keyOf(`${tenantId}/${uuidOf(keyHex)}`)
  if (key === undefined) return undefined
  if (!timingSafeEqual(createHash("sha256").update(secret).digest(), key.key_hash)) return undefined
  if (key.expires_at !== null && key.expires_at.getTime() <= Date.now()) return undefined
  const tenant = await tenantOf(tenantId)
  return tenant === undefined ? undefined : { tenant, scopes: key.scopes }
}

const app = Fastify({ logger: plan.accessLog })

app.get<{ Params: { collection: string; id: string } }>(
  "/api/v1/records/:collection/:id",
  {
    schema: {
      params: {
        type: "object",
        properties: {
          collection: { type: "string", pattern: "^[A-Za-z][A-Za-z0-9_-]{0,62}$" },
          id: { type: "string", format: "uuid" }
        },
        required: ["collection", "id"]
      },
      response: {
        200: {
          type: "object",
          properties: {
            id: { type: "string" },
            collection: { type: "string" },
            data: { type: "object", additionalProperties: true },
            version: { type: "integer" },
            created_at: { type: "string", format: "date-time" },
            updated_at: { type: "string", format: "date-time" }
          }
        }
      }
    }
  },
  async (request, reply) => {
    const caller = await authenticate(request.headers.authorization)
    if (caller === undefined) return reply.code(401).send()
    if (caller.tenant.status !== "active" || !caller.scopes.includes("records:read"))
      return reply.code(403).send()
    const { schema_name, slug } = caller.tenant
    const record = await first<StoredRecord>(enterTenant(caller.tenant), {
      name: `record ${slug}`,
      text: `SELECT id, collection, data, version, created_at, updated_at FROM "${schema_name}"."records"
        WHERE id = $1 AND collection = $2`,
      values: [request.params.id, request.params.collection]
    })
    if (record === undefined) return reply.code(404).send()
    reply.header("etag", `"${record.version}"`)
    return record
  }
)

const stop = () => {
  process.exit(0)
}
process.on("SIGTERM", stop)
process.on("SIGINT", stop)

process.stdout.write(`Ready on ${await app.listen({ host: "127.0.0.1", port: 0 })}\n`)
