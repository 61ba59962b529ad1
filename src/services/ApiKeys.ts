import { PgTypes } from "@effect/sql-pg"
import { Cache, Context, DateTime, Duration, Effect, Exit, Layer, Option, Schema } from "effect"
import type { Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import type { Statement } from "effect/sql"
import { timingSafeEqual } from "node:crypto"
import { ApiKey, formatApiKey, MAX_OVERLAP, prefixOf } from "../domain/ApiKey.ts"
import type { ParsedApiKey } from "../domain/ApiKey.ts"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import { allows, ApiKeyId, ApiKeyPrincipal, Role, Scope, scopesOfRole, UserId } from "../domain/Principal.ts"
import type { UserPrincipal } from "../domain/Principal.ts"
import { Conflict, Forbidden, InvalidRequest, NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { Environment } from "../domain/Environment.ts"
import type { Tenant, TenantId } from "../domain/Tenant.ts"
import { KeyLimits } from "../domain/TenantSettings.ts"
import { AuditLog } from "./AuditLog.ts"
import { TenantDb, tenantDb } from "./TenantDb.ts"
import { orUnavailable } from "./DbErrors.ts"
import { makeLastUses, rowsOfUses } from "./LastUses.ts"
import { hashOfSecret, newKeySecret } from "./KeySecret.ts"
import { TenantPool } from "./TenantPool.ts"
import { Tenants } from "./Tenants.ts"

/** How long an instance may believe what it read of a key: what is revoked stops working everywhere within a second. */
const REMEMBERED = Duration.millis(500)
const REMEMBERED_KEYS = 50_000

const columns = "id, name, prefix, scopes, limits, expires_at, last_used_at, rotated_to, created_at"

const ApiKeyRow = Schema.Struct({
  ...ApiKey.fields,
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromDate),
  last_used_at: Schema.NullOr(Schema.DateTimeUtcFromDate),
  created_at: Schema.DateTimeUtcFromDate
})
const CheckedRow = Schema.Struct({
  key_hash: Schema.Uint8Array,
  scopes: Schema.Array(Scope),
  limits: KeyLimits,
  /** Its maker's; none of one who is not active. */
  role: Schema.NullOr(Role),
  expires_at: Schema.NullOr(Schema.DateTimeUtcFromDate)
})

const placeOf = (tenantId: TenantId, keyId: ApiKeyId): string => `${tenantId}/${keyId}`

const decodeRow = Schema.decodeUnknownEffect(ApiKeyRow)
const decodeChecked = Schema.decodeUnknownEffect(CheckedRow)

const decodeRotated = Schema.decodeUnknownEffect(
  Schema.Struct({ ...ApiKeyRow.fields, user_id: UserId, expired: Schema.Boolean })
)

/** A key just made: the only time that it is at hand. */
export interface MadeApiKey {
  readonly apiKey: ApiKey
  readonly key: Redacted.Redacted<string>
}

export interface NewApiKey {
  readonly name: string
  /** Without them, the key may do what its maker may. */
  readonly scopes?: ReadonlyArray<Scope> | undefined
  /** Of calls of models, beside the tenant's own. */
  readonly limits?: KeyLimits | undefined
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
    ) => Effect.Effect<MadeApiKey, Forbidden | InvalidRequest | DependencyUnavailable, TenantDb>
    /** The tenant's keys for an admin, a member's own for a member. */
    readonly list: (
      viewer: UserPrincipal,
      page: PageRequest
    ) => Effect.Effect<Page<ApiKey>, DependencyUnavailable, TenantDb>
    /**
     * Ends a key: any of the tenant's for an admin, one's own for a member, else `NotFound`. Refused everywhere within
     * a second.
     */
    readonly revoke: (
      actor: UserPrincipal,
      id: ApiKeyId
    ) => Effect.Effect<void, NotFound | DependencyUnavailable, TenantDb>
    /**
     * Makes a key to follow another: of the same owner, name, scopes, limits and expiry. The old one works on for `overlap`
     * (none by default, `MAX_OVERLAP` at most), but no longer than it would have. `NotFound` as for `revoke`; `Conflict` for a
     * key that has expired or was rotated before; `Forbidden` beyond the actor's own scopes.
     */
    readonly rotate: (
      actor: UserPrincipal,
      id: ApiKeyId,
      overlap?: Duration.Duration
    ) => Effect.Effect<MadeApiKey, Forbidden | NotFound | Conflict | DependencyUnavailable, TenantDb>
    /** Who a presented key speaks for: one indexed read in the table of the tenant it names; the secret by its hash. */
    readonly verify: (
      key: ParsedApiKey
    ) => Effect.Effect<Option.Option<ApiKeyPrincipal>, DependencyUnavailable>
    /** Who a key speaks for as long as it works: for what was made with it, without its secret. */
    readonly find: (
      key: Pick<ParsedApiKey, "tenantId" | "keyId">
    ) => Effect.Effect<Option.Option<ApiKeyPrincipal>, DependencyUnavailable>
  }
