import type { PgProtocol } from "@effect/sql-pg"
import { Effect } from "effect"
import { SqlError } from "effect/sql"
import { DependencyUnavailable } from "../domain/Problems.ts"

/** What a statement fails with: the database is away, or the statement itself was refused. */
export type DbError = SqlError.SqlError | DependencyUnavailable

export const unavailable = () => new DependencyUnavailable({ detail: "The database is unavailable" })

/** What Postgres reported, as the driver would tell it: by the SQLSTATE's class (PostgreSQL manual, appendix A). */
export const sqlErrorOf = (fields: PgProtocol.ErrorFields): SqlError.SqlError => {
  const { code = "" } = fields
  const props = {
    cause: Object.assign(new Error(fields.message ?? "Unknown PostgreSQL error"), fields),
    message: "The query failed",
    operation: "query"
  }
  const reason = () => {
    if (code === "42501") return new SqlError.AuthorizationError(props)
    if (code === "23505") {
      return new SqlError.UniqueViolation({ ...props, constraint: fields.constraint ?? "unknown" })
    }
    if (code === "40P01") return new SqlError.DeadlockError(props)
    if (code === "40001") return new SqlError.SerializationError(props)
    if (code === "55P03") return new SqlError.LockTimeoutError(props)
    if (code === "57014") return new SqlError.StatementTimeoutError(props)
    if (code.startsWith("08")) return new SqlError.ConnectionError(props)
    if (code.startsWith("23")) return new SqlError.ConstraintError(props)
    if (code.startsWith("28")) return new SqlError.AuthenticationError(props)
    if (code.startsWith("42")) return new SqlError.SqlSyntaxError(props)
    return new SqlError.UnknownError(props)
  }
  return new SqlError.SqlError({ reason: reason() })
}

/** The SQLSTATE of an error that Postgres reported. */
export const sqlStateOf = (error: SqlError.SqlError): string | undefined => {
  const cause: unknown = error.reason.cause
  return typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined
}

/**
 * Postgres would not let this session take on a role. With the membership granted, it is the session that is wrong: it
 * makes a list of its memberships when it first needs one after a change to any, and a grant that is committed while
 * it makes that list is missing from it until the next change (`roles_is_member_of` in acl.c, all versions to date).
 */
export const isRoleRefused = (error: SqlError.SqlError): boolean => sqlStateOf(error) === "42501"

/** What Postgres said, or the system below it: the driver's own words are the same for every failed query. */
export const sqlMessageOf = (error: SqlError.SqlError): string => {
  const cause: unknown = error.reason.cause
  return cause instanceof Error ? cause.message : error.message
}

/** Trouble of the connection or the server is the dependency's; every other error is the statement's, and stays. */
export const classify = (error: SqlError.SqlError): DbError => {
  switch (error.reason._tag) {
    case "ConnectionError":
    case "AuthenticationError":
    case "StatementTimeoutError":
    case "LockTimeoutError":
      return unavailable()
    case "UnknownError": {
      // 53: out of connections, memory, disk. 57P: shutting down, or not up yet.
      const state = sqlStateOf(error)
      return state?.startsWith("53") === true || state?.startsWith("57P") === true ? unavailable() : error
    }
    default:
      return error
  }
}

/** For callers that expect no error of a statement's: what is not the database being away is a defect. */
export const orUnavailable = <A, E, R>(
  effect: Effect.Effect<A, E | SqlError.SqlError, R>
): Effect.Effect<A, E, R> => Effect.catchIf(effect, SqlError.isSqlError, Effect.die)
