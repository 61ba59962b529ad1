import { PgTypes } from "@effect/sql-pg"
import { Cache, Context, DateTime, Duration, Effect, Exit, Layer, Option, Redacted, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import type { Statement } from "effect/sql"
import { hash, timingSafeEqual } from "node:crypto"
import type { Actor } from "../domain/Actor.ts"
import { whyRefused } from "../domain/PasswordRule.ts"
import { Role, SessionId, UserId, UserPrincipal } from "../domain/Principal.ts"
import {
  CrossTenantAccess,
  InvalidCredentials,
  InvalidRequest,
  TenantSuspended,
  Unauthenticated
} from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { formatRefreshToken, parseRefreshToken } from "../domain/RefreshToken.ts"
import type { RefreshToken } from "../domain/RefreshToken.ts"
import type { Tenant } from "../domain/Tenant.ts"
import { namesOf } from "../domain/User.ts"
import { AuditLog } from "./AuditLog.ts"
import { orUnavailable } from "./DbErrors.ts"
import { Passwords } from "./Passwords.ts"
import { TenantDb, tenantDb } from "./TenantDb.ts"
import type { TenantTable } from "./TenantDb.ts"
import { TenantPool } from "./TenantPool.ts"
import { Tenants } from "./Tenants.ts"
import { Tokens } from "./Tokens.ts"
import type { AccessSubject } from "./Tokens.ts"
import { Users } from "./Users.ts"

/** Random bytes of a refresh token's family, and of its secret. It is opaque (RFC 6749, 1.5) and stored as hashes. */
const SECRET_BYTES = 32
/** How long an instance may believe what it read of a session: one that ended is refused everywhere within a second. */
const REMEMBERED = Duration.millis(500)
const REMEMBERED_SESSIONS = 50_000
/** A client that lost the answer to a refresh may ask again with the same token for this long. */
const GRACE_SECONDS = 10
/** Answers that one token may get within the grace. More is no client that lost one. */
const MAX_SUCCESSORS = 16
/** However often it is refreshed, a session ends after this, or REFRESH_TOKEN_TTL if longer (NIST SP 800-63B, 4.1.3). */
const MAX_AGE_SECONDS = 30 * 24 * 3600
/** Expired sessions that a sign-in removes in passing. */
const REMOVED_IN_PASSING = 20

const SessionUser = Schema.Struct({ id: UserId, email: Schema.String, role: Role })
const RefreshedRow = Schema.Struct({
  ...SessionUser.fields,
  family_hash: Schema.String,
  refresh_hashes: Schema.Array(Schema.String),
  previous_hash: Schema.NullOr(Schema.String),
  within_grace: Schema.Boolean
})

const decodeUser = Schema.decodeUnknownEffect(SessionUser)
const decodeRefreshed = Schema.decodeUnknownEffect(RefreshedRow)

const hashOf = (secret: Redacted.Redacted<string>): string => hash("sha256", Redacted.value(secret), "hex")

const same = (stored: string | null, presented: string): boolean =>
  stored !== null &&
  stored.length === presented.length &&
  timingSafeEqual(Buffer.from(stored), Buffer.from(presented))

const actorOf = (user: { readonly id: string; readonly email: string }): Actor => ({
  type: "user",
  id: user.id,
  name: user.email
})

const sessionTarget = (id: string) => ({ type: "session", id })

export interface SignIn {
  /** What the `X-Tenant-ID` header names: an id or a slug, existing or not. */
  readonly tenant: string
  readonly email: string
  readonly password: Redacted.Redacted<string>
}

export interface Refresh {
  readonly refreshToken: Redacted.Redacted<string>
  /** What the `X-Tenant-ID` header names, if there is one: it has to be the token's tenant. */
  readonly tenant: string | undefined
}

export interface ChangePassword {
  readonly current: Redacted.Redacted<string>
  readonly next: Redacted.Redacted<string>
}

export interface TokenPair {
  readonly accessToken: Redacted.Redacted<string>
  readonly refreshToken: Redacted.Redacted<string>
  readonly expiresIn: Duration.Duration
}

/** Sessions of users: a sign-in makes one, its tokens belong to it, and end with it. */
export class Sessions extends Context.Service<
  Sessions,
  {
    /**
     * Signs a user in. A wrong tenant, address or password fails with the same `InvalidCredentials` after the same
     * work: one look-up, one password hash. `TenantSuspended` is only for those who know the password.
     */
    readonly signIn: (
      request: SignIn
    ) => Effect.Effect<TokenPair, InvalidCredentials | TenantSuspended | DependencyUnavailable>
    /**
     * Gives a new pair for a refresh token, which is spent with that. A spent one that comes again ends the session
     * (RFC 9700, 4.14.2), unless it comes within ten seconds and no successor has been used. Whatever is wrong with a
     * token, the answer is `Unauthenticated`; of the tenant only who holds a token hears.
     */
    readonly refresh: (
      request: Refresh
    ) => Effect.Effect<
      TokenPair,
      Unauthenticated | CrossTenantAccess | TenantSuspended | DependencyUnavailable
    >
    /** Ends the session. One that has ended already is no error. */
    readonly end: (user: UserPrincipal) => Effect.Effect<void, DependencyUnavailable, TenantDb>
    /**
     * Gives the user another password, and ends all their other sessions. `InvalidCredentials` where the current
     * one is wrong, `InvalidRequest` where the new one is too easily guessed.
     */
    readonly changePassword: (
      user: UserPrincipal,
      change: ChangePassword
    ) => Effect.Effect<void, InvalidCredentials | InvalidRequest | DependencyUnavailable, TenantDb>
    /**
     * Who an access token speaks for now: none when its session has ended, or its user is gone or not active. Address and role are
     * the user's, whatever the token says. Remembered for half a second.
     */
    readonly verify: (
      claims: Pick<AccessSubject, "sub" | "tenant_id" | "sid">
    ) => Effect.Effect<Option.Option<UserPrincipal>, DependencyUnavailable>
  }
>()("agent-army/services/Sessions") {
  static readonly layer = (options: { readonly refreshLifetime: Duration.Duration }) =>
    Layer.effect(
      Sessions,
      Effect.gen(function* () {
        const tenants = yield* Tenants
        const users = yield* Users
        const passwords = yield* Passwords
        const tokens = yield* Tokens
        const audit = yield* AuditLog
        const pool = yield* TenantPool
        const random = yield* SecureRandom.SecureRandom
        const lifetimeSeconds = Duration.toSeconds(options.refreshLifetime)
        const maxAgeSeconds = Math.max(lifetimeSeconds, MAX_AGE_SECONDS)

        const dbOf = (tenant: Tenant) => tenantDb(pool, { id: tenant.id, schema: tenant.schema_name })

        const newSecret = Effect.map(random.randomBytes(SECRET_BYTES), (bytes) =>
          Redacted.make(Buffer.from(bytes).toString("base64url"))
        )

        const pairOf = Effect.fnUntraced(function* (
          tenant: Tenant,
          user: typeof SessionUser.Type,
          token: RefreshToken
        ) {
          const accessToken = yield* tokens.issue({
            sub: user.id,
            tenant_id: tenant.id,
            tenant_slug: tenant.slug,
            email: user.email,
            role: user.role,
            sid: token.sessionId
          })
          return { accessToken, refreshToken: formatRefreshToken(token), expiresIn: tokens.lifetime }
        })

        const removeExpired = (sql: Statement.Constructor, table: TenantTable) =>
          sql`DELETE FROM ${table("sessions")} WHERE id IN (
            SELECT id FROM ${table("sessions")} WHERE expires_at < now()
            ORDER BY expires_at LIMIT ${REMOVED_IN_PASSING} FOR UPDATE SKIP LOCKED)`

        const signIn = Effect.fn("Sessions.signIn")(function* (request: SignIn) {
          const tenant = Option.getOrUndefined(yield* tenants.find(request.tenant))
          const db = tenant === undefined ? undefined : dbOf(tenant)
          const user =
            db === undefined
              ? undefined
              : Option.getOrUndefined(
                  yield* users.findForSignIn(request.email).pipe(Effect.provideService(TenantDb, db))
                )
          const right = yield* user === undefined
            ? passwords.verifyNothing(request.password)
            : passwords.verify(request.password, user.hashed_password)
          if (!right || tenant === undefined || db === undefined || user === undefined) {
            return yield* new InvalidCredentials({})
          }
          if (tenant.status !== "active") return yield* new TenantSuspended({})

          const token: RefreshToken = {
            sessionId: SessionId.make(yield* random.uuidV7()),
            tenantId: tenant.id,
            family: yield* newSecret,
            secret: yield* newSecret
          }
          const expiresAt = DateTime.addDuration(yield* DateTime.now, options.refreshLifetime)
          yield* db
            .transaction(
              Effect.fnUntraced(function* (sql, table) {
                // Locked, so that a password changed or a user deactivated meanwhile leaves no session behind.
                const still = yield* sql`SELECT 1 FROM ${table("users")}
                  WHERE id = ${user.id} AND is_active AND hashed_password = ${user.hashed_password} FOR SHARE`
                if (still.length === 0) return yield* new InvalidCredentials({})
                yield* removeExpired(sql, table)
                yield* sql`INSERT INTO ${table("sessions")} ${sql.insert({
                  id: token.sessionId,
                  user_id: user.id,
                  family_hash: hashOf(token.family),
                  refresh_hashes: [hashOf(token.secret)],
                  expires_at: PgTypes.timestamptz(DateTime.toDate(expiresAt))
                })}`
                yield* audit.recordAs(actorOf(user), {
                  action: "session.created",
                  target: sessionTarget(token.sessionId)
                })
              })
            )
            .pipe(Effect.provideService(TenantDb, db), orUnavailable)
          return yield* pairOf(tenant, user, token)
        })

        /** What becomes of a presented token: decided, and done, while its session's row is locked. */
        const rotate = Effect.fnUntraced(function* (
          tenant: Tenant,
          named: string | undefined,
          presented: RefreshToken,
          secret: Redacted.Redacted<string>
        ) {
          const db = dbOf(tenant)
          const { sessionId } = presented
          return yield* db
            .transaction(
              Effect.fnUntraced(function* (sql, table) {
                const [row] = yield* sql`SELECT s.family_hash, s.refresh_hashes, s.previous_hash,
                    coalesce(s.rotated_at > clock_timestamp() - make_interval(secs => ${GRACE_SECONDS}::int), false)
                      AS within_grace,
                    u.id, u.email, u.role
                  FROM ${table("sessions")} s JOIN ${table("users")} u ON u.id = s.user_id
                  WHERE s.id = ${sessionId} AND s.expires_at > now() AND u.is_active FOR UPDATE OF s`
                if (row === undefined) return { _tag: "Refused" } as const
                const session = yield* Effect.orDie(decodeRefreshed(row))
                if (!same(session.family_hash, hashOf(presented.family))) return { _tag: "Refused" } as const
                if (named !== undefined && named !== tenant.slug && named.toLowerCase() !== tenant.id) {
                  return { _tag: "OtherTenant" } as const
                }
                if (tenant.status !== "active") return { _tag: "Suspended" } as const

                const spent = hashOf(presented.secret)
                const successor = hashOf(secret)
                if (session.refresh_hashes.some((stored) => same(stored, spent))) {
                  yield* sql`UPDATE ${table("sessions")}
                    SET refresh_hashes = ${[successor]}, previous_hash = ${spent}, rotated_at = clock_timestamp(),
                      expires_at = least(now() + make_interval(secs => ${lifetimeSeconds}::float8),
                        created_at + make_interval(secs => ${maxAgeSeconds}::float8))
                    WHERE id = ${sessionId}`
                  return { _tag: "Rotated", user: session } as const
                }
                if (
                  session.within_grace &&
                  same(session.previous_hash, spent) &&
                  session.refresh_hashes.length < MAX_SUCCESSORS
                ) {
                  // All of them are good until one is used: nobody knows which answer arrived.
                  yield* sql`UPDATE ${table("sessions")}
                    SET refresh_hashes = ${[...session.refresh_hashes, successor]} WHERE id = ${sessionId}`
                  return { _tag: "Rotated", user: session } as const
                }
                yield* sql`DELETE FROM ${table("sessions")} WHERE id = ${sessionId}`
                yield* audit.recordAs(actorOf(session), {
                  action: "session.revoked",
                  target: sessionTarget(sessionId),
                  details: { reason: "a spent refresh token was used again" }
                })
                return { _tag: "Refused" } as const
              })
            )
            .pipe(Effect.provideService(TenantDb, db), orUnavailable)
        })

        const refresh = Effect.fn("Sessions.refresh")(function* (request: Refresh) {
          const presented = parseRefreshToken(request.refreshToken)
          if (Option.isNone(presented)) return yield* new Unauthenticated({})
          const tenant = yield* tenants.find(presented.value.tenantId)
          if (Option.isNone(tenant)) return yield* new Unauthenticated({})
          const secret = yield* newSecret
          const outcome = yield* rotate(tenant.value, request.tenant, presented.value, secret)
          switch (outcome._tag) {
            case "Refused":
              return yield* new Unauthenticated({})
            case "OtherTenant":
              return yield* new CrossTenantAccess({})
            case "Suspended":
              return yield* new TenantSuspended({})
            case "Rotated":
              return yield* pairOf(tenant.value, outcome.user, { ...presented.value, secret })
          }
        })

        const read = Effect.fn("Sessions.read")(function* (place: string) {
          const [tenantId = "", sessionId = ""] = place.split("/")
          const tenant = yield* tenants.find(tenantId)
          if (Option.isNone(tenant)) return Option.none()
          const [row] = yield* dbOf(tenant.value)
            .query(
              (sql, table) => sql`SELECT u.id, u.email, u.role FROM ${table("users")} u
                WHERE u.is_active AND u.id = (
                  SELECT s.user_id FROM ${table("sessions")} s WHERE s.id = ${sessionId} AND s.expires_at > now())`
            )
            .pipe(orUnavailable)
          if (row === undefined) return Option.none()
          const user = yield* Effect.orDie(decodeUser(row))
          return Option.some(
            new UserPrincipal({
              tenantId: tenant.value.id,
              tenantSlug: tenant.value.slug,
              userId: user.id,
              email: user.email,
              role: user.role,
              sessionId
            })
          )
        })
        const remembered = yield* Cache.makeWith(read, {
          capacity: REMEMBERED_SESSIONS,
          timeToLive: (exit) =>
            Exit.isSuccess(exit) && Option.isSome(exit.value) ? REMEMBERED : Duration.zero
        })

        return Sessions.of({
          signIn,
          refresh,
          end: Effect.fn("Sessions.end")(function* (user) {
            const db = yield* TenantDb
            yield* db
              .transaction(
                Effect.fnUntraced(function* (sql, table) {
                  const ended = yield* sql`DELETE FROM ${table("sessions")}
                    WHERE id = ${user.sessionId} RETURNING id`
                  if (ended.length === 0) return
                  yield* audit.record({ action: "session.ended", target: sessionTarget(user.sessionId) })
                })
              )
              .pipe(orUnavailable)
            yield* Cache.invalidate(remembered, `${user.tenantId}/${user.sessionId}`)
          }),
          changePassword: Effect.fn("Sessions.changePassword")(function* (user, { current, next }) {
            const refused = whyRefused(Redacted.value(next), namesOf(user.tenantSlug, user.email))
            if (refused !== undefined) {
              return yield* new InvalidRequest({
                detail: "The body is invalid",
                errors: [{ path: ["new_password"], message: refused }]
              })
            }
            const stored = yield* users.findForSignIn(user.email)
            if (Option.isNone(stored) || !(yield* passwords.verify(current, stored.value.hashed_password))) {
              return yield* new InvalidCredentials({})
            }
            const hashed = yield* passwords.hash(next)
            const db = yield* TenantDb
            yield* db
              .transaction(
                Effect.fnUntraced(function* (sql, table) {
                  // Of two changes at once, the second no longer has the current password.
                  const changed = yield* sql`UPDATE ${table("users")}
                    SET hashed_password = ${hashed}, updated_at = now()
                    WHERE id = ${user.userId} AND is_active AND hashed_password = ${stored.value.hashed_password}
                    RETURNING id`
                  if (changed.length === 0) return yield* new InvalidCredentials({})
                  yield* sql`DELETE FROM ${table("sessions")}
                    WHERE user_id = ${user.userId} AND id <> ${user.sessionId}`
                  yield* audit.record({
                    action: "password.changed",
                    target: { type: "user", id: user.userId }
                  })
                })
              )
              .pipe(orUnavailable)
          }),
          verify: Effect.fnUntraced(function* ({ sid, sub, tenant_id }) {
            const found = yield* Cache.get(remembered, `${tenant_id}/${sid}`)
            return Option.filter(found, (user) => user.userId === sub)
          })
        })
      })
    )
}
