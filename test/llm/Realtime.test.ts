// Realtime voice over real sockets: OpenAI's own client and bare ones on this side, a provider that speaks the GA protocol on
// the other.
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Redacted, Scope } from "effect"
import OpenAI from "openai"
import { OpenAIRealtimeWS } from "openai/realtime/ws"
import { WebSocket } from "ws"
import { MOST_SESSIONS } from "../../src/services/llm/Realtime.ts"
import { eventually } from "../support/Eventually.ts"
import { AUDIO, FakeRealtime, FLOOD } from "../support/FakeRealtime.ts"
import { member, send, sendJson } from "../support/Http.ts"
import { onRealClock, startServer, TestDatabase, TestServer } from "../support/Platform.ts"
import {
  at,
  bearer,
  closeOf,
  dial,
  heard,
  openWith,
  providerKey,
  refusedDial,
  sideOf,
  tenantWith,
  TestRealtimeApp,
  tlsFront
} from "../support/RealtimeApp.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const rowsOf = (tenant: TestTenant, count: number) =>
  eventually(
    `${count} rows are written`,
    Effect.flatMap(
      TestDatabase,
      ({ superuser: sql }) =>
        sql<Record<string, unknown>>`SELECT * FROM ${sql(`${tenant.schema}.llm_usage`)} ORDER BY id`
    ),
    ({ length }) => length >= count
  )

const create = { type: "response.create" }

const update = (session: Readonly<Record<string, unknown>>) => ({
  type: "session.update",
  event_id: "mine",
  session: { type: "realtime", ...session }
})

const transcribing = (model: string) => ({ audio: { input: { transcription: { model } } } })

/** Milliseconds from now until the provider's side is closed. */
const untilClosed = Effect.fnUntraced(function* (model: string) {
  const begun = performance.now()
  const side = yield* sideOf(model)
  yield* eventually(
    "the provider's side is closed",
    Effect.sync(() => side.closed),
    (closed) => closed !== undefined
  )
  return (side.closed?.atMillis ?? Infinity) - begun
})

