// Makes the client's npm package: the contract as data, with its types, and nothing of the server. What the compiler
// emits for the two clients, less the services that only types of the server name.
//
// npm run build:client [-- <folder>]
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, FileSystem, Path, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import manifest from "../package.json" with { type: "json" }

const root = fileURLToPath(new URL("..", import.meta.url))
const ENTRIES = ["src/http/Client", "src/http/PromiseClient", "src/http/Subscription"]

class BuildFailed extends Schema.TaggedError<BuildFailed>()("BuildFailed", { message: Schema.String }) {}

const run = Effect.fn("run")(function* (cwd: string, program: string, ...args: ReadonlyArray<string>) {
  const handle = yield* ChildProcess.make(program, args, { cwd })
  const output = yield* handle.all.pipe(Stream.decodeText(), Stream.mkString)
  if (Number(yield* handle.exitCode) !== 0) return yield* new BuildFailed({ message: output })
  return output
}, Effect.scoped)

/** Where a module's relative imports lead, without their endings. */
const importsOf = (path: Path.Path, module: string, text: string): ReadonlyArray<string> =>
  [...text.matchAll(/(?:from|import\()\s*"(\.[^"]+)\.(?:js|ts)"/g)].map(([, target = ""]) =>
    path.join(path.dirname(module), target)
  )

/** What a module of the server exports to the types of the contract: names, and nothing behind them. */
const opaque = (names: ReadonlySet<string>): string =>
  [...names]
    .toSorted()
    .map((name) => `export interface ${name} { readonly "~agent-army/server": "${name}" }`)
    .join("\n")

/** The names that a text takes from a module, in an import's braces or inline. */
const namesFrom = (text: string, module: string): ReadonlyArray<string> => {
  const listed = [...text.matchAll(/import type \{([^}]+)\} from "([^"]+)\.(?:js|ts)"/g)].flatMap(
    ([, names = "", from = ""]) => (from.endsWith(`/${module}`) ? names.split(",") : [])
  )
  const inline = [...text.matchAll(/import\("([^"]+)\.(?:js|ts)"\)\.(\w+)/g)].flatMap(
    ([, from = "", name = ""]) => (from.endsWith(`/${module}`) ? [name] : [])
  )
  return [...listed, ...inline].map((name) => name.trim())
}

const describe = {
  name: "agent-army-client",
  version: manifest.version,
  description: "The typed client of agent-army, in Effect and in promises.",
  license: manifest.license,
  type: "module",
  sideEffects: false,
  exports: {
    ".": { types: "./lib/src/http/Client.d.ts", default: "./lib/src/http/Client.js" },
    "./promises": { types: "./lib/src/http/PromiseClient.d.ts", default: "./lib/src/http/PromiseClient.js" },
    "./subscription": {
      types: "./lib/src/http/Subscription.d.ts",
      default: "./lib/src/http/Subscription.js"
    },
    "./domain/*": { types: "./lib/src/domain/*.d.ts", default: "./lib/src/domain/*.js" }
  },
  files: ["lib"],
  engines: manifest.engines,
  peerDependencies: { effect: `~${manifest.dependencies.effect}` }
}

const build = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const destination = path.resolve(process.argv[2] ?? "dist")
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-client-" })
  const emitted = path.join(folder, "emitted")
  const lib = path.join(folder, "package", "lib")

  yield* Console.error("Compiling …")
  yield* run(
    root,
    path.join(root, "node_modules/.bin/tsc"),
    "-p",
    "tsconfig.client.json",
    "--outDir",
    emitted
  )

  /** Copies a module with all that it imports; of the server's, only the names. */
  const copyAll = Effect.fnUntraced(function* (ending: ".js" | ".d.ts") {
    const seen = new Set<string>()
    const server = new Map<string, Set<string>>()
    const left = [...ENTRIES]
    for (let module = left.pop(); module !== undefined; module = left.pop()) {
      if (seen.has(module)) continue
      seen.add(module)
      const text = yield* fs.readFileString(path.join(emitted, module + ending))
      for (const target of importsOf(path, module, text)) {
        if (!target.startsWith("src/services/")) {
          left.push(target)
        } else if (ending === ".js") {
          return yield* new BuildFailed({ message: `${module} needs the server's ${target}` })
        } else {
          const names = server.get(target) ?? new Set()
          for (const name of namesFrom(text, path.basename(target))) names.add(name)
          server.set(target, names)
        }
      }
      const file = path.join(lib, module + ending)
      yield* fs.makeDirectory(path.dirname(file), { recursive: true })
      // The compiler leaves the endings in declarations as they are.
      yield* fs.writeFileString(file, text.replaceAll(/(["'])(\.[^"']+)\.ts\1/g, "$1$2.js$1"))
    }
    for (const [module, names] of server) {
      const file = path.join(lib, module + ending)
      yield* fs.makeDirectory(path.dirname(file), { recursive: true })
      yield* fs.writeFileString(file, `${opaque(names)}\n`)
    }
  })
  yield* copyAll(".js")
  yield* copyAll(".d.ts")

  // The contract tells its version.
  yield* fs.writeFileString(
    path.join(lib, "package.json"),
    JSON.stringify({ type: "module", version: manifest.version })
  )
  yield* fs.writeFileString(
    path.join(folder, "package", "package.json"),
    `${JSON.stringify(describe, undefined, 2)}\n`
  )
  yield* fs.copyFile(path.join(root, "LICENSE"), path.join(folder, "package", "LICENSE"))
  yield* fs.copyFile(path.join(root, "docs", "client.md"), path.join(folder, "package", "README.md"))

  yield* Console.error("Packing …")
  yield* fs.makeDirectory(destination, { recursive: true })
  yield* run(
    path.join(folder, "package"),
    "npm",
    "pack",
    "--ignore-scripts",
    "--pack-destination",
    destination
  )
  yield* Console.log(path.join(destination, `${describe.name}-${manifest.version}.tgz`))
}).pipe(Effect.scoped)

build.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
