import { Context, Deferred, Duration, Effect, Layer, Option, Redacted, Schema } from "effect"
import type { Exit } from "effect"
import { SqlError } from "effect/sql"
import type { Statement } from "effect/sql"
import { createCipheriv, createDecipheriv, createHash, hash, hkdfSync, randomBytes } from "node:crypto"
import { Conflict, IdempotencyKeyReused } from "../domain/Problems.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { AdminDb } from "./AdminDb.ts"
import { classify } from "./DbErrors.ts"
import type { DbError } from "./DbErrors.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"

/** How long an answer is kept. */
const KEPT = "interval '24 hours'"
/** How long a second request waits for the first one's answer: on another instance, a statement waits on the row. */
const PATIENCE = Duration.seconds(5)
/** Old answers that each act removes. */
const REMOVED_AT_ONCE = 20

const CIPHER = "aes-256-gcm"
const NONCE_BYTES = 12
const TAG_BYTES = 16

/** What is the same in a request and its repetition. */
export interface KeyedRequest {
  readonly principal: string
  readonly method: string
  readonly path: string
  /** The value of `Idempotency-Key`. */
  readonly key: string
  readonly body: string
}

/** An answer as it is kept. */
export const KeptAnswer = Schema.Struct({
  status: Schema.Int,
  headers: Schema.Record(Schema.String, Schema.String),
  body: Schema.String
})
export type KeptAnswer = typeof KeptAnswer.Type

const encodeAnswer = Schema.encodeSync(Schema.fromJsonString(KeptAnswer))
const decodeAnswer = Schema.decodeSync(Schema.fromJsonString(KeptAnswer))

const StoredRow = Schema.Struct({ body_hash: Schema.Uint8Array, answer: Schema.Uint8Array })
const decodeRow = Schema.decodeUnknownEffect(StoredRow)

/** What became of a request: it acted, or the answer to its first sending was found. */
export type Once<A, E> =
  | { readonly _tag: "Acted"; readonly exit: Exit.Exit<A, E> }
  | { readonly _tag: "Replayed"; readonly answer: KeptAnswer }

/** Which ends of an act are kept, and how. What is not kept leaves no key, and nothing of the act. */
export type Keep<A, E> = (exit: Exit.Exit<A, E>) => KeptAnswer | undefined