layer(TestRealtimeApp, onRealClock)("realtime voice", (it) => {
  it.effect("serves OpenAI's own client from end to end, and leaves a row", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        "llm.prices": {
          "openai/rt": {
            input: "4",
            cached_input: "0.4",
            output: "16",
            audio_input: "32",
            audio_output: "64"
          }
        }
      })
      const { ca, url } = yield* tlsFront
      const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: Redacted.value(tenant.apiKey) })
      const session = yield* Effect.acquireRelease(
        Effect.sync(() => new OpenAIRealtimeWS({ model: "openai/rt", options: { ca } }, client)),
        (session) => Effect.sync(() => session.close())
      )
      const types: Array<string> = []
      let audio = ""
      let usage: unknown
      yield* Effect.callback<void>((resume) => {
        session.on("error", (error) => resume(Effect.die(error)))
        session.on("event", ({ type }) => types.push(type))
        session.on("session.created", () => {
          session.send({ type: "input_audio_buffer.append", audio: AUDIO })
          session.send({ type: "response.create" })
        })
        session.on("response.output_audio.delta", ({ delta }) => (audio += delta))
        session.on("response.done", ({ response }) => {
          usage = response.usage
          resume(Effect.void)
        })
      })
      assert.strictEqual(types.filter((type) => type === "response.output_audio.delta").length, 25)
      assert.strictEqual(audio, AUDIO.repeat(25))
      assert.strictEqual(at(usage, "output_token_details", "audio_tokens"), 25)

      const [row] = yield* rowsOf(tenant, 1)
      assert.deepInclude(row, {
        operation: "realtime",
        asked: "openai/rt",
        provider: "openai",
        model: "rt",
        status: "ok",
        fault: null,
        estimated: false,
        streamed: true,
        own_key: false,
        input_tokens: 6n,
        cached_read_tokens: 4n,
        output_tokens: 5n,
        audio_input_tokens: 16n,
        audio_cached_tokens: 4n,
        audio_output_tokens: 25n,
        // 6 and 4 of text, 16 and 4 of audio came in, 5 of text and 25 of audio went out.
        cost_usd: "0.0022192"
      })
      assert.deepInclude(at(row, "metadata"), { kind: "response", status: "completed" })
      const side = yield* sideOf("rt")
      assert.strictEqual(side.headers.authorization, `Bearer ${providerKey}`)
      const told = JSON.stringify(side.headers)
      for (const secret of [tenant.slug, tenant.id, Redacted.value(tenant.apiKey)]) {
        assert.notInclude(told, secret)
      }
      assert.match(String(side.headers["openai-safety-identifier"]), /^aa_[0-9a-f]{40}$/)
    })
  )

  it.effect(
    "takes a key or an access token as Bearer, and among the subprotocols, which it does not repeat",
    () =>
      Effect.gen(function* () {
        const tenant = yield* provisionTenant("voice")
        for (const secret of [tenant.apiKey, tenant.accessToken]) {
          // Whichever comes first.
          const protocols = [`openai-insecure-api-key.${Redacted.value(secret)}`, "realtime"]
          for (const options of [{ headers: bearer(secret) }, { protocols }]) {
            const caller = yield* openWith("?model=openai%2Frt", options)
            yield* heard(caller, "session.created")
            assert.strictEqual(caller.socket.protocol, "protocols" in options ? "realtime" : "")
          }
        }
      })
  )

  it.effect("is refused at the upgrade, in OpenAI's envelope, before anybody is asked", () =>
    Effect.gen(function* () {
      const fake = yield* FakeRealtime
      const tenant = yield* tenantWith({
        "llm.allowed_models": ["openai/rt"],
        "llm.groups": { elsewhere: ["anthropic/claude"] }
      })
      const { key } = yield* tenant.asUser.auth.createApiKey({
        payload: { name: "narrow", scopes: ["records:read"] }
      })
      const expect = Effect.fnUntraced(function* (
        status: number,
        code: string,
        query: string,
        headers: Record<string, string>,
        url?: string
      ) {
        const answer = yield* refusedDial(query, url === undefined ? { headers } : { headers, url })
        const told = `${status} ${code}: ${answer.status} ${answer.text}`
        assert.strictEqual(answer.status, status, told)
        assert.strictEqual(at(answer.json, "error", "code"), code, told)
        assert.sameMembers(Object.keys(Object(at(answer.json, "error"))), [
          "message",
          "type",
          "param",
          "code"
        ])
        return answer
      })
      const before = fake.asked.length
      const own = bearer(tenant.apiKey)
      yield* expect(401, "Unauthenticated", "?model=openai/rt", {})
      yield* expect(401, "Unauthenticated", "?model=openai/rt", bearer("aa_nonsense"))
      yield* expect(401, "Unauthenticated", "?model=openai/rt", bearer("ek_nonsense"))
      yield* expect(403, "Forbidden", "?model=openai/rt", bearer(key))
      yield* expect(403, "Forbidden", "?model=openai/rt-other", own)
      yield* expect(403, "CrossTenantAccess", "?model=openai/rt", { ...own, "x-tenant-id": "nobody" })
      yield* expect(400, "InvalidRequest", "?model=elsewhere", own)
      yield* expect(400, "InvalidRequest", "", own)

      const spent = yield* tenantWith({
        "llm.prices": { "openai/rt": { input: "1", output: "1" } },
        "llm.monthly_budget_usd": "0"
      })
      yield* expect(402, "BudgetExceeded", "?model=openai/rt", bearer(spent.apiKey))
      // Nobody could say what it costs.
      yield* expect(400, "InvalidRequest", "?model=openai/rt-other", bearer(spent.apiKey))

      const bare = yield* startServer({})
      yield* expect(503, "ProviderNotConfigured", "?model=openai/rt", own, bare.url)

      const hurried = yield* tenantWith({ "rate.requests_per_minute": 1 })
      const limited = yield* expect(429, "RateLimited", "?model=openai/rt", bearer(hurried.apiKey))
      assert.match(String(limited.headers["retry-after"]), /^\d+$/)

      yield* (yield* operator).tenants.suspend({ params: { tenant: tenant.id } })
      const suspended = yield* eventually(
        "the suspension is known",
        refusedDial("?model=openai/rt-other", { headers: own }),
        ({ json }) => at(json, "error", "code") === "TenantSuspended"
      )
      assert.strictEqual(suspended.status, 403)
      assert.strictEqual(fake.asked.length, before)
    })
  )

  it.effect("answers no plain request, and no handshake that is none", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const { url } = yield* TestServer
      const response = yield* Effect.promise(() =>
        fetch(`${url}/v1/realtime?model=openai/rt`, { headers: bearer(tenant.apiKey) })
      )
      assert.strictEqual(response.status, 400)
    })
  )

  it.effect("answers the upgrade as the provider does: gone, refusing, busy, silent about keys", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const headers = bearer(tenant.apiKey)
      const expected = [
        ["rt-401", 503, "ProviderNotConfigured"],
        ["rt-403", 503, "ProviderNotConfigured"],
        ["rt-429", 429, "RateLimited"],
        ["rt-503", 502, "ProviderUnavailable"],
        ["rt-200", 502, "ProviderUnavailable"],
        ["rt-400", 400, "invalid_prompt"]
      ] as const
      for (const [model, status, code] of expected) {
        const answer = yield* refusedDial(`?model=openai/${model}`, { headers })
        assert.deepStrictEqual([answer.status, at(answer.json, "error", "code")], [status, code], model)
        assert.notInclude(answer.text, providerKey)
        if (status === 429) assert.strictEqual(answer.headers["retry-after"], "7")
      }
      const nobody = yield* startServer({
        OPENAI_API_KEY: providerKey,
        OPENAI_BASE_URL: "http://127.0.0.1:9/v1"
      })
      const gone = yield* refusedDial("?model=openai/rt", { headers, url: nobody.url })
      assert.deepStrictEqual([gone.status, at(gone.json, "error", "code")], [502, "ProviderUnavailable"])
    })
  )

  it.effect("asks the next of the group, where one refuses the upgrade", () =>
    Effect.gen(function* () {
      const fake = yield* FakeRealtime
      const tenant = yield* tenantWith({
        "llm.groups": { voice: ["openai/rt-503", "openai/rt-429", "openai/rt-n3"] }
      })
      const before = fake.asked.length
      const caller = yield* dial(tenant, "voice")
      caller.send(create)
      yield* heard(caller, "response.done")
      assert.deepStrictEqual(fake.asked.slice(before), ["rt-503", "rt-429", "rt-n3"])
      const [row] = yield* rowsOf(tenant, 1)
      assert.deepInclude(row, { asked: "voice", model: "rt-n3" })
    })
  )

  it.effect("is pinned to its model: another one's name goes no further, its own does", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        "llm.groups": { voice: ["openai/rt"] },
        "llm.allowed_models": ["openai/rt*", "openai/whisper-1"]
      })
      const caller = yield* dial(tenant, "voice")
      const side = yield* sideOf("rt")
      const refused = [
        [update({ model: "rt-other" }), "session.model"],
        [{ type: "response.create", event_id: "mine", response: { model: "gpt-5.4" } }, "response.model"],
        [update({ model: { toString: "rt" } }), "session.model"],
        [update(transcribing("gpt-4o-transcribe")), "session.audio.input.transcription.model"],
        [
          update({ input_audio_transcription: { model: "gpt-4o-transcribe" } }),
          "session.input_audio_transcription.model"
        ]
      ] as const
      for (const [event] of refused) caller.send(event)
      caller.socket.send(`{"type": "session.update", "session": {"model": "rt-other"}, "a": NaN}`)
      caller.socket.send(Buffer.from(JSON.stringify(update({ model: "rt-other" }))), { binary: true })
      const errors = yield* heard(caller, "error", refused.length + 2)
      assert.deepStrictEqual(
        errors.map((event) => at(event, "error", "param")),
        [...refused.map(([, param]) => param), null, "session.model"]
      )
      assert.strictEqual(at(errors[0], "error", "event_id"), "mine")
      assert.strictEqual(at(errors[0], "error", "code"), "Forbidden")
      assert.lengthOf(side.frames, 0)

      const passing = [
        update({ model: "rt" }),
        update(transcribing("whisper-1")),
        update({ instructions: "Hi" })
      ]
      for (const event of passing) caller.send(event)
      // By the name that the caller knows it by; the provider knows its own.
      caller.send(update({ model: "voice", voice: "marin" }))
      yield* heard(caller, "session.updated", passing.length + 1)
      assert.deepStrictEqual(
        side.frames.map(({ text }) => text),
        [...passing, update({ model: "rt", voice: "marin" })].map((event) => JSON.stringify(event))
      )
    })
  )

  it.effect("keeps nobody waiting for a frame that is as deep, or as wide, as it is long", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-n1")
      const side = yield* sideOf("rt-n1")
      const half = 4_000_000
      for (const item of [
        "[".repeat(half) + "]".repeat(half),
        `[${"[],".repeat(half)}1]`,
        `${" ".repeat(half)}{`
      ]) {
        caller.socket.send(`{"type":"input_audio_buffer.append","item":${item}}`)
      }
      // What is long alone passes, whatever its text looks like.
      const long = JSON.stringify({
        type: "input_audio_buffer.append",
        audio: `[{,"\\${'[{\\"'.repeat(500_000)}`
      })
      caller.socket.send(long)
      const begun = performance.now()
      const errors = yield* heard(caller, "error", 3)
      assert.isBelow(performance.now() - begun, 3000)
      assert.deepStrictEqual(
        [...new Set(errors.map((event) => at(event, "error", "code")))],
        ["invalid_json"]
      )
      yield* eventually(
        "it has come",
        Effect.sync(() => side.frames.map(({ text }) => text === long)),
        ([same]) => same === true
      )
      assert.lengthOf(side.frames, 1)
    })
  )

  it.effect("ends when the provider transcribes with what the tenant may not use", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.allowed_models": ["openai/rt*"] })
      const caller = yield* dial(tenant, "openai/rt-switch")
      caller.send(create)
      const { code } = yield* closeOf(caller)
      assert.strictEqual(code, 1008)
      assert.strictEqual(at(caller.events.at(-1), "error", "code"), "Forbidden")
    })
  )

  it.effect("carries 2,000 frames each way in their order and as they are, text and binary", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-n2000")
      const side = yield* sideOf("rt-n2000")
      const sent = Array.from(
        { length: 2000 },
        (_, index) =>
          // With spaces, escapes and an order that no serialiser would write.
          `{ "audio":"${AUDIO}",  "n": ${index}, "u": "\\u00e9é\\/", "type" : "input_audio_buffer.append" }`
      )
      caller.send(create)
      for (const text of sent) caller.socket.send(text)
      yield* heard(caller, "response.done")
      yield* eventually(
        "all have come",
        Effect.sync(() => side.frames.length),
        (length) => length === 2001
      )
      assert.deepStrictEqual(
        side.frames.slice(1).map(({ text }) => text),
        sent
      )
      const deltas = caller.events.filter(({ type }) => type === "response.output_audio.delta")
      assert.deepStrictEqual(
        deltas.map(({ n }) => n),
        Array.from({ length: 2000 }, (_, index) => index)
      )

      const bytes = Buffer.from(Array.from({ length: 4096 }, (_, index) => index % 256))
      caller.socket.send(bytes, { binary: true })
      yield* eventually(
        "the echo has come",
        Effect.sync(() => caller.frames.at(-1)?.binary),
        (binary) => binary === true
      )
      assert.isTrue(caller.frames.at(-1)?.data.equals(bytes))
    })
  )

  it.effect("lets a slow reader slow the other side down, in both directions, and loses nothing", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-flood")
      const side = yield* sideOf("rt-flood")
      const total = FLOOD.frames * FLOOD.bytes
      /** Waits until a count stays what it is, and gives it. */
      const settled = Effect.fnUntraced(function* (look: () => number) {
        let last = -1
        let same = 0
        return yield* eventually(
          "it stands still",
          Effect.sync(() => {
            const now = look()
            same = now === last && now > 0 ? same + 1 : 0
            last = now
            return now
          }),
          () => same >= 20
        )
      })

      caller.socket.pause()
      caller.send(create)
      const taken = yield* settled(() => side.flushed)
      assert.isBelow(taken, total / 2, `of ${total} bytes`)
      caller.socket.resume()
      const floods = yield* heard(caller, "flood", FLOOD.frames)
      assert.deepStrictEqual(
        floods.map(({ index }) => index),
        Array.from({ length: FLOOD.frames }, (_, index) => index)
      )

      side.socket.pause()
      let flushed = 0
      const text = JSON.stringify({ type: "input_audio_buffer.append", audio: "x".repeat(FLOOD.bytes) })
      for (let index = 0; index < FLOOD.frames; index++) {
        caller.socket.send(text, () => (flushed += text.length))
      }
      assert.isBelow(yield* settled(() => flushed), total / 2)
      side.socket.resume()
      yield* eventually(
        "all have come",
        Effect.sync(() => side.frames.length),
        (length) => length === 1 + FLOOD.frames
      )
      assert.isTrue(side.frames.slice(1).every((frame) => frame.text === text))
    })
  )

  it.effect("answers pings on both sides, and refuses a frame beyond 16 MiB", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-n1")
      const side = yield* sideOf("rt-n1")
      for (const socket of [caller.socket, side.socket]) {
        const answered = yield* Effect.callback<string>((resume) => {
          socket.once("pong", (data) => resume(Effect.succeed(data.toString())))
          socket.ping("hello")
        })
        assert.strictEqual(answered, "hello")
      }
      caller.send({ type: "input_audio_buffer.append", audio: "x".repeat(15 * 1024 * 1024) })
      yield* eventually(
        "the largest has come",
        Effect.sync(() => side.frames.length),
        (length) => length === 1
      )
      caller.send({ type: "input_audio_buffer.append", audio: "x".repeat(16 * 1024 * 1024) })
      assert.strictEqual((yield* closeOf(caller)).code, 1009)
      assert.isBelow(yield* untilClosed("rt-n1"), 1000)
    })
  )

  it.effect("says that the provider broke off, and lets each close go its way", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const expected = [
        ["rt-drop", 1011, true],
        ["rt-close-1011", 1011, true],
        ["rt-close-1012", 1013, true],
        ["rt-close-1013", 1013, true],
        ["rt-close-4001", 4001, true],
        ["rt-close-1000", 1000, false]
      ] as const
      for (const [model, code, told] of expected) {
        const caller = yield* dial(tenant, `openai/${model}`)
        caller.send(create)
        const close = yield* closeOf(caller)
        assert.strictEqual(close.code, code, model)
        const last = caller.events.at(-1)
        assert.strictEqual(last?.["type"] === "error", told, model)
        if (told) assert.strictEqual(at(last, "error", "code"), "ProviderUnavailable")
        assert.notInclude(JSON.stringify([close, last]), providerKey)
        assert.lengthOf(
          caller.events.filter(({ type }) => type === "response.output_audio.delta"),
          10,
          model
        )
      }
      // What was said until then is billed, by what came of it.
      const rows = yield* rowsOf(tenant, expected.length)
      for (const row of rows) {
        assert.deepInclude(row, {
          status: "failed",
          estimated: true,
          output_tokens: 2n,
          audio_output_tokens: 4n
        })
      }
    })
  )

  it.effect("waits for a provider that takes its time", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-hang")
      caller.send(create)
      yield* heard(caller, "response.created")
      caller.send(update({ instructions: "Hi" }))
      yield* heard(caller, "session.updated")
      assert.isUndefined(caller.closed())
    })
  )

  it.effect("passes the provider's own errors on, and goes on", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const caller = yield* dial(tenant, "openai/rt-error")
      caller.send(create)
      const [error] = yield* heard(caller, "error")
      assert.strictEqual(at(error, "error", "message"), "boom")
      caller.send(update({ instructions: "Hi" }))
      yield* heard(caller, "session.updated")
    })
  )

  it.effect("bills every response by its own usage, once, whatever became of it", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const bill = Effect.fnUntraced(function* (model: string, cancel = false, estimate = 0) {
        const before = (yield* rowsOf(tenant, 0)).length
        const caller = yield* dial(tenant, `openai/${model}`)
        caller.send(create)
        if (cancel) {
          yield* heard(caller, "response.output_audio.delta")
          caller.send({ type: "response.cancel" })
        }
        const [done] = yield* heard(caller, "response.done")
        yield* heard(caller, "rate_limits.updated")
        const rows = yield* rowsOf(tenant, before + 1)
        assert.lengthOf(rows, before + 1, model)
        const row = rows.at(-1)
        assert.strictEqual(
          Number(at(row, "audio_output_tokens")),
          Number(at(done, "response", "usage", "output_token_details", "audio_tokens") ?? estimate)
        )
        assert.strictEqual(row?.["provider_request_id"], at(done, "response", "id"))
        return row
      })
      assert.deepInclude(yield* bill("rt-twice"), { status: "ok", estimated: false })
      assert.deepInclude(yield* bill("rt-n5000", true), { status: "cancelled", fault: "client_cancelled" })
      assert.deepInclude(yield* bill("rt-failed"), { status: "failed", fault: "boom" })
      assert.deepInclude(yield* bill("rt-incomplete"), { status: "ok", fault: "max_output_tokens" })
      // Half a second of speech, and five words to it.
      assert.deepInclude(yield* bill("rt-nousage", false, 10), { estimated: true, output_tokens: 5n })
      assert.lengthOf(yield* rowsOf(tenant, 5), 5)
    })
  )

  it.effect("bills transcriptions to the model that made them, by tokens or by seconds", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        "llm.prices": {
          "openai/gpt-4o-transcribe": { input: "2.5", output: "10", audio_input: "6", audio_minute: "0.02" }
        }
      })
      const expected = [
        ["rt", 17n, {}, "0.000152"],
        // 1.5 of 60 seconds.
        ["rt-seconds", 0n, { seconds: 1.5 }, "0.0005"]
      ] as const
      for (const [index, [model, audio, metadata, cost]] of expected.entries()) {
        const caller = yield* dial(tenant, `openai/${model}`)
        caller.send(update(transcribing("gpt-4o-transcribe")))
        caller.send({ type: "input_audio_buffer.commit" })
        yield* heard(caller, "conversation.item.input_audio_transcription.completed")
        const row = (yield* rowsOf(tenant, index + 1)).at(-1)
        assert.deepInclude(row, {
          model: "gpt-4o-transcribe",
          audio_input_tokens: audio,
          estimated: false,
          cost_usd: cost
        })
        assert.deepInclude(row?.["metadata"], { kind: "transcription", ...metadata })
      }
    })
  )

  it.effect("leaves the provider within 100 ms when the client is gone, however it goes", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const goings = { "rt-n2": "close", "rt-hang": "terminate" } as const
      for (const [model, how] of Object.entries(goings)) {
        const caller = yield* dial(tenant, `openai/${model}`)
        caller.send(create)
        yield* heard(caller, model === "rt-hang" ? "response.created" : "response.done")
        caller.socket[how]()
        assert.isBelow(yield* untilClosed(model), 100, how)
        const { closed } = yield* sideOf(model)
        if (how === "close") assert.strictEqual(closed?.code, 1000)
      }
      const rows = yield* rowsOf(tenant, 2)
      assert.deepInclude(rows.at(-1), { status: "cancelled", estimated: true })
    })
  )

  it.effect("leaves a provider that has not answered when the caller leaves", () =>
    Effect.gen(function* () {
      const fake = yield* FakeRealtime
      const tenant = yield* provisionTenant("voice")
      const { url } = yield* TestServer
      const socket = new WebSocket(`${url.replace("http", "ws")}/v1/realtime?model=openai/rt-mute`, {
        headers: bearer(tenant.apiKey)
      })
      socket.on("error", () => undefined)
      const waiting = (count: number) =>
        eventually(`${count} wait`, Effect.sync(fake.waiting), (found) => found === count)
      yield* waiting(1)
      const begun = performance.now()
      socket.terminate()
      yield* waiting(0)
      assert.isBelow(performance.now() - begun, 500)
    })
  )

  it.effect(
    "ends within a second when its key is revoked, its session is signed out, or its tenant is suspended",
    () =>
      Effect.gen(function* () {
        const tenant = yield* provisionTenant("voice")
        const made = yield* tenant.asUser.auth.createApiKey({ payload: { name: "to be revoked" } })
        const byKey = yield* dial(tenant, "openai/rt", { headers: bearer(made.key) })
        const byUser = yield* dial(tenant, "openai/rt", { headers: bearer(tenant.accessToken) })
        const other = yield* dial(tenant, "openai/rt")
        yield* tenant.asUser.auth.revokeApiKey({ params: { id: made.id } })
        assert.strictEqual((yield* closeOf(byKey)).code, 1008)
        assert.strictEqual(at(byKey.events.at(-1), "error", "code"), "Unauthenticated")

        yield* tenant.asUser.auth.logout()
        assert.strictEqual((yield* closeOf(byUser)).code, 1008)

        assert.isUndefined(other.closed())
        yield* (yield* operator).tenants.suspend({ params: { tenant: tenant.id } })
        assert.strictEqual((yield* closeOf(other)).code, 1008)
        assert.strictEqual(at(other.events.at(-1), "error", "code"), "TenantSuspended")
        assert.isBelow(yield* untilClosed("rt"), 1000)
      })
  )

  it.effect("ends with an error when the budget is spent, and the next one is refused", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        // A response can cost 0.16, and one of this model comes to 0.13.
        "llm.prices": { "openai/rt-long": { input: "1", output: "1" } },
        "llm.monthly_budget_usd": "0.40"
      })
      const caller = yield* dial(tenant, "openai/rt-long")
      caller.send(create)
      yield* heard(caller, "response.done")
      yield* rowsOf(tenant, 1)
      assert.isUndefined(caller.closed())
      // 0.13 is spent and 0.16 held: there is nothing for a third one.
      caller.send(create)
      assert.strictEqual((yield* closeOf(caller)).code, 1008)
      const types = caller.events.map(({ type }) => type)
      assert.strictEqual(types.filter((type) => type === "response.done").length, 2)
      assert.strictEqual(at(caller.events.at(-1), "error", "code"), "BudgetExceeded")
      const rows = yield* rowsOf(tenant, 2)
      assert.deepStrictEqual(
        rows.map(({ cost_usd }) => cost_usd),
        ["0.13", "0.13"]
      )
      const answer = yield* refusedDial("?model=openai/rt-long", { headers: bearer(tenant.apiKey) })
      assert.deepStrictEqual([answer.status, at(answer.json, "error", "code")], [402, "BudgetExceeded"])
      assert.strictEqual(answer.headers["x-should-retry"], "false")
      const { budget } = yield* tenant.asUser.llm.usage({ query: {} })
      assert.deepStrictEqual(budget, { monthly_usd: "0.40", spent_usd: "0.26", reserved_usd: "0" })
    })
  )

  it.effect("holds a response of each open session, so that no two spend the same", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        "llm.prices": { "openai/rt": { input: "1", output: "1" } },
        "llm.monthly_budget_usd": "0.33"
      })
      const refused = Effect.map(
        refusedDial("?model=openai/rt", { headers: bearer(tenant.apiKey) }),
        ({ status }) => status
      )
      const one = yield* dial(tenant, "openai/rt")
      yield* dial(tenant, "openai/rt")
      assert.strictEqual(yield* refused, 402)
      one.socket.close()
      yield* eventually("what the closed one held is free", Effect.exit(dial(tenant, "openai/rt")), (exit) =>
        Exit.isSuccess(exit)
      )
      assert.strictEqual(yield* refused, 402)
    })
  )

  it.effect("lets no more responses be asked for at a time than are paid for", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({
        "llm.prices": { "openai/rt-hang": { input: "1", output: "1" } },
        "llm.monthly_budget_usd": "0.33"
      })
      const caller = yield* dial(tenant, "openai/rt-hang")
      const beside = { type: "response.create", event_id: "mine", response: { conversation: "none" } }
      for (let count = 0; count < 20; count++) caller.send(beside)
      yield* heard(caller, "error", 19)
      const side = yield* sideOf("rt-hang")
      assert.lengthOf(side.frames, 1)
      // There is enough for a second one, and for no third.
      caller.send(beside)
      yield* heard(caller, "response.created", 2)
      caller.send(beside)
      // Of the audio it is told once.
      for (let count = 0; count < 5; count++) caller.send({ type: "input_audio_buffer.append", audio: AUDIO })
      caller.send({ type: "response.cancel" })
      const errors = yield* heard(caller, "error", 21)
      assert.deepStrictEqual(
        errors.map((event) => at(event, "error", "code")),
        [...Array.from({ length: 19 }, () => "RateLimited"), "BudgetExceeded", "BudgetExceeded"]
      )
      assert.strictEqual(at(errors[0], "error", "event_id"), "mine")
      yield* eventually(
        "the last frame comes",
        Effect.sync(() => side.frames.map(({ text }) => JSON.parse(text).type)),
        (types) => types.at(-1) === "response.cancel"
      )
      assert.lengthOf(side.frames, 3)
      // What is cut is estimated, within what was held for it.
      caller.socket.terminate()
      const rows = yield* rowsOf(tenant, 2)
      for (const row of rows) assert.deepInclude(row, { status: "cancelled", estimated: true })
    })
  )

  it.effect("ends with an error when the server drains", () =>
    Effect.gen(function* () {
      const fake = yield* FakeRealtime
      const tenant = yield* provisionTenant("voice")
      const scope = yield* Scope.make()
      const { url } = yield* startServer({
        OPENAI_API_KEY: providerKey,
        OPENAI_BASE_URL: `${fake.url}/v1`
      }).pipe(Effect.provideService(Scope.Scope, scope))
      const caller = yield* dial(tenant, "openai/rt", { url })
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      const { code } = yield* closeOf(caller)
      assert.strictEqual(code, 1001)
      assert.strictEqual(at(caller.events.at(-1), "error", "code"), "ShuttingDown")
      yield* Effect.yieldNow
      assert.isDefined(closing)
    })
  )

  it.effect("has room for so many sessions of a tenant, and no more", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const callers = yield* Effect.forEach(
        Array.from({ length: MOST_SESSIONS }),
        () => dial(tenant, "openai/rt"),
        { concurrency: 10 }
      )
      const answer = yield* refusedDial("?model=openai/rt", { headers: bearer(tenant.apiKey) })
      assert.deepStrictEqual([answer.status, at(answer.json, "error", "code")], [429, "RateLimited"])
      const { text } = yield* send("/metrics")
      const open = Number(/^llm_realtime_sessions(?:\{[^}]*\})? (\d+)$/m.exec(text)?.[1])
      assert.isAtLeast(open, MOST_SESSIONS)
      const other = yield* provisionTenant("voice")
      yield* dial(other, "openai/rt")
      callers[0]?.socket.terminate()
      yield* eventually(
        "there is room again",
        Effect.exit(Effect.scoped(dial(tenant, "openai/rt"))),
        (exit) => Exit.isSuccess(exit)
      )
    })
  )
})

