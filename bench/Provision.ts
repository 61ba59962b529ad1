import { Console, Duration, Effect } from "effect"
import { developmentSecrets } from "../src/layers/DevelopmentSecrets.ts"
import { median, quantile } from "./Figures.ts"
import { servePlatform, temporaryFolder } from "./Processes.ts"
import { provisionTenant } from "./Seed.ts"

/** There already when the measurement begins. */
const TENANTS_BEFORE = 10
const GOAL = Duration.millis(100)

/** How long it takes to provision a tenant with its admin, by HTTP, one after the other. */
export const provision = Effect.fn("provision")(function* ({ samples }: { readonly samples: number }) {
  const { dataDir } = yield* temporaryFolder
  yield* Console.log("Starting the server …")
  const url = yield* servePlatform(dataDir)
  const { operator_api_key } = yield* developmentSecrets(dataDir)
  const timed = (slug: string) =>
    Effect.timed(provisionTenant(url, operator_api_key, slug)).pipe(
      Effect.map(([duration]) => Duration.toMillis(duration))
    )

  for (let index = 0; index < TENANTS_BEFORE; index++) yield* timed(`before-${index}`)
  const taken: Array<number> = []
  for (let index = 0; index < samples; index++) taken.push(yield* timed(`sample-${index}`))

  const middle = median(taken)
  const [least, most, p90] = [Math.min(...taken), Math.max(...taken), quantile(taken, 0.9)]
  yield* Console.log(
    `Provisioning a tenant: median ${middle.toFixed(1)} ms, p90 ${p90.toFixed(1)} ms, ` +
      `${least.toFixed(1)} to ${most.toFixed(1)} ms (${samples} samples, ${TENANTS_BEFORE} tenants before).\n` +
      `Goal: a median below ${Duration.toMillis(GOAL)} ms. ${middle < Duration.toMillis(GOAL) ? "Met." : "Missed."}`
  )
})
