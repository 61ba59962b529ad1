import { Clock, Console, Effect, FileSystem, Redacted } from "effect"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { WebSocket, WebSocketServer } from "ws"
import { superuserClient } from "../src/layers/DatabaseRoles.ts"
import { developmentSecrets } from "../src/layers/DevelopmentSecrets.ts"
import { acquire } from "../src/layers/Embedded.ts"
import { quantile, table } from "./Figures.ts"
import { BenchFailed, launchPlatform, temporaryFolder } from "./Processes.ts"
import { seedTenants } from "./Seed.ts"

const TENANTS = 10
/** What somebody speaks, and what a model answers: a frame of 40 ms each way. */
const FRAME_MILLIS = 40
/** PCM16 of 24 kHz. */
const AUDIO = Buffer.alloc(48 * FRAME_MILLIS).toString("base64")
const OPENED_AT_ONCE = 10
/** What is said first, and not counted: the JIT has to see it. */
const WARM_UP_SECONDS = 5
/** Linux counts a process' time in these a second. */
const TICKS = 100

export interface RealtimeOptions {
  readonly sessions: number
  readonly seconds: number
}

/** When a frame was sent is its `event_id`; where that is, is known. */
const sentAt = (data: Buffer): number =>
  Number(/^\{"event_id":"([\d.]+)"/.exec(data.toString("latin1", 0, 40))?.[1])

const frameOf = (type: string, member: string) => () =>
  `{"event_id":"${performance.now()}","type":"${type}","${member}":"${AUDIO}"}`

const said = frameOf("input_audio_buffer.append", "audio")
const answered = frameOf("response.output_audio.delta", "delta")

/** How long frames took, in milliseconds, while `counting`. */
interface Delays {
  counting: boolean
  readonly toProvider: Array<number>
  readonly toClient: Array<number>
}

const note = (delays: Delays, into: Array<number>) => (data: unknown) => {
  if (delays.counting && Buffer.isBuffer(data)) into.push(performance.now() - sentAt(data))
}

/** A provider that answers each frame with one. */
const provider = (delays: Delays) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: () => void }>((resume) => {
      const server = createServer()
      const sockets = new WebSocketServer({ server, perMessageDeflate: false })
      sockets.on("connection", (socket) => {
        socket.on("message", (data) => {
          note(delays, delays.toProvider)(data)
          socket.send(answered())
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const address: AddressInfo | string | null = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(
          Effect.succeed({
            port,
            close: () => {
              for (const socket of sockets.clients) socket.terminate()
              server.close()
            }
          })
        )
      })
    }),
    ({ close }) => Effect.sync(close)
  )

const open = (url: string, key: string, delays: Delays) =>
  Effect.acquireRelease(
    Effect.callback<WebSocket, BenchFailed>((resume) => {
      const socket = new WebSocket(url, {
        headers: { authorization: `Bearer ${key}` },
        perMessageDeflate: false
      })
      socket.on("message", note(delays, delays.toClient))
      socket.once("open", () => resume(Effect.succeed(socket)))
      socket.on("error", ({ message }) => resume(Effect.fail(new BenchFailed({ message }))))
    }),
    (socket) => Effect.sync(() => socket.terminate())
  )

const sleep = (seconds: number) => Effect.sleep(seconds * 1000)

/** Speaks in all sessions, spread evenly over the time of a frame; gives how long frames took. */
const speak = Effect.fn("speak")(function* (
  delays: Delays,
  seconds: number,
  opened: ReadonlyArray<WebSocket>
) {
  delays.toProvider.length = 0
  delays.toClient.length = 0
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      const timers = new Set<NodeJS.Timeout>()
      for (const [index, socket] of opened.entries()) {
        const first = setTimeout(
          () => {
            // @effect-diagnostics-next-line globalTimers:off
            timers.add(setInterval(() => socket.send(said()), FRAME_MILLIS))
          },
          (index * FRAME_MILLIS) / opened.length
        )
        timers.add(first)
      }
      return timers
    }),
    (timers) =>
      Effect.sync(() => {
        for (const timer of timers) clearInterval(timer)
      })
  )
  yield* sleep(WARM_UP_SECONDS)
  const begun = yield* Clock.currentTimeMillis
  delays.counting = true
  yield* sleep(seconds)
  delays.counting = false
  return {
    seconds: ((yield* Clock.currentTimeMillis) - begun) / 1000,
    toProvider: [...delays.toProvider],
    toClient: [...delays.toClient]
  }
}, Effect.scoped)

