import { PgClient, PgConnection } from "@effect/sql-pg"
import { Cause, Context, Duration, Effect, Exit, Fiber, Layer, Option, Pool, Redacted, Stream } from "effect"
import { Statement } from "effect/sql"
import type { SqlConnection, SqlError } from "effect/sql"
import type { Socket } from "node:net"
import { roleNameOf } from "../domain/Tenant.ts"
import type { TenantRef } from "../domain/Tenant.ts"
import { Claims } from "./Claims.ts"
import { Pipeline, plainSocket } from "./Pipeline.ts"
import { classify, isRoleRefused, unavailable } from "./DbErrors.ts"
import type { DbError } from "./DbErrors.ts"
import { makeTurns } from "./Turns.ts"

/** No statement of a tenant runs longer. */
const STATEMENT_TIMEOUT = Duration.seconds(15)
/** A session left open in a transaction, by a peer that vanished, ends after this. */
const IDLE_IN_TRANSACTION_TIMEOUT = Duration.seconds(30)
/** How often Postgres looks whether the client of a running statement is still there, and else cancels it. */
const CONNECTION_CHECK_INTERVAL = Duration.millis(250)
/** Statements of transactions kept prepared per connection. */
const PREPARED_STATEMENTS = 500

/** Whose rows a lease may see: a tenant's, behind its role and schema, or the platform's own registry. */
export type Entrance = TenantRef | "platform"

/** A connection of the pool. Without a pipeline, each statement is a transaction of several messages. */
interface PooledConnection {
  readonly connection: PgConnection.PgConnection
  readonly pipeline: Pipeline | undefined
}

/** A transaction that has been entered, on a connection that is nobody else's for that time. */
interface Lease {
  readonly subject: string
  readonly connection: PgConnection.PgConnection
  readonly pipeline: Pipeline | undefined
  open: boolean
  /** The last word on the connection was a clean answer to COMMIT or ROLLBACK. */
  clean: boolean
  /** Statements that have been sent and not answered. */
  outstanding: number
  /** A statement was sent that may have left something in the session, for the next tenant to meet. */
  stained: boolean
  savepoints: number
  /** Why the session could not be entered, if that was its own fault: another one may well be. */
  refusal: DbError | undefined
}

/** The lease of the transaction that this fiber is in. */
const CurrentLease = Context.Reference<Lease | undefined>("agent-army/services/TenantPool/CurrentLease", {
  defaultValue: () => undefined
})

const subjectOf = (entrance: Entrance): string => (entrance === "platform" ? entrance : entrance.id)

/** A statement's type parameter is its writer's word for what Postgres answers: there is nothing to check it by. */
const areRowsOf = <A>(rows: ReadonlyArray<unknown>): rows is ReadonlyArray<A> => Array.isArray(rows)

const BEGIN = "BEGIN"
const ENTER =
  "SELECT set_config('role', $1, true), set_config('search_path', $2, true), set_config('app.claim', $3, true)"

/** A fiber that outlives its transaction must not speak in the next tenant's. */
const hasEnded = () => new Error("This transaction has ended")

/**
 * How those statements begin that leave nothing in the session. Not `PREPARE`, `SET`, `DO`, `LISTEN`, `COMMIT` and the
 * like: SQL injected into one tenant's transaction could prepare a statement of its own under the name of one of
 * ours, and have the next tenant on the connection run it, claim and all.
 */
const LEAVES_NOTHING = /^\s*(?:SELECT|INSERT|UPDATE|DELETE|MERGE|WITH|VALUES)\b/i

const mark = (lease: Lease, sql: string): void => {
  if (!LEAVES_NOTHING.test(sql)) lease.stained = true
}

/** Runs a statement on the lease that it was made under, and on no other. */
const onLease =
  <A>(run: (connection: PgConnection.PgConnection) => Effect.Effect<A, SqlError.SqlError>) =>
  (lease: Lease): Effect.Effect<A, SqlError.SqlError> =>
    Effect.suspend(() => {
      if (!lease.open) return Effect.die(hasEnded())
      lease.outstanding++
      return run(lease.connection).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            lease.outstanding--
          })
        )
      )
    })

