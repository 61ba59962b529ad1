import { PgTypes } from "@effect/sql-pg"
import { Cache, Context, DateTime, Duration, Effect, Exit, Layer, Option, Redacted, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { hash, timingSafeEqual } from "node:crypto"
import { ApiKey, formatApiKey, prefixOf } from "../domain/ApiKey.ts"
import type { ParsedApiKey } from "../domain/ApiKey.ts"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import { allows, ApiKeyId, ApiKeyPrincipal, Role, Scope, scopesOfRole } from "../domain/Principal.ts"
import type { UserPrincipal } from "../domain/Principal.ts"
import { Forbidden, InvalidRequest } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { Environment } from "../domain/Environment.ts"
import { TenantDb, tenantDb } from "./TenantDb.ts"
import { orUnavailable } from "./DbErrors.ts"
import { TenantPool } from "./TenantPool.ts"
import { Tenants } from "./Tenants.ts"

/** How long an instance may believe what it read of a key: what is revoked stops working everywhere within a second. */
const REMEMBERED = Duration.millis(500)
const REMEMBERED_KEYS = 50_000
/** 32 random bytes as 43 digits of base 62: 256 bits, so that a plain hash is as good as a slow one. */
const SECRET_LENGTH = 43
const SECRET_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const ApiKeyRow = Schema.Struct({
  ...ApiKey.fields,
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromDate),
  last_used_at: Schema.NullOr(Schema.DateTimeUtcFromDate),
  created_at: Schema.DateTimeUtcFromDate
})
const CheckedRow = Schema.Struct({
  key_hash: Schema.Uint8Array,
  scopes: Schema.Array(Scope),
  /** Its maker's; none of one who is not active. */
  role: Schema.NullOr(Role),
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromDate)
})

const decodeRow = Schema.decodeUnknownEffect(ApiKeyRow)
const decodeChecked = Schema.decodeUnknownEffect(CheckedRow)

const hashOf = (secret: Redacted.Redacted<string>): Uint8Array =>
  hash("sha256", Redacted.value(secret), "buffer")

export interface NewApiKey {
  readonly name: string
  /** Without them, the key may do what its maker may. */
  readonly scopes?: ReadonlyArray<Scope> | undefined
  readonly expiresAt?: DateTime.Utc | undefined
}

/** API keys of a tenant: `aa_<environment>_<ids>_<secret>`, stored as the secret's hash. */
export class ApiKeys extends Context.Service<
  ApiKeys,
  {
    /**
     * Makes a key for a user, with that user's scopes at the most (`Forbidden` beyond them). The key itself is in
     * this answer and nowhere else.
     */
    readonly create: (
      maker: UserPrincipal,
      request: NewApiKey
    ) => Effect.Effect<
      { readonly apiKey: ApiKey; readonly key: Redacted.Redacted<string> },
      Forbidden | InvalidRequest | DependencyUnavailable,
      TenantDb
    >
    /** The tenant's keys for an admin, a member's own for a member. */
    readonly list: (
      viewer: UserPrincipal,
      page: PageRequest
    ) => Effect.Effect<Page<ApiKey>, DependencyUnavailable, TenantDb>
    /** Who a presented key speaks for: one indexed read in the table of the tenant it names; the secret by its hash. */
    readonly verify: (
      key: ParsedApiKey
    ) => Effect.Effect<Option.Option<ApiKeyPrincipal>, DependencyUnavailable>
  }
