import { Effect } from "effect"
import { TestDatabase } from "./Platform.ts"

/** The keys that fit a pattern, but for the counters of limits, which every request moves. In their order. */
export const keysOfData = Effect.fnUntraced(function* (pattern: string) {
  const { redis } = yield* TestDatabase
  const keys = yield* Effect.promise(() => redis.keys(pattern))
  return keys.filter((key) => !/^(?:t:\{[^}]*\}|p):rate:/.test(key)).toSorted()
})
