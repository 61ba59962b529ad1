import { Console, Effect, FileSystem, Path, Redacted, Schema } from "effect"
import { superuserClient } from "../src/layers/DatabaseRoles.ts"
import { developmentSecrets } from "../src/layers/DevelopmentSecrets.ts"
import { acquire } from "../src/layers/Embedded.ts"
import { median, table } from "./Figures.ts"
import { Measured, PeerPlan, Plan } from "./Plan.ts"
import { BenchFailed, programs, run, serve, servePlatform, temporaryFolder } from "./Processes.ts"
import { seedTenants } from "./Seed.ts"

const TENANTS = 100
const CONNECTIONS = 32
const POOL_SIZE = 10
/** Enough for the JIT, and for each connection to have prepared each tenant's statements: shorter, rounds still rise. */
const WARM_UP_SECONDS = 20

const decodeMeasured = Schema.decodeEffect(Schema.fromJsonString(Measured))
const encodePlan = Schema.encodeSync(Schema.fromJsonString(Plan))
const encodePeerPlan = Schema.encodeSync(Schema.fromJsonString(PeerPlan))

export interface ReadOptions {
  readonly rounds: number
  readonly seconds: number
  /** Both log each request, to a pipe that is read. */
  readonly accessLog: boolean
}

/**
 * One record of one tenant, by HTTP: the platform beside fastify and node-postgres, on one Postgres. In rounds one
 * after the other, so that what else the machine does meets them all; what counts is the ratio within a round.
 */
export const read = Effect.fn("read")(function* ({ accessLog, rounds, seconds }: ReadOptions) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { dataDir, folder } = yield* temporaryFolder

  yield* Console.log("Starting the servers …")
  const { postgres } = yield* acquire({ dataDir, announce: () => Effect.void })
  const platform = yield* servePlatform(dataDir, {
    DATABASE_POOL_SIZE: String(POOL_SIZE),
    LOG_LEVEL: accessLog ? "info" : "warning",
    LOG_FORMAT: "json"
  })
  const secrets = yield* developmentSecrets(dataDir)
  const login = (user: string, password: Redacted.Redacted<string>) =>
    `postgres://${user}:${encodeURIComponent(Redacted.value(password))}@${postgres.host}:${postgres.port}/agent_army`
  const peer = (pipeline: boolean) =>
    serve(programs.peer, {
      // As one runs it in production.
      NODE_ENV: "production",
      PEER: encodePeerPlan({
        databaseUrl: login("aa_app", secrets.database_passwords.app),
        claimKey: Redacted.value(secrets.tenant_claim_key),
        environment: "testing",
        poolSize: POOL_SIZE,
        pipeline,
        accessLog
      })
    })
  const contestants = [
    { name: "agent-army", url: platform },
    { name: "fastify + pg, awaited", url: yield* peer(false) },
    { name: "fastify + pg, pipelined", url: yield* peer(true) }
  ]

  yield* Console.log(`Provisioning ${TENANTS} tenants …`)
  const sql = yield* superuserClient(Redacted.make(login(postgres.superuser, postgres.password)))
  const tenants = yield* seedTenants(platform, secrets.operator_api_key, sql, TENANTS)

  const planFile = path.join(folder, "plan.json")
  const measure = Effect.fn("measure")(function* (name: string, url: URL, seconds: number) {
    const plan = encodePlan({
      host: url.hostname === "localhost" ? "127.0.0.1" : url.hostname,
      port: Number(url.port),
      connections: CONNECTIONS,
      seconds,
      tenants
    })
    yield* fs.writeFileString(planFile, plan, { mode: 0o600 })
    const measured = yield* Effect.flatMap(run(programs.load, [planFile]), decodeMeasured)
    if (measured.failures.length > 0 || measured.parsed === 0) {
      return yield* new BenchFailed({ message: `${name} answered wrong: ${measured.failures.join("; ")}` })
    }
    return measured
  })

  yield* Console.log("Warming up …\n")
  for (const { name, url } of contestants) yield* measure(name, url, WARM_UP_SECONDS)

  const results = contestants.map(({ name, url }) => ({ name, url, measured: new Array<Measured>() }))
  for (let round = 1; round <= rounds; round++) {
    for (const { measured, name, url } of results) {
      const figures = yield* measure(name, url, seconds)
      measured.push(figures)
      yield* Console.log(
        `round ${round}  ${name.padEnd(24)}${cells(figures)
          .map((cell) => cell.padStart(9))
          .join("")}`
      )
    }
  }

  yield* Console.log(report(results))
})

const cells = (figures: Pick<Measured, "requestsPerSecond" | "p50Millis" | "p99Millis">) => [
  figures.requestsPerSecond.toFixed(0),
  `${figures.p50Millis.toFixed(1)} ms`,
  `${figures.p99Millis.toFixed(1)} ms`
]

interface Result {
  readonly name: string
  readonly measured: ReadonlyArray<Measured>
}

const report = ([ours, ...peers]: ReadonlyArray<Result>): string => {
  if (ours === undefined) return ""
  const results = [ours, ...peers]
  const medians = results.map(({ measured, name }) => [
    name,
    ...cells({
      requestsPerSecond: median(measured.map((figures) => figures.requestsPerSecond)),
      p50Millis: median(measured.map((figures) => figures.p50Millis)),
      p99Millis: median(measured.map((figures) => figures.p99Millis))
    })
  ])
  const ratios = peers.map(({ measured, name }) => {
    const pairs = ours.measured.flatMap((figures, round) => {
      const other = measured[round]
      return other === undefined ? [] : [figures.requestsPerSecond / other.requestsPerSecond]
    })
    return [
      `to ${name}`,
      ...[Math.min(...pairs), median(pairs), Math.max(...pairs)].map((ratio) => ratio.toFixed(2))
    ]
  })
  const all = results.flatMap(({ measured }) => measured)
  const share = Math.round(100 * median(all.map((figures) => figures.loadShare)))
  const parsed = all.reduce((sum, figures) => sum + figures.parsed, 0)
  return [
    "",
    table([["medians", "requests/s", "p50", "p99"], ...medians]),
    "",
    table([[`${ours.name}, per round`, "min", "median", "max"], ...ratios]),
    "",
    `The load took ${share} % of a core. All answers had status 200 and named their tenant; ${parsed} were compared whole.`
  ].join("\n")
}