>()("agent-army/services/ApiKeys") {
  static readonly layer = (options: { readonly environment: Environment }) =>
    Layer.effect(
      ApiKeys,
      Effect.gen(function* () {
        const random = yield* SecureRandom.SecureRandom
        const tenants = yield* Tenants
        const pool = yield* TenantPool

        const newSecret = Effect.gen(function* () {
          let secret = ""
          for (let index = 0; index < SECRET_LENGTH; index++) {
            secret += SECRET_ALPHABET[yield* random.intBetween(0, SECRET_ALPHABET.length, { halfOpen: true })]
          }
          return Redacted.make(secret)
        })

        const read = Effect.fn("ApiKeys.read")(function* (place: string) {
          const [tenantId = "", keyId = ""] = place.split("/")
          const tenant = yield* tenants.find(tenantId)
          if (Option.isNone(tenant)) return Option.none()
          const db = tenantDb(pool, { id: tenant.value.id, schema: tenant.value.schema_name })
          const [row] = yield* db
            .query(
              // A subquery and not a join: it is one look into an index for each row found, whatever the planner thinks.
              (sql, table) => sql`SELECT k.key_hash, k.scopes, k.expires_at,
                  (SELECT u.role FROM ${table("users")} u WHERE u.id = k.user_id AND u.is_active) AS role
                FROM ${table("api_keys")} k WHERE k.id = ${keyId} AND k.is_active`
            )
            .pipe(orUnavailable)
          if (row === undefined) return Option.none()
          const { role, ...key } = yield* Effect.orDie(decodeChecked(row))
          if (role === null) return Option.none()
          // What its maker may no longer do, the key may not either.
          const scopes = key.scopes.filter((scope) => allows(scopesOfRole[role], scope))
          return Option.some({ tenant: tenant.value, ...key, scopes })
        })
        const remembered = yield* Cache.makeWith(read, {
          capacity: REMEMBERED_KEYS,
          timeToLive: (exit) =>
            Exit.isSuccess(exit) && Option.isSome(exit.value) ? REMEMBERED : Duration.zero
        })

        return ApiKeys.of({
          create: Effect.fn("ApiKeys.create")(function* (maker, request) {
            const own = scopesOfRole[maker.role]
            const scopes = request.scopes ?? own
            const beyond = scopes.filter((scope) => !allows(own, scope))
            if (beyond.length > 0) {
              return yield* new Forbidden({ detail: `Your role does not have ${beyond.join(", ")}` })
            }
            if (request.expiresAt !== undefined && (yield* DateTime.isPast(request.expiresAt))) {
              return yield* new InvalidRequest({
                detail: "The body is invalid",
                errors: [{ path: ["expires_at"], message: "Expected a time in the future" }]
              })
            }
            const id = ApiKeyId.make(yield* random.uuidV7())
            const secret = yield* newSecret
            const db = yield* TenantDb
            const [row] = yield* db
              .query(
                (sql, table) =>
                  sql`INSERT INTO ${table("api_keys")} ${sql.insert({
                    id,
                    user_id: maker.userId,
                    name: request.name,
                    key_hash: hashOf(secret),
                    prefix: prefixOf(options.environment, id),
                    scopes: [...scopes],
                    expires_at: PgTypes.timestamptz(
                      request.expiresAt === undefined ? null : DateTime.toDate(request.expiresAt)
                    )
                  })} RETURNING id, name, prefix, scopes, expires_at, last_used_at, created_at`
              )
              .pipe(orUnavailable)
            return {
              apiKey: new ApiKey(yield* Effect.orDie(decodeRow(row))),
              key: formatApiKey(options.environment, id, maker.tenantId, secret)
            }
          }),
          list: Effect.fn("ApiKeys.list")(function* (viewer, { after, limit }) {
            const db = yield* TenantDb
            const rows = yield* db
              .query((sql, table) => {
                const conditions = [
                  sql`is_active`,
                  ...(viewer.role === "admin" ? [] : [sql`user_id = ${viewer.userId}`]),
                  ...(after === undefined ? [] : [sql`id > ${after}`])
                ]
                return sql`SELECT id, name, prefix, scopes, expires_at, last_used_at, created_at
                  FROM ${table("api_keys")} WHERE ${sql.and(conditions)} ORDER BY id LIMIT ${limit + 1}`
              })
              .pipe(orUnavailable)
            const keys = yield* Effect.forEach(rows, (row) =>
              Effect.map(Effect.orDie(decodeRow(row)), (fields) => new ApiKey(fields))
            )
            return pageOf(keys, limit, (key) => key.id)
          }),
          verify: Effect.fnUntraced(function* (key) {
            if (key.environment !== options.environment) return Option.none()
            const found = yield* Cache.get(remembered, `${key.tenantId}/${key.keyId}`)
            if (Option.isNone(found)) return Option.none()
            const { expires_at, key_hash, scopes, tenant } = found.value
            if (!timingSafeEqual(hashOf(key.secret), key_hash)) return Option.none()
            if (expires_at !== null && (yield* DateTime.isPast(expires_at))) return Option.none()
            return Option.some(
              new ApiKeyPrincipal({ tenantId: tenant.id, tenantSlug: tenant.slug, keyId: key.keyId, scopes })
            )
          })
        })
      })
    )
}
