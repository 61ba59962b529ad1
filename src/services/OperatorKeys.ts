import { PgTypes } from "@effect/sql-pg"
import { Cache, Context, DateTime, Duration, Effect, Exit, Layer, Option, Schema } from "effect"
import type { Redacted } from "effect"
import { SecureRandom } from "effect/crypto"
import { SqlError } from "effect/sql"
import { timingSafeEqual } from "node:crypto"
import { formatOperatorKey, OperatorKey, OperatorKeyId } from "../domain/OperatorKey.ts"
import type { ParsedOperatorKey } from "../domain/OperatorKey.ts"
import { OperatorPrincipal } from "../domain/Principal.ts"
import { Conflict, InvalidRequest, NotFound } from "../domain/Problems.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import { AdminDb } from "./AdminDb.ts"
import { AuditLog } from "./AuditLog.ts"
import { orUnavailable } from "./DbErrors.ts"
import { hashOfSecret, newKeySecret } from "./KeySecret.ts"
import { makeLastUses, rowsOfUses } from "./LastUses.ts"
import { PlatformDb } from "./PlatformDb.ts"

/** As long as an API key is: what is revoked stops working everywhere within a second. */
const REMEMBERED = Duration.millis(500)
const REMEMBERED_KEYS = 1_000

const columns = "id, name, created_at, expires_at, revoked_at, last_used_at"

const Time = Schema.NullOr(Schema.DateTimeUtcFromDate)
const KeyRow = Schema.Struct({
  ...OperatorKey.fields,
  created_at: Schema.DateTimeUtcFromDate,
  expires_at: Time,
  revoked_at: Time,
  last_used_at: Time
})
const decodeRow = Schema.decodeUnknownEffect(KeyRow)
const keyOfRow = (row: unknown) =>
  decodeRow(row).pipe(
    Effect.map((fields) => new OperatorKey(fields)),
    Effect.orDie
  )
const decodeChecked = Schema.decodeUnknownEffect(
  Schema.Struct({ name: Schema.String, key_hash: Schema.Uint8Array, expires_at: Time })
)
const isId = Schema.is(OperatorKeyId)

/** Operator keys beside `OPERATOR_API_KEY`: `aa_op_<id>_<secret>`, each with a name, stored as the secret's hash. */
export class OperatorKeys extends Context.Service<
  OperatorKeys,
  {
    /** Makes a key, which is in this answer and nowhere else. `Conflict` where a living key has that name. */
    readonly create: (request: {
      readonly name: string
      readonly expiresAt?: DateTime.Utc | undefined
    }) => Effect.Effect<
      { readonly operatorKey: OperatorKey; readonly key: Redacted.Redacted<string> },
      Conflict | InvalidRequest | DependencyUnavailable
    >
    /** All of them, revoked ones too, the oldest first. */
    readonly list: Effect.Effect<ReadonlyArray<OperatorKey>, DependencyUnavailable>
    /** Ends a key by id or name: refused everywhere within a second. `NotFound` where none of that name lives. */
    readonly revoke: (idOrName: string) => Effect.Effect<OperatorKey, NotFound | DependencyUnavailable>
    /** Whom a presented key stands for: one indexed read, the secret by its hash. */
    readonly verify: (
      key: ParsedOperatorKey
    ) => Effect.Effect<Option.Option<OperatorPrincipal>, DependencyUnavailable>
  }
