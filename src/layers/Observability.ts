import { Effect, Layer, Logger, References } from "effect"
import { Settings } from "./Settings.ts"

/** Logs, one line each, as people or machines read them. */
export const ObservabilityLayer = Layer.unwrap(
  Effect.map(Settings, ({ logFormat, logLevel }) =>
    Layer.mergeAll(
      Logger.layer([logFormat === "json" ? Logger.consoleJson : Logger.consolePretty()]),
      Layer.succeed(References.MinimumLogLevel, logLevel),
      // Nobody takes spans yet, and making some ten of them costs a request a third of its time.
      Layer.succeed(References.TracerEnabled, false)
    )
  )
)
