// Against a Redis of the file's own, that can be killed, stopped and emptied.
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { Redis as RedisClient } from "ioredis"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtemp, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { randomUUID } from "node:crypto"
import { BEGINNING, EventId, EventType, StreamName } from "../../src/domain/Event.ts"
import { ApiKeyId, ApiKeyPrincipal } from "../../src/domain/Principal.ts"
import { SchemaName, TenantId, TenantSlug } from "../../src/domain/Tenant.ts"
import { EventReader } from "../../src/services/EventReader.ts"
import { Redis } from "../../src/services/Redis.ts"
import { TenantCache } from "../../src/services/TenantCache.ts"
import { TenantContext } from "../../src/services/TenantContext.ts"
import { TenantEvents } from "../../src/services/TenantEvents.ts"
import type { Happening } from "../../src/services/TenantEvents.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock } from "../support/Platform.ts"

const freePort = async () => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const address = server.address()
  server.close()
  return typeof address === "object" && address !== null ? address.port : 0
}

class OwnRedis extends Context.Service<
  OwnRedis,
  {
    readonly url: Redacted.Redacted<string>
    readonly client: RedisClient
    readonly kill: Effect.Effect<void>
    readonly start: Effect.Effect<void>
    readonly signal: (signal: "SIGSTOP" | "SIGCONT") => Effect.Effect<void>
  }
>()("test/OwnRedis") {
  static readonly layer = Layer.effect(
    OwnRedis,
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "aa-events-"))),
        (directory) => Effect.promise(() => rm(directory, { recursive: true, force: true }))
      )
      const port = yield* Effect.promise(freePort)
      const url = `redis://127.0.0.1:${port}`
      const launch = () =>
        spawn(
          "redis-server",
          [
            "--port",
            String(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            directory,
            "--save",
            "",
            "--appendonly",
            "yes",
            "--appendfsync",
            "always"
          ],
          { stdio: "ignore" }
        )
      let process = launch()
      const client = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const client = new RedisClient(url, { retryStrategy: () => 20 })
          client.on("error", () => undefined)
          return client
        }),
        (client) =>
          Effect.sync(() => {
            client.disconnect()
            process.kill("SIGKILL")
          })
      )
      yield* Effect.promise(() => client.ping())
      return OwnRedis.of({
        url: Redacted.make(url),
        client,
        kill: Effect.promise(async () => {
          const exited = once(process, "exit")
          process.kill("SIGKILL")
          await exited
        }),
        start: Effect.promise(async () => {
          process = launch()
          await client.ping()
        }),
        signal: (signal) => Effect.sync(() => process.kill(signal))
      })
    })
  )
}

const Shared = Layer.unwrap(Effect.map(OwnRedis, ({ url }) => Redis.layer({ url }))).pipe(
  Layer.provideMerge(OwnRedis.layer)
)
const options = { heartbeat: "50 millis", waitingEvents: 20, openPerTenant: 6 } as const
const App = EventReader.layer(options).pipe(Layer.provideMerge(Shared))

const tickets = StreamName.make("tickets")
const type = EventType.make("n")

/** A tenant of its own, with its services. */
const tenant = (maxLength = 1_000) =>
  Effect.gen(function* () {
    const tenantId = TenantId.make(randomUUID())
    const slug = TenantSlug.make("acme")
    const context = yield* Layer.build(
      Layer.mergeAll(TenantEvents.layer, TenantCache.layer).pipe(
        Layer.provide(
          Layer.succeed(TenantContext, {
            tenantId,
            slug,
            schema: SchemaName.make("tenant_acme"),
            environment: "testing",
            settings: { "events.max_length": maxLength },
            principal: new ApiKeyPrincipal({
              tenantId,
              tenantSlug: slug,
              keyId: ApiKeyId.make(randomUUID()),
              scopes: [],
              limits: {}
            }),
            scopes: [],
            requestId: ""
          })
        ),
        Layer.fresh
      )
    )
    const events = Context.get(context, TenantEvents)
    return {
      tenantId,
      events,
      cache: Context.get(context, TenantCache),
      publish: (data: number) => events.publish(tickets, { type, data })
    }
  })

/** What a subscription says but for heartbeats, read as fast as it comes. */
const follow = Effect.fnUntraced(function* (events: TenantEvents["Service"], after?: EventId) {
  const subscription = yield* events.subscribe(tickets, after)
  const said: Array<Happening> = []
  const reading = yield* subscription.happenings.pipe(
    Stream.filter(({ _tag }) => _tag !== "Heartbeat"),
    Stream.runForEach((happening) => Effect.sync(() => said.push(happening))),
    Effect.forkScoped
  )
  const numbers = () => said.flatMap((one) => (one._tag === "Event" ? [Number(one.event.data)] : []))
  return {
    ...subscription,
    said,
    numbers,
    reading,
    tags: () => said.map(({ _tag }) => _tag),
    until: (n: number) => eventually(`${n} came`, Effect.sync(numbers), (all) => all.includes(n))
  }
})

