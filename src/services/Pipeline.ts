import { PgProtocol, PgTypes } from "@effect/sql-pg"
import { Data, Effect, Predicate, Result } from "effect"
import { SqlError } from "effect/sql"
import { Buffer } from "node:buffer"
import type { NonSharedBuffer } from "node:buffer"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { isRoleRefused, sqlErrorOf } from "./DbErrors.ts"

/** Statements kept prepared per connection: names are qualified by schema, so each tenant has its own. */
const PREPARED_STATEMENTS = 500
/** Cached plan must not change result type; no such prepared statement: it is prepared anew, and tried once more. */
const STALE = new Set(["0A000", "26000"])

/** A statement that Postgres holds under a name on this connection. */
interface Prepared {
  readonly name: string
  readonly key: string
  /** `Parse` was confirmed. */
  parsed: boolean
  /** What it answers, once `Describe` has told. */
  description: Description | undefined
}

interface Description {
  readonly columns: ReadonlyArray<string>
  readonly readField: PgProtocol.FieldReader<unknown> | undefined
}

type Row = Record<string, unknown>

/** This session may not take on the role that the entrance names (see `isRoleRefused`); the statement did not run. */
export class EntranceRefused extends Data.TaggedError("EntranceRefused")<{
  readonly cause: SqlError.SqlError
}> {}

type Answer = Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError | EntranceRefused>

/** A round trip on its way. */
interface RoundTrip {
  readonly prepared: ReadonlyArray<Prepared>
  readonly rows: Array<Row>
  /** Which of the statements Postgres answers at the moment. */
  at: number
  failure: SqlError.SqlError | EntranceRefused | undefined
  stale: boolean
  readonly end: (result: Answer) => void
}

const encodeBind = PgProtocol.makeBindEncoder(PgTypes.writeParameter, PgTypes.isTextFormat)
const EXECUTE = PgProtocol.encodeExecute({ portal: "", maxRows: 0 })
const DESCRIBE = PgProtocol.encodeDescribe({ target: "portal", name: "" })
const SYNC = PgProtocol.encodeSync()

const connectionLost = (message: string) =>
  new SqlError.SqlError({
    reason: new SqlError.ConnectionError({ cause: new Error(message), message, operation: "query" })
  })