/** The same for a statement whose rows are read one by one. */
const streamOnLease = (lease: Lease, sql: string, params: ReadonlyArray<unknown>) =>
  Stream.suspend(() => {
    if (!lease.open) return Stream.die(hasEnded())
    mark(lease, sql)
    lease.outstanding++
    return lease.connection.stream(sql, params).pipe(
      Stream.ensuring(
        Effect.sync(() => {
          lease.outstanding--
        })
      )
    )
  })

const leaseConnection = (lease: Lease): SqlConnection.Connection => {
  const run = <A>(
    sql: string,
    send: (connection: PgConnection.PgConnection) => Effect.Effect<A, SqlError.SqlError>
  ) =>
    onLease((connection) => {
      mark(lease, sql)
      return send(connection)
    })(lease)
  const rows = (sql: string, params: ReadonlyArray<unknown>, prepare: boolean) =>
    run(sql, (connection) => Effect.map(connection.query(sql, params, prepare), (result) => result.rows))
  const values = (sql: string, params: ReadonlyArray<unknown>, prepare: boolean) =>
    run(sql, (connection) => connection.queryValues(sql, params, prepare))
  return {
    execute: (sql, params) => rows(sql, params, true),
    executeRaw: (sql, params) => run(sql, (connection) => connection.query(sql, params)),
    executeValues: (sql, params) => values(sql, params, true),
    executeValuesUnprepared: (sql, params) => values(sql, params, false),
    executeUnprepared: (sql, params) => rows(sql, params, false),
    executeStream: (sql, params) => streamOnLease(lease, sql, params)
  }
}

/**
 * The pool that tenants' transactions run on. Written by ourselves because this is the product: a connection is
 * leased to one entrance at a time, a lone statement is one round trip (see `Pipeline`), and a connection whose lease ended
 * in anything but a clean answer to `COMMIT` or `ROLLBACK`, or that ran anything but queries and changes of rows, is
 * thrown away. (`SqlClient.withTransaction` awaits each of them in turn; `PgPool.reserve` sends one statement at a
 * time.)
 *
 * Everything an entrance sets is local to its transaction: nothing of a tenant survives in a pooled connection.
 * Statements go by the extended protocol, one a message; the claim is always a bound parameter.
 *
 * Only `TenantDb`, `PlatformDb` and the layers may name this service: it takes any tenant that it is told.
 */
