import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { costOf } from "../../src/domain/Prices.ts"
import type { InvoiceRow } from "./FakeProviderInvoice.ts"
import type { LedgerRow } from "./LlmChaos.ts"

const usageOf = (row: LedgerRow) => ({
  input: row.input,
  cachedRead: row.cachedRead,
  cachedWrite: row.cachedWrite,
  output: row.output,
  reasoning: row.reasoning,
  audioInput: row.audioInput,
  audioCachedRead: row.audioCachedRead,
  audioOutput: row.audioOutput
})

const silent = { audioInput: 0, audioCachedRead: 0, audioOutput: 0 }

const price = { input: "3", output: "15", cached_input: "0.3", cache_write: "3.75" }

/** The books against what the provider billed: nothing missing, nothing twice, nothing for nothing. */
export const assertBalanced = ({
  billed,
  concurrency,
  heard,
  rows
}: {
  readonly billed: ReadonlyArray<InvoiceRow>
  readonly rows: ReadonlyArray<LedgerRow>
  readonly concurrency: number
  /** In tokens, by the id of a request. */
  readonly heard: ReadonlyMap<string, number>
}) =>
  Effect.sync(() => {
    const byId = new Map(billed.map((row) => [row.requestId, row]))
    const known = rows.filter(({ provider_request_id }) => provider_request_id !== null)
    assert.strictEqual(
      new Set(known.map(({ provider_request_id }) => provider_request_id)).size,
      known.length
    )
    for (const row of known) {
      const bill = byId.get(String(row.provider_request_id))
      assert.isDefined(bill, `no such call: ${row.provider_request_id}`)
      byId.delete(bill.requestId)
      if (bill.ended === "refused") {
        assert.strictEqual(row.output, 0)
        continue
      }
      if (!row.estimated) {
        assert.deepStrictEqual(usageOf(row), { ...silent, ...bill.usage }, JSON.stringify({ row, bill }))
      }
      assert.strictEqual(Number(row.cost_usd), Number(costOf(usageOf(row), price)))
      assert.isAbove(Number(row.cost_usd), 0)
    }
    const outputOf = new Map<string, number>()
    for (const { audioOutput, output, request_id } of rows) {
      outputOf.set(request_id, (outputOf.get(request_id) ?? 0) + output + audioOutput)
    }
    assert.isAbove(heard.size, 0)
    for (const [id, tokens] of heard) assert.isAtLeast(outputOf.get(id) ?? -1, tokens, id)
    // Whose head had not come, or whose process died: they have no id of the provider's.
    const nameless = rows.filter(({ provider_request_id }) => provider_request_id === null)
    const missing = [...byId.values()]
    assert.isAtLeast(nameless.length, missing.length)
    // Opened, and not called any more.
    assert.isAtMost(nameless.length, missing.length + concurrency)
    assert.isAbove(nameless.filter(({ status }) => status === "crashed").length, 0)
    for (const row of nameless) {
      assert.isTrue(row.estimated)
      assert.isAbove(Number(row.cost_usd), 0)
    }
  })