const untyped = (value: string | null): PgTypes.Parameter => ({
  [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId,
  oid: 0,
  value
})

/** A bound value as the driver would type it; undefined for those that take more thought than that. */
const parameterOf = (value: unknown): PgTypes.Parameter | undefined => {
  if (value === null || value === undefined) return untyped(null)
  if (Predicate.isString(value)) return untyped(value)
  if (Predicate.isBoolean(value)) return PgTypes.bool(value)
  if (Predicate.isNumber(value)) return value === (value | 0) ? PgTypes.int4(value) : undefined
  if (value instanceof Date) return PgTypes.timestamptz(value)
  if (value instanceof Uint8Array) return PgTypes.bytea(value)
  return PgTypes.isParameter(value) ? value : undefined
}

const parametersOf = (values: ReadonlyArray<unknown>): ReadonlyArray<PgTypes.Parameter> | undefined => {
  const parameters: Array<PgTypes.Parameter> = []
  for (const value of values) {
    const parameter = parameterOf(value)
    if (parameter === undefined) return undefined
    parameters.push(parameter)
  }
  return parameters
}

/**
 * How to open the socket of a connection URL; undefined where TLS is asked for, whose stream is the driver's own.
 */
export const plainSocket = (url: string): (() => Socket) | undefined => {
  if (!URL.canParse(url)) return undefined
  const { hostname, port, searchParams } = new URL(url)
  if ((searchParams.get("sslmode") ?? "disable") !== "disable") return undefined
  const named = searchParams.get("host") ?? decodeURIComponent(hostname.replace(/^\[(.*)\]$/, "$1"))
  const host = named === "" ? "localhost" : named
  const portNumber = Number(searchParams.get("port") ?? (port === "" ? "5432" : port))
  return host.startsWith("/")
    ? () => connect({ path: `${host}/.s.PGSQL.${portNumber}` })
    : () => connect({ host, port: portNumber, noDelay: true, keepAlive: true, keepAliveInitialDelay: 10_000 })
}

/**
 * Two statements on a connection in one round trip and one transaction: all their messages before one `Sync`, which
 * begins an implicit transaction and ends it (PostgreSQL manual, 54.2.4 "Pipelining"). Postgres commits at the `Sync`
 * or rolls back, and answers in one packet; `BEGIN` and `COMMIT` with a `Sync` each would be four.
 *
 * Written by ourselves because this is the product's hot path and the driver sends a `Sync` with each statement. The
 * driver still opens the connection, authenticates, and has it for everything else: while a round trip is on its way
 * its socket is read here, and only then.
 */
export class Pipeline {
  readonly #socket: Socket
  readonly #parser = PgProtocol.makeParser<unknown>()
  readonly #prepared = new Map<string, Prepared>()
  readonly #onData = (chunk: string | NonSharedBuffer) => this.#read(chunk)
  #driver: ReadonlyArray<(chunk: string | NonSharedBuffer) => void> = []
  #evicted: Array<Prepared> = []
  #named = 0
  #current: RoundTrip | undefined

  /** Takes the socket of a connection that the driver has made ready. */
  constructor(socket: Socket) {
    this.#socket = socket
    socket.once("close", () => this.#fail(connectionLost("The connection was closed")))
  }

  /** Whether nothing is known yet of the connection being gone. */
  get isOpen(): boolean {
    return this.#socket.writable && !this.#socket.destroyed
  }

  /**
   * Runs `entrance`, then `statement`, and answers with the rows of the second. Undefined when it has values that are
   * the driver's to type; nothing was sent then. Interrupted, it leaves the connection in the middle of an answer:
   * whoever interrupts closes it.
   */
  run(
    entrance: readonly [text: string, values: ReadonlyArray<string>],
    statement: readonly [text: string, values: ReadonlyArray<unknown>]
  ): Answer | undefined {
    const parameters = parametersOf(statement[1])
    if (parameters === undefined) return undefined
    const steps = [
      { text: entrance[0], parameters: entrance[1].map(untyped) },
      { text: statement[0], parameters }
    ]
    const attempt = (again: boolean): Answer =>
      Effect.callback((resume) => {
        if (this.#current !== undefined || !this.isOpen) {
          return resume(Effect.fail(connectionLost("The connection is not free")))
        }
        const frames: Array<Uint8Array> = []
        const prepared: Array<Prepared> = []
        for (const { parameters, text } of steps) {
          const one = this.#prepare(text, parameters)
          prepared.push(one)
          const failure = encode(frames, one, text, parameters)
          if (failure !== undefined) return resume(Effect.fail(failure))
        }
        const closing = this.#evicted.map(({ name }) => PgProtocol.encodeClose({ target: "statement", name }))
        this.#evicted = []
        const trip: RoundTrip = {
          prepared,
          rows: [],
          at: 0,
          failure: undefined,
          stale: false,
          end: (result) => {
            if (!trip.stale || !again) return resume(result)
            for (const one of prepared) this.#forget(one)
            resume(attempt(false))
          }
        }
        this.#take(trip)
        this.#socket.write(Buffer.concat([...closing, ...frames, SYNC]))
      })
    return attempt(true)
  }

  /** The statement's name on this connection; the one that was not used for the longest time makes room for it. */
  #prepare(text: string, parameters: ReadonlyArray<PgTypes.Parameter>): Prepared {
    const key = `${parameters.map(({ oid }) => oid).join()} ${text}`
    const found = this.#prepared.get(key)
    if (found !== undefined) {
      this.#prepared.delete(key)
      this.#prepared.set(key, found)
      return found
    }
    const made: Prepared = { name: `p${++this.#named}`, key, parsed: false, description: undefined }
    this.#prepared.set(key, made)
    if (this.#prepared.size > PREPARED_STATEMENTS) {
      const [oldest] = this.#prepared.values()
      if (oldest !== undefined) this.#forget(oldest)
    }
    return made
  }

  #forget(prepared: Prepared) {
    this.#prepared.delete(prepared.key)
    this.#evicted.push(prepared)
  }

  /** From here to `ReadyForQuery`, what Postgres says is for us. */
  #take(trip: RoundTrip) {
    this.#current = trip
    this.#parser.readField = undefined
    this.#driver = this.#socket.listeners("data")
    for (const listener of this.#driver) this.#socket.off("data", listener)
    this.#socket.on("data", this.#onData)
  }

  #release(result: Answer) {
    const trip = this.#current
    if (trip === undefined) return
    this.#current = undefined
    this.#socket.off("data", this.#onData)
    for (const listener of this.#driver) this.#socket.on("data", listener)
    trip.end(result)
  }

  /** The connection is of no use any more. */
  #fail(error: SqlError.SqlError) {
    this.#socket.destroy()
    this.#release(Effect.fail(this.#current?.failure ?? error))
  }

  #read(chunk: string | NonSharedBuffer) {
    const parsed = Result.try(() =>
      this.#parser.pushEach(Predicate.isString(chunk) ? Buffer.from(chunk) : chunk, (message) =>
        this.#answer(message)
      )
    )
    if (Result.isFailure(parsed)) this.#fail(connectionLost("The server's answer was not understood"))
  }

  #answer(message: PgProtocol.BackendMessage<unknown>) {
    const trip = this.#current
    const prepared = trip?.prepared[trip.at]
    if (trip === undefined) return this.#fail(connectionLost("The server answered what nobody asked"))
    switch (message._tag) {
      case "ParseComplete":
        if (prepared !== undefined) prepared.parsed = true
        return
      case "BindComplete":
        this.#parser.readField = prepared?.description?.readField
        return
      case "NoData":
        if (prepared !== undefined) prepared.description = { columns: [], readField: undefined }
        return
      case "RowDescription": {
        const reader = PgTypes.makeFieldReader(message.fields)
        if (Result.isFailure(reader)) return this.#fail(connectionLost(reader.failure.message))
        this.#parser.readField = reader.success
        if (prepared !== undefined) {
          prepared.description = {
            columns: message.fields.map(({ name }) => name),
            readField: reader.success
          }
        }
        return
      }
      case "DataRow":
        // The entrance answers with what was sent to it.
        if (trip.at > 0) trip.rows.push(rowOf(prepared?.description?.columns ?? [], message.values))
        return
      case "CommandComplete":
      case "EmptyQueryResponse":
        trip.at++
        return
      case "ErrorResponse": {
        const failure = sqlErrorOf(message.fields)
        trip.failure ??=
          trip.at === 0 && isRoleRefused(failure) ? new EntranceRefused({ cause: failure }) : failure
        trip.stale = STALE.has(message.fields.code ?? "") && prepared?.parsed === true
        return
      }
      case "ReadyForQuery":
        // Anything but idle: the statement has opened a transaction of its own, which nobody may meet.
        if (message.status !== "I") return this.#fail(connectionLost("A transaction was left open"))
        return this.#release(
          trip.failure === undefined ? Effect.succeed(trip.rows) : Effect.fail(trip.failure)
        )
      case "CloseComplete":
      case "NoticeResponse":
      case "NotificationResponse":
      case "ParameterStatus":
        return
      default:
        return this.#fail(connectionLost(`The server answered with ${message._tag}`))
    }
  }
}

