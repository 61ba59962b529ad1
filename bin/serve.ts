import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Cause, Console, Effect, Layer, Option } from "effect"
import { teardown } from "../src/layers/HttpListener.ts"
import { Announcer } from "../src/layers/Installation.ts"
import { ServerLayer } from "../src/layers/Server.ts"
import { Settings } from "../src/layers/Settings.ts"

Layer.launch(ServerLayer).pipe(
  Effect.provide(Settings.layer.pipe(Layer.provideMerge(NodeServices.layer))),
  Effect.provideService(Announcer, Console.log),
  // What can be expected to go wrong at a start is one line; what can't is told with all that is known of it.
  Effect.tapCause((cause) =>
    Cause.hasInterruptsOnly(cause)
      ? Effect.void
      : Option.match(Cause.findErrorOption(cause), {
          onNone: () => Console.error(Cause.pretty(cause)),
          onSome: (error) => Console.error(error.message)
        })
  ),
  NodeRuntime.runMain({ teardown, disableErrorReporting: true })
)
