// What the fake provider puts on its invoice: a ledger is measured by it.
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { Agent, request } from "node:http"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { eventually } from "../support/Eventually.ts"
import { startFakeProvider } from "../support/FakeProvider.ts"
import type { FakeProvider } from "../support/FakeProvider.ts"
import { cachedTokens, cacheWrittenTokens, reasoningTokens } from "../support/FakeProviderAnswers.ts"
import { anthropic, openAi, rejection, user } from "../support/FakeProviderClients.ts"
import { keyDigestOf } from "../support/FakeProviderInvoice.ts"
import type { InvoiceRow } from "../support/FakeProviderInvoice.ts"
import { promptTokens } from "../support/FakeProviderWire.ts"

/** The rows, once so many attempts are over. */
const closed = (provider: FakeProvider, count: number) =>
  eventually(
    `${count} attempts are over`,
    provider.invoice,
    (rows) => rows.length === count && rows.every(({ ended }) => ended !== "open")
  )

const nothing = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }
const spent = (output: number) => ({ ...nothing, input: promptTokens, output })

const messages = [user("hi")]

describe("the invoice", () => {
  it.live("has a row for each attempt, with the vendor's id, who asked, and what it cost", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const chat = yield* Effect.promise(() =>
        openAi(provider).chat.completions.create({
          model: "mock-n3-cached-reasoning",
          messages,
          user: "tenant-a",
          safety_identifier: "safe-a",
          prompt_cache_key: "cache-a"
        })
      )
      const stream = anthropic(provider).messages.stream({
        model: "mock-n4",
        max_tokens: 9,
        messages,
        metadata: { user_id: "tenant-b" }
      })
      yield* Effect.promise(() => stream.finalMessage())
      yield* Effect.promise(() => openAi(provider).embeddings.create({ model: "mock", input: ["a", "b"] }))
      yield* Effect.promise(() => anthropic(provider).messages.countTokens({ model: "mock", messages }))
      yield* provider.reset
      const rows = yield* closed(provider, 4)
      const keyDigest = keyDigestOf("sk-test")
      const common = {
        keyDigest,
        user: null,
        metadataUserId: null,
        safetyIdentifier: null,
        promptCacheKey: null,
        ended: "finished" as const,
        status: 200
      }
      const expected: ReadonlyArray<Partial<InvoiceRow>> = [
        {
          ...common,
          requestId: chat._request_id ?? "",
          path: "/v1/chat/completions",
          model: "mock-n3-cached-reasoning",
          user: "tenant-a",
          safetyIdentifier: "safe-a",
          promptCacheKey: "cache-a",
          usage: {
            input: promptTokens - cachedTokens - cacheWrittenTokens,
            cachedRead: cachedTokens,
            cachedWrite: cacheWrittenTokens,
            output: 3 + reasoningTokens,
            reasoning: reasoningTokens
          },
          delivered: 3
        },
        {
          ...common,
          requestId: stream.request_id ?? "",
          path: "/v1/messages",
          model: "mock-n4",
          metadataUserId: "tenant-b",
          usage: spent(4),
          delivered: 4
        },
        {
          ...common,
          requestId: rows[2]?.requestId ?? "",
          path: "/v1/embeddings",
          model: "mock",
          usage: { ...nothing, input: 2 * promptTokens },
          delivered: 0
        },
        {
          ...common,
          requestId: rows[3]?.requestId ?? "",
          path: "/v1/messages/count_tokens",
          model: "mock",
          usage: nothing,
          delivered: 0
        }
      ]
      assert.deepStrictEqual(rows, expected)
      assert.strictEqual(new Set(rows.map(({ requestId }) => requestId)).size, 4)
      assert.notInclude(JSON.stringify(rows), "sk-test")
    })
  )

  it.live("says how each attempt ended: a cut is the vendor's own, and no client's abort", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = openAi(provider)
      const stream = async (model: string) => {
        for await (const _ of await client.chat.completions.create({ model, messages, stream: true })) {
          // Read to its end, or to what ends it.
        }
      }
      const ends = {
        "fault-503": ["refused", 503, nothing, 0],
        "fault-unheard-of": ["refused", 404, nothing, 0],
        "fault-reset-once": ["cut", null, nothing, 0],
        "fault-cut-n20-reasoning": [
          "cut",
          200,
          { ...spent(12 + reasoningTokens), reasoning: reasoningTokens },
          12
        ],
        "fault-inband-n20": ["cut", 200, spent(8), 8],
        "fault-nodone-n20": ["cut", 200, spent(20), 20],
        "fault-nousage-n20": ["finished", 200, spent(20), 20]
      } as const
      for (const model of Object.keys(ends)) {
        yield* Effect.promise(() => stream(model).catch(() => undefined))
      }
      // In one piece, all is produced before any of it is sent.
      yield* rejection(() => client.chat.completions.create({ model: "fault-cut-n20", messages }))
      const rows = yield* closed(provider, Object.keys(ends).length + 1)
      for (const [index, [model, [ended, status, usage, delivered]]] of Object.entries(ends).entries()) {
        assert.deepInclude(rows[index], { model, ended, status, usage, delivered })
      }
      assert.deepInclude(rows.at(-1), { ended: "cut", usage: spent(20), delivered: 0 })
      const { cut = 0, aborted = 0 } = Object.groupBy(yield* provider.attempts, ({ outcome }) => outcome)
      assert.lengthOf(cut === 0 ? [] : cut, 5)
      assert.strictEqual(aborted, 0)
    })
  )

  it.live("bills one who goes away for what was produced until then", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const leaveAfter = async (model: string, tokens: number) => {
        const leaving = new AbortController()
        const ask = { model, messages, stream: true as const }
        const chunks = await openAi(provider).chat.completions.create(ask, { signal: leaving.signal })
        let heard = 0
        for await (const { choices } of chunks) {
          if ((choices[0]?.delta.content ?? "") !== "") heard++
          if (heard === tokens) leaving.abort()
        }
      }
      yield* Effect.promise(() => leaveAfter("mock-i20-n1000", 3))
      yield* Effect.promise(() => leaveAfter("fault-stall-n10", 4))
      const rows = yield* closed(provider, 2)
      for (const [index, least] of [3, 4].entries()) {
        const row = rows[index]
        assert.deepInclude(row, { ended: "aborted", status: 200 })
        assert.isAtLeast(row?.delivered ?? 0, least)
        assert.isAtLeast(row?.usage.output ?? 0, row?.delivered ?? 0)
        assert.isBelow(row?.usage.output ?? 0, 100)
      }
      assert.strictEqual(rows[1]?.usage.output, 4)
    })
  )

  it.live("holds ten thousand attempts, the last ones as cheap as the first", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const agent = new Agent({ keepAlive: true, maxSockets: 16 })
      yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
      const body = JSON.stringify({ model: "mock-n1", messages })
      const headers = { authorization: "Bearer sk-test", "content-type": "application/json" }
      const ask = Effect.callback<string>((resume) => {
        const asked = request(`${provider.url}/v1/chat/completions`, { method: "POST", agent, headers })
        asked.on("response", (response) => {
          response.resume()
          response.on("end", () => resume(Effect.succeed(String(response.headers["x-request-id"]))))
        })
        asked.end(body)
      })
      // By the processor's time, which does not depend on who else is busy.
      const thousand = Effect.gen(function* () {
        const before = process.cpuUsage()
        const ids = yield* Effect.replicateEffect(ask, 1000, { concurrency: 16 })
        const spentOn = process.cpuUsage(before)
        return { ids, micros: spentOn.system + spentOn.user }
      })
      const all = yield* Effect.replicateEffect(thousand, 10)
      const rows = yield* closed(provider, 10_000)
      const known = new Map(rows.map((row) => [row.requestId, row]))
      for (const { ids } of all) for (const id of ids) assert.deepEqual(known.get(id)?.usage, spent(1))
      const least = (of: typeof all) => Math.min(...of.map(({ micros }) => micros))
      assert.isBelow(least(all.slice(-2)), 2 * least(all.slice(0, -2)))
    })
  )
})