const rowOf = (columns: ReadonlyArray<string>, values: ReadonlyArray<unknown>): Row => {
  const row: Row = {}
  for (let index = 0; index < columns.length; index++) row[columns[index] ?? ""] = values[index]
  return row
}

/** `Parse` where it is new, `Bind`, `Describe` where nothing is known of its answer, `Execute`. */
const encode = (
  frames: Array<Uint8Array>,
  prepared: Prepared,
  text: string,
  parameters: ReadonlyArray<PgTypes.Parameter>
): SqlError.SqlError | undefined => {
  const refuse = (cause: Error) =>
    new SqlError.SqlError({
      reason: new SqlError.UnknownError({ cause, message: cause.message, operation: "query" })
    })
  if (!prepared.parsed) {
    const parse = PgProtocol.encodeParse({
      name: prepared.name,
      query: text,
      parameterTypes: parameters.map(({ oid }) => oid)
    })
    if (Result.isFailure(parse)) return refuse(parse.failure)
    frames.push(parse.success)
  }
  const bind = encodeBind({ portal: "", statement: prepared.name, parameters })
  if (Result.isFailure(bind)) return refuse(bind.failure)
  frames.push(bind.success)
  if (prepared.description === undefined) frames.push(DESCRIBE)
  frames.push(EXECUTE)
  return undefined
}
