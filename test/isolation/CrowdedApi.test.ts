// Twenty tenants over HTTP, on one server with five connections and on a second, in a thousand random schedules of requests of every kind,
// with events and revocations mixed in. Nobody may see anything of anybody else's, no event may be lost, and what was
// revoked may not come back. A failure prints the schedule, shrunk, and the token that replays it.
import { assert, layer } from "@effect/vitest"
import { Arbitrary, Clock, Context, Effect, Fiber, Layer, Redacted, Schema, Stream } from "effect"
import { BEGINNING, EventType, StreamName } from "../../src/domain/Event.ts"
import { CollectionName } from "../../src/domain/Record.ts"
import { StateKey } from "../../src/domain/State.ts"
import { subscribe } from "../../src/http/Subscription.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp, TestServer } from "../support/Platform.ts"
import { turns } from "../support/EventLoop.ts"
import { send } from "../support/RawHttp.ts"
import { provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const TENANTS = 20
const CONNECTIONS = 5
const SCHEDULES = 1000
/** What is revoked is refused on every instance after this. */
const REVOKED_AFTER_MILLIS = 1000

const kinds = [
  "record",
  "list",
  "publish",
  "state",
  "idempotent record",
  "revocation",
  "use of a revoked key",
  "audit",
  "users",
  "interrupted record"
] as const

const Step = Schema.Struct({
  tenant: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: TENANTS - 1 })),
  kind: Schema.Literals(kinds),
  /** Turns of the event loop before it begins, or until it is interrupted. */
  pause: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 6 }))
})
const Plan = Schema.Array(Step).check(Schema.isMinLength(3), Schema.isMaxLength(7))

/** One tenant of the crowd, and what the test remembers of what it did. */
interface Member {
  readonly tenant: TestTenant
  readonly secret: string
  readonly published: Array<number>
  readonly heard: Array<number>
  readonly strange: Array<string>
  readonly revoked: Array<{ readonly key: string; readonly at: number }>
}

const notes = { collection: CollectionName.make("notes") }
const tickets = StreamName.make("tickets")
const ofMember = Schema.Struct({ by: Schema.String, n: Schema.Int })
const decodeOwn = Schema.decodeUnknownEffect(ofMember)

/** A number that no two calls get. */
let calls = 0

class Crowd extends Context.Service<Crowd, ReadonlyArray<Member>>()("test/Crowd") {
  static readonly layer = Layer.effect(
    Crowd,
    Effect.gen(function* () {
      const narrow = yield* startServer({ DATABASE_POOL_SIZE: String(CONNECTIONS) })
      const names = Array.from({ length: TENANTS }, (_, index) => `crowd-${index}`)
      return yield* Effect.forEach(
        names,
        Effect.fnUntraced(function* (name) {
          const tenant = yield* provisionTenant(name)
          const member: Member = {
            tenant,
            secret: tenant.slug,
            published: [],
            heard: [],
            strange: [],
            revoked: []
          }
          // All the time.
          yield* subscribe(tenant.asService, tickets, { after: BEGINNING }).pipe(
            Stream.runForEach((happening) =>
              happening._tag === "Reset"
                ? Effect.sync(() => member.strange.push("reset"))
                : Effect.map(Effect.orDie(decodeOwn(happening.data)), ({ by, n }) => {
                    member.heard.push(n)
                    if (by !== member.secret) member.strange.push(by)
                  })
            ),
            Effect.forkScoped
          )
          return member
        }),
        { concurrency: 2 }
      ).pipe(Effect.provideService(TestServer, narrow))
    })
  )
}

const now = Effect.map(Clock.currentTimeMillis, Number)

