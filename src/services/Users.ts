import { Context, Effect, Layer, Option, Redacted, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { pageOf } from "../domain/Page.ts"
import type { Page, PageRequest } from "../domain/Page.ts"
import { whyRefused } from "../domain/PasswordRule.ts"
import { mayMakeAdmins, UserId } from "../domain/Principal.ts"
import type { Role } from "../domain/Principal.ts"
import { Conflict, Forbidden, InvalidRequest, NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { Account, namesOf, User } from "../domain/User.ts"
import { AuditLog } from "./AuditLog.ts"
import { orUnavailable } from "./DbErrors.ts"
import { Passwords } from "./Passwords.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"

const UserWithPassword = Schema.Struct({ ...User.fields, hashed_password: Schema.String })
const AccountRow = Schema.Struct({
  ...Account.fields,
  created_at: Schema.DateTimeUtcFromDate,
  updated_at: Schema.DateTimeUtcFromDate
})

const decodeUser = Schema.decodeUnknownEffect(User)
const decodeUserWithPassword = Schema.decodeUnknownEffect(UserWithPassword)
const decodeRow = Schema.decodeUnknownEffect(AccountRow)
const accountOf = (row: unknown): Effect.Effect<Account> =>
  decodeRow(row).pipe(
    Effect.map((fields) => new Account(fields)),
    Effect.orDie
  )

const columns = "id, email, name, role, is_active, created_at, updated_at"

export interface NewUser {
  readonly email: string
  readonly name?: string | null | undefined
  readonly role?: Role | undefined
  /** Without one, a password is made, and told in the answer this once. */
  readonly password?: Redacted.Redacted<string> | undefined
}

/** What is left out stays as it is. */
export interface UserChange {
  readonly email?: string | undefined
  readonly name?: string | null | undefined
  readonly role?: Role | undefined
  readonly is_active?: boolean | undefined
  readonly password?: Redacted.Redacted<string> | undefined
}

const noSuchUser = () => new NotFound({ detail: "No such user" })

/** A taken address is `Conflict`; every other error of a statement's is a defect. */
const orTaken = <A, E, R>(effect: Effect.Effect<A, E | SqlError.SqlError, R>) =>
  effect.pipe(
    Effect.catchIf(
      (error) => SqlError.isSqlError(error) && error.reason._tag === "UniqueViolation",
      () => Effect.fail(new Conflict({ detail: "This e-mail address is taken" }))
    ),
    orUnavailable
  )

/** Fails with `InvalidRequest` where a password is too easily guessed, by what is known of its user. */
const checkPassword = Effect.fnUntraced(function* (
  password: Redacted.Redacted<string> | undefined,
  email: string
) {
  const { slug } = yield* TenantContext
  const refused =
    password === undefined ? undefined : whyRefused(Redacted.value(password), namesOf(slug, email))
  if (refused !== undefined) {
    return yield* new InvalidRequest({
      detail: "The body is invalid",
      errors: [{ path: ["password"], message: refused }]
    })
  }
})

/**
 * Only who may do all that an admin may can make one, or change one: a key with `users:write` alone would else be as
 * good as every scope, by a password of its choice.
 */
const checkPower = Effect.gen(function* () {
  const { scopes } = yield* TenantContext
  if (!mayMakeAdmins(scopes)) {
    return yield* new Forbidden({ detail: "Making or changing an admin needs every scope of an admin" })
  }
})

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
    /** `Conflict` where the address is taken, in whatever case. */
    readonly create: (
      user: NewUser
    ) => Effect.Effect<
      { readonly account: Account; readonly password: Option.Option<Redacted.Redacted<string>> },
      Conflict | Forbidden | InvalidRequest | DependencyUnavailable,
      TenantDb | TenantContext
    >
    /** In the order of creation, active or not. */
    readonly list: (page: PageRequest) => Effect.Effect<Page<Account>, DependencyUnavailable, TenantDb>
    /** A user, active or not. Fails with `NotFound`. */
    readonly find: (id: UserId) => Effect.Effect<Account, NotFound | DependencyUnavailable, TenantDb>
    /**
     * Changes a user. A new password, or the end of being active, ends the user's sessions. `Conflict` for a taken address,
     * and for what would leave the tenant without an active admin.
     */
    readonly update: (
      id: UserId,
      change: UserChange
    ) => Effect.Effect<
      Account,
      NotFound | Conflict | Forbidden | InvalidRequest | DependencyUnavailable,
      TenantDb | TenantContext
    >
    /** Deletes a user with all sessions and API keys. `Conflict` for the last active admin. */
    readonly remove: (
      id: UserId
    ) => Effect.Effect<
      void,
      NotFound | Conflict | Forbidden | DependencyUnavailable,
      TenantDb | TenantContext
    >
  }
>()("agent-army/services/Users") {
  static readonly layer = Layer.effect(
    Users,
    Effect.gen(function* () {
      const passwords = yield* Passwords
      const audit = yield* AuditLog
      const random = yield* SecureRandom.SecureRandom

      const find = Effect.fn("Users.find")(function* (id: UserId) {
        const db = yield* TenantDb
        const [row] = yield* db
          .query((sql, table) => sql`SELECT ${sql.literal(columns)} FROM ${table("users")} WHERE id = ${id}`)
          .pipe(orUnavailable)
        return row === undefined ? yield* noSuchUser() : yield* accountOf(row)
      })

      /**
       * A user, locked, for a change after which they are an active admin or not. The active admins are locked first, all and
       * in the order of their ids, so that of two who demote each other the second waits, and finds itself the last.
       */
      const lock = Effect.fnUntraced(function* (id: UserId, staysAdmin: (before: Account) => boolean) {
        const db = yield* TenantDb
        const admins = yield* db.query(
          (sql, table) => sql<{ id: string }>`SELECT id FROM ${table("users")}
            WHERE role = 'admin' AND is_active ORDER BY id FOR UPDATE`
        )
        const [row] = yield* db.query(
          (sql, table) => sql`SELECT ${sql.literal(columns)} FROM ${table("users")}
            WHERE id = ${id} FOR UPDATE`
        )
        if (row === undefined) return yield* noSuchUser()
        const before = yield* accountOf(row)
        if (before.role === "admin") yield* checkPower
        if (!staysAdmin(before) && admins.every((admin) => admin.id === before.id) && admins.length > 0) {
          return yield* new Conflict({ detail: "This is the tenant's last active admin" })
        }
        return before
      })

      const target = (id: UserId) => ({ type: "user", id })

      return Users.of({
        get: Effect.fn("Users.get")(function* (id) {
          const db = yield* TenantDb
          const [row] = yield* db
            .query(
              (sql, table) =>
                sql`SELECT id, email, name, role FROM ${table("users")} WHERE id = ${id} AND is_active`
            )
            .pipe(orUnavailable)
          if (row === undefined) return yield* noSuchUser()
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
        }),
        create: Effect.fn("Users.create")(function* (user) {
          const role = user.role ?? "member"
          if (role === "admin") yield* checkPower
          yield* checkPassword(user.password, user.email)
          const password = user.password ?? (yield* passwords.generate)
          const id = UserId.make(yield* random.uuidV7())
          const hashed = yield* passwords.hash(password)
          const db = yield* TenantDb
          const account = yield* db
            .transaction(
              Effect.fnUntraced(function* (sql, table) {
                const [row] = yield* sql`INSERT INTO ${table("users")} ${sql.insert({
                  id,
                  email: user.email,
                  name: user.name ?? null,
                  role,
                  hashed_password: hashed
                })} RETURNING ${sql.literal(columns)}`
                const created = yield* accountOf(row)
                yield* audit.record({
                  action: "user.created",
                  target: target(id),
                  details: { email: user.email, role }
                })
                return created
              })
            )
            .pipe(orTaken)
          return { account, password: user.password === undefined ? Option.some(password) : Option.none() }
        }),
        list: Effect.fn("Users.list")(function* ({ after, limit }) {
          const db = yield* TenantDb
          const rows = yield* db
            .query((sql, table) => {
              const from = after === undefined ? sql`` : sql`WHERE id > ${after}`
              return sql`SELECT ${sql.literal(columns)} FROM ${table("users")} ${from}
                ORDER BY id LIMIT ${limit + 1}`
            })
            .pipe(orUnavailable)
          return pageOf(yield* Effect.forEach(rows, accountOf), limit, (account) => account.id)
        }),
        find,
        update: Effect.fn("Users.update")(function* (id, change) {
          const { principal } = yield* TenantContext
          if (change.role === "admin") yield* checkPower
          if (change.password !== undefined && principal._tag === "User" && principal.userId === id) {
            return yield* new Forbidden({ detail: "Your own password is changed with the current one" })
          }
          const known = yield* find(id)
          yield* checkPassword(change.password, change.email ?? known.email)
          const hashed = change.password === undefined ? null : yield* passwords.hash(change.password)
          const db = yield* TenantDb
          return yield* db
            .transaction(
              Effect.fnUntraced(function* (sql, table) {
                const before = yield* lock(
                  id,
                  (before) =>
                    (change.role ?? before.role) === "admin" && (change.is_active ?? before.is_active)
                )
                const [row] = yield* sql`UPDATE ${table("users")}
                  SET email = ${change.email ?? before.email},
                    name = ${change.name === undefined ? before.name : change.name},
                    role = ${change.role ?? before.role},
                    is_active = ${change.is_active ?? before.is_active},
                    hashed_password = coalesce(${hashed}, hashed_password),
                    updated_at = now()
                  WHERE id = ${id} RETURNING ${sql.literal(columns)}`
                const after = yield* accountOf(row)
                if (!after.is_active || hashed !== null) {
                  yield* sql`DELETE FROM ${table("sessions")} WHERE user_id = ${id}`
                }
                yield* audit.record({
                  action: "user.updated",
                  target: target(id),
                  details: {
                    ...(change.email !== undefined && { email: change.email }),
                    ...(change.name !== undefined && { name: change.name }),
                    ...(change.role !== undefined && { role: change.role }),
                    ...(change.is_active !== undefined && { is_active: change.is_active }),
                    ...(hashed !== null && { password: "changed" })
                  }
                })
                return after
              })
            )
            .pipe(orTaken)
        }),
        remove: Effect.fn("Users.remove")(function* (id) {
          const db = yield* TenantDb
          yield* db
            .transaction(
              Effect.fnUntraced(function* (sql, table) {
                const before = yield* lock(id, () => false)
                // Sessions and API keys go with it.
                yield* sql`DELETE FROM ${table("users")} WHERE id = ${id}`
                yield* audit.record({
                  action: "user.deleted",
                  target: target(id),
                  details: { email: before.email, role: before.role }
                })
              })
            )
            .pipe(orUnavailable)
        })
      })
    })
  )
}
