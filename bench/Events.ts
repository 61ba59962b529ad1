import { Clock, Console, Effect, FileSystem, Redacted } from "effect"
import { get } from "node:http"
import { superuserClient } from "../src/layers/DatabaseRoles.ts"
import { developmentSecrets } from "../src/layers/DevelopmentSecrets.ts"
import { acquire } from "../src/layers/Embedded.ts"
import { EventType, StreamName } from "../src/domain/Event.ts"
import { makeClient } from "../src/http/Client.ts"
import { quantile } from "./Figures.ts"
import { BenchFailed, launchPlatform, temporaryFolder } from "./Processes.ts"
import { seedTenants } from "./Seed.ts"

const TENANTS = 100
/** Streams that are opened at a time. */
const OPENED_AT_ONCE = 20
/** What is published first, and not counted: the JIT has to see it. */
const WARM_UP_SECONDS = 5

const type = EventType.make("measured")

export interface EventsOptions {
  readonly streams: number
  readonly seconds: number
  readonly rate: number
}

/** One subscriber, each on a stream of its own; `received` gets when an event was sent. Ends with the scope. */
const subscribe = (url: URL, apiKey: string, stream: string, received: (sentAt: number) => void) =>
  Effect.acquireRelease(
    Effect.callback<ReturnType<typeof get>, BenchFailed>((resume) => {
      const request = get(
        {
          host: "127.0.0.1",
          port: url.port,
          path: `/api/v1/events/${stream}`,
          headers: { "x-api-key": apiKey }
        },
        (response) => {
          response.setEncoding("utf8")
          response.once("data", () =>
            resume(
              response.statusCode === 200
                ? Effect.succeed(request)
                : Effect.fail(new BenchFailed({ message: `Subscribing: status ${response.statusCode}` }))
            )
          )
          response.on("data", (text: string) => {
            for (const match of text.matchAll(/^data: ([\d.]+)$/gm)) received(Number(match[1]))
          })
        }
      )
      request.on("error", (error) => resume(Effect.fail(new BenchFailed({ message: error.message }))))
    }),
    (request) => Effect.sync(() => request.destroy())
  )

/** Streams held open on one instance: what each takes of its memory, and how long an event takes to its subscriber. */
export const events = Effect.fn("events")(function* ({ rate, seconds, streams }: EventsOptions) {
  const fs = yield* FileSystem.FileSystem
  const { dataDir } = yield* temporaryFolder
  yield* Console.log("Starting the servers …")
  const { postgres } = yield* acquire({ dataDir, announce: () => Effect.void })
  const { pid, url } = yield* launchPlatform(dataDir)
  const secrets = yield* developmentSecrets(dataDir)
  yield* Console.log(`Provisioning ${TENANTS} tenants …`)
  const sql = yield* superuserClient(
    Redacted.make(
      `postgres://${postgres.superuser}:${encodeURIComponent(Redacted.value(postgres.password))}@${postgres.host}:${postgres.port}/agent_army`
    )
  )
  const tenants = yield* seedTenants(url, secrets.operator_api_key, sql, TENANTS)
  const places = Array.from({ length: streams }, (_, index) => ({
    apiKey: tenants[index % TENANTS]?.apiKey ?? "",
    stream: StreamName.make(`s${Math.floor(index / TENANTS)}`)
  }))

  /** Resident, in KiB: Linux only. */
  const memory = Effect.map(fs.readFileString(`/proc/${pid}/status`), (status) =>
    Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1])
  )
  const now = Effect.map(Clock.currentTimeNanos, (nanos) => Number(nanos) / 1e6)
  const latencies: Array<number> = []
  const nowUnsafe = () => performance.timeOrigin + performance.now()
  const received = (sentAt: number) => latencies.push(nowUnsafe() - sentAt)

  const publish = Effect.fn("publish")(function* (seconds: number) {
    const begin = yield* now
    let sent = 0
    yield* Effect.forEach(
      Array.from({ length: rate * seconds }, (_, index) => index),
      (index) =>
        Effect.gen(function* () {
          const wait = begin + (index * 1000) / rate - (yield* now)
          if (wait > 0) yield* Effect.sleep(wait)
          const place = places[(index * 619) % places.length]
          if (place === undefined) return
          const client = yield* makeClient({ baseUrl: url.origin, apiKey: Redacted.make(place.apiKey) })
          sent++
          yield* client.events.publish({
            params: { stream: place.stream },
            payload: { type, data: nowUnsafe() }
          })
        }),
      { concurrency: 32, discard: true }
    )
    return sent
  })

  yield* publish(WARM_UP_SECONDS)
  const before = yield* memory
  yield* Console.log(`Opening ${streams} streams …`)
  yield* Effect.forEach(places, ({ apiKey, stream }) => subscribe(url, apiKey, stream, received), {
    concurrency: OPENED_AT_ONCE,
    discard: true
  })
  yield* Effect.sleep("3 seconds")
  const open = yield* memory
  yield* publish(WARM_UP_SECONDS)
  yield* Effect.sleep("1 second")
  latencies.length = 0
  yield* Console.log(`Publishing ${rate} events/s for ${seconds} s …`)
  const sent = yield* publish(seconds)
  yield* Effect.sleep("2 seconds")
  if (latencies.length !== sent) {
    return yield* new BenchFailed({ message: `${sent} events were published, ${latencies.length} received` })
  }
  yield* Console.log(
    `${streams} open streams of ${TENANTS} tenants: ${((open - before) / streams).toFixed(1)} KiB of resident memory each ` +
      `(${(before / 1024).toFixed(0)} MiB before, ${(open / 1024).toFixed(0)} MiB with them).\n` +
      `From the call that publishes to the subscriber: p50 ${quantile(latencies, 0.5).toFixed(1)} ms, ` +
      `p99 ${quantile(latencies, 0.99).toFixed(1)} ms (${sent} events, each received once).`
  )
})
