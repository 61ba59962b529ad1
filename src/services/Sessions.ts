import { PgTypes } from "@effect/sql-pg"
import { Context, DateTime, Effect, Layer, Option, Redacted } from "effect"
import type { Duration } from "effect"
import { SecureRandom } from "effect/crypto"
import { createHash } from "node:crypto"
import { InvalidCredentials, TenantSuspended } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { Passwords } from "./Passwords.ts"
import { TenantDb, tenantDb } from "./TenantDb.ts"
import { orUnavailable } from "./DbErrors.ts"
import { TenantPool } from "./TenantPool.ts"
import { Tenants } from "./Tenants.ts"
import { Tokens } from "./Tokens.ts"
import { Users } from "./Users.ts"

/** Bytes of a refresh token. It is opaque (RFC 6749, 1.5) and stored as a hash. */
const REFRESH_BYTES = 32

export interface SignIn {
  /** What the `X-Tenant-ID` header names: an id or a slug, existing or not. */
  readonly tenant: string
  readonly email: string
  readonly password: Redacted.Redacted<string>
}

export interface TokenPair {
  readonly accessToken: Redacted.Redacted<string>
  readonly refreshToken: Redacted.Redacted<string>
  readonly expiresIn: Duration.Duration
}

/** Sessions of users: a sign-in makes one, its tokens belong to it. */
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
        const pool = yield* TenantPool
        const random = yield* SecureRandom.SecureRandom

        const signIn = Effect.fn("Sessions.signIn")(function* (request: SignIn) {
          const tenant = Option.getOrUndefined(yield* tenants.find(request.tenant))
          const db =
            tenant === undefined ? undefined : tenantDb(pool, { id: tenant.id, schema: tenant.schema_name })
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

          const sessionId = yield* random.uuidV7()
          const refreshToken = Redacted.make(
            `aa_rt_${Buffer.from(yield* random.randomBytes(REFRESH_BYTES)).toString("base64url")}`
          )
          const expiresAt = DateTime.addDuration(yield* DateTime.now, options.refreshLifetime)
          yield* db
            .query(
              (sql, table) =>
                sql`INSERT INTO ${table("sessions")} ${sql.insert({
                  id: sessionId,
                  user_id: user.id,
                  refresh_hash: createHash("sha256").update(Redacted.value(refreshToken)).digest(),
                  expires_at: PgTypes.timestamptz(DateTime.toDate(expiresAt))
                })}`
            )
            .pipe(orUnavailable)
          const accessToken = yield* tokens.issue({
            sub: user.id,
            tenant_id: tenant.id,
            tenant_slug: tenant.slug,
            email: user.email,
            role: user.role,
            sid: sessionId
          })
          return { accessToken, refreshToken, expiresIn: tokens.lifetime }
        })

        return Sessions.of({ signIn })
      })
    )
}
