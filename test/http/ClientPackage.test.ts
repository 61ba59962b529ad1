// The package as somebody gets it who has none of our sources: packed, installed, compiled against, run.
import { assert, layer } from "@effect/vitest"
import { NodeServices } from "@effect/platform-node"
import { Effect, FileSystem, Layer, Path, Redacted, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import { onRealClock, TestApp, TestServer } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const run = Effect.fn("run")(function* (
  cwd: string,
  env: Readonly<Record<string, string>>,
  program: string,
  ...args: ReadonlyArray<string>
) {
  const handle = yield* ChildProcess.make(program, args, { cwd, env, extendEnv: true })
  const output = yield* handle.stdout.pipe(Stream.decodeText(), Stream.mkString)
  return { exit: Number(yield* handle.exitCode), output }
}, Effect.scoped)

const withPromises = `
import { Redacted } from "effect"
import { makePromiseClient } from "agent-army-client/promises"
import type { PromiseClient } from "agent-army-client/promises"
import { NotFound } from "agent-army-client/domain/Problems"

const client: PromiseClient = await makePromiseClient({
  baseUrl: process.env["BASE_URL"] ?? "",
  apiKey: Redacted.make(process.env["API_KEY"] ?? "")
})
const params = { collection: "notes" }
const made = await client.records.create({ params, payload: { data: { text: "hello" } } })
const read = await client.records.get({ params: { collection: "notes", id: made.id } })
const version: number = read.version
let missing = "nothing"
try {
  await client.records.get({ params: { collection: "notes", id: "00000000-0000-4000-8000-000000000000" } })
} catch (error) {
  if (error instanceof NotFound) missing = error.code
}
// @ts-expect-error -- a document has no such field
read.nonsense
// @ts-expect-error -- data is missing
await client.records.create({ params, payload: {} }).catch(() => {})
console.log(JSON.stringify({ data: read.data, version, missing }))
`

const withEffect = `
import { Effect, Redacted } from "effect"
import { FetchHttpClient } from "effect/http"
import { makeClient } from "agent-army-client"
import { CollectionName } from "agent-army-client/domain/Record"

const program = Effect.gen(function* () {
  const client = yield* makeClient({
    baseUrl: process.env["BASE_URL"] ?? "",
    apiKey: Redacted.make(process.env["API_KEY"] ?? ""),
    retries: 2
  })
  const { items } = yield* client.records.list({ params: { collection: CollectionName.make("notes") }, query: {} })
  return items.map((item) => item.data)
})
console.log(JSON.stringify(await Effect.runPromise(Effect.provide(program, FetchHttpClient.layer))))
`

layer(TestApp.pipe(Layer.provideMerge(NodeServices.layer)), onRealClock)("The client's package", (it) => {
  it.effect("is installed, compiled against and used without our sources", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { url } = yield* TestServer
      const { apiKey } = yield* provisionTenant("skyvera")
      const project = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-consumer-" })

      const built = yield* run(root, {}, process.execPath, "bin/build-client.ts", project)
      assert.strictEqual(built.exit, 0, built.output)
      const write = (name: string, text: string) => fs.writeFileString(path.join(project, name), text)
      yield* write("package.json", JSON.stringify({ name: "consumer", private: true, type: "module" }))
      yield* write("promises.ts", withPromises)
      yield* write("effects.ts", withEffect)
      yield* write(
        "tsconfig.json",
        JSON.stringify({
          compilerOptions: {
            target: "ES2024",
            lib: ["ES2024", "DOM"],
            module: "NodeNext",
            strict: true,
            noEmit: true,
            types: ["node"],
            typeRoots: [path.join(root, "node_modules/@types")]
          },
          files: ["promises.ts", "effects.ts"]
        })
      )
      const tarball = built.output.trim()
      // Its one peer comes from here: a test fetches nothing.
      const npm = yield* run(
        project,
        {},
        "npm",
        "install",
        "--offline",
        "--no-audit",
        "--no-fund",
        "--legacy-peer-deps",
        tarball
      )
      assert.strictEqual(npm.exit, 0, npm.output)
      yield* fs.symlink(path.join(root, "node_modules/effect"), path.join(project, "node_modules/effect"))

      const compiled = yield* run(project, {}, path.join(root, "node_modules/.bin/tsc"), "-p", ".")
      assert.deepStrictEqual(compiled, { exit: 0, output: "" })

      const env = { BASE_URL: url, API_KEY: Redacted.value(apiKey) }
      const promises = yield* run(project, env, process.execPath, "promises.ts")
      assert.deepStrictEqual(promises, {
        exit: 0,
        output: '{"data":{"text":"hello"},"version":1,"missing":"NotFound"}\n'
      })
      const effects = yield* run(project, env, process.execPath, "effects.ts")
      assert.deepStrictEqual(effects, { exit: 0, output: '[{"text":"hello"}]\n' })
    })
  )
})
