// Holds Postgres and Redis for as long as its standard input is open. A process of its own, because a test
// run that is killed cannot tidy up after itself: the kernel closes the pipe for it, and the keeper does.
//
// `keeper.ts` keeps a folder of its own, removed at the end; `keeper.ts <data directory>` keeps that one.
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Option, Path, Redacted } from "effect"
import { acquire } from "../../src/layers/Embedded.ts"
import type { KeeperMessage } from "./Servers.ts"

const say = (message: KeeperMessage) =>
  Effect.sync(() => process.stdout.write(JSON.stringify(message) + "\n"))

const parentGone = Effect.callback<void>((resume) => {
  // With the parent gone there is nobody to write to either.
  process.stdout.on("error", () => {})
  process.stdin.on("close", () => resume(Effect.void))
  process.stdin.on("error", () => resume(Effect.void))
  process.stdin.resume()
})

const dataDirectory = Effect.gen(function* () {
  const given = process.argv[2]
  if (given !== undefined) return given
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-test-" })
  // Open to be passed through: under root the servers run as another user.
  yield* fs.chmod(folder, 0o711)
  return path.join(folder, "data")
})

const keep = Effect.gen(function* () {
  const path = yield* Path.Path
  const dataDir = yield* dataDirectory
  const { postgres, redis } = yield* acquire({
    dataDir,
    durable: false,
    announce: (line) => Effect.asVoid(say({ _tag: "Announced", line }))
  })
  if (Option.isNone(redis)) {
    return yield* say({
      _tag: "Failed",
      message: "The tests need a redis-server on the PATH: install Redis."
    })
  }
  yield* say({
    _tag: "Ready",
    servers: {
      folder: path.dirname(dataDir),
      postgres: { ...postgres, password: Redacted.value(postgres.password) },
      redis: { ...redis.value, password: Redacted.value(redis.value.password) }
    }
  })
  return yield* Effect.never
}).pipe(
  Effect.scoped,
  Effect.catchTags({
    EmbeddedFailed: ({ message }) => say({ _tag: "Failed", message }),
    PlatformError: ({ message }) => say({ _tag: "Failed", message })
  })
)

// Interrupted at any point, even while starting, `keep` first stops what it has started.
Effect.raceFirst(keep, parentGone).pipe(
  // An open standard input would keep a keeper that has failed from ending.
  Effect.ensuring(Effect.sync(() => process.stdin.destroy())),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