/** Where keys are kept. */
interface Store {
  /** A transaction, or a savepoint in the one that is open. */
  readonly transaction: <A, E, R>(
    use: (sql: Statement.Constructor, table: Statement.Identifier) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | DbError, R>
  /** Before statements of ours: an act of the control plane may leave the transaction in another role. */
  readonly enter: Effect.Effect<void, SqlError.SqlError>
}

const notKept = () => new Error("Only answers that can be kept may be answered to an Idempotency-Key")

const isLockTimeout = (error: unknown): boolean =>
  SqlError.isSqlError(error) && error.reason._tag === "LockTimeoutError"

/**
 * Does what a request with an `Idempotency-Key` asks for once (draft-ietf-httpapi-idempotency-key-header-07). The key, the act and its answer
 * are one transaction: whenever the process dies, there are all three or none, and of two at once the second waits
 * for the row of the first. A key is bound to the tenant (whose table it is in), the principal, method and path; a body that
 * differs is `IdempotencyKeyReused`. `Conflict` where the first has no answer within five seconds.
 *
 * Answers hold what is shown once, such as an API key. They are kept encrypted (AES-256-GCM) under a key that HKDF derives from a
 * secret of the server's and the value of `Idempotency-Key`, which is stored only within a hash: the database alone
 * opens none, and neither do the database and the server's secret without the caller's key.
 */
export class Idempotency extends Context.Service<
  Idempotency,
  {
    /** An act in the rows of the current tenant. */
    readonly inTenant: <A, E, R>(
      request: KeyedRequest,
      act: Effect.Effect<A, E, R>,
      keep: Keep<A, E | DbError>
    ) => Effect.Effect<
      Once<A, E | DbError>,
      E | IdempotencyKeyReused | Conflict | DbError,
      R | TenantDb | TenantContext
    >
    /** An act of the control plane. */
    readonly inPlatform: <A, E, R>(
      request: KeyedRequest,
      act: Effect.Effect<A, E, R>,
      keep: Keep<A, E | DbError>
    ) => Effect.Effect<Once<A, E | DbError>, E | IdempotencyKeyReused | Conflict | DbError, R>
  }
>()("agent-army/services/Idempotency") {
  static readonly layer = (options: { readonly secret: Redacted.Redacted<Uint8Array> }) =>
    Layer.effect(
      Idempotency,
      Effect.gen(function* () {
        const admin = yield* AdminDb
        /** Acts of this instance. Who repeats one waits here, and holds no connection meanwhile. */
        const running = new Map<string, Deferred.Deferred<void>>()

        const cipherKey = (key: string, id: Uint8Array) =>
          new Uint8Array(
            hkdfSync(
              "sha256",
              Redacted.value(options.secret),
              id,
              `agent-army idempotency v1 ${key}`.slice(0, 1024),
              32
            )
          )

        const seal = (answer: KeptAnswer, key: string, id: Uint8Array): Uint8Array => {
          const nonce = randomBytes(NONCE_BYTES)
          const cipher = createCipheriv(CIPHER, cipherKey(key, id), nonce)
          // The id as well, so that an answer moved to another row does not open.
          cipher.setAAD(id)
          return Buffer.concat([
            nonce,
            cipher.update(encodeAnswer(answer)),
            cipher.final(),
            cipher.getAuthTag()
          ])
        }

        /** None where the server's secret is another one than it was. */
        const open = (sealed: Uint8Array, key: string, id: Uint8Array): Option.Option<KeptAnswer> =>
          Option.liftThrowable(() => {
            const decipher = createDecipheriv(CIPHER, cipherKey(key, id), sealed.subarray(0, NONCE_BYTES))
            decipher.setAAD(id)
            decipher.setAuthTag(sealed.subarray(-TAG_BYTES))
            return decodeAnswer(
              Buffer.concat([
                decipher.update(sealed.subarray(NONCE_BYTES, -TAG_BYTES)),
                decipher.final()
              ]).toString()
            )
          })()

        const stillRunning = () =>
          new Conflict({ detail: "A request with this Idempotency-Key is still being answered" })

        /** Runs when no other request with this id is running here. */
        const inTurn = <A, E, R>(
          id: string,
          use: Effect.Effect<A, E, R>
        ): Effect.Effect<A, E | Conflict, R> =>
          Effect.uninterruptibleMask((restore) => {
            const other = running.get(id)
            if (other !== undefined) {
              return restore(
                Deferred.await(other).pipe(
                  Effect.timeoutOrElse({ duration: PATIENCE, orElse: () => Effect.fail(stillRunning()) }),
                  Effect.andThen(Effect.suspend(() => inTurn(id, use)))
                )
              )
            }
            const mine = Deferred.makeUnsafe<void>()
            running.set(id, mine)
            return Effect.ensuring(
              restore(use),
              Effect.suspend(() => {
                running.delete(id)
                return Deferred.succeed(mine, undefined)
              })
            )
          })

        const once = <A, E, R>(
          owner: TenantId | "platform",
          store: Store,
          request: KeyedRequest,
          act: Effect.Effect<A, E, R>,
          keep: Keep<A, E | DbError>
        ) => {
          const { body, key, method, path, principal } = request
          const id = createHash("sha256")
            .update(JSON.stringify([owner, principal, method, path, key]))
            .digest()
          const bodyHash = hash("sha256", body, "buffer")

          const transaction = store.transaction(
            Effect.fnUntraced(function* (sql, table) {
              yield* store.enter
              // Waits for a transaction that has the row and did not end. An answer that is too old counts as none.
              const [mine] = yield* sql`INSERT INTO ${table} AS k (id, body_hash) VALUES (${id}, ${bodyHash})
                ON CONFLICT (id) DO UPDATE SET body_hash = EXCLUDED.body_hash, answer = NULL, created_at = now()
                  WHERE k.created_at < now() - ${sql.literal(KEPT)}
                RETURNING id`.pipe(
                Effect.mapError((error) => (isLockTimeout(error) ? stillRunning() : classify(error))),
                // A tenant's role may not set a lock_timeout: the statement is cancelled instead.
                Effect.timeoutOrElse({ duration: PATIENCE, orElse: () => Effect.fail(stillRunning()) })
              )

              if (mine === undefined) {
                const [row] = yield* sql`SELECT body_hash, answer FROM ${table} WHERE id = ${id}`
                const stored = yield* Effect.orDie(decodeRow(row))
                if (!bodyHash.equals(stored.body_hash)) return yield* new IdempotencyKeyReused({})
                const answer = open(stored.answer, key, id)
                if (Option.isNone(answer)) {
                  return yield* new Conflict({
                    detail: "This was done before, but its answer can't be read any more"
                  })
                }
                const replayed: Once<A, E | DbError> = { _tag: "Replayed", answer: answer.value }
                return replayed
              }

              // In a savepoint: a refusal is kept, what was written before it is not.
              const exit = yield* Effect.exit(store.transaction(() => act))
              const answer = keep(exit)
              if (answer === undefined) return yield* exit.pipe(Effect.andThen(Effect.die(notKept())))
              yield* store.enter
              yield* Effect.all(
                [
                  sql`UPDATE ${table} SET answer = ${seal(answer, key, id)} WHERE id = ${id}`,
                  sql`DELETE FROM ${table} WHERE id IN (SELECT id FROM ${table}
                    WHERE created_at < now() - ${sql.literal(KEPT)} LIMIT ${REMOVED_AT_ONCE} FOR UPDATE SKIP LOCKED)`
                ],
                { concurrency: "unbounded" }
              )
              const acted: Once<A, E | DbError> = { _tag: "Acted", exit }
              return acted
            })
          )
          return inTurn(
            id.toString("base64"),
            Effect.mapError(transaction, (error) => (SqlError.isSqlError(error) ? classify(error) : error))
          )
        }

        return Idempotency.of({
          inTenant: Effect.fnUntraced(function* (request, act, keep) {
            const { tenantId } = yield* TenantContext
            const db = yield* TenantDb
            const store: Store = {
              transaction: (use) => db.transaction((sql, table) => use(sql, table("idempotency_keys"))),
              enter: Effect.void
            }
            return yield* once(tenantId, store, request, act, keep)
          }),
          inPlatform: (request, act, keep) => {
            const table = admin.sql("shared.idempotency_keys")
            const store: Store = {
              transaction: (use) => admin.transaction(use(admin.sql, table)),
              enter: admin.become("platform")
            }
            return once("platform", store, request, act, keep)
          }
        })
      })
    )
}
