// Provisions one tenant after the other until it is killed, and says each statement before it is sent. Run by
// `test/isolation/Provisioning.test.ts`, which kills it.
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Statement } from "effect/sql"
import { TenantSlug } from "../../src/domain/Tenant.ts"
import { Announcer, Installation } from "../../src/layers/Installation.ts"
import { ControlPlaneLayer, StorageLayer } from "../../src/layers/Platform.ts"
import { Settings } from "../../src/layers/Settings.ts"
import { Provisioning } from "../../src/services/Provisioning.ts"

const prefix = process.argv[2] ?? "tenant"
const env: Record<string, string> = {}
for (const [name, value] of Object.entries(process.env)) if (value !== undefined) env[name] = value

const provisionForEver = Effect.gen(function* () {
  const provisioning = yield* Provisioning
  for (let index = 0; ; index++) {
    yield* provisioning.provision({ slug: TenantSlug.make(`${prefix}-${index}`), name: "Killed" })
  }
}).pipe(
  Effect.provideService(Statement.CurrentTransformer, (statement) =>
    Effect.sync(() => {
      process.stdout.write(`${JSON.stringify(statement.compile()[0])}\n`)
      return statement
    })
  )
)

const Platform = ControlPlaneLayer.pipe(
  Layer.provide(StorageLayer),
  Layer.provide(Installation.layer),
  Layer.provide(Layer.succeed(Announcer, () => Effect.void)),
  Layer.provide(Settings.layerFrom(env)),
  Layer.provide(NodeServices.layer)
)

await Effect.runPromise(provisionForEver.pipe(Effect.provide(Platform)))