>()("agent-army/services/ApiKeys") {
  static readonly layer = (options: { readonly environment: Environment }) =>
    Layer.effect(
      ApiKeys,
      Effect.gen(function* () {
        const random = yield* SecureRandom.SecureRandom
        const tenants = yield* Tenants
        const audit = yield* AuditLog
        const pool = yield* TenantPool

        const lastUses = yield* makeLastUses(
          Effect.fnUntraced(function* (tenantId, uses) {
            const tenant = yield* tenants.find(tenantId)
            // A tenant that is no more has no keys to write of.
            if (Option.isNone(tenant)) return
            yield* tenantDb(pool, { id: tenant.value.id, schema: tenant.value.schema_name })
              .query(
                // The ids once more, since the planner can't guess how many rows a JSON has, and would read the table.
                (sql, table) => sql`UPDATE ${table("api_keys")} k SET last_used_at = u.at
                  FROM jsonb_to_recordset(${PgTypes.jsonb(rowsOfUses(uses))}) AS u(id uuid, at timestamptz)
                  WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
                    AND k.id = ANY(${[...uses.keys()]}::uuid[])`
              )
              .pipe(orUnavailable)
          })
        )

        /** Makes a key, inside the transaction of the act. */
        const insert = Effect.fnUntraced(function* (
          tenantId: TenantId,
          fields: {
            readonly userId: UserId
            readonly name: string
            readonly scopes: ReadonlyArray<Scope>
            readonly limits: KeyLimits
            readonly expiresAt: DateTime.Utc | null
          }
        ) {
          const id = ApiKeyId.make(yield* random.uuidV7())
          const secret = yield* newKeySecret(random)
          const db = yield* TenantDb
          const [row] = yield* db.query(
            (sql, table) =>
              sql`INSERT INTO ${table("api_keys")} ${sql.insert({
                id,
                user_id: fields.userId,
                name: fields.name,
                key_hash: hashOfSecret(secret),
                prefix: prefixOf(options.environment, id),
                scopes: [...fields.scopes],
                limits: PgTypes.jsonb(fields.limits),
                expires_at: PgTypes.timestamptz(
                  fields.expiresAt === null ? null : DateTime.toDate(fields.expiresAt)
                )
              })} RETURNING ${sql.literal(columns)}`
          )
          const made: MadeApiKey = {
            apiKey: new ApiKey(yield* Effect.orDie(decodeRow(row))),
            key: formatApiKey(options.environment, id, tenantId, secret)
          }
          return made
        })

        /** Which keys somebody may end, as a condition. */
        const owned = (sql: Statement.Constructor, actor: UserPrincipal) =>
          actor.role === "admin" ? sql`true` : sql`user_id = ${actor.userId}`

        const read = Effect.fn("ApiKeys.read")(function* (place: string) {
          const [tenantId = "", keyId = ""] = place.split("/")
          const tenant = yield* tenants.find(tenantId)
          if (Option.isNone(tenant)) return Option.none()
          const db = tenantDb(pool, { id: tenant.value.id, schema: tenant.value.schema_name })
          const [row] = yield* db
            .query(
              // A subquery and not a join: it is one look into an index for each row found, whatever the planner thinks.
              (sql, table) => sql`SELECT k.key_hash, k.scopes, k.limits, k.expires_at,
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

        const working = Effect.fnUntraced(function* ({
          keyId,
          tenantId
        }: Pick<ParsedApiKey, "tenantId" | "keyId">) {
          const found = yield* Cache.get(remembered, placeOf(tenantId, keyId))
          const now = yield* DateTime.now
          return Option.filter(
            found,
            ({ expires_at }) => expires_at === null || DateTime.isGreaterThan(expires_at, now)
          )
        })

        const principalOf = (
          {
            limits,
            scopes,
            tenant
          }: {
            readonly limits: KeyLimits
            readonly scopes: ReadonlyArray<Scope>
            readonly tenant: Tenant
          },
          keyId: ApiKeyId
        ) => new ApiKeyPrincipal({ tenantId: tenant.id, tenantSlug: tenant.slug, keyId, scopes, limits })

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
            const db = yield* TenantDb
            return yield* db
              .transaction(() =>
                Effect.gen(function* () {
                  const made = yield* insert(maker.tenantId, {
                    userId: maker.userId,
                    name: request.name,
                    scopes,
                    limits: request.limits ?? {},
                    expiresAt: request.expiresAt ?? null
                  })
                  yield* audit.record({
                    action: "api_key.created",
                    target: { type: "api_key", id: made.apiKey.id },
                    details: { name: request.name, scopes, limits: request.limits ?? {} }
                  })
                  return made
                })
              )
              .pipe(orUnavailable)
          }),
          revoke: Effect.fn("ApiKeys.revoke")(function* (actor, id) {
            const db = yield* TenantDb
            yield* db
              .transaction((sql, table) =>
                Effect.gen(function* () {
                  const [row] = yield* sql<{ name: string }>`UPDATE ${table("api_keys")}
                    SET is_active = false, revoked_at = now()
                    WHERE id = ${id} AND is_active AND ${owned(sql, actor)} RETURNING name`
                  if (row === undefined) return yield* new NotFound({ detail: "No such API key" })
                  yield* audit.record({
                    action: "api_key.revoked",
                    target: { type: "api_key", id },
                    details: { name: row.name }
                  })
                })
              )
              .pipe(orUnavailable)
            yield* Cache.invalidate(remembered, placeOf(actor.tenantId, id))
          }),
          rotate: Effect.fn("ApiKeys.rotate")(function* (actor, id, overlap = Duration.zero) {
            const seconds = Math.floor(Duration.toSeconds(Duration.min(overlap, MAX_OVERLAP)))
            const db = yield* TenantDb
            const made = yield* db
              .transaction((sql, table) =>
                Effect.gen(function* () {
                  // Locked: of two rotations at once, the second finds the key rotated.
                  const [row] = yield* sql`SELECT ${sql.literal(columns)}, user_id,
                      coalesce(expires_at <= now(), false) AS expired
                    FROM ${table("api_keys")} WHERE id = ${id} AND is_active AND ${owned(sql, actor)} FOR UPDATE`
                  if (row === undefined) return yield* new NotFound({ detail: "No such API key" })
                  const old = yield* Effect.orDie(decodeRotated(row))
                  if (old.rotated_to !== null) {
                    return yield* new Conflict({ detail: "This key has been rotated already" })
                  }
                  if (old.expired) return yield* new Conflict({ detail: "This key has expired" })
                  const own = scopesOfRole[actor.role]
                  const beyond = old.scopes.filter((scope) => !allows(own, scope))
                  if (beyond.length > 0) {
                    return yield* new Forbidden({ detail: `Your role does not have ${beyond.join(", ")}` })
                  }
                  const made = yield* insert(actor.tenantId, {
                    userId: old.user_id,
                    name: old.name,
                    scopes: old.scopes,
                    limits: old.limits,
                    expiresAt: old.expires_at
                  })
                  yield* seconds === 0
                    ? sql`UPDATE ${table("api_keys")}
                        SET rotated_to = ${made.apiKey.id}, is_active = false, revoked_at = now() WHERE id = ${id}`
                    : sql`UPDATE ${table("api_keys")} SET rotated_to = ${made.apiKey.id},
                        expires_at = least(expires_at, now() + make_interval(secs => ${seconds})) WHERE id = ${id}`
                  yield* audit.record({
                    action: "api_key.rotated",
                    target: { type: "api_key", id },
                    details: { name: old.name, rotated_to: made.apiKey.id, overlap_seconds: seconds }
                  })
                  return made
                })
              )
              .pipe(orUnavailable)
            yield* Cache.invalidate(remembered, placeOf(actor.tenantId, id))
            return made
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
                return sql`SELECT ${sql.literal(columns)}
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
            const found = yield* working(key)
            if (Option.isNone(found)) return Option.none()
            const { key_hash, tenant } = found.value
            if (!timingSafeEqual(hashOfSecret(key.secret), key_hash)) return Option.none()
            yield* lastUses.note(tenant.id, key.keyId)
            return Option.some(principalOf(found.value, key.keyId))
          }),
          find: (key) =>
            Effect.map(
              working(key),
              Option.map((found) => principalOf(found, key.keyId))
            )
        })
      })
    )
}
