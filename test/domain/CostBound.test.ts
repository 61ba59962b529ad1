import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { costBound, inputBound } from "../../src/domain/CostBound.ts"
import { moneyOf, usdOf } from "../../src/domain/Money.ts"
import { costOf } from "../../src/domain/Prices.ts"

const Count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1_000_000 }))
const Usd = Schema.Tuple([Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 999 })), Count])
const usd = ([whole, decimals]: typeof Usd.Type) => `${whole}.${String(decimals).padStart(10, "0")}`

describe("money", () => {
  it.prop(
    "is exact, there and back",
    [Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1e9 })), Count],
    ([whole, decimals]) => {
      const text = `${whole}.${String(decimals).padStart(16, "0")}`
      const money = moneyOf(text)
      assert.strictEqual(money, BigInt(whole) * 10n ** 16n + BigInt(decimals))
      assert.strictEqual(moneyOf(usdOf(money)), money)
      assert.notMatch(usdOf(money), /e|\.$|\.\d*0$/)
    }
  )

  it("is rounded up, and told without zeros", () => {
    assert.strictEqual(moneyOf("0.00000000000000001"), 1n)
    assert.strictEqual(usdOf(moneyOf("12.50")), "12.5")
    assert.strictEqual(usdOf(moneyOf("7")), "7")
    assert.strictEqual(usdOf(-moneyOf("0.5")), "-0.5")
  })
})

describe("the most that an attempt can cost", () => {
  it.prop(
    "is no less than what it costs, however its tokens are of one kind or another",
    {
      prices: Schema.Tuple([Usd, Usd, Usd, Usd, Usd]),
      parts: Schema.Tuple([Count, Count, Count, Count]),
      thought: Count
    },
    ({ parts: [input, cachedRead, cachedWrite, output], prices, thought }) => {
      const [inputPrice, outputPrice, cached, write, reasoning] = prices.map(usd)
      const price = {
        input: inputPrice ?? "0",
        output: outputPrice ?? "0",
        cached_input: cached ?? "0",
        cache_write: write ?? "0",
        reasoning: reasoning ?? "0"
      }
      const usage = { input, cachedRead, cachedWrite, output, reasoning: Math.min(thought, output) }
      const bound = costBound(price, input + cachedRead + cachedWrite, output)
      assert.isTrue(bound >= moneyOf(costOf(usage, price) ?? "0"))
    }
  )

  it("counts a byte of text as a token at most, and an image by the piece", () => {
    const text = "ключ 🗝️ ".repeat(100)
    const bytes = new TextEncoder().encode(text).length
    const asked = (content: Schema.Json) => inputBound({ messages: [{ role: "user", content }] })
    assert.isAtLeast(asked(text), bytes)
    assert.isAtMost(asked(text), bytes + 300)
    const image = `data:image/png;base64,${"A".repeat(1_000_000)}`
    assert.isAtMost(asked([{ type: "image_url", image_url: { url: image } }]), 6_500)
    const source = { type: "base64", media_type: "image/png", data: "A".repeat(1_000_000) }
    assert.isAtMost(asked([{ type: "image", source }]), 6_500)
    // One that the provider fetches has no bytes here.
    assert.isAtLeast(asked([{ type: "image_url", image_url: { url: "https://example.com/a.png" } }]), 6_000)
    // A document's bytes are its tokens, for all that is known.
    const document = { type: "base64", media_type: "application/pdf", data: "A".repeat(1_000_000) }
    assert.isAtLeast(asked([{ type: "document", source: document }]), 1_000_000)
    const url = "https://example.com/a.pdf"
    assert.isAtLeast(asked([{ type: "document", source: { type: "url", url } }]), 1_000_000)
    assert.isAtLeast(asked([{ type: "input_file", file_url: url }]), 1_000_000)
  })

  it("takes no text for a picture, wherever it stands", () => {
    const text = `data:image/png;base64,${"word ".repeat(20_000)}`
    const source = { type: "base64", media_type: "image/png", data: text }
    const picture = { type: "image", source }
    const chat = { type: "image_url", image_url: { url: text } }
    for (const body of [
      { messages: [{ role: "user", content: text }] },
      { messages: [{ role: "user", content: [{ type: "text", text }] }] },
      { messages: [{ role: "user", content: [{ type: "image", source: { type: "text", text } }] }] },
      { messages: [{ role: "assistant", content: [{ type: "tool_use", name: "f", input: picture }] }] },
      { tools: [{ name: "f", input_schema: { type: "object", examples: [picture, chat] } }], messages: [] },
      { messages: [{ role: "user", content: [{ media_type: "image/png", data: text }] }] },
      { input: text }
    ]) {
      assert.isAtLeast(inputBound(body), 100_000, JSON.stringify(body).slice(0, 100))
    }
  })
})