>()("agent-army/services/OperatorKeys") {
  static readonly layer = Layer.effect(
    OperatorKeys,
    Effect.gen(function* () {
      const platform = yield* PlatformDb
      const admin = yield* AdminDb
      const audit = yield* AuditLog
      const random = yield* SecureRandom.SecureRandom
      const sql = admin.sql

      const asPlatform = <A, E, R>(use: Effect.Effect<A, E, R>) =>
        admin.transaction(Effect.andThen(admin.become("platform"), use))

      // The app may only read the registry.
      const lastUses = yield* makeLastUses((_, uses) =>
        asPlatform(
          sql`UPDATE shared.operator_keys k SET last_used_at = u.at
            FROM jsonb_to_recordset(${PgTypes.jsonb(rowsOfUses(uses))}) AS u(id uuid, at timestamptz)
            WHERE k.id = u.id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)`
        ).pipe(orUnavailable, Effect.asVoid)
      )

      const read = Effect.fn("OperatorKeys.read")(function* (id: OperatorKeyId) {
        const [row] = yield* platform
          .query(
            (sql) => sql`SELECT name, key_hash, expires_at FROM shared.operator_keys
              WHERE id = ${id} AND revoked_at IS NULL`
          )
          .pipe(orUnavailable)
        return row === undefined ? Option.none() : Option.some(yield* Effect.orDie(decodeChecked(row)))
      })
      const remembered = yield* Cache.makeWith(read, {
        capacity: REMEMBERED_KEYS,
        timeToLive: (exit) => (Exit.isSuccess(exit) && Option.isSome(exit.value) ? REMEMBERED : Duration.zero)
      })

      return OperatorKeys.of({
        create: Effect.fn("OperatorKeys.create")(function* ({ expiresAt, name }) {
          if (expiresAt !== undefined && (yield* DateTime.isPast(expiresAt))) {
            return yield* new InvalidRequest({
              detail: "The key is invalid",
              errors: [{ path: ["expires_at"], message: "Expected a time in the future" }]
            })
          }
          const id = OperatorKeyId.make(yield* random.uuidV7())
          const secret = yield* newKeySecret(random)
          const operatorKey = yield* asPlatform(
            Effect.gen(function* () {
              // A key that has expired does not keep its name from the next.
              yield* sql`UPDATE shared.operator_keys SET revoked_at = expires_at
                WHERE name = ${name} AND revoked_at IS NULL AND expires_at <= now()`
              const [row] = yield* sql`INSERT INTO shared.operator_keys ${sql.insert({
                id,
                name,
                key_hash: hashOfSecret(secret),
                expires_at: PgTypes.timestamptz(expiresAt === undefined ? null : DateTime.toDate(expiresAt))
              })} RETURNING ${sql.literal(columns)}`
              yield* audit.recordIn(sql, "shared", {
                action: "operator_key.created",
                target: { type: "operator_key", id },
                details: { name }
              })
              return yield* keyOfRow(row)
            })
          ).pipe(
            Effect.catchIf(
              (error) => SqlError.isSqlError(error) && error.reason._tag === "UniqueViolation",
              () => Effect.fail(new Conflict({ detail: "There is an operator key of this name" }))
            ),
            orUnavailable
          )
          return { operatorKey, key: formatOperatorKey(id, secret) }
        }),
        list: platform
          .query(
            (sql) => sql`SELECT ${sql.literal(columns)} FROM shared.operator_keys ORDER BY created_at, id`
          )
          .pipe(
            orUnavailable,
            Effect.flatMap((rows) => Effect.forEach(rows, keyOfRow))
          ),
        revoke: Effect.fn("OperatorKeys.revoke")(function* (idOrName) {
          const revoked = yield* asPlatform(
            Effect.gen(function* () {
              const which = isId(idOrName) ? sql`id = ${idOrName}` : sql`name = ${idOrName}`
              const [row] = yield* sql`UPDATE shared.operator_keys SET revoked_at = now()
                WHERE ${which} AND revoked_at IS NULL RETURNING ${sql.literal(columns)}`
              if (row === undefined) return yield* new NotFound({ detail: "No such operator key" })
              const key = yield* keyOfRow(row)
              yield* audit.recordIn(sql, "shared", {
                action: "operator_key.revoked",
                target: { type: "operator_key", id: key.id },
                details: { name: key.name }
              })
              return key
            })
          ).pipe(orUnavailable)
          yield* Cache.invalidate(remembered, revoked.id)
          return revoked
        }),
        verify: Effect.fnUntraced(function* ({ id, secret }) {
          const found = yield* Cache.get(remembered, id)
          if (Option.isNone(found)) return Option.none()
          const { expires_at, key_hash, name } = found.value
          if (!timingSafeEqual(hashOfSecret(secret), key_hash)) return Option.none()
          if (expires_at !== null && (yield* DateTime.isPast(expires_at))) return Option.none()
          yield* lastUses.note("platform", id)
          return Option.some(new OperatorPrincipal({ id, name }))
        })
      })
    })
  )
}