export class TenantPool extends Context.Service<
  TenantPool,
  {
    /** One statement in a transaction of its own: one write, one answer. */
    readonly query: <A>(
      entrance: Entrance,
      statement: (sql: Statement.Constructor) => Statement.Statement<A>
    ) => Effect.Effect<ReadonlyArray<A>, DbError>
    /**
     * Several statements in one transaction. Inside a transaction of the same entrance it is a savepoint; inside
     * one of another it is a defect: `set_config(…, true)` under a savepoint outlives it, so that the outer
     * tenant's statements would go on in the inner one's schema.
     */
    readonly transaction: <A, E, R>(
      entrance: Entrance,
      use: (sql: Statement.Constructor) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | DbError, R>
    /** Connections in use, idle ones, and callers that wait for one. */
    readonly stats: Effect.Effect<Pool.Stats>
  }
>()("agent-army/services/TenantPool") {
  static readonly layer = (options: {
    readonly url: Redacted.Redacted<string>
    readonly size: number
    readonly applicationName?: string
  }) =>
    Layer.effect(
      TenantPool,
      Effect.gen(function* () {
        const claims = yield* Claims
        const openSocket = plainSocket(Redacted.value(options.url))
        const acquire = Effect.suspend(() => {
          let socket: Socket | undefined
          return PgConnection.make({
            url: options.url,
            ...(openSocket !== undefined && {
              // Called once more for each request to cancel, which gets a socket of its own.
              stream: () => {
                const opened = openSocket()
                socket ??= opened
                return opened
              }
            }),
            multiplex: true,
            connectTimeout: Duration.seconds(3),
            keepAlive: Duration.seconds(10),
            preparedStatementCacheSize: PREPARED_STATEMENTS,
            applicationName: options.applicationName ?? "agent-army",
            startupParameters: {
              timezone: "UTC",
              statement_timeout: String(Duration.toMillis(STATEMENT_TIMEOUT)),
              idle_in_transaction_session_timeout: String(Duration.toMillis(IDLE_IN_TRANSACTION_TIMEOUT)),
              client_connection_check_interval: String(Duration.toMillis(CONNECTION_CHECK_INTERVAL))
            }
          }).pipe(
            Effect.map((connection): PooledConnection => ({
              connection,
              pipeline: socket === undefined ? undefined : new Pipeline(socket)
            })),
            Effect.mapError(classify)
          )
        })
        const pool = yield* Pool.makeWithTTL({
          acquire,
          min: 0,
          max: options.size,
          concurrency: 1,
          timeToLive: Duration.minutes(5)
        })

        const turn = yield* makeTurns(options.size)

        const enterParams = (entrance: Entrance) =>
          entrance === "platform"
            ? Effect.map(claims.sign(entrance), (claim) => ["none", "shared, pg_temp", claim])
            : Effect.map(claims.sign(entrance.id), (claim) => [
                roleNameOf(entrance.id),
                `${entrance.schema}, pg_temp`,
                claim
              ])

        const compiler = PgClient.makeCompiler()
        const currentConnection = Effect.flatMap(CurrentLease, (lease) =>
          lease === undefined
            ? Effect.die(new Error("A tenant's statement was run outside of a transaction"))
            : Effect.succeed(leaseConnection(lease))
        )
        const sql = Statement.make(currentConnection, compiler, [["db.system.name", "postgresql"]], undefined)

        const refuse = (open: Lease, entrance: Entrance) =>
          Effect.die(
            new Error(`A transaction of ${open.subject} is open: ${subjectOf(entrance)} may not nest in it`)
          )

        // A fiber for each message, started at once: `Effect.all` has three more steps for each.
        const send = (lease: Lease, text: string, params?: ReadonlyArray<unknown>) =>
          Effect.forkChild(lease.connection.query(text, params), { startImmediately: true })

        /**
         * Runs on a connection for one entrance. Unless its transaction ended clean and nothing is in flight, the
         * connection goes too: whatever still runs there, Postgres cancels when it sees the socket closed. A
         * connection that turns out to have died while nobody used it, or that does not know of the tenant's role
         * (`use` answers with nothing, having run nothing), goes as well, and the next one is tried.
         */
        const withLease = <A, E, R>(
          entrance: Entrance,
          use: (lease: Lease) => Effect.Effect<Option.Option<A>, E, R>
        ): Effect.Effect<A, E | DbError, R> => {
          let refusal: DbError | undefined
          const attempt = turn(
            Pool.use(pool, (pooled) => {
              const lease: Lease = {
                subject: subjectOf(entrance),
                connection: pooled.connection,
                pipeline: pooled.pipeline,
                open: true,
                clean: false,
                outstanding: 0,
                stained: false,
                savepoints: 0,
                refusal: undefined
              }
              return Effect.onExit(use(lease), () => {
                lease.open = false
                refusal = lease.refusal
                return lease.clean && !lease.stained && lease.outstanding === 0
                  ? Effect.void
                  : Pool.invalidate(pool, pooled)
              })
            })
          )
          const tryAtMost = (times: number): Effect.Effect<A, E | DbError, R> =>
            Effect.flatMap(
              attempt,
              Option.match({
                onNone: () => (times > 1 ? tryAtMost(times - 1) : Effect.fail(refusal ?? unavailable())),
                onSome: Effect.succeed
              })
            )
          return tryAtMost(options.size + 1)
        }

        const runQuery = <A>(
          entrance: Entrance,
          statement: (sql: Statement.Constructor) => Statement.Statement<A>
        ): Effect.Effect<ReadonlyArray<A>, DbError> => {
          const [text, values] = statement(sql).compile()
          const alone = runTransaction(entrance, (sql) => Effect.mapError(statement(sql), classify))
          // What may leave something in the session goes the long way, and its connection away.
          if (openSocket === undefined || !LEAVES_NOTHING.test(text)) return alone
          return Effect.flatMap(enterParams(entrance), (params) =>
            withLease(entrance, (lease) => {
              if (lease.pipeline?.isOpen !== true) return Effect.succeedNone
              const sent = lease.pipeline.run([ENTER, params], [text, values])
              if (sent === undefined) {
                lease.clean = true
                return Effect.succeedSome(undefined)
              }
              return Effect.matchEffect(sent, {
                onSuccess: (rows) => {
                  lease.clean = true
                  return areRowsOf<A>(rows) ? Effect.succeedSome(rows) : Effect.die(new Error("Unreachable"))
                },
                onFailure: (error) => {
                  if (error._tag === "EntranceRefused") {
                    lease.refusal = error.cause
                    return Effect.succeedNone
                  }
                  lease.clean = lease.pipeline?.isOpen === true
                  return Effect.fail(classify(error))
                }
              })
            })
          ).pipe(Effect.flatMap((rows) => (rows === undefined ? alone : Effect.succeed(rows))))
        }

        const savepoint = <A, E, R>(
          current: Lease,
          use: (sql: Statement.Constructor) => Effect.Effect<A, E, R>
        ): Effect.Effect<A, E | DbError, R> =>
          Effect.suspend(() => {
            const name = `s${++current.savepoints}`
            const run = (text: string) =>
              onLease((connection) => connection.query(text))(current).pipe(Effect.mapError(classify))
            return Effect.uninterruptibleMask((restore) =>
              run(`SAVEPOINT ${name}`).pipe(
                Effect.andThen(restore(use(sql))),
                Effect.tap(() => run(`RELEASE SAVEPOINT ${name}`)),
                Effect.onError((cause) =>
                  // Interrupted, a statement may still run: nothing of this transaction may go on.
                  Cause.hasInterrupts(cause)
                    ? Effect.sync(() => {
                        current.open = false
                      })
                    : Effect.ignore(
                        Effect.andThen(run(`ROLLBACK TO SAVEPOINT ${name}`), run(`RELEASE SAVEPOINT ${name}`))
                      )
                )
              )
            )
          })

        const runTransaction = <A, E, R>(
          entrance: Entrance,
          use: (sql: Statement.Constructor) => Effect.Effect<A, E, R>
        ): Effect.Effect<A, E | DbError, R> =>
          withLease(entrance, (current) =>
            Effect.gen(function* () {
              const params = yield* enterParams(entrance)
              const begin = yield* send(current, BEGIN)
              const sent = begin.pollUnsafe()
              if (sent !== undefined && Exit.isFailure(sent)) return Option.none<A>()
              const entered = yield* send(current, ENTER, params)
              const enter = Fiber.join(begin).pipe(
                Effect.andThen(Fiber.join(entered)),
                Effect.tapError((error) =>
                  Effect.sync(() => {
                    if (isRoleRefused(error)) current.refusal = error
                  })
                ),
                Effect.mapError(classify)
              )
              const end = (command: "COMMIT" | "ROLLBACK") =>
                Effect.suspend(() => {
                  current.open = false
                  return current.connection.query(command)
                }).pipe(
                  Effect.mapError(classify),
                  Effect.tap((answer) => {
                    current.clean = true
                    return answer.command === command
                      ? Effect.void
                      : Effect.die(new Error("COMMIT rolled back a failed transaction"))
                  })
                )
              return yield* Effect.uninterruptibleMask((restore) =>
                restore(Effect.andThen(enter, Effect.provideService(use(sql), CurrentLease, current))).pipe(
                  Effect.tap(() =>
                    current.open
                      ? end("COMMIT")
                      : Effect.die(new Error("An interrupted transaction cannot commit"))
                  ),
                  Effect.onError((cause) =>
                    // Interrupted, a statement may still run: the connection goes, and the transaction with it.
                    Cause.hasInterrupts(cause) || !current.open || current.outstanding > 0
                      ? Effect.void
                      : Effect.ignore(end("ROLLBACK"))
                  ),
                  Effect.map(Option.some),
                  Effect.catchIf(
                    () => current.refusal !== undefined,
                    () =>
                      Effect.sync(() => {
                        current.clean = false
                        return Option.none<A>()
                      })
                  )
                )
              )
            })
          )

        return TenantPool.of({
          query: (entrance, statement) =>
            Effect.flatMap(CurrentLease, (open) =>
              open === undefined
                ? runQuery(entrance, statement)
                : open.subject === subjectOf(entrance)
                  ? statement(sql).pipe(Effect.mapError(classify))
                  : refuse(open, entrance)
            ),
          transaction: (entrance, use) =>
            Effect.flatMap(CurrentLease, (open) =>
              open === undefined
                ? runTransaction(entrance, use)
                : open.subject === subjectOf(entrance)
                  ? savepoint(open, use)
                  : refuse(open, entrance)
            ),
          stats: Pool.stats(pool)
        })
      })
    )
}