/** What the relay adds to each frame of realtime voice, beside the same frames without it. */
export const realtime = Effect.fn("realtime")(function* ({ seconds, sessions }: RealtimeOptions) {
  const fs = yield* FileSystem.FileSystem
  const { dataDir } = yield* temporaryFolder
  const delays: Delays = { counting: false, toProvider: [], toClient: [] }
  const { port } = yield* provider(delays)
  yield* Console.log("Starting the servers …")
  const { postgres } = yield* acquire({ dataDir, announce: () => Effect.void })
  const { pid, url } = yield* launchPlatform(dataDir, {
    OPENAI_API_KEY: "of the measurement",
    OPENAI_BASE_URL: `http://127.0.0.1:${port}/v1`
  })
  const secrets = yield* developmentSecrets(dataDir)
  yield* Console.log(`Provisioning ${TENANTS} tenants …`)
  const sql = yield* superuserClient(
    Redacted.make(
      `postgres://${postgres.superuser}:${encodeURIComponent(Redacted.value(postgres.password))}@${postgres.host}:${postgres.port}/agent_army`
    )
  )
  const tenants = yield* seedTenants(url, secrets.operator_api_key, sql, TENANTS)

  /** Seconds of a core that the platform has used: Linux only. */
  const used = Effect.map(fs.readFileString(`/proc/${pid}/stat`), (stat) => {
    const [user, system] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12)
    return (Number(user) + Number(system)) / TICKS
  })

  const measure = Effect.fn("measure")(function* (urlOf: (index: number) => readonly [string, string]) {
    const opened = yield* Effect.forEach(
      Array.from({ length: sessions }, (_, index) => urlOf(index)),
      ([address, key]) => open(address, key, delays),
      { concurrency: OPENED_AT_ONCE }
    )
    const before = yield* used
    const spoken = yield* speak(delays, seconds, opened)
    return { ...spoken, cpu: ((yield* used) - before) / (spoken.seconds + WARM_UP_SECONDS) }
  }, Effect.scoped)

  yield* Console.log(`${sessions} sessions without the platform …`)
  const direct = yield* measure(() => [`ws://127.0.0.1:${port}/v1/realtime`, ""])
  yield* Console.log(`${sessions} sessions through the platform …`)
  const relayed = yield* measure((index) => [
    `ws://127.0.0.1:${url.port}/v1/realtime?model=voice`,
    tenants[index % TENANTS]?.apiKey ?? ""
  ])

  const expected = (sessions * seconds * 1000) / FRAME_MILLIS
  for (const frames of [relayed.toProvider, relayed.toClient]) {
    if (frames.length < expected * 0.95) {
      return yield* new BenchFailed({ message: `${frames.length} of ${expected} frames came through` })
    }
  }
  const millis = (value: number) => value.toFixed(2)
  const row = (name: string, from: ReadonlyArray<number>, to: ReadonlyArray<number>) => {
    const shares = [0.5, 0.99]
    return [
      name,
      ...[from, to].flatMap((delays) => shares.map((share) => millis(quantile(delays, share)))),
      ...shares.map((share) => millis(quantile(to, share) - quantile(from, share)))
    ]
  }
  yield* Console.log(
    table([
      ["ms", "direct p50", "p99", "relayed p50", "p99", "added p50", "p99"],
      row("to the provider", direct.toProvider, relayed.toProvider),
      row("to the client", direct.toClient, relayed.toClient)
    ])
  )
  yield* Console.log(
    `${sessions} sessions, ${relayed.toProvider.length} frames up and ${relayed.toClient.length} down in ${relayed.seconds.toFixed(0)} s, ` +
      `${AUDIO.length} characters of audio each; the platform took ${(relayed.cpu * 100).toFixed(0)} % of one core.`
  )
})
