// The fake provider in a process of its own, which lives on while a test kills the platform:
//
// `node test/support/fake-provider.ts [port]` says its address as a line of JSON (`{"url"}`) and runs until its
// standard input closes, so that nobody has to tidy up after a test run that was killed. `GET /invoice` answers what
// it billed.
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { startFakeProviderAt } from "./FakeProvider.ts"

const parentGone = Effect.callback<void>((resume) => {
  // With the parent gone there is nobody to write to either.
  process.stdout.on("error", () => {})
  process.stdin.on("close", () => resume(Effect.void))
  process.stdin.on("error", () => resume(Effect.void))
  process.stdin.resume()
})

const run = Effect.gen(function* () {
  const { url } = yield* startFakeProviderAt(Number(process.argv[2] ?? 0))
  yield* Console.log(JSON.stringify({ url }))
  yield* parentGone
}).pipe(Effect.scoped)

NodeRuntime.runMain(run)
