import { NodeServices } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, FileSystem, Option, Path, Redacted, Ref, Schedule, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Reactivity } from "effect/reactivity"
import { Redis } from "ioredis"
import { acquire } from "../../src/layers/Embedded.ts"
import { startedAt } from "../../src/layers/EmbeddedProcess.ts"
import { decodeKeeperMessage, keeperPath } from "../support/Servers.ts"
import type { KeeperMessage, TestServers } from "../support/Servers.ts"

const newDataDir = Effect.gen(function* () {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-embedded-" })
  return path.join(folder, "data")
})

/** A process that holds the servers, what it has said so far, and the two ways in which it can go. */
const holder = Effect.fn("holder")(function* (...dataDir: ReadonlyArray<string>) {
  const said = yield* Ref.make<ReadonlyArray<KeeperMessage>>([])
  const ready = yield* Deferred.make<TestServers, string>()
  const leaving = yield* Deferred.make<void>()
  const handle = yield* ChildProcess.make(process.execPath, [keeperPath, ...dataDir], {
    stdin: Stream.fromEffectDrain(Deferred.await(leaving)),
    stderr: "inherit"
  })
  yield* handle.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.map((line) => decodeKeeperMessage(line)),
    Stream.runForEach((message) =>
      Effect.gen(function* () {
        yield* Ref.update(said, (messages) => [...messages, message])
        if (message._tag === "Ready") yield* Deferred.succeed(ready, message.servers)
        if (message._tag === "Failed") yield* Deferred.fail(ready, message.message)
      })
    ),
    Effect.ensuring(Deferred.fail(ready, "The holder ended")),
    Effect.forkScoped
  )
  return {
    ready: Deferred.await(ready),
    announced: Effect.map(Ref.get(said), (messages) =>
      messages.flatMap((message) => (message._tag === "Announced" ? [message.line] : []))
    ),
    leave: Effect.andThen(Deferred.succeed(leaving, undefined), handle.exitCode),
    // The whole process group, as a terminal or a supervisor would.
    kill: Effect.ignore(handle.kill({ killSignal: "SIGKILL" }))
  }
})

/** The process ids of both servers, as their own files tell. */
const processes = Effect.fn("processes")(function* (dataDir: string) {
  const fs = yield* FileSystem.FileSystem
  const first = (file: string) =>
    Effect.map(fs.readFileString(`${dataDir}/${file}`), (text) => Number(text.split("\n")[0]))
  return yield* Effect.all([first("postgres/postmaster.pid"), first("redis/redis.pid")])
})

const alive = (pids: ReadonlyArray<number>) =>
  Effect.map(
    Effect.forEach(pids, (pid) => startedAt(pid)),
    (times) => times.filter(Option.isSome).length
  )

const leases = (dataDir: string) =>
  Effect.flatMap(FileSystem.FileSystem, (fs) => fs.readDirectory(`${dataDir}/leases`))

/** One statement through a connection of its own. */
const query = (servers: TestServers, statement: string) =>
  PgClient.makeClient({
    host: servers.postgres.host,
    port: servers.postgres.port,
    username: servers.postgres.superuser,
    password: Redacted.make(servers.postgres.password),
    database: "postgres"
  }).pipe(
    Effect.flatMap((sql) => sql.unsafe(statement)),
    Effect.scoped,
    Effect.provide(Reactivity.layer)
  )

const withRedis = <A>({ redis }: TestServers, use: (client: Redis) => Promise<A>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Redis({ ...redis, maxRetriesPerRequest: 1 })),
    (client) => Effect.promise(() => use(client)),
    (client) => Effect.sync(() => client.disconnect())
  )

