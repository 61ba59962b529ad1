import { assert, layer } from "@effect/vitest"
import { Clock, Effect, Fiber, Redacted, Scope, Stream, Exit } from "effect"
import { connect } from "node:net"
import { EventId, EventType, StreamName } from "../../src/domain/Event.ts"
import { makeClient } from "../../src/http/Client.ts"
import { subscribe } from "../../src/http/Subscription.ts"
import { eventually } from "../support/Eventually.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, startServer, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { keysOfData } from "../support/RedisKeys.ts"
import { headersOf, open } from "../support/EventStreams.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const tickets = StreamName.make("tickets")
const params = { stream: tickets }
const created = EventType.make("ticket.created")
const beginning = EventId.make("0-0")

const publish = (tenant: TestTenant, data: number) =>
  tenant.asService.events.publish({ params, payload: { type: created, data } })

const metric = Effect.fnUntraced(function* (name: string) {
  const { text } = yield* send("/metrics")
  return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1])
})

layer(TestApp, onRealClock)("events over HTTP", (it) => {
  it.effect("arrive as they are published, with a head at once", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const live = yield* open(acme)
      assert.strictEqual(live.response.status, 200)
      const { headers } = live.response
      assert.strictEqual(headers["content-type"], "text/event-stream")
      assert.strictEqual(headers["cache-control"], "no-store")
      assert.strictEqual(headers["x-accel-buffering"], "no")
      assert.strictEqual(yield* live.until("retry:"), ":\n\nretry: 1000\n\n")
      const answer = yield* sendJson(
        "POST",
        "/api/v1/events/tickets",
        { type: "ticket.created", data: { text: "a\nb\u2028" } },
        headersOf(acme)
      )
      assert.strictEqual(answer.status, 202)
      const id = String(member(answer.json, "id"))
      const said = yield* live.until("data:")
      assert.isTrue(
        said.endsWith(`id: ${id}\nevent: ticket.created\ndata: {"text":"a\\nb\u2028"}\n\n`),
        JSON.stringify(said)
      )
    })
  )

  it.effect("resume after Last-Event-ID; one that was trimmed away gets a reset first", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const control = yield* operator
      yield* control.tenants.update({
        params: { tenant: acme.id },
        payload: { settings: { "events.max_length": 3 } }
      })
      const first = yield* publish(acme, 1)
      // The setting is remembered for half a second.
      const { redis } = yield* TestDatabase
      const key = `t:{${acme.id}}:events:tickets`
      const second = yield* publish(acme, 2)
      const resumed = yield* open(acme, { "last-event-id": first.id })
      const said = yield* resumed.until("data: 2")
      assert.notInclude(said, "reset")
      assert.notInclude(said, "data: 1\n")
      yield* eventually(
        "the bound is in force",
        Effect.andThen(
          publish(acme, 0),
          Effect.promise(() => redis.xlen(key))
        ),
        (length) => length === 3
      )
      const kept = yield* Effect.forEach([3, 4, 5], (n) => publish(acme, n))
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key)), 3)
      const late = yield* open(acme, { "last-event-id": second.id })
      const story = yield* late.until("data: 5")
      assert.include(story, `event: reset\ndata: {"oldest_id":"${kept[0]?.id}"}\n\n`)
      assert.isTrue(story.indexOf("reset") < story.indexOf("data: 3"))
      assert.strictEqual(story.match(/event: reset/g)?.length, 1)
      // The last one that is gone is the one before the oldest kept: nothing is missing after it.
      const resetId = /id: (\S+)\nevent: reset/.exec(story)?.[1] ?? ""
      const again = yield* open(acme, { "last-event-id": resetId })
      assert.notInclude(yield* again.until("data: 5"), "reset")
    })
  )

  it.effect("refuse what is no id, no name and no type", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const headers = headersOf(acme)
      const bad = [
        "abc",
        "1",
        "-1-0",
        "1-0-0",
        "01-0",
        "18446744073709551616-0",
        "1-99999999999999999999",
        "$",
        "+",
        "9".repeat(5000)
      ]
      for (const id of bad) {
        const answer = yield* send("/api/v1/events/tickets", { headers: { ...headers, "last-event-id": id } })
        assert.strictEqual(answer.status, 400, id)
        assert.strictEqual(code(answer), "InvalidRequest", id)
      }
      for (const name of ["..%2fstate", "%7Bt%7D", "a:b", "a%20b", "a*", "1a", "x".repeat(64), "a%0ab"]) {
        const got = yield* send(`/api/v1/events/${name}`, { headers })
        assert.strictEqual(got.status, 400, name)
        const put = yield* sendJson("POST", `/api/v1/events/${name}`, { type: "a", data: 1 }, headers)
        assert.strictEqual(put.status, 400, name)
      }
      for (const type of ["", "a\nb", "a b", "x".repeat(101), "reset", "dropped", "closed", 1]) {
        const put = yield* sendJson("POST", "/api/v1/events/tickets", { type, data: 1 }, headers)
        assert.strictEqual(put.status, 400, String(type))
      }
      assert.deepStrictEqual(yield* keysOfData(`t:{${acme.id}}:*`), [])
    })
  )

  it.effect("end within a second of a suspension, and of a key's revocation, and say why", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const jigtree = yield* provisionTenant("jigtree")
      const { superuser: sql } = yield* TestDatabase
      const control = yield* operator
      const bystander = yield* open(yield* provisionTenant("bystander"))
      const timed = Effect.fnUntraced(function* (
        stream: Effect.Success<ReturnType<typeof open>>,
        reason: string
      ) {
        const told = yield* Clock.currentTimeMillis
        yield* stream.ended
        assert.isBelow((yield* Clock.currentTimeMillis) - told, 1_000, reason)
        assert.isTrue((yield* stream.said).endsWith(`event: closed\ndata: {"code":"${reason}"}\n\n`), reason)
      })

      const streams = yield* Effect.all([
        open(acme),
        open(acme, { "x-api-key": "", authorization: `Bearer ${Redacted.value(acme.accessToken)}` })
      ])
      yield* control.tenants.suspend({ params: { tenant: acme.id } })
      yield* Effect.forEach(streams, (stream) => timed(stream, "TenantSuspended"), {
        concurrency: "unbounded"
      })

      const byKey = yield* open(jigtree)
      yield* sql`UPDATE ${sql(`${jigtree.schema}.api_keys`)} SET is_active = false`
      yield* timed(byKey, "Unauthenticated")
      assert.notInclude(yield* bystander.said, "closed")
    })
  )

  it.effect("go on in the typed client over the end of a server, and stop with the tenant", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const control = yield* operator
      yield* publish(acme, 0)
      const scope = yield* Scope.make()
      const second = yield* Scope.provide(startServer(), scope)
      const client = yield* makeClient({ baseUrl: second.url, apiKey: acme.apiKey })
      const seen: Array<unknown> = []
      const following = yield* subscribe(client, tickets, { after: beginning }).pipe(
        Stream.runForEach((event) =>
          Effect.sync(() => seen.push(event._tag === "Event" ? event.data : event._tag))
        ),
        Effect.flip,
        Effect.forkScoped
      )
      const length = Effect.sync(() => seen.length)
      yield* eventually("the history came", length, (length) => length === 1)
      yield* publish(acme, 1)
      yield* eventually("the next came", length, (length) => length === 2)
      yield* Scope.close(scope, Exit.void)
      yield* publish(acme, 2)
      yield* startServer({ PORT: new URL(second.url).port })
      yield* eventually("it connected again", length, (length) => length === 3)
      assert.deepStrictEqual(seen, [0, 1, 2])
      yield* control.tenants.suspend({ params: { tenant: acme.id } })
      const end = yield* Fiber.join(following)
      assert.deepInclude(end, { _tag: "SubscriptionClosed", code: "TenantSuspended" })
    })
  )

  it.effect("end when the server does, and say so", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const scope = yield* Scope.make()
      const second = yield* Scope.provide(startServer(), scope)
      const stream = yield* open(acme).pipe(Effect.provideService(TestServer, second))
      yield* stream.until("retry:")
      yield* Scope.close(scope, Exit.void)
      yield* stream.ended
      assert.include(yield* stream.said, `event: closed\ndata: {"code":"ShuttingDown"}\n\n`)
    })
  )

  it.effect("are let go when the client leaves, and counted", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const before = yield* metric("events_published_total")
      const idle = yield* eventually("nobody listens", metric("events_open_streams"), (open) => open === 0)
      const scope = yield* Scope.make()
      const stream = yield* Scope.provide(open(acme), scope)
      yield* stream.until("retry:")
      assert.strictEqual(yield* metric("events_open_streams"), idle + 1)
      yield* publish(acme, 1)
      assert.strictEqual(yield* metric("events_published_total"), before + 1)
      yield* Scope.close(scope, Exit.void)
      yield* eventually("it is let go", metric("events_open_streams"), (open) => open === 0)
    })
  )

  it.effect("are cut off where a reader neither reads nor leaves", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { url } = yield* TestServer
      const { hostname, port } = new URL(url)
      const socket = yield* Effect.acquireRelease(
        Effect.sync(() => connect({ host: hostname, port: Number(port) }).pause()),
        (socket) => Effect.sync(() => socket.destroy())
      )
      socket.on("error", () => undefined)
      const { "x-api-key": key } = headersOf(acme)
      socket.write(`GET /api/v1/events/tickets HTTP/1.1\r\nHost: x\r\nX-API-Key: ${key}\r\n\r\n`)
      yield* eventually("it is open", metric("events_open_streams"), (open) => open === 1)
      const data = "x".repeat(900_000)
      const more = acme.asService.events.publish({ params, payload: { type: created, data } })
      const gone = yield* eventually(
        "it is dropped",
        Effect.andThen(more, metric("events_dropped_readers_total")),
        (dropped) => dropped > 0
      )
      assert.isAbove(gone, 0)
      yield* eventually("it is cut off", metric("events_open_streams"), (open) => open === 0)
    })
  )

  it.effect("a HEAD leaves nothing open", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const head = yield* send("/api/v1/events/tickets", { method: "HEAD", headers: headersOf(acme) })
      assert.strictEqual(head.status, 200)
      yield* eventually("nothing is open", metric("events_open_streams"), (open) => open === 0)
    })
  )

  it.effect("without Redis are answered with DependencyUnavailable", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const there = Effect.provideService(
        TestServer,
        yield* startServer({ REDIS_URL: "redis://127.0.0.1:1" })
      )
      const posted = yield* sendJson(
        "POST",
        "/api/v1/events/tickets",
        { type: "a", data: 1 },
        headersOf(acme)
      ).pipe(there)
      assert.strictEqual(code(posted), "DependencyUnavailable")
      for (const headers of [{}, { "last-event-id": "0-0" }]) {
        const got = yield* send("/api/v1/events/tickets", {
          headers: { ...headersOf(acme), ...headers }
        }).pipe(there)
        assert.strictEqual(got.status, 503)
        assert.strictEqual(code(got), "DependencyUnavailable")
      }
    })
  )
})
