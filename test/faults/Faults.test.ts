// What providers do to a gateway, one fault a test: what the gateway's client gets, and what the providers saw of it. Each
// fault is a group of the tenant's, the faulty model first and one that is well behind it.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { ask } from "../support/ChatClient.ts"
import type { Seen } from "../support/ChatClient.ts"
import { attemptsOf, FakeProvider, tenantWith, TestLlmApp, words } from "../support/LlmApp.ts"
import { member } from "../support/Http.ts"
import { onRealClock } from "../support/Platform.ts"

const TEXT = words(50)

const resume = { "x-llm-resume": "true" }
const streamed = { stream: true, stream_options: { include_usage: true } }

/** The whole text came, once, and ended as a stream should. */
const assertWhole = (seen: Seen) => {
  const told = `${seen.status} ${seen.raw.slice(0, 2000)}`
  assert.strictEqual(seen.status, 200, told)
  assert.isUndefined(seen.error, told)
  assert.strictEqual(seen.text, TEXT, told)
  assert.isTrue(seen.done, told)
  assert.strictEqual(seen.finish, "stop", told)
  assert.lengthOf(seen.usages, 1, told)
}

/** One call of a group whose first model has the fault; with what came of it, and how often that model was asked. */
const suffer = Effect.fnUntraced(function* (
  fault: string,
  body: Readonly<Record<string, unknown>> = streamed
) {
  const tenant = yield* tenantWith(`fault-${fault}`)
  const seen = yield* ask(tenant, { model: `g-fault-${fault}`, ...body }, resume)
  return { seen, attempts: yield* attemptsOf(yield* FakeProvider, `fault-${fault}`) }
})

layer(TestLlmApp, onRealClock)("a provider that", (it) => {
  it.effect("says 429 and when to come back is asked again then, and not before", () =>
    Effect.gen(function* () {
      const { attempts, seen } = yield* suffer("429-ra2")
      assertWhole(seen)
      const [first, second] = attempts
      if (second !== undefined && first !== undefined)
        assert.isAtLeast(second.atMillis - first.atMillis, 1900)
    })
  )

  it.effect("says 429 for ever is given up for the next", () =>
    Effect.gen(function* () {
      const { attempts, seen } = yield* suffer("429")
      assertWhole(seen)
      assert.strictEqual(seen.model, "mock")
      assert.isAtMost(attempts.length, 6)
    })
  )

  for (const fault of ["500-once", "reset-once"]) {
    it.effect(`fails with ${fault} is asked again, unseen`, () =>
      Effect.gen(function* () {
        const { attempts, seen } = yield* suffer(fault)
        assertWhole(seen)
        assert.isAtLeast(attempts.length, 1)
      })
    )
  }

  for (const fault of ["503", "529"]) {
    it.effect(`answers ${fault} and nothing else is given up for the next`, () =>
      Effect.gen(function* () {
        const { seen } = yield* suffer(fault)
        assertWhole(seen)
        assert.strictEqual(seen.model, "mock")
      })
    )
  }

  it.effect("never answers is waited for once", () =>
    Effect.gen(function* () {
      const { attempts, seen } = yield* suffer("hang")
      assertWhole(seen)
      assert.lengthOf(attempts, 1)
    })
  )

  it.effect("sends its head and then nothing in time is given up for the next", () =>
    Effect.gen(function* () {
      const { seen } = yield* suffer("slow-ttft")
      assertWhole(seen)
      assert.strictEqual(seen.model, "mock")
      assert.isBelow(seen.millis, 5000)
    })
  )

  for (const [fault, what] of [
    ["cut", "hangs up midway"],
    ["stall", "falls silent midway"],
    ["inband", "tells of an error midway"],
    ["malformed", "sends a broken chunk"]
  ] as const) {
    it.effect(`${what} is gone on from by the next, without a word lost or doubled`, () =>
      Effect.map(suffer(fault), ({ seen }) => assertWhole(seen))
    )

    it.effect(`${what} is told of, where nobody asked for more: never a clean end`, () =>
      Effect.gen(function* () {
        const tenant = yield* tenantWith(`fault-${fault}`)
        const seen = yield* ask(tenant, { model: `g-fault-${fault}`, ...streamed })
        assert.strictEqual(seen.status, 200)
        assert.isTrue(seen.text !== "" && TEXT.startsWith(seen.text), seen.raw)
        assert.isString(member(seen.error, "message"), seen.raw)
        assert.isFalse(seen.done, seen.raw)
        assert.isUndefined(seen.finish, seen.raw)
      })
    )
  }

  it.effect("forgets the end mark has it added", () =>
    Effect.gen(function* () {
      const { seen } = yield* suffer("nodone")
      assertWhole(seen)
      assert.isBelow(seen.millis, 3000)
    })
  )

  it.effect("refuses what is too long is not asked again, and neither is the next", () =>
    Effect.gen(function* () {
      const { attempts, seen } = yield* suffer("context")
      assert.lengthOf(attempts, 1)
      assert.strictEqual(seen.status, 400)
      assert.strictEqual(member(seen.error, "code"), "context_length_exceeded")
    })
  )

  it.effect("refuses by its policy is not routed around", () =>
    Effect.gen(function* () {
      const { attempts, seen } = yield* suffer("filter", {})
      assert.lengthOf(attempts, 1)
      assert.strictEqual(seen.status, 400)
      assert.strictEqual(member(seen.error, "code"), "content_policy_violation")
    })
  )

  it.effect("is well tells its usage if asked, once and exactly, and else not at all", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith("mock")
      const asked = yield* ask(tenant, { model: "openai/mock", ...streamed })
      assertWhole(asked)
      assert.strictEqual(member(asked.usages[0], "completion_tokens"), 50)
      const unasked = yield* ask(tenant, { model: "openai/mock", stream: true })
      assert.strictEqual(unasked.text, TEXT)
      assert.lengthOf(unasked.usages, 0)
    })
  )
})
