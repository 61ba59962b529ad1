import { PgClient } from "@effect/sql-pg"
import { Duration, Effect, Redacted } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql"
import * as Reactivity from "effect/reactivity/Reactivity"

/** The passwords of the three logins. */
export interface DatabasePasswords {
  readonly app: Redacted.Redacted<string>
  readonly migrator: Redacted.Redacted<string>
  readonly backup: Redacted.Redacted<string>
}

/** Who may log in, and with which attributes: the least that each needs. */
const roles = {
  // Owns schemas, tables and functions. Nobody logs in as it; only the migrator may become it.
  aa_owner: "NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
  // Provisions and migrates: makes roles, and becomes the owner for the rest.
  aa_migrator: "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS",
  // Serves requests: owns nothing, inherits nothing, can only take on a tenant's role.
  aa_app: "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS",
  // Dumps, reading only.
  aa_backup: "LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS"
} as const

/** A client for the few statements of a superuser, closed with its scope. */
export const superuserClient = (
  url: Redacted.Redacted<string>
): Effect.Effect<SqlClient.SqlClient, SqlError.SqlError, Scope.Scope> =>
  PgClient.make({
    url,
    maxConnections: 1,
    connectTimeout: Duration.seconds(5),
    applicationName: "agent-army-setup"
  }).pipe(Effect.provideServiceEffect(Reactivity.Reactivity, Reactivity.make))

/** A string as a literal of SQL: utility statements (`CREATE ROLE … PASSWORD`) take no parameters. */
const quoteLiteral = (value: string): string => `'${value.replaceAll("'", "''")}'`

/**
 * Makes the platform's roles in a cluster, or mends them: attributes and passwords end as given. One call at a
 * time per cluster, by advisory lock.
 */
export const ensureRoles = Effect.fn("ensureRoles")(function* (
  sql: SqlClient.SqlClient,
  passwords: DatabasePasswords
) {
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army roles'))`
      const existing = yield* sql<{
        rolname: string
      }>`SELECT rolname FROM pg_roles WHERE rolname LIKE 'aa\\_%'`
      const names = new Set(existing.map((row) => row.rolname))
      for (const [name, attributes] of Object.entries(roles)) {
        const verb = names.has(name) ? "ALTER" : "CREATE"
        yield* sql.unsafe(`${verb} ROLE ${name} ${attributes}`)
      }
      const password = (name: string, value: Redacted.Redacted<string>) =>
        sql.unsafe(`ALTER ROLE ${name} PASSWORD ${quoteLiteral(Redacted.value(value))}`)
      yield* password("aa_app", passwords.app)
      yield* password("aa_migrator", passwords.migrator)
      yield* password("aa_backup", passwords.backup)
      yield* sql`GRANT aa_owner TO aa_migrator WITH INHERIT FALSE, SET TRUE`
    })
  )
})

/** Takes from PUBLIC what a new database gives it, and lets in only the platform's logins. Run inside that database. */
export const hardenDatabase = Effect.fn("hardenDatabase")(function* (sql: SqlClient.SqlClient, name: string) {
  const database = sql(name)
  yield* sql.withTransaction(
    Effect.gen(function* () {
      yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army roles'))`
      yield* sql`REVOKE ALL ON DATABASE ${database} FROM PUBLIC`
      yield* sql`GRANT CONNECT ON DATABASE ${database} TO aa_app, aa_migrator, aa_backup`
      yield* sql`GRANT CREATE ON DATABASE ${database} TO aa_owner`
      yield* sql`REVOKE ALL ON SCHEMA public FROM PUBLIC`
      // A tenant's role sets nothing: what a query of its sets for the session, the next tenant on the connection would
      // meet (an encoding that garbles its texts, a time limit of a millisecond). The entrance is set before the role.
      yield* sql`REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC`
      yield* sql`GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean)
        TO aa_app, aa_migrator, aa_owner`
    })
  )
})
