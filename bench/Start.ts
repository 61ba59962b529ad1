import { Console, Duration, Effect } from "effect"
import { median } from "./Figures.ts"
import { servePlatform, temporaryFolder } from "./Processes.ts"

const GOAL = Duration.seconds(5)

/** How long a start takes on a data directory that is there, until the server is ready: Postgres, Redis and all. */
export const start = Effect.fn("start")(function* ({ samples }: { readonly samples: number }) {
  const { dataDir } = yield* temporaryFolder
  const once = Effect.timed(servePlatform(dataDir)).pipe(
    Effect.map(([duration]) => Duration.toSeconds(duration)),
    Effect.scoped
  )

  const first = yield* once
  yield* Console.log(`The first start, which makes the database: ${first.toFixed(2)} s`)
  const taken: Array<number> = []
  for (let index = 0; index < samples; index++) taken.push(yield* once)

  const middle = median(taken)
  yield* Console.log(
    `A warm start: median ${middle.toFixed(2)} s, ` +
      `${Math.min(...taken).toFixed(2)} to ${Math.max(...taken).toFixed(2)} s (${samples} samples).\n` +
      `Goal: below ${Duration.toSeconds(GOAL)} s. ${middle < Duration.toSeconds(GOAL) ? "Met." : "Missed."}`
  )
})
