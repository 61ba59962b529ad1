// What one tenant publishes, no other hears: whatever the name of the stream, and wherever it says that it was.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { EventId, EventType, StreamName } from "../../src/domain/Event.ts"
import { headersOf, open } from "../support/EventStreams.ts"
import { onRealClock, TestApp } from "../support/Platform.ts"
import { keysOfData } from "../support/RedisKeys.ts"
import { send } from "../support/Http.ts"
import { provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const tickets = StreamName.make("tickets")
const type = EventType.make("told")

const tell = (tenant: TestTenant, data: string, stream = tickets) =>
  tenant.asService.events.publish({ params: { stream }, payload: { type, data } })

layer(TestApp, onRealClock)("Events of one tenant", (it) => {
  it.effect("reach no other, live or by any Last-Event-ID, and tell it nothing of their ids", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      const first = yield* tell(a, "secret before")
      const before = EventId.make("0-0")
      const streams = yield* Effect.forEach(
        [{}, ...[before, first.id].map((id) => ({ "last-event-id": id }))],
        (headers) => open(b, headers)
      )
      const control = yield* open(a)
      const second = yield* tell(a, "secret after")
      yield* control.until("secret after")
      yield* tell(b, "own")
      for (const stream of streams) {
        const said = yield* stream.until("own")
        for (const theirs of ["secret", second.id, a.id, a.slug]) assert.notInclude(said, theirs)
      }
      // An id that B never gave out is one that is gone, as any other would be: A's are like nobody's.
      const nobodys = EventId.make("1700000000000-0")
      const resets = yield* Effect.forEach([first.id, nobodys], (id) =>
        Effect.flatMap(open(b, { "last-event-id": id }), ({ until }) => until("own"))
      )
      assert.strictEqual(resets[0], resets[1])
      assert.notInclude(yield* control.said, "own")
    })
  )

  it.effect("are not to be had by the name of a stream", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const b = yield* provisionTenant("jigtree")
      yield* tell(a, "secret")
      const before = yield* keysOfData("*")
      const names = [
        `..%2f..%2ft:%7B${a.id}%7D:events:tickets`,
        `t:%7B${a.id}%7D:events:tickets`,
        `%7B${a.id}%7D`,
        `tickets%7D:%7B${a.id}`,
        `..%2fevents%2ftickets`,
        `*`,
        `tickets%00`,
        `tickets%0d%0aXREAD`,
        "ti%63kets%3F"
      ]
      for (const name of names) {
        const answer = yield* send(`/api/v1/events/${name}`, {
          headers: { ...headersOf(b), "last-event-id": "0-0" }
        })
        assert.include([400, 404], answer.status, name)
        assert.notInclude(answer.text, "secret", name)
      }
      assert.sameMembers([...(yield* keysOfData("*"))], [...before])
    })
  )

  it.effect("stay apart when many tenants publish and listen at once", () =>
    Effect.gen(function* () {
      const tenants = yield* Effect.forEach(["one", "two", "three", "four"], provisionTenant)
      const streams = yield* Effect.forEach(tenants, (tenant) =>
        Effect.all([open(tenant), open(tenant, { "last-event-id": "0-0" })])
      )
      yield* Effect.forEach(
        Array.from({ length: 40 }, (_, n) => n),
        (n) =>
          Effect.forEach(tenants, (tenant) => tell(tenant, `${tenant.slug} ${n};`), {
            concurrency: "unbounded"
          }),
        { concurrency: 2 }
      )
      yield* Effect.forEach(tenants, (tenant) => tell(tenant, "done"))
      for (const [index, tenant] of tenants.entries()) {
        for (const stream of streams[index] ?? []) {
          const said = yield* stream.until("done")
          assert.strictEqual(said.match(/data: "/g)?.length, 41)
          assert.strictEqual(said.split(tenant.slug).length, 41)
        }
      }
    })
  )
})
