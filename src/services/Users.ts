import { Context, Effect, Layer, Option, Schema } from "effect"
import { NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { UserId } from "../domain/Principal.ts"
import { User } from "../domain/User.ts"
import { TenantDb } from "./TenantDb.ts"
import { orUnavailable } from "./DbErrors.ts"

const UserWithPassword = Schema.Struct({ ...User.fields, hashed_password: Schema.String })

const decodeUser = Schema.decodeUnknownEffect(User)
const decodeUserWithPassword = Schema.decodeUnknownEffect(UserWithPassword)

/** The people of a tenant. Built once, at boot; its methods say in their types that they need a tenant. */
export class Users extends Context.Service<
  Users,
  {
    /** An active user. Fails with `NotFound`. */
    readonly get: (id: UserId) => Effect.Effect<User, NotFound | DependencyUnavailable, TenantDb>
    /** An active user by address, whatever its case, with the hash of the password. For sign-in alone. */
    readonly findForSignIn: (
      email: string
    ) => Effect.Effect<Option.Option<typeof UserWithPassword.Type>, DependencyUnavailable, TenantDb>
  }
>()("agent-army/services/Users") {
  static readonly layer = Layer.succeed(
    Users,
    Users.of({
      get: Effect.fn("Users.get")(function* (id) {
        const db = yield* TenantDb
        const [row] = yield* db
          .query(
            (sql, table) =>
              sql`SELECT id, email, name, role FROM ${table("users")} WHERE id = ${id} AND is_active`
          )
          .pipe(orUnavailable)
        if (row === undefined) return yield* new NotFound({ detail: "No such user" })
        return yield* Effect.orDie(decodeUser(row))
      }),
      findForSignIn: Effect.fn("Users.findForSignIn")(function* (email) {
        const db = yield* TenantDb
        const [row] = yield* db
          .query(
            (sql, table) => sql`SELECT id, email, name, role, hashed_password FROM ${table("users")}
              WHERE lower(email) = lower(${email}) AND is_active`
          )
          .pipe(orUnavailable)
        return row === undefined
          ? Option.none()
          : Option.some(yield* Effect.orDie(decodeUserWithPassword(row)))
      })
    })
  )
}
