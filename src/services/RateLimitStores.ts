import { Context, Duration, Effect, Layer } from "effect"
import { RateLimiter, Redis as PersistenceRedis } from "effect/persistence"
import { Cluster, ReplyError } from "ioredis"
import { Redis } from "./Redis.ts"

/** The type parameter of `send` is its caller's word for what Redis answers: there is nothing to check it by. */
const isAnswerOf = <A>(answer: unknown): answer is A => answer !== undefined

/** A script has to be on every node that may get a key of its. */
const loadScript = async (client: Cluster, args: ReadonlyArray<string>): Promise<unknown> => {
  const answers = await Promise.all(client.nodes("master").map((node) => node.call("SCRIPT", [...args])))
  return answers[0]
}

/**
 * `effect`'s own idea of Redis over our connection: just what its limiter needs, which is to send commands. An
 * error that Redis replies with stays one (`NOSCRIPT` after a restart makes the limiter load its script again).
 */
const PersistenceRedisLayer = Layer.effect(
  PersistenceRedis.Redis,
  Effect.gen(function* () {
    const redis = yield* Redis
    const onlyCommands = Effect.die(new Error("The limiter only sends commands"))
    return yield* PersistenceRedis.make({
      send: <A>(command: string, ...args: ReadonlyArray<string>) =>
        redis
          .use((client) => {
            const sent =
              command === "SCRIPT" && client instanceof Cluster
                ? loadScript(client, args)
                : client.call(command, [...args])
            return sent.catch((error: unknown) => {
              if (error instanceof ReplyError) return error
              throw error
            })
          })
          .pipe(
            Effect.mapError((cause) => new PersistenceRedis.RedisError({ cause })),
            Effect.flatMap((answer) =>
              answer instanceof ReplyError || !isAnswerOf<A>(answer)
                ? Effect.fail(new PersistenceRedis.RedisError({ cause: answer }))
                : Effect.succeed(answer)
            )
          ),
      subscribe: () => onlyCommands,
      connect: onlyCommands
    })
  })
)

/** Counts that all instances share, in Redis, under the keys that they are given. */
export class SharedLimiter extends Context.Service<SharedLimiter, RateLimiter.RateLimiter>()(
  "agent-army/services/SharedLimiter"
) {
  static readonly layer = Layer.effect(SharedLimiter, RateLimiter.make).pipe(
    Layer.provide(RateLimiter.layerStoreRedis({ prefix: "" })),
    Layer.provide(PersistenceRedisLayer)
  )
}

/** Keys that a limiter of this process counts at most: beyond, it begins anew, rather than let callers fill the memory. */
const LOCAL_KEYS = 50_000

/** Counts of this process alone, for as long as Redis is away. */
export const makeLocalLimiter = Effect.gen(function* () {
  const make = Effect.scoped(
    Effect.flatMap(Layer.build(Layer.fresh(RateLimiter.layerStoreMemory)), (context) =>
      Effect.provideContext(RateLimiter.make, context)
    )
  )
  const keys = new Set<string>()
  let current = yield* make
  const renew = Effect.map(make, (made) => {
    keys.clear()
    current = made
  })
  const consume: RateLimiter.RateLimiter["consume"] = (options) =>
    Effect.suspend(() => {
      keys.add(options.key)
      return keys.size > LOCAL_KEYS
        ? Effect.andThen(renew, current.consume(options))
        : current.consume(options)
    })
  /** The store of `effect` has no way to delete: what was counted is taken back. */
  const forget = (policy: { readonly key: string; readonly limit: number; readonly windowSeconds: number }) =>
    Effect.suspend(() => {
      const options = { key: policy.key, limit: policy.limit, window: Duration.seconds(policy.windowSeconds) }
      return Effect.ignore(
        Effect.flatMap(current.consume({ ...options, tokens: 0 }), ({ remaining }) =>
          current.consume({ ...options, tokens: remaining - policy.limit })
        )
      )
    })
  return { consume, renew, forget }
})
