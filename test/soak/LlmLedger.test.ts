import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { assertBalanced } from "../support/LlmBalance.ts"
import { chaos, steady } from "../support/LlmChaos.ts"
import { TestApp } from "../support/Platform.ts"

const App = TestApp.pipe(Layer.provideMerge(NodeServices.layer))

layer(App, { timeout: 900_000, excludeTestServices: true })("the ledger", (it) => {
  it.effect("has one row for each call of a provider, after 10,000 calls and a kill -9", () =>
    Effect.flatMap(chaos(10_000, 64), assertBalanced).pipe(Effect.scoped)
  )

  it.effect(
    "fails no call and loses no row while it can't be written to for 60 s, at 300 calls a second",
    () =>
      Effect.gen(function* () {
        const { billed, rows, statuses } = yield* steady({ perSecond: 300, seconds: 70, awayFor: 60 })
        assert.deepStrictEqual(statuses, { 200: 21_000 })
        assert.lengthOf(rows, billed.length)
        assert.sameMembers(
          rows.map(({ provider_request_id }) => provider_request_id),
          billed.map(({ requestId }) => requestId)
        )
        for (const { cost_usd, estimated } of rows) {
          assert.isFalse(estimated)
          assert.isAbove(Number(cost_usd), 0)
        }
      }).pipe(Effect.scoped)
  )
})
