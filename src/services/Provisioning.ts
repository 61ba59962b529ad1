import { Context, Effect, Layer, Option } from "effect"
import type { Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { Conflict } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { roleNameOf, schemaNameOf, TenantId } from "../domain/Tenant.ts"
import type { Tenant, TenantSlug } from "../domain/Tenant.ts"
import { AdminDb } from "./AdminDb.ts"
import { AuditLog } from "./AuditLog.ts"
import { Migrations } from "./Migrations.ts"
import type { MigrationFailed } from "./Migrations.ts"
import { Passwords } from "./Passwords.ts"
import { orUnavailable } from "./DbErrors.ts"
import { tenantOfRow } from "./Tenants.ts"

export interface ProvisionRequest {
  readonly slug: TenantSlug
  readonly name: string
  readonly adminEmail?: string | undefined
  /** Without one, a password is made, and told in the answer this once. */
  readonly adminPassword?: Redacted.Redacted<string> | undefined
}

export interface Provisioned {
  readonly tenant: Tenant
  readonly admin: {
    readonly email: string
    /** Only where it was made here. */
    readonly password: Option.Option<Redacted.Redacted<string>>
  } | null
}

/**
 * Makes tenants: role, schema, tables, policies, grants, registry row and the first admin, in one transaction, so
 * that there is a whole tenant or nothing at all, whenever the process dies. Roles are transactional in Postgres
 * as everything else.
 */
export class Provisioning extends Context.Service<
  Provisioning,
  {
    /** Fails with `Conflict` on a slug that is taken; of two at once with one slug, the second waits and gets it. */
    readonly provision: (
      request: ProvisionRequest
    ) => Effect.Effect<Provisioned, Conflict | DependencyUnavailable | MigrationFailed>
  }
>()("agent-army/services/Provisioning") {
  static readonly layer = Layer.effect(
    Provisioning,
    Effect.gen(function* () {
      const admin = yield* AdminDb
      const audit = yield* AuditLog
      const migrations = yield* Migrations
      const passwords = yield* Passwords
      const random = yield* SecureRandom.SecureRandom
      const sql = admin.sql

      /** The first admin, with the password's hash: made before the transaction, which should be short. */
      const prepareAdmin = Effect.fnUntraced(function* (request: ProvisionRequest) {
        if (request.adminEmail === undefined) return null
        const made = request.adminPassword === undefined ? yield* passwords.generate : undefined
        const password = request.adminPassword ?? made
        return password === undefined
          ? null
          : {
              email: request.adminEmail,
              hash: yield* passwords.hash(password),
              password: Option.fromNullishOr(made)
            }
      })

      const provision = Effect.fn("Provisioning.provision")(function* (request: ProvisionRequest) {
        const id = TenantId.make(yield* random.uuidV4())
        const userId = yield* random.uuidV7()
        const schema = schemaNameOf(request.slug)
        const role = sql(roleNameOf(id))
        const first = yield* prepareAdmin(request)

        const registry = yield* admin.transaction(
          Effect.gen(function* () {
            yield* admin.become("platform")
            // First, because the unique slug is what makes a second call wait.
            const [row] = yield* sql`INSERT INTO shared.tenants ${sql.insert({
              id,
              slug: request.slug,
              name: request.name,
              schema_name: schema,
              status: "active"
            })} RETURNING *`

            // Only the migrator itself may make roles; the owner, which it was a moment ago, may not.
            yield* admin.resign
            yield* sql`CREATE ROLE ${role} NOLOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS`
            yield* sql`GRANT ${role} TO aa_app WITH INHERIT FALSE, SET TRUE`

            yield* admin.become(id)
            yield* sql`CREATE SCHEMA ${sql(schema)}`
            yield* sql`GRANT USAGE ON SCHEMA ${sql(schema)} TO ${role}, aa_backup`
            yield* migrations.tenantInTransaction({ id, schema })

            if (first !== null) {
              yield* sql`INSERT INTO ${sql(`${schema}.users`)} ${sql.insert({
                id: userId,
                email: first.email,
                hashed_password: first.hash,
                role: "admin"
              })}`
            }
            yield* audit.recordIn(sql, schema, {
              action: "tenant.provisioned",
              target: { type: "tenant", id },
              details: { slug: request.slug, admin: first?.email ?? null }
            })
            return row
          })
        )
        const provisioned: Provisioned = {
          tenant: yield* tenantOfRow(registry),
          admin: first === null ? null : { email: first.email, password: first.password }
        }
        return provisioned
      })

      return Provisioning.of({
        provision: (request) =>
          provision(request).pipe(
            Effect.catchIf(
              (error) => SqlError.isSqlError(error) && error.reason._tag === "UniqueViolation",
              () => Effect.fail(new Conflict({ detail: "This slug is taken" }))
            ),
            orUnavailable
          )
      })
    })
  )
}