const Line = Schema.fromJsonString(Schema.Struct({ url: Schema.String }))
const Rows = Schema.Array(
  Schema.Struct({ requestId: Schema.String, model: Schema.String, ended: Schema.String })
)

it.live("a fake of its own process answers its invoice, and ends when its standard input does", () =>
  Effect.gen(function* () {
    const program = fileURLToPath(new URL("../support/fake-provider.ts", import.meta.url))
    const child = spawn(process.execPath, [program, "0"], { stdio: ["pipe", "pipe", "inherit"] })
    yield* Effect.addFinalizer(() => Effect.sync(() => child.kill("SIGKILL")))
    const [line] = yield* Effect.promise(() => once(createInterface(child.stdout), "line"))
    const { url } = yield* Schema.decodeUnknownEffect(Line)(line)
    const { _request_id: requestId } = yield* Effect.promise(() =>
      openAi({ url }).chat.completions.create({ model: "mock-n1", messages })
    )
    // Asked for as often as one likes: to look at the invoice costs nothing.
    const invoice = Effect.flatMap(
      Effect.promise(async (): Promise<unknown> => openAi({ url }).get(`${url}/invoice`)),
      Schema.decodeUnknownEffect(Rows)
    )
    const rows = yield* eventually("it is billed", invoice, ([row]) => row?.ended === "finished")
    assert.deepStrictEqual(rows, [{ requestId: requestId ?? "", model: "mock-n1", ended: "finished" }])
    const ended = once(child, "exit")
    child.stdin.end()
    assert.deepStrictEqual((yield* Effect.promise(() => ended)).slice(0, 1), [0])
  })
)
