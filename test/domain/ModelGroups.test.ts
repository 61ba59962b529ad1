import { assert, describe, it } from "@effect/vitest"
import {
  endingModels,
  isAllowed,
  modelAliases,
  modelGroups,
  modelName,
  parseModel,
  resolveModel
} from "../../src/domain/ModelGroups.ts"
import { costOf, priceAt, priceOf, sumCosts } from "../../src/domain/Prices.ts"
import type { Price } from "../../src/domain/Prices.ts"

const names = (asked: string, dialect: Parameters<typeof resolveModel>[1] = "openai-chat", own = {}) =>
  resolveModel(asked, dialect, own).models.map(modelName)

describe("a model's name", () => {
  it("is a group, in its order", () => {
    assert.deepStrictEqual(names("reasoning"), ["anthropic/claude-sonnet-5-5", "openai/gpt-5.4"])
    assert.deepStrictEqual(names("fast"), ["anthropic/claude-haiku-5-5", "openai/gpt-5.4-mini"])
  })
  it("is the tenant's group before the platform's", () => {
    const own = { reasoning: ["openai/a", "openai/b", "anthropic/c"], mine: ["anthropic/d"] }
    assert.deepStrictEqual(names("reasoning", "native", own), own.reasoning)
    assert.deepStrictEqual(names("mine", "native", own), own.mine)
    assert.deepStrictEqual(names("fast", "native", own), [...modelGroups.fast])
  })
  it("is provider/model as it stands, whatever the dialect", () => {
    assert.deepStrictEqual(names("anthropic/gpt-4o"), ["anthropic/gpt-4o"])
    assert.deepStrictEqual(names("openai/org/model"), ["openai/org/model"])
  })
  it("is a vendor's own name, whatever the dialect, and an old one stands for today's", () => {
    assert.deepStrictEqual(names("claude-opus-5-5"), ["anthropic/claude-opus-5-5"])
    assert.deepStrictEqual(names("claude-sonnet-4-20250514"), ["anthropic/claude-sonnet-5-5"])
    assert.deepStrictEqual(names("gpt-4o", "anthropic-messages"), ["openai/gpt-5.4"])
    assert.deepStrictEqual(names("gpt-4o-mini"), ["openai/gpt-5.4-mini"])
  })
  it("that nobody knows goes to the vendor whose dialect the caller speaks", () => {
    assert.deepStrictEqual(names("foo-9"), ["openai/foo-9"])
    assert.deepStrictEqual(names("foo-9", "openai-responses"), ["openai/foo-9"])
    assert.deepStrictEqual(names("foo-9", "anthropic-messages"), ["anthropic/foo-9"])
    assert.deepStrictEqual(names("toString", "anthropic-messages"), ["anthropic/toString"])
    assert.deepStrictEqual(names("mistral/large"), ["openai/mistral/large"])
  })
  it("stands for models that do not end, in groups and in place of old names", () => {
    const ending = endingModels(Date.parse("2026-11-24")).map(({ name }) => name)
    for (const name of [...Object.values(modelGroups).flat(), ...Object.values(modelAliases)]) {
      assert.isDefined(parseModel(name), name)
      assert.notInclude(ending, name)
    }
  })
  it("warns sixty days ahead of a model's end", () => {
    const gone = (day: string) =>
      endingModels(Date.parse(day)).find(({ name }) => name === "openai/gpt-4.1")?.days
    assert.isUndefined(gone("2026-11-14"))
    assert.strictEqual(gone("2026-11-15"), 60)
    assert.strictEqual(gone("2027-01-16"), -2)
  })
  it("is allowed by name, or by what it begins with", () => {
    const ref = { provider: "openai", model: "gpt-5.4-mini" } as const
    assert.isTrue(isAllowed(ref, undefined))
    assert.isFalse(isAllowed(ref, []))
    assert.isTrue(isAllowed(ref, ["openai/gpt-5.4*"]))
    assert.isFalse(isAllowed(ref, ["openai/gpt-5.4"]))
    assert.isFalse(isAllowed(ref, ["anthropic/*"]))
  })
})

describe("a price", () => {
  const now = Date.UTC(2026, 10, 24)

  const usage = { input: 1, cachedRead: 2, cachedWrite: 3, output: 10, reasoning: 4 }
  it("counts each kind of token once, exactly", () => {
    const price = { input: "1", output: "10", cached_input: "0.1", cache_write: "1.25", reasoning: "20" }
    // 1×1 + 2×0.1 + 3×1.25 + 6×10 + 4×20, a million of them to the dollar
    assert.strictEqual(costOf(usage, price), "0.00014495")
  })
  it("has no exponent, however small or large", () => {
    const one = { input: 1, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }
    assert.strictEqual(costOf(one, { input: "0.0000000001", output: "0" }), "0.0000000000000001")
    assert.strictEqual(
      costOf({ ...one, input: 1e12 }, { input: "900000000", output: "0" }),
      "900000000000000"
    )
    assert.strictEqual(costOf({ ...one, input: 0 }, { input: "3", output: "0" }), "0")
  })
  it("is the tenant's own before the table's, and none where nobody has one", () => {
    const ref = { provider: "openai", model: "gpt-5.4" } as const
    const own = { "openai/gpt-5.4": { input: "7", output: "8" } }
    assert.strictEqual(priceOf(ref, own, now)?.input, "7")
    assert.strictEqual(priceOf(ref, {}, now)?.input, "2.5")
    assert.isUndefined(priceOf({ provider: "openai", model: "toString" }, {}, now))
    assert.isNull(costOf(usage, undefined))
  })
  it("is the one of its day, from the first moment of that day in UTC", () => {
    const dated = [
      { input: "3", output: "1", from: "2026-09-01" },
      { input: "2", output: "1", from: "2026-03-01" },
      { input: "1", output: "1", from: "2025-03-01" }
    ] as const
    const inputAt = (time: string) => priceAt(dated, Date.parse(time)).input
    assert.strictEqual(inputAt("2026-08-31T23:59:59.999Z"), "2")
    assert.strictEqual(inputAt("2026-09-01T00:00:00.000Z"), "3")
    assert.strictEqual(inputAt("2026-09-01T00:30:00.000+01:00"), "2")
    assert.strictEqual(inputAt("2025-06-01T00:00:00.000Z"), "1")
    // Older than anything that is known of it: the oldest, rather than nothing.
    assert.strictEqual(inputAt("2020-01-01T00:00:00.000Z"), "1")
  })
  it("has audio out of the cache at its own price, then at that of text, then at that of audio", () => {
    const audio = { ...usage, input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }
    const cost = (price: Partial<Price>) =>
      costOf({ ...audio, audioCachedRead: 1_000_000 }, { input: "1", output: "0", ...price })
    assert.strictEqual(cost({ audio_cached_input: "4", cached_input: "3", audio_input: "2" }), "4")
    assert.strictEqual(cost({ cached_input: "3", audio_input: "2" }), "3")
    assert.strictEqual(cost({ audio_input: "2" }), "2")
    assert.strictEqual(cost({}), "1")
  })
  it("adds up without rounding", () => {
    assert.strictEqual(sumCosts("0.1", "0.2"), "0.3")
    assert.isNull(sumCosts("0.1", null))
  })
})