const mint = (tenant: TestTenant, body: unknown) =>
  sendJson("POST", "/v1/realtime/client_secrets", body, bearer(tenant.apiKey))

layer(TestRealtimeApp, onRealClock)("a client secret", (it) => {
  it.effect("is made by OpenAI's own client, and opens a session that it pins", () =>
    Effect.gen(function* () {
      const { url } = yield* TestServer
      const { redis } = yield* TestDatabase
      const tenant = yield* tenantWith({ "llm.groups": { voice: ["openai/rt-n3"] } })
      const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: Redacted.value(tenant.apiKey) })
      const begun = Date.now() / 1000
      const secret = yield* Effect.promise(() =>
        openai.realtime.clientSecrets.create({
          expires_after: { anchor: "created_at", seconds: 60 },
          session: { type: "realtime", model: "voice", instructions: "Be brief", tools: [] }
        })
      )
      assert.match(secret.value, /^ek_[0-9a-f]{32}_[A-Za-z0-9]{43}$/)
      assert.approximately(secret.expires_at, begun + 60, 3)
      assert.deepInclude(secret.session, {
        object: "realtime.session",
        type: "realtime",
        instructions: "Be brief"
      })

      // Its hash alone is kept, and not for longer.
      const keys = yield* Effect.promise(() => redis.keys(`t:{${tenant.id}}:client-secret:*`))
      assert.lengthOf(keys, 1)
      const kept = yield* Effect.promise(() => redis.get(keys[0] ?? ""))
      for (const text of [keys[0], kept]) assert.notInclude(text ?? "", secret.value.slice(36))
      assert.approximately(yield* Effect.promise(() => redis.ttl(keys[0] ?? "")), 57, 3)

      for (const options of [
        { protocols: ["realtime", `openai-insecure-api-key.${secret.value}`] },
        { headers: bearer(secret.value) }
      ]) {
        for (const query of ["", "?model=voice"]) {
          const caller = yield* openWith(query, options)
          yield* heard(caller, "session.updated")
          const side = yield* sideOf("rt-n3")
          assert.deepStrictEqual(JSON.parse(side.frames[0]?.text ?? ""), {
            type: "session.update",
            session: { type: "realtime", instructions: "Be brief", tools: [] }
          })
          assert.strictEqual(side.headers.authorization, `Bearer ${providerKey}`)
        }
      }
      const caller = yield* openWith("", { headers: bearer(secret.value) })
      caller.send(create)
      yield* heard(caller, "response.done")
      const [row] = yield* rowsOf(tenant, 1)
      const { items } = yield* tenant.asUser.auth.listApiKeys({ query: {} })
      assert.deepInclude(row, { asked: "voice", key_id: items[0]?.id })
    })
  )

  it.effect("is for its model and for realtime voice alone", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("voice")
      const made = yield* mint(tenant, { session: { model: "openai/rt" } })
      assert.strictEqual(made.status, 200)
      const value = String(member(made.json, "value"))
      const other = yield* refusedDial("?model=openai/rt-n3", { headers: bearer(value) })
      assert.strictEqual(other.status, 403)
      for (const path of ["/v1/models", "/api/v1/auth/me", "/api/v1/records/notes"]) {
        assert.strictEqual((yield* send(path, { headers: bearer(value) })).status, 401, path)
      }
      const again = yield* sendJson("POST", "/v1/realtime/client_secrets", {}, bearer(value))
      assert.strictEqual(again.status, 401)
      assert.strictEqual((yield* refusedDial("", { headers: { "x-api-key": value } })).status, 401)
    })
  )

  it.effect("is refused where its session could not be, and within its bounds", () =>
    Effect.gen(function* () {
      const tenant = yield* tenantWith({ "llm.allowed_models": ["openai/rt"] })
      const expected = [
        [{ session: { model: "openai/rt-other" } }, 403],
        [{ session: { model: "openai/rt", ...transcribing("whisper-1") } }, 403],
        [{ session: { model: "openai/rt", type: "transcription" } }, 400],
        [{ session: { model: "openai/rt", instructions: "x".repeat(70_000) } }, 400],
        [{ session: { model: "openai/rt" }, expires_after: { seconds: 9 } }, 400],
        [{ session: { model: "openai/rt" }, expires_after: { seconds: 7201 } }, 400],
        [{ session: { model: "openai/rt" }, expires_after: { anchor: "created_at", seconds: 7200 } }, 200],
        [{ session: { model: "openai/rt" } }, 200]
      ] as const
      for (const [body, status] of expected) {
        const answer = yield* mint(tenant, body)
        assert.strictEqual(answer.status, status, answer.text)
        if (status !== 200) assert.isString(member(member(answer.json, "error"), "code"))
      }
      const usual = yield* mint(tenant, { session: { model: "openai/rt" } })
      assert.approximately(Number(member(usual.json, "expires_at")), Date.now() / 1000 + 600, 3)
    })
  )

  it.effect("dies with its time, with its maker's key or sign-in, and with the tenant's suspension", () =>
    Effect.gen(function* () {
      const { redis } = yield* TestDatabase
      const tenant = yield* provisionTenant("voice")
      const valueBy = Effect.fnUntraced(function* (secret: Redacted.Redacted<string> | string) {
        const body = { session: { model: "openai/rt" } }
        const answer = yield* sendJson("POST", "/v1/realtime/client_secrets", body, bearer(secret))
        return String(member(answer.json, "value"))
      })
      const statusOf = (value: string) =>
        Effect.map(refusedDial("", { headers: bearer(value) }), ({ status }) => status)
      const refusedSoon = (value: string, status: number) =>
        eventually(
          "it is refused",
          Effect.scoped(Effect.catchCause(statusOf(value), () => Effect.succeed(101))),
          (found) => found === status
        )

      const made = yield* tenant.asUser.auth.createApiKey({ payload: { name: "to be revoked" } })
      const ofKey = yield* valueBy(made.key)
      const ofUser = yield* valueBy(tenant.accessToken)
      const ofTenant = yield* valueBy(tenant.apiKey)
      const open = yield* openWith("", { headers: bearer(ofKey) })

      // A session goes on when the secret's time is up; no other one is opened.
      const expired = yield* valueBy(tenant.apiKey)
      const before = yield* openWith("", { headers: bearer(expired) })
      yield* tenant.asUser.auth.revokeApiKey({ params: { id: made.id } })
      yield* refusedSoon(ofKey, 401)
      assert.strictEqual((yield* closeOf(open)).code, 1008)
      yield* tenant.asUser.auth.logout()
      yield* refusedSoon(ofUser, 401)
      yield* openWith("", { headers: bearer(ofTenant) })
      const keys = yield* Effect.promise(() => redis.keys(`t:{${tenant.id}}:client-secret:*`))
      assert.lengthOf(keys, 4)
      for (const key of keys) {
        const kept = yield* Effect.promise(() => redis.get(key))
        if (kept !== null) yield* Effect.promise(() => redis.set(key, kept, "PX", 1))
      }
      yield* refusedSoon(ofTenant, 401)
      assert.isUndefined(before.closed())

      const last = yield* valueBy(tenant.apiKey)
      yield* (yield* operator).tenants.suspend({ params: { tenant: tenant.id } })
      yield* refusedSoon(last, 403)
    })
  )
})
