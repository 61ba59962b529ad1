import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { Attempt, estimateInput, reachOf } from "../../../src/services/llm/Attempt.ts"
import type { AttemptOpening, AttemptRecord } from "../../../src/services/llm/Attempt.ts"
import { faultOf } from "../../../src/services/llm/Faults.ts"

const opening: AttemptOpening = {
  operation: "chat",
  asked: "reasoning",
  ref: { provider: "openai", model: "mock" },
  retry: 0,
  streamed: true,
  resumed: false,
  ownKey: false,
  estimatedInput: 12,
  reached: reachOf("chat")
}

const begun = () => {
  const told: Array<number> = []
  const records: Array<AttemptRecord> = []
  const attempt = new Attempt(
    opening,
    {
      reach: (tokens) => void told.push(tokens),
      close: (record) => Effect.sync(() => void records.push(record))
    },
    0
  )
  attempt.begun({ status: 200, requestId: "req_1" })
  return { attempt, told, records }
}

describe("an attempt", () => {
  it.effect.prop(
    "tells how far it may have come before it has, a few times only, and is estimated at no less",
    { pieces: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4_000 }))) },
    ({ pieces }) =>
      Effect.gen(function* () {
        const { attempt, records, told } = begun()
        let bytes = 0
        for (const [index, length] of pieces.entries()) {
          bytes += length
          attempt.saw([{ _tag: "Text", text: "x".repeat(length) }], 1)
          const least = Math.max(index + 1, Math.ceil(bytes / 4))
          assert.isAtLeast(Math.max(opening.reached, ...told), least)
        }
        assert.deepStrictEqual(
          told,
          told.toSorted((a, b) => a - b)
        )
        assert.isAtMost(told.length, Math.max(0, Math.ceil(Math.log2(Math.max(1, bytes) / 256))) + 1)
        yield* attempt.close("cancelled")
        const [record] = records
        assert.isTrue(record?.estimated)
        assert.isAtLeast(record?.usage.output ?? -1, Math.max(pieces.length, Math.ceil(bytes / 4)))
        assert.strictEqual(record?.usage.input, 12)
      })
  )

  it.effect("is closed once, by whoever is first", () =>
    Effect.gen(function* () {
      const { attempt, records } = begun()
      const usage = { input: 1, cachedRead: 2, cachedWrite: 3, output: 4, reasoning: 1 }
      attempt.answered(usage, "", 5)
      yield* attempt.close("ok")
      yield* attempt.close("cancelled")
      yield* attempt.failed(faultOf("Cut", "cut"))
      assert.lengthOf(records, 1)
      assert.deepInclude(records[0], { status: "ok", estimated: false, usage, providerRequestId: "req_1" })
    })
  )

  it("counts what frames a message, and an image by the piece", () => {
    const conversation = {
      system: ["Be brief."],
      turns: [
        {
          role: "user" as const,
          parts: [
            { _tag: "Text" as const, text: "abc" },
            { _tag: "Image" as const, url: `data:image/png;base64,${"A".repeat(10_000)}`, detail: undefined }
          ]
        }
      ],
      tools: [],
      toolChoice: undefined,
      parallelToolCalls: undefined,
      maxTokens: undefined,
      temperature: undefined,
      topP: undefined,
      stop: [],
      format: undefined,
      reasoningEffort: undefined
    }
    // 12 bytes of text, an image, two messages, one request.
    assert.strictEqual(estimateInput(conversation), 4 + 1_000 + 2 * 4 + 3)
  })
})