const upTo = (n: number) => Array.from({ length: n }, (_, index) => index)

layer(App, onRealClock)("TenantEvents", (it) => {
  it.effect("gives each subscriber every event, in order, beside those of other tenants", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Effect.all([tenant(), tenant()])
      const [first, second, other] = yield* Effect.all([follow(a.events), follow(a.events), follow(b.events)])
      yield* Effect.forEach(upTo(50), (n) => Effect.all([a.publish(n), b.publish(1000 + n)]))
      for (const { numbers, until } of [first, second]) {
        yield* until(49)
        assert.deepStrictEqual(numbers(), upTo(50))
      }
      yield* other.until(1049)
      assert.deepStrictEqual(
        other.numbers(),
        upTo(50).map((n) => 1000 + n)
      )
    }).pipe(Effect.scoped)
  )

  it.effect("loses and doubles nothing when cut at any point, while others publish", () =>
    Effect.gen(function* () {
      const { events, publish } = yield* tenant()
      const total = 400
      const publishing = yield* Effect.forkScoped(
        Effect.forEach(upTo(total), (n) => publish(n), { concurrency: 4 })
      )
      const seen: Array<number> = []
      let last: EventId = BEGINNING
      while (seen.length < total) {
        const cutAfter = Math.floor(Math.random() * 40)
        yield* events.subscribe(tickets, last).pipe(
          Effect.flatMap(({ happenings }) =>
            happenings.pipe(
              Stream.filter(({ _tag }) => _tag !== "Heartbeat"),
              Stream.take(Math.max(1, Math.min(cutAfter, total - seen.length))),
              Stream.runForEach((happening) =>
                Effect.sync(() => {
                  assert.strictEqual(happening._tag, "Event")
                  if (happening._tag !== "Event") return
                  last = happening.event.id
                  seen.push(Number(happening.event.data))
                })
              )
            )
          ),
          Effect.scoped
        )
      }
      yield* Fiber.join(publishing)
      assert.deepStrictEqual(
        seen.toSorted((x, y) => x - y),
        upTo(total)
      )
    }).pipe(Effect.scoped)
  )

  it.effect("says what is lost: an id trimmed away, one of another Redis, and nothing else", () =>
    Effect.gen(function* () {
      const { events, publish } = yield* tenant(3)
      const ids = yield* Effect.forEach(upTo(6), publish)
      const at = (n: number) => ids[n] ?? BEGINNING
      const read = Effect.fnUntraced(function* (after: EventId) {
        const { numbers, said, tags, until } = yield* follow(events, after)
        yield* until(5)
        const resets = said.filter(({ _tag }) => _tag === "Reset")
        return { numbers: numbers(), resets, first: tags()[0] }
      }, Effect.scoped)
      const reset: ReadonlyArray<Happening> = [{ _tag: "Reset", position: at(2), oldestId: at(3) }]
      const fromOldest = { numbers: [3, 4, 5], resets: [...reset], first: "Reset" as const }
      assert.deepStrictEqual(yield* read(BEGINNING), fromOldest)
      assert.deepStrictEqual(yield* read(at(1)), fromOldest)
      // The last that is gone: nothing after it is.
      assert.deepStrictEqual(yield* read(at(2)), { numbers: [3, 4, 5], resets: [], first: "Event" })
      assert.deepStrictEqual(yield* read(at(4)), { numbers: [5], resets: [], first: "Event" })
      const future = yield* read(EventId.make("9999999999999-0"))
      assert.deepStrictEqual(future, fromOldest)
    }).pipe(Effect.scoped)
  )

  it.effect("drops a reader that is too slow, which is told why, while another goes on", () =>
    Effect.gen(function* () {
      const { events, publish } = yield* tenant()
      const slow = yield* events.subscribe(tickets, undefined)
      const quick = yield* follow(events)
      const ids = yield* Effect.forEach(upTo(60), publish)
      yield* quick.until(59)
      assert.deepStrictEqual(quick.numbers(), upTo(60))
      yield* slow.ended
      assert.deepStrictEqual(
        (yield* Stream.runCollect(slow.happenings)).map(({ _tag }) => _tag),
        ["Dropped"]
      )
      const back = yield* follow(events, ids[9])
      yield* back.until(59)
      assert.deepStrictEqual(back.numbers(), upTo(60).slice(10))
    }).pipe(Effect.scoped)
  )

  it.effect("beats while nothing happens, ends when closed, and allows so many at a time", () =>
    Effect.gen(function* () {
      const { events } = yield* tenant()
      const subscription = yield* events.subscribe(tickets, undefined)
      const beats = yield* subscription.happenings.pipe(Stream.take(3), Stream.runCollect)
      assert.deepStrictEqual(
        beats.map(({ _tag }) => _tag),
        ["Heartbeat", "Heartbeat", "Heartbeat"]
      )
      subscription.close("TenantSuspended")
      const rest = yield* Stream.runCollect(subscription.happenings)
      assert.deepStrictEqual(rest.at(-1), { _tag: "Closed", code: "TenantSuspended" })
      yield* Effect.forEach(upTo(5), () => events.subscribe(tickets, undefined))
      assert.strictEqual((yield* Effect.flip(events.subscribe(tickets, undefined)))._tag, "RateLimited")
      const other = yield* tenant()
      yield* other.events.subscribe(tickets, undefined)
    }).pipe(Effect.scoped)
  )

  it.effect("shares a slot, and no key, with the tenant's cache", () =>
    Effect.gen(function* () {
      const { cache, publish, tenantId } = yield* tenant()
      yield* publish(1)
      yield* cache.set("state:tickets", "calm")
      const { client } = yield* OwnRedis
      const keys = (yield* Effect.promise(() => client.keys(`t:{${tenantId}}:*`))).toSorted()
      assert.deepStrictEqual(keys, [`t:{${tenantId}}:events:tickets`, `t:{${tenantId}}:state:tickets`])
      const trespasses = [
        () => cache.set("events:tickets", "x"),
        () => Effect.asVoid(cache.remove("events:tickets")),
        () => Effect.asVoid(cache.get("events:tickets"))
      ]
      for (const trespass of trespasses) {
        const exit = yield* Effect.exit(Effect.suspend(trespass))
        assert.strictEqual(exit._tag, "Failure")
      }
      assert.strictEqual(yield* Effect.promise(() => client.type(`t:{${tenantId}}:events:tickets`)), "stream")
    }).pipe(Effect.scoped)
  )

  it.effect("goes on where it was after Redis was killed, and after it said nothing for a while", () =>
    Effect.gen(function* () {
      const { client, kill, signal, start } = yield* OwnRedis
      const { events, publish } = yield* tenant()
      const open = yield* follow(events)
      yield* publish(0)
      yield* open.until(0)
      yield* kill
      assert.strictEqual((yield* Effect.flip(publish(1)))._tag, "DependencyUnavailable")
      assert.strictEqual(
        (yield* Effect.flip(events.subscribe(tickets, undefined)))._tag,
        "DependencyUnavailable"
      )
      yield* start
      yield* eventually("it publishes again", Effect.option(publish(1)), ({ _tag }) => _tag === "Some")
      yield* open.until(1)
      // A peer that is silent and not gone: the connection is given up, and the next one works.
      const connections = Effect.promise(
        async () => (await client.info("stats")).match(/total_connections_received:(\d+)/)?.[1]
      )
      const before = Number(yield* connections)
      yield* signal("SIGSTOP")
      yield* Effect.sleep("2500 millis")
      yield* signal("SIGCONT")
      yield* eventually("it connected anew", connections, (now) => Number(now) > before)
      yield* eventually("it publishes again", Effect.option(publish(2)), ({ _tag }) => _tag === "Some")
      yield* open.until(2)
      assert.notInclude(open.tags(), "Reset")
      assert.notInclude(open.tags(), "Closed")
    }).pipe(Effect.scoped)
  )

  it.effect("tells who is open that Redis came back empty", () =>
    Effect.gen(function* () {
      const { client, kill, start } = yield* OwnRedis
      const { events, publish } = yield* tenant()
      const open = yield* follow(events)
      const id = yield* publish(0)
      yield* open.until(0)
      yield* Effect.promise(() => client.flushall())
      yield* kill
      yield* start
      yield* eventually("it is told", Effect.sync(open.tags), (tags) => tags.includes("Reset"))
      yield* eventually("it publishes again", Effect.option(publish(1)), ({ _tag }) => _tag === "Some")
      yield* open.until(1)
      assert.deepStrictEqual(open.tags(), ["Event", "Reset", "Event"])
      const resumed = yield* follow(events, id)
      yield* resumed.until(1)
      assert.deepStrictEqual(resumed.tags(), ["Reset", "Event"])
      // Emptied beneath an open connection.
      yield* Effect.promise(() => client.flushall())
      yield* publish(2)
      yield* open.until(2)
      assert.deepStrictEqual(open.tags(), ["Event", "Reset", "Event", "Reset", "Event"])
    }).pipe(Effect.scoped)
  )
})
