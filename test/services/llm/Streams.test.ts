import { assert, layer } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { onRealClock } from "../../support/Platform.ts"
import { startFakeProvider } from "../../support/FakeProvider.ts"
import type { FakeProvider } from "../../support/FakeProvider.ts"
import { bodyFor, completed, gatewayAt, streamed, words } from "../../support/LlmCalls.ts"

class Fake extends Context.Service<Fake, FakeProvider>()("test/Fake") {}
const FakeLayer = Layer.effect(Fake, startFakeProvider)
const Gateway = Layer.unwrap(Effect.map(Fake, ({ url }) => gatewayAt(url))).pipe(
  Layer.provideMerge(FakeLayer)
)

const broken = ["cut", "stall", "inband", "malformed"] as const
const answer = words(50)

layer(Gateway, onRealClock)("a stream", (it) => {
  it.effect("is the provider's own", () =>
    Effect.gen(function* () {
      for (const dialect of ["openai-chat", "openai-responses", "anthropic-messages"] as const) {
        const provider = dialect === "anthropic-messages" ? "anthropic" : "openai"
        const told = yield* streamed([`${provider}/mock`], { dialect })
        assert.strictEqual(told.text, answer, dialect)
        assert.isTrue(told.ended, dialect)
        assert.isUndefined(told.error, dialect)
        assert.lengthOf(told.records, 1)
        assert.strictEqual(told.records[0]?.status, "ok")
        assert.isFalse(told.records[0]?.estimated)
        assert.strictEqual(told.records[0]?.usage.output, 50, dialect)
      }
    })
  )
  it.effect("crosses dialects", () =>
    Effect.gen(function* () {
      for (const [model, dialect] of [
        ["anthropic/mock", "openai-chat"],
        ["anthropic/mock", "openai-responses"],
        ["openai/mock", "anthropic-messages"]
      ] as const) {
        const told = yield* streamed([model], { dialect })
        assert.strictEqual(told.text, answer, `${model} ${dialect}`)
        assert.isTrue(told.ended, dialect)
        assert.strictEqual(told.records[0]?.usage.output, 50, dialect)
      }
    })
  )
  for (const fault of broken) {
    it.effect(`that dies midway (${fault}) ends with an error, never as a clean end`, () =>
      Effect.gen(function* () {
        const told = yield* streamed([`openai/fault-${fault}`, "openai/mock"])
        assert.isFalse(told.ended)
        assert.include(told.error, `openai/fault-${fault}`)
        assert.isTrue(answer.startsWith(told.text))
        assert.deepStrictEqual(
          told.records.map(({ status }) => status),
          ["failed"]
        )
        assert.isTrue(told.records[0]?.estimated)
      })
    )
    it.effect(`that dies midway (${fault}) is resumed where the caller wants it`, () =>
      Effect.gen(function* () {
        for (const next of ["openai/mock", "anthropic/mock"]) {
          const told = yield* streamed([`openai/fault-${fault}`, next], { resume: true })
          assert.strictEqual(told.text, answer, next)
          assert.isTrue(told.ended)
          assert.isUndefined(told.error)
          assert.deepStrictEqual(
            told.records.map(({ status }) => status),
            ["failed", "ok"]
          )
          assert.deepStrictEqual(
            told.records.map(({ resumed }) => resumed),
            [false, true]
          )
        }
      })
    )
  }
  it.effect("completes", () =>
    Effect.gen(function* () {
      const { records, result } = yield* completed(["openai/mock"])
      assert.strictEqual(result._tag, "Success")
      assert.lengthOf(records, 1)
    })
  )
  it.effect("without [DONE]", () =>
    Effect.gen(function* () {
      const told = yield* streamed(["openai/fault-nodone"], {
        body: bodyFor("openai-chat", { stream_options: { include_usage: true } })
      })
      assert.isTrue(told.ended)
      assert.strictEqual(told.usage?.["completion_tokens"], 50)
    })
  )
})