const perform = Effect.fnUntraced(function* (member: Member, { kind, pause }: typeof Step.Type) {
  const { asService, asUser } = member.tenant
  const n = ++calls
  const own = { by: member.secret, n }
  const create = asService.records.create({ params: notes, payload: { data: own } })
  const same = (data: Schema.Json) =>
    Effect.map(Effect.orDie(decodeOwn(data)), ({ by }) => assert.strictEqual(by, member.secret))
  switch (kind) {
    case "record": {
      const { id } = yield* create
      const read = yield* asService.records.get({ params: { ...notes, id } })
      return assert.deepStrictEqual(read.data, own)
    }
    case "list": {
      const { items } = yield* asUser.records.list({ params: notes, query: { limit: 5 } })
      return yield* Effect.forEach(items, ({ data }) => same(data), { discard: true })
    }
    case "publish":
      yield* asService.events.publish({
        params: { stream: tickets },
        payload: { type: EventType.make("made"), data: own }
      })
      return member.published.push(n)
    case "state": {
      const params = { key: StateKey.make("mood") }
      yield* asService.state.put({ params, payload: { value: own } })
      const { value } = yield* asUser.state.get({ params })
      return yield* same(value)
    }
    case "idempotent record": {
      // One key for all tenants: an answer that was kept for another would come back here.
      const answer = yield* send({
        method: "POST",
        path: "/api/v1/records/notes",
        headers: { "x-api-key": Redacted.value(member.tenant.apiKey), "idempotency-key": `key-${n % 7}` },
        body: { data: { by: member.secret, n: n % 7 } }
      })
      assert.strictEqual(answer.status, 201, answer.text)
      return assert.include(answer.text, `"by":"${member.secret}"`)
    }
    case "revocation": {
      const made = yield* asUser.auth.createApiKey({ payload: { name: member.secret } })
      const headers = { "x-api-key": made.key }
      const before = yield* send({ method: "GET", path: "/api/v1/records/notes?limit=1", headers })
      assert.strictEqual(before.status, 200)
      yield* asUser.auth.revokeApiKey({ params: { id: made.id } })
      return member.revoked.push({ key: made.key, at: yield* now })
    }
    case "use of a revoked key": {
      const at = yield* now
      const old = member.revoked.find((revoked) => revoked.at + REVOKED_AFTER_MILLIS < at)
      if (old === undefined) return
      const headers = { "x-api-key": old.key }
      const answer = yield* send({ method: "GET", path: "/api/v1/records/notes?limit=1", headers })
      return assert.strictEqual(answer.status, 401)
    }
    case "audit": {
      const { items } = yield* asService.audit.list({ query: { limit: 5 } })
      for (const { actor } of items) {
        if (actor.type === "user") assert.strictEqual(actor.name, member.tenant.email)
      }
      return assert.isNotEmpty(items)
    }
    case "users": {
      const { items } = yield* asUser.users.list({ query: {} })
      return assert.deepStrictEqual(
        items.map(({ email }) => email),
        [member.tenant.email]
      )
    }
    case "interrupted record": {
      const fiber = yield* Effect.forkChild(create, { startImmediately: true })
      yield* turns(pause)
      return yield* Fiber.interrupt(fiber)
    }
  }
})

/** One schedule: every request begun, all awaited. */
const play = Effect.fnUntraced(function* (plan: typeof Plan.Type) {
  const members = yield* Crowd
  yield* Effect.forEach(
    plan,
    (step) => {
      const member = members[step.tenant]
      assert.isDefined(member)
      return Effect.andThen(turns(step.pause), perform(member, step))
    },
    { concurrency: "unbounded", discard: true }
  )
  return true
})

layer(Crowd.layer.pipe(Layer.provideMerge(TestApp)), onRealClock)("A crowded API", (it) => {
  it.effect(
    "shows nobody anything of another tenant, loses no event, and brings nothing back that was revoked",
    () =>
      Effect.gen(function* () {
        const members = yield* Crowd
        const result = yield* Arbitrary.checkEffect(Arbitrary.schema(Plan), play, { runs: SCHEDULES })
        assert.isUndefined(Arbitrary.formatCheckFailure(result))

        const sorted = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)
        for (const { heard, published, strange } of members) {
          yield* eventually(
            "all events were heard",
            Effect.sync(() => heard.length),
            (length) => length >= published.length
          )
          assert.deepStrictEqual(sorted(heard), sorted(published))
          assert.deepStrictEqual(strange, [])
        }
        assert.isAbove(members.flatMap(({ published }) => published).length, SCHEDULES / 10)

        const revoked = members.flatMap((member) => member.revoked)
        assert.isNotEmpty(revoked)
        yield* Effect.forEach(
          revoked,
          ({ key }) =>
            eventually(
              "a revoked key is refused",
              send({ method: "GET", path: "/api/v1/records/notes?limit=1", headers: { "x-api-key": key } }),
              ({ status }) => status === 401,
              REVOKED_AFTER_MILLIS
            ),
          { concurrency: 10 }
        )
      }),
    120_000
  )
})
