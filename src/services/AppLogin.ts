import { Effect, Schema } from "effect"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { PlatformDb } from "./PlatformDb.ts"
import { orUnavailable } from "./DbErrors.ts"

/** The app's database login could get around a wall. The message says which privilege is too much. */
export class UnsafeLogin extends Schema.TaggedError<UnsafeLogin>()("UnsafeLogin", {
  message: Schema.String
}) {}

const Finding = Schema.Struct({ login: Schema.String, too_much: Schema.Array(Schema.String) })
const decode = Schema.decodeUnknownEffect(Finding)

/**
 * Refuses a login that could bypass a wall: a superuser, one that skips row security, makes roles or databases, owns
 * anything, inherits a tenant's rights, or may become an owner. `session_user`, because that is what it logged in as.
 */
export const checkAppLogin: Effect.Effect<void, UnsafeLogin | DependencyUnavailable, PlatformDb> = Effect.gen(
  function* () {
    const db = yield* PlatformDb
    const [row] = yield* db
      .query(
        (sql) => sql`SELECT r.rolname AS login, array_remove(ARRAY[
            CASE WHEN r.rolsuper THEN 'SUPERUSER' END,
            CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END,
            CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
            CASE WHEN r.rolcreatedb THEN 'CREATEDB' END,
            CASE WHEN r.rolreplication THEN 'REPLICATION' END,
            CASE WHEN EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.inherit_option)
              THEN 'INHERIT of a role it is a member of' END,
            CASE WHEN EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.admin_option)
              THEN 'ADMIN of a role it is a member of' END,
            CASE WHEN EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                WHERE m.member = r.oid AND g.rolname !~ '^aa_t_[0-9a-f]{32}$')
              THEN 'membership in a role that is no tenant''s' END,
            CASE WHEN EXISTS (SELECT FROM pg_shdepend d
                WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o')
              THEN 'ownership of objects' END
          ], NULL) AS too_much
          FROM pg_roles r WHERE r.rolname = session_user`
      )
      .pipe(orUnavailable)
    const { login, too_much } = yield* Effect.orDie(decode(row))
    if (too_much.length > 0) {
      return yield* new UnsafeLogin({
        message: `DATABASE_URL logs in as ${login}, which has too much: ${too_much.join(", ")}. Use the unprivileged login of docs/operations.md.`
      })
    }
  }
)
