// What was called is in the books, whatever became of the callers, the providers and the platform.
import { NodeServices } from "@effect/platform-node"
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { chaos } from "../support/LlmChaos.ts"
import { assertBalanced } from "../support/LlmBalance.ts"
import { onRealClock, TestApp } from "../support/Platform.ts"

layer(TestApp.pipe(Layer.provideMerge(NodeServices.layer)), onRealClock)("the ledger", (it) => {
  it.effect("has one row for each call of a provider, through a kill -9", () =>
    Effect.flatMap(chaos(240, 24), assertBalanced).pipe(Effect.scoped)
  )
})
