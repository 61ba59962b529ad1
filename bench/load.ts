// Asks one server for tenants' records over keep-alive connections, for so many seconds, and writes what it measured
// to standard output. A process of its own on bare sockets: what it costs is taken from the servers that it measures.
//
// `load.ts <file with a Plan>`
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import { connect } from "node:net"
import { performance } from "node:perf_hooks"
import { quantile } from "./Figures.ts"
import { Measured, Plan } from "./Plan.ts"
import { COLLECTION, RECORDS, recordId } from "./Records.ts"

/** Every so many answers one is parsed and compared as a whole; the others by what names tenant and record. */
const PARSE_EVERY = 64
/** Coprime to the number of records: each connection walks through all of them, out of order. */
const STRIDE = 619
/** Above what an answer takes under load by far: a server that is silent for as long has failed. */
const SILENT_MILLIS = 10_000

const Answer = Schema.fromJsonString(
  Schema.Struct({
    id: Schema.String,
    collection: Schema.Literal(COLLECTION),
    data: Schema.Struct({ tenant: Schema.String, n: Schema.Int, title: Schema.String, body: Schema.String }),
    version: Schema.Literal(1),
    created_at: Schema.DateTimeUtcFromString,
    updated_at: Schema.DateTimeUtcFromString
  })
)
const decodeAnswer = Schema.decodeUnknownOption(Answer)

const plan = Schema.decodeSync(Schema.fromJsonString(Plan))(readFileSync(process.argv[2] ?? "", "utf8"))
const { connections, host, port, seconds, tenants } = plan

const latencies: Array<number> = []
const failures = new Map<string, number>()
let sent = 0
let parsed = 0

const failed = (what: string) => failures.set(what, (failures.get(what) ?? 0) + 1)

/** What is wrong with an answer, if anything. */
const complaint = (status: string, body: string, slug: string, n: number): string | undefined => {
  const id = recordId(n)
  if (status !== "200") return `status ${status}: ${body.slice(0, 200)}`
  if (!body.includes(`"tenant":"${slug}"`) || !body.includes(`"id":"${id}"`)) return "another record's body"
  if (latencies.length % PARSE_EVERY !== 0) return undefined
  parsed++
  const answer = decodeAnswer(body)
  return answer._tag === "Some" && answer.value.data.tenant === slug && answer.value.data.n === n
    ? undefined
    : `an unexpected body: ${body.slice(0, 200)}`
}

/** One connection that asks, waits for the answer, and asks again until the end. */
const run = (endsAt: number): Promise<void> =>
  new Promise((resolve) => {
    const socket = connect({ host, port, noDelay: true })
    let received = ""
    let slug = ""
    let n = 0
    let startedAt = 0

    const finish = (problem?: string) => {
      if (problem !== undefined) failed(problem)
      socket.destroy()
      resolve()
    }
    const ask = () => {
      const tenant = tenants[sent % tenants.length]
      if (tenant === undefined) return finish("no tenants")
      slug = tenant.slug
      n = ((sent * STRIDE) % RECORDS) + 1
      sent++
      startedAt = performance.now()
      socket.write(
        `GET /api/v1/records/${COLLECTION}/${recordId(n)} HTTP/1.1\r\nhost: ${host}:${port}\r\n` +
          `authorization: Bearer ${tenant.apiKey}\r\naccept: application/json\r\n\r\n`
      )
    }

    // Bytes as Latin-1: one character each, so that lengths are right, and the bodies are ASCII.
    socket.setEncoding("latin1")
    socket.setTimeout(SILENT_MILLIS, () => finish("no answer"))
    socket.on("error", (error) => finish(error.message))
    socket.on("close", () => finish())
    socket.on("connect", ask)
    socket.on("data", (chunk: string) => {
      received += chunk
      const head = received.indexOf("\r\n\r\n")
      if (head === -1) return
      const length = /\r\ncontent-length: (\d+)/i.exec(received.slice(0, head))?.[1]
      if (length === undefined) return finish("an answer without Content-Length")
      const end = head + 4 + Number(length)
      if (received.length < end) return
      const now = performance.now()
      const problem = complaint(received.slice(9, 12), received.slice(head + 4, end), slug, n)
      if (problem !== undefined) failed(problem)
      latencies.push(now - startedAt)
      received = ""
      if (now < endsAt) ask()
      else finish()
    })
  })

const startedAt = performance.now()
await Promise.all(Array.from({ length: connections }, () => run(startedAt + seconds * 1000)))
const elapsed = (performance.now() - startedAt) / 1000

const { system, user } = process.cpuUsage()
const measured = Measured.make({
  requests: latencies.length,
  requestsPerSecond: latencies.length / elapsed,
  p50Millis: quantile(latencies, 0.5),
  p99Millis: quantile(latencies, 0.99),
  parsed,
  loadShare: (user + system) / 1e6 / elapsed,
  failures: Array.from(failures, ([what, count]) => `${count} × ${what}`)
})
process.stdout.write(JSON.stringify(measured))
