import { Context, Duration, Effect, Layer, Option, Redacted } from "effect"
import type { Scope } from "effect"
import { Cluster, Redis as Client } from "ioredis"
import type { ClusterNode, RedisOptions } from "ioredis"
import { DependencyUnavailable } from "../domain/Problems.ts"

/**
 * With its defaults `ioredis` waits for ever on a half-open connection, and queues without bound while there is
 * none. These make a call fail within half a second, and at once when Redis is known to be away.
 */
const options = {
  lazyConnect: true,
  connectTimeout: 1_000,
  commandTimeout: 500,
  socketTimeout: 1_000,
  enableOfflineQueue: false,
  maxRetriesPerRequest: 1,
  // A command that was not answered may have been done: doing it again is the caller's decision.
  autoResendUnfulfilledCommands: false,
  retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 10), 1_000),
  reconnectOnError: (error: Error) => error.message.startsWith("READONLY")
} satisfies RedisOptions

/** How long the start waits for the first connection; without it the server starts all the same. */
const FIRST_CONNECTION = Duration.seconds(2)

/**
 * How long a connection that blocks may be silent. Its commands ask Redis to answer after a second in any case, so
 * that a peer that is gone without a word is noticed.
 */
const SILENT_MILLIS = 2_000

/** A comma-separated list of nodes is a Cluster. */
const connect = (url: string): Client | Cluster => {
  const urls = url.split(",").map((part) => part.trim())
  const [first = ""] = urls
  if (urls.length === 1) return new Client(first, options)
  const { password, protocol, username } = new URL(first)
  const nodes: Array<ClusterNode> = urls.map((node) => {
    const { hostname, port } = new URL(node)
    return { host: hostname, port: port === "" ? 6379 : Number(port) }
  })
  return new Cluster(nodes, {
    lazyConnect: true,
    enableOfflineQueue: false,
    clusterRetryStrategy: options.retryStrategy,
    slotsRefreshInterval: 10_000,
    redisOptions: {
      connectTimeout: options.connectTimeout,
      commandTimeout: options.commandTimeout,
      socketTimeout: options.socketTimeout,
      maxRetriesPerRequest: options.maxRetriesPerRequest,
      ...(username === "" ? {} : { username: decodeURIComponent(username) }),
      ...(password === "" ? {} : { password: decodeURIComponent(password) }),
      ...(protocol === "rediss:" ? { tls: {} } : {})
    }
  })
}

const unavailable = new DependencyUnavailable({ detail: "Redis is unavailable" })

/**
 * The connection to Redis. Only `TenantCache` (and what else stands behind a tenant's prefix) and the health check
 * see it: every key of a tenant is made there, and nowhere else.
 */
export class Redis extends Context.Service<
  Redis,
  {
    /** Runs commands. Every failure of theirs is `DependencyUnavailable`: the commands we send are never wrong. */
    readonly use: <A>(
      commands: (client: Client | Cluster) => Promise<A>
    ) => Effect.Effect<A, DependencyUnavailable>
    /**
     * A connection of its own for commands that block for a second at most: what waits behind one waits with it. It
     * reconnects by itself and closes with the scope. None where there is no Redis, or a Cluster.
     */
    readonly blocking: Effect.Effect<Option.Option<Client>, never, Scope.Scope>
  }
>()("agent-army/services/Redis") {
  static readonly layer = (settings: { readonly url: Redacted.Redacted<string> }) =>
    Layer.effect(
      Redis,
      Effect.gen(function* () {
        const client = yield* Effect.acquireRelease(
          Effect.sync(() => {
            const client = connect(Redacted.value(settings.url))
            // Each failed call says so itself; without a listener Node would end the process.
            client.on("error", () => undefined)
            return client
          }),
          (client) => Effect.sync(() => client.disconnect())
        )
        yield* Effect.tryPromise(() => client.connect()).pipe(Effect.timeout(FIRST_CONNECTION), Effect.ignore)
        const url = Redacted.value(settings.url)
        return Redis.of({
          use: (commands) => Effect.tryPromise({ try: () => commands(client), catch: () => unavailable }),
          blocking: url.includes(",")
            ? Effect.succeedNone
            : Effect.acquireRelease(
                Effect.sync(() => {
                  const { commandTimeout: _, ...rest } = options
                  // Without a time limit, a command that is pending when the connection ends has to fail there and then: with
                  // a retry to come, and nothing sent again, it would be pending for ever.
                  const client = new Client(url, {
                    ...rest,
                    socketTimeout: SILENT_MILLIS,
                    maxRetriesPerRequest: 0
                  })
                  client.on("error", () => undefined)
                  // A first connection that fails is tried again, as every later one is.
                  client.connect().catch(() => undefined)
                  return Option.some(client)
                }),
                Option.match({
                  onNone: () => Effect.void,
                  onSome: (client) => Effect.sync(() => client.disconnect())
                })
              )
        })
      })
    )

  /** Where there is no Redis to be had: what needs it answers `DependencyUnavailable`, the rest goes on. */
  static readonly layerAbsent = Layer.succeed(
    Redis,
    Redis.of({ use: () => Effect.fail(unavailable), blocking: Effect.succeedNone })
  )
}
