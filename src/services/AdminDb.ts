import { PgClient } from "@effect/sql-pg"
import { Context, Duration, Effect, Layer } from "effect"
import type { Redacted } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import { Claims } from "./Claims.ts"
import type { ClaimSubject } from "./Claims.ts"
import { classify } from "./DbErrors.ts"
import type { DbError } from "./DbErrors.ts"

/** A provisioning or migrating statement that waits longer for a lock gives up, so that tenants don't wait behind it. */
const LOCK_TIMEOUT = Duration.seconds(5)
/** The control plane's load is light. A run over all tenants asks for more. */
const CONNECTIONS = 3

/**
 * The migrator's login: makes roles, schemas and tables, and writes the registry. The tables belong to
 * `aa_owner`, whose role a transaction takes on with `become`; forced row security binds that role as well, so
 * that even here a row is seen and written only under its claim.
 *
 * Only the control plane names this service; no request of a tenant reaches it.
 */
export class AdminDb extends Context.Service<
  AdminDb,
  {
    readonly sql: SqlClient.SqlClient
    /** Takes on the owner's role and a claim, from here to the end of the transaction. */
    readonly become: (subject: ClaimSubject) => Effect.Effect<void, SqlError.SqlError>
    /** Goes back to the migrator's own role, which alone may make roles. */
    readonly resign: Effect.Effect<void, SqlError.SqlError>
    /** One transaction, from `BEGIN` to `COMMIT`, or nothing. */
    readonly transaction: <A, E, R>(use: Effect.Effect<A, E, R>) => Effect.Effect<A, E | DbError, R>
  }
>()("agent-army/services/AdminDb") {
  static readonly layer = (options: {
    readonly url: Redacted.Redacted<string>
    readonly connections?: number
  }) =>
    Layer.effect(
      AdminDb,
      Effect.gen(function* () {
        const claims = yield* Claims
        const sql = yield* SqlClient.SqlClient
        return AdminDb.of({
          sql,
          become: (subject) =>
            Effect.flatMap(
              claims.sign(subject),
              (claim) =>
                sql`SELECT set_config('role', 'aa_owner', true), set_config('app.claim', ${claim}, true)`
            ),
          resign: Effect.asVoid(sql`SELECT set_config('role', 'none', true)`),
          transaction: (use) =>
            sql
              .withTransaction(use)
              .pipe(Effect.mapError((error) => (SqlError.isSqlError(error) ? classify(error) : error)))
        })
      })
    ).pipe(
      Layer.provide(
        PgClient.layer({
          url: options.url,
          maxConnections: options.connections ?? CONNECTIONS,
          connectTimeout: Duration.seconds(3),
          idleTimeout: Duration.seconds(30),
          applicationName: "agent-army-admin",
          startupParameters: { timezone: "UTC", lock_timeout: String(Duration.toMillis(LOCK_TIMEOUT)) }
        })
      )
    )
}