const eventually = <A, E, R>(look: Effect.Effect<A, E, R>, holds: (value: A) => boolean) =>
  look.pipe(
    Effect.repeat({ until: holds, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout("10 seconds")
  )

// Live: real processes know no test clock.
layer(NodeServices.layer, { excludeTestServices: true })("Embedded", (it) => {
  describe("one data directory", () => {
    it.effect("starts both servers, stops them with the last lease, and keeps their data", () =>
      Effect.gen(function* () {
        const dataDir = yield* newDataDir
        const first = yield* holder(dataDir)
        const servers = yield* first.ready
        yield* query(servers, "CREATE TABLE kept AS SELECT 42 AS answer")
        yield* withRedis(servers, (client) => client.set("kept", "42"))
        const pids = yield* processes(dataDir)
        assert.strictEqual(yield* alive(pids), 2)

        assert.strictEqual(yield* first.leave, 0)
        assert.strictEqual(yield* alive(pids), 0)
        assert.deepStrictEqual(yield* leases(dataDir), [])

        const second = yield* holder(dataDir)
        const again = yield* second.ready
        assert.deepStrictEqual(yield* query(again, "SELECT answer FROM kept"), [{ answer: 42 }])
        assert.strictEqual(yield* withRedis(again, (client) => client.get("kept")), "42")
        assert.isFalse((yield* second.announced).some((line) => line.startsWith("Preparing")))
        yield* second.leave
      })
    )

    it.effect(
      "is shared by two that start at once; the first to leave doesn't stop the other's servers",
      () =>
        Effect.gen(function* () {
          const dataDir = yield* newDataDir
          const [one, other] = yield* Effect.all([holder(dataDir), holder(dataDir)])
          const [servers, same] = yield* Effect.all([one.ready, other.ready], { concurrency: 2 })
          assert.deepStrictEqual(servers, same)
          const announced = [...(yield* one.announced), ...(yield* other.announced)]
          assert.strictEqual(announced.filter((line) => line.startsWith("Starting Postgres")).length, 1)
          assert.strictEqual(announced.filter((line) => line.startsWith("Joining Postgres")).length, 1)

          const pids = yield* processes(dataDir)
          yield* one.leave
          assert.deepStrictEqual(yield* query(same, "SELECT 1 AS one"), [{ one: 1 }])
          assert.strictEqual(yield* withRedis(same, (client) => client.ping()), "PONG")
          yield* other.leave
          assert.strictEqual(yield* alive(pids), 0)
        })
    )

    it.effect("outlives a holder that is killed, and the next one joins its servers", () =>
      Effect.gen(function* () {
        const dataDir = yield* newDataDir
        const killed = yield* holder(dataDir)
        const servers = yield* killed.ready
        const pids = yield* processes(dataDir)
        yield* killed.kill
        assert.strictEqual(yield* alive(pids), 2)
        assert.strictEqual((yield* leases(dataDir)).length, 1)

        const next = yield* holder(dataDir)
        assert.deepStrictEqual(yield* next.ready, servers)
        assert.deepStrictEqual(yield* processes(dataDir), pids)
        // The dead holder's lease counts for nothing.
        yield* next.leave
        assert.strictEqual(yield* alive(pids), 0)
        assert.deepStrictEqual(yield* leases(dataDir), [])
      })
    )

    it.effect("is held by each scope of a process on its own", () =>
      Effect.gen(function* () {
        const dataDir = yield* newDataDir
        const options = { dataDir, durable: false, announce: () => Effect.void }
        yield* Effect.gen(function* () {
          const outer = yield* acquire(options)
          const inner = yield* Effect.scoped(acquire(options))
          assert.strictEqual(inner.postgres.port, outer.postgres.port)
          assert.strictEqual(yield* alive(yield* processes(dataDir)), 2)
        }).pipe(Effect.scoped)
      })
    )
  })

  describe("what a crash leaves behind", () => {
    it.effect("a cluster half prepared and process ids of others don't keep it from starting", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const dataDir = yield* newDataDir
        yield* fs.makeDirectory(`${dataDir}/postgres.new-interrupted/cluster`, { recursive: true })
        yield* fs.chmod(dataDir, 0o711)
        const announced = yield* Ref.make<ReadonlyArray<string>>([])
        const options = {
          dataDir,
          durable: false,
          announce: (line: string) => Ref.update(announced, (lines) => [...lines, line])
        }
        const startAndStop = Effect.scoped(acquire(options))
        yield* startAndStop
        assert.isFalse((yield* fs.readDirectory(dataDir)).some((name) => name.startsWith("postgres.new")))

        // As after a power cut: the servers' ids are now those of another, living program.
        // Postgres fears only processes of its own user, so the other program is one of them.
        const { uid } = yield* fs.stat(`${dataDir}/postgres`)
        const sleep = ["sleep", "60"]
        const asPostgres = ["setpriv", `--reuid=${Option.getOrThrow(uid)}`, "--clear-groups"]
        const [program = "", ...words] = process.getuid?.() === 0 ? [...asPostgres, ...sleep] : sleep
        const other = Number((yield* ChildProcess.make(program, words)).pid)
        const lines = [other, `${dataDir}/postgres`, 1, 1, "", "127.0.0.1", "", "ready"]
        yield* fs.writeFileString(`${dataDir}/postgres/postmaster.pid`, lines.join("\n"))
        yield* fs.writeFileString(`${dataDir}/redis/redis.pid`, `${other}\n`)
        yield* startAndStop
        assert.strictEqual(yield* alive([other]), 1)
        assert.strictEqual(
          (yield* Ref.get(announced)).filter((line) => line.startsWith("Starting")).length,
          4
        )
      })
    )

    it.effect("waits for servers that are still shutting down", () =>
      Effect.gen(function* () {
        const dataDir = yield* newDataDir
        const first = yield* holder(dataDir)
        const before = yield* first.ready
        const [postgres, redis] = yield* processes(dataDir)
        yield* first.kill
        yield* Effect.sync(() => {
          process.kill(postgres, "SIGINT")
          process.kill(redis, "SIGTERM")
        })
        const next = yield* holder(dataDir)
        const after = yield* next.ready
        assert.deepStrictEqual(yield* query(after, "SELECT 1 AS one"), [{ one: 1 }])
        assert.strictEqual(yield* withRedis(after, (client) => client.ping()), "PONG")
        assert.strictEqual(after.postgres.password, before.postgres.password)
        yield* next.leave
        assert.strictEqual(yield* alive([postgres, redis]), 0)
      })
    )
  })

  describe("the keeper of a test run", () => {
    it.effect("whose parent goes while it starts leaves neither servers nor its folder behind", () =>
      Effect.gen(function* () {
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const cut = yield* holder()
        const lines = yield* eventually(cut.announced, (lines) =>
          lines.some((line) => line.startsWith("Starting Postgres"))
        )
        const pgdata = lines.join("\n").match(/cluster in (\S+)/)?.[1] ?? ""
        assert.isTrue(yield* fs.exists(pgdata))
        yield* cut.leave
        assert.isTrue((yield* cut.announced).includes("Stopping Postgres …"))
        assert.isFalse(yield* fs.exists(path.dirname(path.dirname(pgdata))))
      })
    )
  })
})
