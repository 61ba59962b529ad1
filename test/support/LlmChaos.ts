import { Duration, Effect, Fiber, Random, Redacted, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import { WebSocket } from "ws"
import { eventually } from "./Eventually.ts"
import type { InvoiceRow } from "./FakeProviderInvoice.ts"
import { environmentOf, TestDatabase } from "./Platform.ts"
import { at } from "./RealtimeApp.ts"
import { startProcess } from "./Serve.ts"
import { operator, provisionTenant } from "./Tenants.ts"
import type { TestTenant } from "./Tenants.ts"

const provider = fileURLToPath(new URL("./fake-provider.ts", import.meta.url))

const Said = Schema.fromJsonString(Schema.Struct({ url: Schema.String }))
const decodeSaid = Schema.decodeUnknownEffect(Said)

/** The fake vendors in a process that outlives the platform's. */
const startProvider = Effect.gen(function* () {
  const handle = yield* ChildProcess.make(process.execPath, [provider], {
    stdin: Stream.never,
    extendEnv: true
  })
  const line = yield* Stream.runHead(Stream.splitLines(Stream.decodeText(handle.stdout)))
  const { url } = yield* Effect.flatMap(Effect.fromOption(line), decodeSaid)
  return url
})

/** What is asked, and how the caller behaves. */
interface Kind {
  readonly model: string
  readonly stream: boolean
  readonly resume?: boolean
  /** Leaves after the first chunk. */
  readonly leaves?: boolean
  readonly tool?: boolean
  /** Realtime voice: so many responses, one after the other. */
  readonly responses?: number
}

/** Each a group of its own, with a sound model behind the first. */
const kinds: ReadonlyArray<Kind> = [
  { model: "openai/mock-n20", stream: false },
  { model: "openai/mock-n50-i5", stream: true },
  { model: "openai/mock-n700-i1", stream: true },
  { model: "openai/mock-cached-n30", stream: true },
  { model: "openai/mock-reasoning-n30", stream: false },
  { model: "anthropic/mock-n40-i5", stream: true },
  { model: "anthropic/mock-cached-n20", stream: false },
  { model: "openai/mock-n60-i10", stream: true, leaves: true },
  { model: "openai/fault-cut-n50", stream: true },
  { model: "openai/fault-cut-n80", stream: true, resume: true },
  { model: "openai/fault-503", stream: false },
  { model: "openai/mock-n10", stream: false, tool: true },
  { model: "openai/rt-n40", stream: true, responses: 3 },
  { model: "openai/rt-n2000", stream: true, responses: 1, leaves: true }
]
const sound = "openai/mock-n90"

const groupOf = (model: string) => `g-${model.replaceAll(/[^a-z0-9]+/g, "-")}`

const price = { input: "3", output: "15", cached_input: "0.3", cache_write: "3.75" }

const settings = {
  "rate.requests_per_minute": 1_000_000,
  "llm.groups": Object.fromEntries(kinds.map(({ model }) => [groupOf(model), [model, sound]])),
  "llm.prices": Object.fromEntries([...kinds.map(({ model }) => model), sound].map((name) => [name, price]))
}

const tools = [
  {
    type: "function",
    function: { name: "look", parameters: { type: "object", properties: { at: { type: "string" } } } }
  }
]

/** What a caller heard, in tokens, by the id of its request. */
type Heard = Map<string, number>

const tokensIn = (text: string) => text.match(/tok\d+/g)?.length ?? 0

const isDelta = (event: unknown, kind: string) => at(event, "type") === `response.${kind}.delta`

/** A session of realtime voice. Nobody minds how it ends. */
const talk = (
  url: string,
  tenant: TestTenant,
  heard: Heard,
  { leaves, model, responses = 1 }: Kind
): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/v1/realtime?model=${groupOf(model)}`, {
      headers: { authorization: `Bearer ${Redacted.value(tenant.apiKey)}` }
    })
    let id = ""
    let [audioMillis, words, done] = [0, 0, 0]
    const ask = () => socket.send(JSON.stringify({ type: "response.create" }))
    socket.on("upgrade", ({ headers }) => (id = String(headers["x-request-id"])))
    socket.on("open", ask)
    socket.on("message", (data) => {
      const event: unknown = JSON.parse(String(data))
      if (isDelta(event, "output_audio")) audioMillis += 20
      if (isDelta(event, "output_audio_transcript")) words++
      if (words > 0) heard.set(id, words + Math.floor(audioMillis / 50))
      if (leaves === true && words > 0) socket.terminate()
      if (at(event, "type") !== "response.done") return
      done++
      if (done < responses) ask()
      else socket.close()
    })
    socket.on("error", () => undefined)
    socket.on("close", () => resume(Effect.void))
  })

/** One call. Nobody minds how it ends: the server may die. */
const call = (url: string, tenant: TestTenant, heard: Heard, { leaves, model, resume, stream, tool }: Kind) =>
  Effect.promise(async () => {
    const controller = new AbortController()
    try {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          authorization: `Bearer ${Redacted.value(tenant.apiKey)}`,
          "x-llm-resume": String(resume === true)
        },
        body: JSON.stringify({
          model: groupOf(model),
          stream,
          messages: [{ role: "user", content: "hi" }],
          ...(tool === true ? { tools, tool_choice: "required" } : undefined)
        }),
        signal: controller.signal
      })
      if (response.body === null) return
      const id = response.headers.get("x-request-id") ?? ""
      const decoder = new TextDecoder()
      let text = ""
      for await (const chunk of response.body) {
        text += decoder.decode(chunk, { stream: true })
        heard.set(id, tokensIn(text))
        if (leaves === true) controller.abort()
      }
    } catch {
      // Cut off.
    }
  })

/** Our own fake's word. */
const isInvoice = (json: unknown): json is ReadonlyArray<InvoiceRow> => Array.isArray(json)

export interface LedgerRow {
  readonly id: string
  readonly provider: string
  readonly model: string
  readonly status: string
  readonly estimated: boolean
  readonly cost_usd: string | null
  readonly provider_request_id: string | null
  readonly request_id: string
  readonly input: number
  readonly cachedRead: number
  readonly cachedWrite: number
  readonly output: number
  readonly reasoning: number
  readonly audioInput: number
  readonly audioCachedRead: number
  readonly audioOutput: number
}

const rowsOf = (tenant: TestTenant) =>
  Effect.flatMap(
    TestDatabase,
    ({ superuser: sql }) => sql<LedgerRow>`SELECT id, provider, model, status, estimated, cost_usd::text,
      provider_request_id, request_id, input_tokens::int AS input, cached_read_tokens::int AS "cachedRead",
      cached_write_tokens::int AS "cachedWrite", output_tokens::int AS output, reasoning_tokens::int AS reasoning,
      audio_input_tokens::int AS "audioInput", audio_cached_tokens::int AS "audioCachedRead",
      audio_output_tokens::int AS "audioOutput"
      FROM ${sql(`${tenant.schema}.llm_usage`)}`
  )

/** A tenant whose groups are all kinds, and the environment of a server whose provider is a process of its own. */
const prepared = Effect.gen(function* () {
  const database = yield* TestDatabase
  const tenant = yield* provisionTenant("chaos")
  yield* (yield* operator).tenants.update({ params: { tenant: tenant.id }, payload: { settings } })
  const upstream = yield* startProvider
  const invoice = Effect.map(
    Effect.promise(async (): Promise<unknown> => (await fetch(`${upstream}/invoice`)).json()),
    (rows) => (isInvoice(rows) ? rows : [])
  )
  const env = environmentOf(database, {
    ANTHROPIC_API_KEY: "sk-ant-of-the-tests",
    ANTHROPIC_BASE_URL: upstream,
    OPENAI_API_KEY: "sk-of-the-tests",
    OPENAI_BASE_URL: `${upstream}/v1`,
    LLM_TIMEOUT: "10",
    LLM_MAX_RETRIES: "1"
  })
  return { database, tenant, invoice, env }
})

const settled = (invoice: Effect.Effect<ReadonlyArray<InvoiceRow>>, tenant: TestTenant) =>
  Effect.gen(function* () {
    const billed = yield* eventually(
      "the provider is quiet",
      invoice,
      (rows) => rows.every(({ ended }) => ended !== "open"),
      "1 minute"
    )
    const rows = yield* eventually(
      "each has a row",
      rowsOf(tenant),
      ({ length }) => length >= billed.length,
      "30 seconds"
    )
    return { billed, rows }
  })

/**
 * So many calls of all kinds, through a server that is killed halfway and another one that follows it. What the
 * provider billed, and the rows that there are when all is quiet.
 */
export const chaos = Effect.fnUntraced(function* (calls: number, concurrency: number) {
  const { database, env, invoice, tenant } = yield* prepared
  const heard: Heard = new Map()
  const run = (url: string, from: number, to: number) =>
    Effect.forEach(
      Array.from({ length: to - from }, (_, index) => kinds[(from + index) % kinds.length]),
      (kind) => {
        if (kind === undefined) return Effect.void
        return kind.responses === undefined ? call(url, tenant, heard, kind) : talk(url, tenant, heard, kind)
      },
      { concurrency, discard: true }
    )

  const half = Math.floor(calls / 2)
  const first = yield* startProcess(database.dataDir, env)
  const running = yield* Effect.forkChild(run(yield* first.url, 0, half))
  const killAt = yield* Random.nextIntBetween(Math.floor(half / 2), Math.floor((half * 3) / 4))
  yield* eventually("halfway", invoice, ({ length }) => length >= killAt, "5 minutes")
  yield* first.signal("SIGKILL")
  yield* Effect.exit(first.exitCode)
  const second = yield* startProcess(database.dataDir, env)
  yield* run(yield* second.url, half, calls)
  running.interruptUnsafe()
  const { billed } = yield* settled(invoice, tenant)
  yield* second.signal("SIGTERM")
  yield* Effect.exit(second.exitCode)
  return { billed, rows: yield* rowsOf(tenant), heard, concurrency }
})

/** Calls at a steady rate, while nobody can write to the ledger for some of the time. */
export const steady = Effect.fnUntraced(function* (options: {
  readonly perSecond: number
  readonly seconds: number
  readonly awayFor: number
}) {
  const { database, env, invoice, tenant } = yield* prepared
  const server = yield* startProcess(database.dataDir, env)
  const url = yield* server.url
  const statuses: Record<number, number> = {}
  const one = Effect.promise(async () => {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        authorization: `Bearer ${Redacted.value(tenant.apiKey)}`
      },
      body: JSON.stringify({ model: groupOf("openai/mock-n20"), messages: [{ role: "user", content: "hi" }] })
    })
    await response.text()
    statuses[response.status] = (statuses[response.status] ?? 0) + 1
  })
  const locked = database.superuser.withTransaction(
    Effect.andThen(
      database.superuser`LOCK TABLE ${database.superuser(`${tenant.schema}.llm_usage`)} IN ACCESS EXCLUSIVE MODE`,
      Effect.sleep(Duration.seconds(options.awayFor))
    )
  )
  const away = yield* Effect.forkChild(Effect.delay(locked, "3 seconds"))
  const ticks = options.seconds * 10
  const calls = yield* Effect.forEach(Array.from({ length: ticks }), () =>
    Effect.andThen(
      Effect.forEach(Array.from({ length: options.perSecond / 10 }), () => Effect.forkChild(one)),
      (fibers) => Effect.as(Effect.sleep("100 millis"), fibers)
    )
  )
  yield* Fiber.joinAll(calls.flat())
  yield* Fiber.join(away)
  const { billed, rows } = yield* settled(invoice, tenant)
  return { billed, rows, statuses }
})
