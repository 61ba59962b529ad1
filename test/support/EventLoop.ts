import { Effect } from "effect"

const turn = Effect.callback<void>((resume) => {
  const waiting = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(waiting))
})

/** Lets the event loop turn so often, and once more. */
export const turns = (count: number) => Effect.repeat(turn, { times: count })
