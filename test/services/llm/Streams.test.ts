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
  it.effect(
    "that dies is resumed by models that refuse an assistant's last turn, and by those that take it",
    () =>
      Effect.gen(function* () {
        for (const next of ["claude-sonnet-5-5", "claude-opus-4-6", "claude-haiku-4-5"]) {
          const told = yield* streamed(["openai/fault-cut", `anthropic/${next}`], { resume: true })
          assert.strictEqual(told.text, answer, next)
          assert.deepStrictEqual(
            told.records.map(({ status }) => status),
            ["failed", "ok"]
          )
        }
      })
  )
  it.effect("that dies is resumed in each dialect, from each vendor to the other", () =>
    Effect.gen(function* () {
      for (const dialect of ["openai-chat", "openai-responses", "anthropic-messages"] as const) {
        for (const [first, second] of [
          ["openai", "anthropic"],
          ["anthropic", "openai"],
          ["anthropic", "anthropic"],
          ["openai", "openai"]
        ]) {
          for (const fault of ["cut", "inband"]) {
            const told = yield* streamed([`${first}/fault-${fault}`, `${second}/mock`], {
              dialect,
              resume: true
            })
            const what = `${dialect}: ${first}, ${second}, ${fault}`
            assert.strictEqual(told.text, answer, what)
            assert.isTrue(told.ended, what)
            assert.isUndefined(told.error, what)
          }
        }
      }
    })
  )
  it.effect("that has no other provider goes back to the same one", () =>
    Effect.gen(function* () {
      const told = yield* streamed(["openai/fault-cut"], { resume: true })
      // Cut at the same place, it has nothing more to give: asked in vain as often as any, and then told.
      assert.deepStrictEqual(
        told.records.map(({ resumed }) => resumed),
        [false, true, true, true]
      )
      assert.isFalse(told.ended)
      assert.isDefined(told.error)
      assert.isTrue(answer.startsWith(told.text))
    })
  )
  it.effect("that began to call a tool is not resumed: no provider can go on in the middle of one", () =>
    Effect.gen(function* () {
      const body = bodyFor("openai-chat", {
        tools: [
          {
            type: "function",
            function: {
              name: "look",
              parameters: {
                type: "object",
                properties: { where: { type: "string" }, when: { type: "string" }, how: { type: "string" } },
                required: ["where", "when", "how"]
              }
            }
          }
        ],
        tool_choice: "required"
      })
      const told = yield* streamed(["openai/fault-cut", "openai/mock"], { body, resume: true })
      assert.isFalse(told.ended)
      assert.isDefined(told.error)
      assert.lengthOf(told.records, 1)
    })
  )
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
