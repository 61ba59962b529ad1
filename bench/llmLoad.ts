// Asks one gateway for chat completions over keep-alive connections, and writes what it measured to standard output. On bare
// sockets, as `load.ts`.
//
// `llmLoad.ts <file with an LlmPlan>`
//
// @effect-diagnostics globalTimers:off -- nothing of effect's is to run here but the plan's schema.
import { Schema } from "effect"
import { readFileSync } from "node:fs"
import { connect } from "node:net"
import type { Socket } from "node:net"
import { performance } from "node:perf_hooks"
import { quantile } from "./Figures.ts"
import { LlmMeasured, LlmPlan } from "./LlmPlan.ts"

const SILENT_MILLIS = 10_000

const plan = Schema.decodeSync(Schema.fromJsonString(LlmPlan))(readFileSync(process.argv[2] ?? "", "utf8"))
const { connections, headers, host, path, port, rate, seconds, stream } = plan

const body = JSON.stringify({
  model: plan.model,
  stream,
  ...(stream ? { stream_options: { include_usage: true } } : undefined),
  messages: [
    { role: "system", content: "You are brief." },
    { role: "user", content: "How do I change the address on my invoice? It still has the old one." }
  ]
})
const request = [
  `POST ${path} HTTP/1.1`,
  `host: ${host}:${port}`,
  "content-type: application/json",
  "accept: application/json, text/event-stream",
  ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  `content-length: ${body.length}`,
  "",
  body
].join("\r\n")

const latencies: Array<number> = []
const firsts: Array<number> = []
const failures = new Map<string, number>()
const failed = (what: string) => failures.set(what, (failures.get(what) ?? 0) + 1)

const lengthOf = (head: string): number | undefined => {
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1]
  return length === undefined ? undefined : Number(length)
}

/** A connection that asks when it is told to, and says when it is free again. */
const makeConnection = (onFree: (socket: Connection) => void) => {
  const socket: Socket = connect({ host, port, noDelay: true })
  let received = ""
  let from = 0
  let isFirst = true
  const connection: Connection = {
    ask: (scheduledAt) => {
      from = scheduledAt
      received = ""
      isFirst = true
      socket.write(request)
    },
    close: () => socket.destroy()
  }
  socket.setEncoding("latin1")
  socket.setTimeout(SILENT_MILLIS, () => {
    failed("no answer")
    socket.destroy()
  })
  socket.on("error", (error) => failed(error.message))
  socket.on("close", () => {
    if (!isOver) failed("the connection was closed")
  })
  socket.on("connect", () => onFree(connection))
  socket.on("data", (chunk: string) => {
    received += chunk
    const head = received.indexOf("\r\n\r\n")
    if (head === -1) return
    if (isFirst && stream && received.includes("data: {")) {
      isFirst = false
      firsts.push(performance.now() - from)
    }
    const length = lengthOf(received.slice(0, head))
    const isWhole =
      length === undefined ? received.endsWith("0\r\n\r\n") : received.length >= head + 4 + length
    if (!isWhole) return
    if (received.slice(9, 12) !== "200")
      failed(`status ${received.slice(9, 12)}: ${received.slice(head, head + 200)}`)
    else if (!received.includes(stream ? "[DONE]" : "word word")) failed("not the provider's answer")
    latencies.push(performance.now() - from)
    onFree(connection)
  })
  return connection
}

interface Connection {
  readonly ask: (scheduledAt: number) => void
  readonly close: () => void
}

const cpuBefore = process.cpuUsage()
const startedAt = performance.now()
const endsAt = startedAt + seconds * 1000
const all: Array<Connection> = []
let isOver = false

/** Each connection asks as soon as it has its answer. */
const closedLoop = () =>
  new Promise<void>((resolve) => {
    let open = connections
    for (let index = 0; index < connections; index++) {
      all.push(
        makeConnection((connection) => {
          const now = performance.now()
          if (now < endsAt) return connection.ask(now)
          if (--open === 0) resolve()
        })
      )
    }
    setTimeout(resolve, seconds * 1000 + SILENT_MILLIS)
  })

/** At a steady rate, whoever is late; times count from when a request was due (no coordinated omission). */
const openLoop = (perSecond: number) =>
  new Promise<void>((resolve) => {
    const free: Array<Connection> = []
    const due: Array<number> = []
    let asked = 0
    const match = () => {
      // Whoever waits longest: a server closes what nobody uses for some seconds.
      while (free.length > 0 && due.length > 0) free.shift()?.ask(due.shift() ?? 0)
      if (performance.now() > endsAt && latencies.length >= asked) resolve()
    }
    for (let index = 0; index < connections; index++) {
      all.push(
        makeConnection((connection) => {
          free.push(connection)
          match()
        })
      )
    }
    const timer = setInterval(() => {
      const until = Math.min(performance.now(), endsAt)
      for (; startedAt + (asked * 1000) / perSecond <= until; asked++) {
        due.push(startedAt + (asked * 1000) / perSecond)
      }
      if (until === endsAt) clearInterval(timer)
      match()
    }, 1)
    setTimeout(resolve, seconds * 1000 + SILENT_MILLIS)
  })

await (rate === undefined ? closedLoop() : openLoop(rate))
const elapsed = (performance.now() - startedAt) / 1000
const { system, user } = process.cpuUsage(cpuBefore)
isOver = true
for (const { close } of all) close()

const measured = LlmMeasured.make({
  calls: latencies.length,
  callsPerSecond: latencies.length / elapsed,
  p50Millis: quantile(latencies, 0.5),
  p99Millis: quantile(latencies, 0.99),
  firstP50Millis: quantile(firsts, 0.5),
  firstP99Millis: quantile(firsts, 0.99),
  loadShare: (user + system) / 1e6 / elapsed,
  failures: Array.from(failures, ([what, count]) => `${count} × ${what}`)
})
process.stdout.write(JSON.stringify(measured), () => process.exit())
