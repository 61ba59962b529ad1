import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { teardown } from "../src/layers/HttpListener.ts"
import { Announcer } from "../src/layers/Installation.ts"
import { ServerLayer } from "../src/layers/Server.ts"
import { Settings } from "../src/layers/Settings.ts"

Layer.launch(ServerLayer).pipe(
  Effect.provide(Settings.layer.pipe(Layer.provideMerge(NodeServices.layer))),
  Effect.provideService(Announcer, Console.log),
  NodeRuntime.runMain({ teardown })
)
