import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber, Layer, Logger, References, Result, Scope, Stream } from "effect"
import { LlmGateway } from "../../../src/services/llm/LlmGateway.ts"
import { eventually } from "../../support/Eventually.ts"
import { startFakeProvider } from "../../support/FakeProvider.ts"
import {
  bodyFor,
  callOf,
  completed,
  gatewayAt,
  listen,
  platformKey,
  providersAt,
  streamed,
  words
} from "../../support/LlmCalls.ts"
import { startScriptedProvider } from "../../support/ScriptedProvider.ts"

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const before = yield* Clock.currentTimeMillis
    const value = yield* effect
    return { value, millis: (yield* Clock.currentTimeMillis) - before }
  })

describe("the gateway", () => {
  it.live("asks the first of a group, every time", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      yield* Effect.forEach(
        Array.from({ length: 200 }),
        () =>
          Effect.gen(function* () {
            const { result } = yield* completed(["openai/mock-n1", "anthropic/mock-n1"])
            assert.isTrue(Result.isSuccess(result) && result.success.answeredBy.provider === "openai")
          }),
        { concurrency: 10 }
      ).pipe(Effect.provide(gatewayAt(fake.url)))
      assert.lengthOf(yield* fake.attempts, 200)
    })
  )

  it.live("falls back unseen before the first token", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      for (const fault of ["503", "529", "hang", "slow-ttft", "401"]) {
        const told = yield* streamed([`openai/fault-${fault}`, "anthropic/mock"]).pipe(
          Effect.provide(gatewayAt(fake.url, { maxRetries: 0 }))
        )
        assert.strictEqual(told.text, words(50), fault)
        assert.strictEqual(told.answeredBy.provider, "anthropic")
        assert.deepStrictEqual(
          told.records.map(({ status }) => status),
          ["failed", "ok"],
          fault
        )
      }
    })
  )

  it.live(
    "falls back from an error inside of a stream before its first token, and from no connection at all",
    () =>
      Effect.gen(function* () {
        const fake = yield* startFakeProvider
        const headers = { "content-type": "text/event-stream" }
        const overloaded = `data: {"error":{"message":"Overloaded","type":"overloaded_error","code":null}}\n\n`
        const vendor = yield* startScriptedProvider([{ status: 200, headers, body: overloaded }])
        // Nobody listens at the discard port.
        for (const [url, times] of [
          [vendor.url, 3],
          ["http://127.0.0.1:9", 0]
        ] as const) {
          const { call, records } = yield* Effect.provide(callOf(["openai/gpt-5.4"]), providersAt(url))
          const other = yield* Effect.provide(callOf(["anthropic/mock"]), providersAt(fake.url))
          const candidates = [call.candidates[0], ...other.call.candidates] as const
          const told = yield* LlmGateway.use((gateway) => gateway.stream({ ...call, candidates })).pipe(
            Effect.flatMap(({ events }) => listen("openai-chat", events)),
            Effect.scoped,
            Effect.provide(gatewayAt(fake.url))
          )
          assert.strictEqual(told.text, words(50))
          assert.deepStrictEqual(
            records.map(({ status }) => status),
            ["failed", "failed", "failed", "ok"]
          )
          if (times > 0) assert.strictEqual(vendor.asked(), times)
        }
      })
  )

  it.live("tells a key that stands in a stream's error to nobody", () =>
    Effect.gen(function* () {
      const headers = { "content-type": "text/event-stream" }
      const body = `data: {"error":{"message":"No: ${platformKey}","type":"invalid_request_error","code":"${platformKey}"}}\n\n`
      const vendor = yield* startScriptedProvider([{ status: 200, headers, body }])
      const refused = yield* Effect.flip(Effect.provide(streamed(["openai/gpt-5.4"]), gatewayAt(vendor.url)))
      assert.strictEqual(refused._tag, "ProviderRefused")
      assert.include(refused.message, "[key]")
      assert.notInclude(JSON.stringify({ ...refused }) + refused.message, platformKey)
    })
  )

  it.live("waits as long as a provider asks", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      yield* Effect.provide(streamed(["openai/fault-429-ra2", "anthropic/mock"]), gatewayAt(fake.url))
      const [first, second] = yield* fake.attempts
      assert.strictEqual(second?.model, "fault-429-ra2")
      assert.isAtLeast((second?.atMillis ?? 0) - (first?.atMillis ?? 0), 2000)
    })
  )

  it.live("does not ask a silent provider twice, and not for longer than the caller waits", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      const gateway = gatewayAt(fake.url, { firstToken: Duration.seconds(30) })
      const { millis, value } = yield* Effect.provide(
        timed(
          Effect.result(streamed(["openai/fault-hang", "anthropic/mock"], { deadline: Duration.millis(300) }))
        ),
        gateway
      )
      assert.isTrue(Result.isFailure(value) && value.failure._tag === "ProviderUnavailable")
      assert.isBelow(millis, 600)
      assert.lengthOf(yield* fake.attempts, 1)

      yield* fake.reset
      const told = yield* Effect.provide(
        streamed(["openai/fault-hang", "anthropic/mock"]),
        gatewayAt(fake.url)
      )
      assert.strictEqual(told.text, words(50))
      assert.lengthOf(yield* fake.attempts, 2)
    })
  )

  it.live("leaves a provider alone that keeps failing a tenant, and nobody else does", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      yield* Effect.gen(function* () {
        const circuit = "acme"
        const models = ["openai/fault-503", "anthropic/mock-n1"]
        for (let call = 0; call < 15; call++) yield* completed(models, { circuit })
        const asked = (yield* fake.attempts).filter(({ model }) => model === "fault-503")
        assert.lengthOf(asked, 10)
        // Another model of that vendor has a circuit of its own.
        const { result } = yield* completed(["openai/mock-n1"], { circuit })
        assert.isTrue(Result.isSuccess(result))
        // And so has another tenant: nobody closes a provider to others.
        yield* fake.reset
        yield* completed(models, { circuit: "globex" })
        assert.lengthOf(yield* fake.attempts, 2)
      }).pipe(Effect.provide(gatewayAt(fake.url, { maxRetries: 0 })))
    })
  )

  for (const [phase, model, after] of [
    ["before the head", "openai/fault-hang", 100],
    ["before the first token", "openai/fault-slow-ttft", 100],
    ["in the middle", "openai/mock-i50", 400]
  ] as const) {
    it.live(`a caller who leaves cancels the provider's call within 100 ms: ${phase}`, () =>
      Effect.gen(function* () {
        const fake = yield* startFakeProvider
        yield* Effect.gen(function* () {
          const gateway = yield* LlmGateway
          const { call, records } = yield* callOf([model, "anthropic/mock"])
          const scope = yield* Scope.make()
          const fiber = yield* gateway.stream(call).pipe(
            Effect.flatMap(({ events }) => Stream.runDrain(events)),
            Effect.scoped,
            Effect.forkIn(scope)
          )
          yield* eventually("asked", fake.attempts, (attempts) => attempts.length === 1)
          yield* Effect.sleep(Duration.millis(after))
          const left = performance.now()
          yield* Fiber.interrupt(fiber)
          const [attempt] = yield* eventually(
            "cancelled",
            fake.attempts,
            ([attempt]) => attempt?.outcome === "aborted"
          )
          const abortedAt = (attempt?.atMillis ?? 0) + (attempt?.abortedAfterMillis ?? 0)
          assert.isBelow(abortedAt - left, 100)
          assert.deepStrictEqual(
            records.map(({ status }) => status),
            ["cancelled"]
          )
          assert.isTrue(records[0]?.estimated)
          if (phase === "in the middle") assert.isAbove(records[0]?.usage.output ?? 0, 3)
        }).pipe(Effect.provide(gatewayAt(fake.url, { firstToken: Duration.seconds(10) })))
      })
    )
  }

  it.live("a caller who leaves an answer that is no stream cancels it too", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      yield* Effect.gen(function* () {
        const gateway = yield* LlmGateway
        const { call, records } = yield* callOf(["anthropic/mock-d3000"])
        const fiber = yield* Effect.forkChild(gateway.complete(call))
        yield* eventually("asked", fake.attempts, (attempts) => attempts.length === 1)
        const left = performance.now()
        yield* Fiber.interrupt(fiber)
        const [attempt] = yield* eventually(
          "cancelled",
          fake.attempts,
          ([attempt]) => attempt?.outcome === "aborted"
        )
        assert.isBelow((attempt?.atMillis ?? 0) + (attempt?.abortedAfterMillis ?? 0) - left, 100)
        assert.deepStrictEqual(
          records.map(({ status }) => status),
          ["cancelled"]
        )
      }).pipe(Effect.provide(gatewayAt(fake.url, { answer: Duration.seconds(10) })))
    })
  )

  it.live("a key that a provider repeats is in no error and no log", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const echo = (status: number) => ({
        status,
        body: JSON.stringify({
          error: {
            message: `Incorrect API key provided: ${platformKey} (sk-pr****6789)`,
            type: `bad ${platformKey}`,
            code: platformKey,
            param: platformKey
          }
        })
      })
      for (const status of [401, 400]) {
        const vendor = yield* startScriptedProvider([echo(status)])
        const { records, result } = yield* completed(["openai/gpt-5.4", "anthropic/claude-sonnet-5-5"]).pipe(
          Effect.provide(
            Layer.merge(
              gatewayAt(vendor.url),
              Logger.layer([Logger.map(Logger.formatJson, (line) => void lines.push(line))])
            )
          ),
          Effect.provideService(References.MinimumLogLevel, "Trace")
        )
        const refused = yield* Effect.flip(Effect.fromResult(result))
        // An error's message is no member that JSON shows.
        const told = JSON.stringify([records, { ...refused }, refused.message, String(refused)])
        assert.notInclude(told, platformKey)
        assert.notInclude(told, "sk-pr")
        assert.notInclude(JSON.stringify(lines), platformKey)
      }
      assert.isAbove(lines.length, 0)
    })
  )

  it.live("tells usage where it was asked for, and nowhere else", () =>
    Effect.gen(function* () {
      const fake = yield* startFakeProvider
      yield* Effect.gen(function* () {
        const silent = yield* streamed(["openai/mock"])
        assert.isUndefined(silent.usage)
        assert.notInclude(JSON.stringify(silent.events), "usage")
        assert.strictEqual(silent.records[0]?.usage.output, 50)
        const body = bodyFor("openai-chat", { stream_options: { include_usage: true } })
        for (const model of ["openai/mock", "anthropic/mock", "openai/fault-nousage"]) {
          const told = yield* streamed([model], { body })
          assert.strictEqual(
            told.usage?.["completion_tokens"] === 50,
            model !== "openai/fault-nousage",
            model
          )
          assert.isAtLeast(Number(told.usage?.["completion_tokens"]), 50, model)
          assert.strictEqual(told.records[0]?.estimated, model === "openai/fault-nousage")
        }
      }).pipe(Effect.provide(gatewayAt(fake.url)))
    })
  )
})
