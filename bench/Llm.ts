import { Console, Duration, Effect, FileSystem, Path, Redacted, Schedule, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { TenantSlug } from "../src/domain/Tenant.ts"
import { makeClient } from "../src/http/Client.ts"
import { superuserClient } from "../src/layers/DatabaseRoles.ts"
import { developmentSecrets } from "../src/layers/DevelopmentSecrets.ts"
import { acquire } from "../src/layers/Embedded.ts"
import { median, table } from "./Figures.ts"
import { LlmMeasured, LlmPlan } from "./LlmPlan.ts"
import { BenchFailed, launch, launchPlatform, programs, run, temporaryFolder } from "./Processes.ts"
import { seedTenants } from "./Seed.ts"

/** The yardstick among public gateways; the version that the figures in the docs are of. */
const PORTKEY = "@portkey-ai/gateway@1.15.2"
const MODEL = "openai/mock"
const WARM_UP_SECONDS = 10
/** Calls a second of the open loop. */
const RATE = 600
const TICKS = 100

export interface LlmOptions {
  readonly rounds: number
  readonly seconds: number
  readonly calls: number
}

/** Somebody who stands between a caller and the provider, or the provider itself. */
interface Target {
  readonly name: string
  readonly url: URL
  readonly pid: number
  readonly headers: Readonly<Record<string, string>>
  readonly model: string
}

interface Scenario {
  readonly name: string
  readonly stream: boolean
  readonly connections: number
  readonly rate?: number
}

const scenarios: ReadonlyArray<Scenario> = [
  { name: "JSON, 1 connection", stream: false, connections: 1 },
  { name: "JSON, 32 connections", stream: false, connections: 32 },
  { name: "JSON, 256 connections", stream: false, connections: 256 },
  { name: `JSON, ${RATE}/s open loop`, stream: false, connections: 64, rate: RATE },
  { name: "stream of 50, 1 connection", stream: true, connections: 1 },
  { name: "stream of 50, 32 connections", stream: true, connections: 32 }
]

const decodeMeasured = Schema.decodeEffect(Schema.fromJsonString(LlmMeasured))
const encodePlan = Schema.encodeSync(Schema.fromJsonString(LlmPlan))

const command = Effect.fn("command")(function* (name: string, ...args: ReadonlyArray<string>) {
  const handle = yield* ChildProcess.make(name, args, { stdin: "ignore", extendEnv: true })
  const said = yield* Stream.mkString(Stream.decodeText(handle.all))
  if (Number(yield* handle.exitCode) !== 0) {
    return yield* new BenchFailed({ message: `${name} failed: ${said}` })
  }
}, Effect.scoped)

const freePort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address: AddressInfo | string | null = server.address()
    const port = typeof address === "object" && address !== null ? address.port : 0
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Portkey's gateway, as its own command runs it, from a folder that is removed with the scope. */
const startPortkey = Effect.fn("startPortkey")(function* (folder: string) {
  const path = yield* Path.Path
  const home = path.join(folder, "portkey")
  const fs = yield* FileSystem.FileSystem
  yield* fs.makeDirectory(home)
  yield* command("npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", home, PORTKEY)
  const port = yield* freePort
  const program = path.join(home, "node_modules", "@portkey-ai", "gateway", "build", "start-server.js")
  const handle = yield* ChildProcess.make(
    process.execPath,
    ["--import", programs.mutableFetch, program, `--port=${port}`, "--headless"],
    {
      env: { NODE_ENV: "production" },
      extendEnv: true,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "ignore"
    }
  )
  const url = new URL(`http://127.0.0.1:${port}`)
  yield* Effect.tryPromise({
    try: () => fetch(url).then((response) => response.text()),
    catch: () => new BenchFailed({ message: "Portkey's gateway did not get ready" })
  }).pipe(Effect.retry({ times: 100, schedule: Schedule.spaced(Duration.millis(100)) }))
  return { url, pid: Number(handle.pid) }
})

/** Alone on a core, where there are two: all that it is asked by, and asks, is on the others. */
const pin = (pid: number, core: string) =>
  Effect.ignore(command("taskset", "-a", "-c", "-p", core, String(pid)))

interface Figures extends LlmMeasured {
  /** Microseconds of the target's processor for a call. */
  readonly cpuMicros: number
}

/**
 * What stands between a caller and a model costs: the platform with everything on (keys, guard, budget, ledger) beside a gateway
 * that does none of it, and a proxy that does nothing. In rounds one after the other, so that what else the machine does meets them all.
 */
export const llm = Effect.fn("llm")(function* ({ calls, rounds, seconds }: LlmOptions) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { dataDir, folder } = yield* temporaryFolder
  const planFile = path.join(folder, "plan.json")

  // With all that it starts: load, provider, Postgres and Redis.
  yield* pin(process.pid, "0")
  yield* Console.log("Starting the servers …")
  const provider = yield* launch(programs.llmProvider, {})
  const proxy = yield* launch(programs.llmProxy, { PROVIDER: provider.url.origin })
  const portkey = yield* startPortkey(folder)
  const { postgres } = yield* acquire({ dataDir, announce: () => Effect.void })
  const platform = yield* launchPlatform(dataDir, {
    OPENAI_API_KEY: "of-the-measurement",
    OPENAI_BASE_URL: `${provider.url.origin}/v1`
  })
  const secrets = yield* developmentSecrets(dataDir)
  const sql = yield* superuserClient(
    Redacted.make(
      `postgres://${postgres.superuser}:${encodeURIComponent(Redacted.value(postgres.password))}@${postgres.host}:${postgres.port}/agent_army`
    )
  )
  const [tenant] = yield* seedTenants(platform.url, secrets.operator_api_key, sql, 1)
  if (tenant === undefined) return yield* new BenchFailed({ message: "There is no tenant" })
  const operator = yield* makeClient({ baseUrl: platform.url.origin, bearer: secrets.operator_api_key })
  yield* operator.tenants.update({
    params: { tenant: TenantSlug.make(tenant.slug) },
    payload: {
      settings: {
        "llm.prices": { [MODEL]: { input: "2.5", output: "15", cached_input: "0.25" } },
        "llm.monthly_budget_usd": "100000000"
      }
    }
  })

  const direct: Target = { name: "the provider itself", ...provider, headers: {}, model: "mock" }
  const targets: ReadonlyArray<Target> = [
    { name: "bare node:http proxy", ...proxy, headers: {}, model: "mock" },
    {
      name: "Portkey, nothing on",
      ...portkey,
      headers: {
        authorization: "Bearer of-the-measurement",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": `${provider.url.origin}/v1`
      },
      model: "mock"
    },
    {
      name: "agent-army, everything on",
      ...platform,
      headers: { authorization: `Bearer ${tenant.apiKey}` },
      model: MODEL
    }
  ]
  for (const { pid } of targets) yield* pin(pid, "1")

  /** Seconds of a core that a process has used: Linux only. */
  const used = (pid: number) =>
    Effect.map(fs.readFileString(`/proc/${pid}/stat`), (stat) => {
      const [user, system] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12)
      return (Number(user) + Number(system)) / TICKS
    })

  const resident = (pid: number) =>
    Effect.map(fs.readFileString(`/proc/${pid}/status`), (status) => {
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) / 1024
    })

  const measure = Effect.fn("measure")(function* (
    { headers, model, name, pid, url }: Target,
    { connections, rate, stream }: Scenario,
    seconds: number
  ) {
    const plan = encodePlan({
      host: url.hostname === "localhost" ? "127.0.0.1" : url.hostname,
      port: Number(url.port),
      path: "/v1/chat/completions",
      headers,
      model,
      stream,
      connections,
      seconds,
      ...(rate === undefined ? undefined : { rate })
    })
    yield* fs.writeFileString(planFile, plan, { mode: 0o600 })
    const before = yield* used(pid)
    const measured = yield* Effect.flatMap(run(programs.llmLoad, [planFile]), decodeMeasured)
    if (measured.failures.length > 0 || measured.calls === 0) {
      return yield* new BenchFailed({ message: `${name} answered wrong: ${measured.failures.join("; ")}` })
    }
    const figures: Figures = {
      ...measured,
      cpuMicros: (((yield* used(pid)) - before) * 1e6) / measured.calls
    }
    return figures
  })

  yield* Console.log("Warming up …")
  const warm: Scenario = { name: "", stream: false, connections: 32 }
  for (const target of targets) {
    yield* measure(target, warm, WARM_UP_SECONDS)
    yield* measure(target, { ...warm, stream: true }, WARM_UP_SECONDS)
  }

  for (const scenario of scenarios) {
    const all = [direct, ...targets].map((target) => ({ target, figures: new Array<Figures>() }))
    for (let round = 0; round < rounds; round++) {
      for (const { figures, target } of all) figures.push(yield* measure(target, scenario, seconds))
    }
    const of = (figures: ReadonlyArray<Figures>, value: (figures: Figures) => number) =>
      median(figures.map(value))
    const [floor] = all
    const rows = all.map(({ figures, target }) => {
      const p = (value: (figures: Figures) => number) => {
        const own = of(figures, value)
        return [own.toFixed(2), (own - of(floor?.figures ?? figures, value)).toFixed(2)]
      }
      return [
        target.name,
        of(figures, ({ callsPerSecond }) => callsPerSecond).toFixed(0),
        ...p(({ p50Millis }) => p50Millis),
        ...p(({ p99Millis }) => p99Millis),
        ...(scenario.stream ? p(({ firstP50Millis }) => firstP50Millis) : []),
        of(figures, ({ cpuMicros }) => cpuMicros).toFixed(0)
      ]
    })
    const head = ["calls/s", "p50 ms", "added", "p99 ms", "added"]
    const first = scenario.stream ? ["first token ms", "added"] : []
    yield* Console.log(`\n${table([[scenario.name, ...head, ...first, "CPU µs a call"], ...rows])}`)
    const ours = all.at(-1)
    for (const { figures, target } of all.slice(1, -1)) {
      const ratios = figures.map(
        (other, round) => (ours?.figures[round]?.callsPerSecond ?? 0) / other.callsPerSecond
      )
      yield* Console.log(
        `agent-army to ${target.name}: ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`
      )
    }
  }

  const ours = targets.at(-1)
  if (ours === undefined) return
  yield* Console.log("\nMemory of the platform by calls made:")
  for (let made = 0; made < calls;) {
    const step = yield* measure(ours, warm, seconds)
    made += step.calls
    yield* Console.log(`${String(made).padStart(10)}  ${(yield* resident(ours.pid)).toFixed(0)} MiB`)
  }
})
