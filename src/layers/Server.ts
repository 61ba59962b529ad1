import { Effect, Layer, Option, Redacted } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import manifest from "../../package.json" with { type: "json" }
import * as Face from "../http/Face.ts"
import { HttpMetrics, MetricsRoute } from "../http/HttpMetrics.ts"
import { Routes } from "../http/Routes.ts"
import { Build, Health } from "../services/Health.ts"
import { PlatformDb } from "../services/PlatformDb.ts"
import { Redis } from "../services/Redis.ts"
import * as HttpListener from "./HttpListener.ts"
import { Announcer, Installation } from "./Installation.ts"
import { ObservabilityLayer } from "./Observability.ts"
import { PlatformLayer } from "./Platform.ts"
import { Settings } from "./Settings.ts"
import { StartupLayer } from "./Startup.ts"

/** The longest part of a path: a key of realtime state, percent-encoded. By default the router stops at 100. */
const MAX_PATH_PARAM = 600

const quiet = { disableLogger: true, disableListenLog: true } as const

const HealthLayer = Layer.unwrap(
  Effect.gen(function* () {
    const db = yield* PlatformDb
    const redis = yield* Redis
    return Health.layer({
      database: Effect.asVoid(db.query((sql) => sql`SELECT 1`)),
      redis: Effect.asVoid(redis.use((client) => client.ping()))
    })
  })
)

const BuildLayer = Layer.effect(
  Build,
  Effect.map(Settings, ({ environment }) => ({ environment, version: manifest.version }))
)

const ApiServer = Layer.unwrap(
  Effect.gen(function* () {
    const settings = yield* Settings
    const routes = Routes({
      environment: settings.environment,
      metrics: Option.isNone(settings.metricsPort),
      allowedOrigins: settings.corsAllowedOrigins
    })
    return HttpRouter.serve(Layer.mergeAll(routes, Ready), quiet).pipe(
      Layer.provide(HttpMetrics.layer),
      Layer.provide(Layer.succeed(HttpRouter.RouterConfig, { maxParamLength: MAX_PATH_PARAM })),
      Layer.provide(HttpListener.layer({ host: settings.host, port: settings.port }))
    )
  })
)

/** `/metrics` on a port of its own, where the settings name one. */
const MetricsServer = Layer.unwrap(
  Effect.map(Settings, ({ host, metricsPort }) =>
    Option.match(metricsPort, {
      onNone: () => Layer.empty,
      onSome: (port) =>
        HttpRouter.serve(Face.around(MetricsRoute), quiet).pipe(
          Layer.provide(HttpMetrics.layer),
          Layer.provide(HttpListener.layer({ host, port }))
        )
    })
  )
)

const firstSteps = (base: string, operatorKey: string) => `Operator key: ${operatorKey}

Try this next:
  curl ${base}/health/ready
  curl -X POST ${base}/api/v1/tenants -H 'Authorization: Bearer ${operatorKey}' -H 'Content-Type: application/json' -d '{"slug":"skyvera","name":"Skyvera","admin_email":"admin@skyvera.example"}'
  open ${base}/docs in a browser
`

/** The last thing that a start says: where it listens, the operator key if it made one, and what to try. */
const Ready = Layer.effectDiscard(
  Effect.gen(function* () {
    const announce = yield* Announcer
    const installation = yield* Installation
    const health = yield* Health
    const server = yield* HttpServer.HttpServer
    yield* health.markStarted
    const address = server.address
    const port = address._tag === "UnixPathAddress" ? 0 : address.port
    const base = `http://localhost:${port}`
    yield* announce(`Ready on ${base}`)
    if (installation.operatorApiKeyMade) {
      yield* announce(firstSteps(base, Redacted.value(installation.operatorApiKey)))
    }
  })
)

/** The whole process as one layer. */
export const ServerLayer = Layer.mergeAll(ApiServer, MetricsServer).pipe(
  Layer.provide(StartupLayer),
  Layer.provide(Layer.mergeAll(HealthLayer, BuildLayer)),
  Layer.provide(PlatformLayer),
  Layer.provide(Installation.layer),
  Layer.provide(ObservabilityLayer)
)
