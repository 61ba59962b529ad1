// `npm start` as a person has it: a data directory, Ctrl-C, kill -9, and what is there afterwards.
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Option, Schedule } from "effect"
import { startedAt } from "../../src/layers/EmbeddedProcess.ts"
import { member, send, sendJson } from "../support/Http.ts"
import { onRealClock, TestServer } from "../support/Platform.ts"
import { startProcess } from "../support/Serve.ts"

const newDataDir = Effect.flatMap(FileSystem.FileSystem, (fs) =>
  Effect.map(fs.makeTempDirectoryScoped({ prefix: "agent-army-serve-" }), (folder) => `${folder}/data`)
)

const processesOf = Effect.fnUntraced(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  const first = (file: string) =>
    Effect.map(fs.readFileString(`${dataDir}/${file}`), (text) => Number(text.split("\n")[0]))
  return yield* Effect.all([first("postgres/postmaster.pid"), first("redis/redis.pid")])
})

const awaitGone = (pids: ReadonlyArray<number>) =>
  Effect.forEach(pids, (pid) => startedAt(pid)).pipe(
    Effect.map((found) => found.filter(Option.isSome).length),
    Effect.repeat({ until: (count) => count === 0, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("10 seconds")
  )

const tenant = {
  slug: "skyvera",
  name: "Skyvera",
  admin_email: "a@b.example",
  admin_password: "correct horse battery"
}

layer(NodeServices.layer, onRealClock)("npm start", (it) => {
  it.effect("starts from nothing, is ended by Ctrl-C without a trace, and finds its data again", () =>
    Effect.gen(function* () {
      const dataDir = yield* newDataDir
      const first = yield* startProcess(dataDir)
      const there = Effect.provideService(TestServer, { url: yield* first.url })
      const authorization = `Bearer ${yield* first.operatorKey}`
      const made = yield* sendJson("POST", "/api/v1/tenants", tenant, { authorization }).pipe(there)
      assert.strictEqual(made.status, 201)
      const processes = yield* processesOf(dataDir)
      yield* first.signal("SIGINT")
      assert.strictEqual(yield* first.exitCode, 0)
      yield* awaitGone(processes)

      const second = yield* startProcess(dataDir)
      const again = Effect.provideService(TestServer, { url: yield* second.url })
      assert.strictEqual(`Bearer ${yield* second.operatorKey}`, authorization)
      const found = yield* send(`/api/v1/tenants/skyvera`, { headers: { authorization } }).pipe(again)
      assert.strictEqual(member(found.json, "id"), member(made.json, "id"))
      yield* second.signal("SIGTERM")
      assert.strictEqual(yield* second.exitCode, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("after kill -9 of the server alone, takes over the Postgres and Redis that it left running", () =>
    Effect.gen(function* () {
      const dataDir = yield* newDataDir
      const first = yield* startProcess(dataDir)
      const there = Effect.provideService(TestServer, { url: yield* first.url })
      const authorization = `Bearer ${yield* first.operatorKey}`
      yield* sendJson("POST", "/api/v1/tenants", tenant, { authorization }).pipe(there)
      const processes = yield* processesOf(dataDir)
      yield* first.signal("SIGKILL")
      yield* Effect.exit(first.exitCode)

      const second = yield* startProcess(dataDir)
      const again = Effect.provideService(TestServer, { url: yield* second.url })
      assert.deepStrictEqual(yield* processesOf(dataDir), processes)
      const found = yield* send(`/api/v1/tenants/skyvera`, { headers: { authorization } }).pipe(again)
      assert.strictEqual(found.status, 200)
      yield* second.signal("SIGINT")
      assert.strictEqual(yield* second.exitCode, 0)
      yield* awaitGone(processes)
    }).pipe(Effect.scoped)
  )

  it.effect("names the variable that is wrong in one line, and starts nothing", () =>
    Effect.gen(function* () {
      const dataDir = yield* newDataDir
      const wrong = yield* startProcess(dataDir, { PORT: "http" })
      assert.strictEqual(yield* wrong.exitCode, 1)
      const said = yield* wrong.said
      assert.deepStrictEqual(said, ["PORT must be a port from 0 to 65535 (0: a free one)"])
      const fs = yield* FileSystem.FileSystem
      assert.isFalse(yield* fs.exists(dataDir))
    }).pipe(Effect.scoped)
  )

  it.effect("tells a port that is taken in one line", () =>
    Effect.gen(function* () {
      const dataDir = yield* newDataDir
      const first = yield* startProcess(dataDir)
      const { port } = new URL(yield* first.url)
      const second = yield* startProcess(dataDir, { PORT: port })
      assert.strictEqual(yield* second.exitCode, 1)
      assert.match((yield* second.said).at(-1) ?? "", new RegExp(`port ${port}`, "i"))
      yield* first.signal("SIGINT")
      assert.strictEqual(yield* first.exitCode, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("in production refuses to start without its secrets, and names them", () =>
    Effect.gen(function* () {
      const server = yield* startProcess(yield* newDataDir, { ENVIRONMENT: "production" })
      assert.strictEqual(yield* server.exitCode, 1)
      const said = (yield* server.said).join("\n")
      for (const name of [
        "DATABASE_URL",
        "REDIS_URL",
        "OPERATOR_API_KEY",
        "TOKEN_SIGNING_KEYS",
        "TENANT_CLAIM_KEY"
      ]) {
        assert.include(said, name)
      }
    }).pipe(Effect.scoped)
  )
})
