// Measures the platform on this machine. `node bench/bench.ts` tells what can be measured.
import { NodeHttpClient, NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, Layer, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { events } from "./Events.ts"
import { llm } from "./Llm.ts"
import { provision } from "./Provision.ts"
import { read } from "./Read.ts"
import { realtime } from "./Realtime.ts"
import { start } from "./Start.ts"

const count = (name: string, description: string, value: number) =>
  Flag.Int(name).pipe(
    Flag.withDescription(description),
    Flag.withSchema(Schema.Int.check(Schema.isGreaterThan(0))),
    Flag.withDefault(value)
  )

const bench = Command.make("bench").pipe(
  Command.withDescription("Measures the platform, on servers and in a folder of its own"),
  Command.withSubcommands([
    Command.make(
      "read",
      {
        rounds: count("rounds", "Rounds; each measures everyone once", 5),
        seconds: count("seconds", "Seconds that each is measured in a round", 8),
        accessLog: Flag.Boolean("access-log").pipe(
          Flag.withDescription("Let everyone log each request"),
          Flag.withDefault(false)
        )
      },
      (options) => Effect.scoped(read(options))
    ).pipe(
      Command.withDescription("Requests/s of a tenant's read, beside fastify + node-postgres on one Postgres")
    ),
    Command.make(
      "events",
      {
        streams: count("streams", "Event streams to hold open, spread over 100 tenants", 1000),
        seconds: count("seconds", "Seconds to publish for", 20),
        rate: count("rate", "Events to publish each second", 100)
      },
      (options) => Effect.scoped(events(options))
    ).pipe(Command.withDescription("Memory of an open event stream, and time from publishing to receiving")),
    Command.make(
      "realtime",
      {
        sessions: count("sessions", "Sessions of voice to hold open, spread over 10 tenants", 100),
        seconds: count("seconds", "Seconds to speak for, through the platform and without it", 20)
      },
      (options) => Effect.scoped(realtime(options))
    ).pipe(Command.withDescription("What the relay adds to each frame of realtime voice")),
    Command.make(
      "llm",
      {
        rounds: count("rounds", "Rounds; each measures everyone once", 3),
        seconds: count("seconds", "Seconds that each is measured in a round", 6),
        calls: count("calls", "Calls after which memory is looked at last", 100_000)
      },
      (options) => Effect.scoped(llm(options))
    ).pipe(
      Command.withDescription(
        "What a call of a model costs, everything on, beside Portkey's gateway and a bare proxy. Downloads Portkey's"
      )
    ),
    Command.make("provision", { samples: count("samples", "Tenants to provision", 30) }, (options) =>
      Effect.scoped(provision(options))
    ).pipe(Command.withDescription("How long it takes to provision a tenant")),
    Command.make("start", { samples: count("samples", "Starts to measure", 5) }, (options) =>
      Effect.scoped(start(options))
    ).pipe(Command.withDescription("How long a start takes on an existing data directory"))
  ])
)

bench.pipe(
  Command.run({ version: "1" }),
  Effect.provide(Layer.mergeAll(NodeServices.layer, NodeHttpClient.layerUndici)),
  NodeRuntime.runMain
)
