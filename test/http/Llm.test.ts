import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { eventually } from "../support/Eventually.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { FakeProvider, groupsFor, openCalls, TestLlmApp, words } from "../support/LlmApp.ts"
import { onRealClock, operatorKey } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const TEXT = words(10)
const WHOLE = words(50)

const completion = "/api/v1/llm/completion"
const stream = "/api/v1/llm/completion/stream"
const messages = [{ role: "user", content: "hi" }]

/** The data of a stream's events, the end mark as it is. */
const dataOf = (text: string): ReadonlyArray<unknown> =>
  text
    .split("\n\n")
    .filter((frame) => frame.startsWith("data: "))
    .map((frame) => frame.slice("data: ".length))
    .map((data) => (data === "[DONE]" ? data : JSON.parse(data)))

const textOf = (data: ReadonlyArray<unknown>) => data.map((event) => Object(event).delta ?? "").join("")

layer(TestLlmApp, onRealClock)("our own way to the models", (it) => {
  it.effect("answers with who answered, what it took, and the guard's verdict", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      for (const [provider, asked] of [
        ["openai", "openai/mock-n10"],
        ["anthropic", "anthropic/mock-n10"]
      ] as const) {
        const answer = yield* tenant.asService.llm.complete({
          headers: {},
          payload: {
            model: asked,
            messages: [{ role: "user", content: "hi" }],
            max_tokens: 50,
            temperature: 0
          }
        })
        assert.strictEqual(answer.content, TEXT)
        assert.deepStrictEqual([answer.provider, answer.model], [provider, "mock-n10"])
        assert.strictEqual(answer.usage.completion_tokens, 10)
        assert.strictEqual(answer.usage.total_tokens, answer.usage.prompt_tokens + 10)
        assert.strictEqual(answer.tenant_id, tenant.id)
        assert.isFalse(answer.guard.flagged)
      }
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      const raw = yield* sendJson("POST", completion, { model: "openai/mock-n10", messages }, headers)
      assert.strictEqual(member(raw.json, "request_id"), raw.headers.get("x-request-id"))
      assert.strictEqual(raw.headers.get("x-llm-provider"), "openai")
      assert.strictEqual(raw.headers.get("x-llm-model"), "mock-n10")
    })
  )

  it.effect("tells in a histogram what it cost itself: the wait for the provider is no part of it", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      const overhead = Effect.map(send("/metrics"), ({ text }) => {
        const value = (name: string) => {
          const found = new RegExp(`^llm_overhead_seconds_${name}\\{([^}]*)\\} (\\S+)$`, "gm")
          return [...text.matchAll(found)]
            .filter(([, labels]) => labels?.includes("llm/completion"))
            .reduce((sum, [, , number]) => sum + Number(number), 0)
        }
        return { count: value("count"), seconds: value("sum") }
      })
      const before = yield* overhead
      for (const [path, model] of [
        [completion, "openai/mock-d1000-n2"],
        [stream, "anthropic/mock-d1000-n2"]
      ] as const) {
        assert.strictEqual((yield* sendJson("POST", path, { model, messages }, headers)).status, 200)
      }
      const after = yield* overhead
      assert.strictEqual(after.count - before.count, 2)
      assert.isAbove(after.seconds, before.seconds)
      // The provider took two seconds.
      assert.isBelow(after.seconds - before.seconds, 1.5)
      // A second call has a pause before it, which is nobody's cost.
      yield* sendJson("POST", completion, { model: "openai/fault-500-once", messages }, headers)
      yield* sendJson("POST", completion, { model: "openai/mock/none", messages: [] }, headers)
      assert.strictEqual((yield* overhead).count, after.count)
    })
  )

  it.effect("streams in pieces, and ends with the sum and the end mark", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = { authorization: `Bearer ${Redacted.value(tenant.accessToken)}` }
      const answer = yield* sendJson("POST", stream, { model: "openai/mock-n10", messages }, headers)
      assert.strictEqual(answer.status, 200, answer.text)
      assert.strictEqual(answer.headers.get("content-type"), "text/event-stream")
      assert.strictEqual(answer.headers.get("cache-control"), "no-store")
      assert.strictEqual(answer.headers.get("x-accel-buffering"), "no")
      const data = dataOf(answer.text)
      assert.strictEqual(textOf(data), TEXT)
      assert.isAtLeast(data.length, 12)
      const sum = Object(data.at(-2))
      assert.deepInclude(sum, { done: true, model: "mock-n10", provider: "openai" })
      assert.strictEqual(sum.usage.completion_tokens, 10)
      assert.strictEqual(data.at(-1), "[DONE]")
    })
  )

  it.effect("tells of a failure after the first token inside the stream, which then has no end mark", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      for (const model of ["openai/fault-cut", "anthropic/fault-cut"]) {
        const answer = yield* sendJson("POST", stream, { model, messages }, headers)
        assert.strictEqual(answer.status, 200, answer.text)
        const data = dataOf(answer.text)
        assert.notStrictEqual(textOf(data), "")
        const problem = Object(data.at(-1)).error
        assert.strictEqual(problem.code, "ProviderUnavailable", answer.text)
        assert.strictEqual(problem.request_id, answer.headers.get("x-request-id"))
        assert.notInclude(answer.text, "[DONE]")
        assert.notInclude(answer.text, `"done"`)
      }
    })
  )

  it.effect("goes on with the next provider where asked to, by the body or the header, and says so", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      yield* groupsFor(tenant, { cut: ["anthropic/fault-cut", "openai/mock"] })
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      for (const [body, header] of [
        [{ resume: true }, {}],
        [{}, { "x-llm-resume": "true" }]
      ] as const) {
        const answer = yield* sendJson(
          "POST",
          stream,
          { model: "cut", messages, ...body },
          { ...headers, ...header }
        )
        const data = dataOf(answer.text)
        assert.strictEqual(textOf(data), WHOLE, answer.text)
        assert.strictEqual(data.at(-1), "[DONE]")
        assert.deepInclude(Object(data.at(-2)), {
          done: true,
          provider: "openai",
          model: "mock",
          resumed: true
        })
      }
      // The body counts where both are there.
      const both = { ...headers, "x-llm-resume": "true" }
      const unresumed = yield* sendJson("POST", stream, { model: "cut", messages, resume: false }, both)
      assert.notInclude(unresumed.text, "[DONE]")
    })
  )

  it.effect("answers what fails before the first token as a problem", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      for (const path of [completion, stream]) {
        const refused = yield* sendJson("POST", path, { model: "openai/fault-context", messages }, headers)
        assert.deepStrictEqual([refused.status, code(refused)], [400, "ProviderRefused"], refused.text)
        assert.strictEqual(member(refused.json, "provider_code"), "context_length_exceeded")
        assert.strictEqual(member(refused.json, "provider"), "openai")
        const down = yield* sendJson("POST", path, { model: "openai/fault-401", messages }, headers)
        assert.deepStrictEqual([down.status, code(down)], [502, "ProviderUnavailable"], down.text)
        assert.notInclude(down.text, "sk-")
        const invalid = yield* sendJson("POST", path, { messages: [{ role: "robot", content: 1 }] }, headers)
        assert.deepStrictEqual([invalid.status, code(invalid)], [400, "InvalidRequest"])
        assert.strictEqual(Object(invalid.json).errors.length, 2)
      }
    })
  )

  it.effect("ends an open stream with an error when its tenant is suspended", () =>
    Effect.gen(function* () {
      const fake = yield* FakeProvider
      const tenant = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      const body = { model: "openai/mock-i100-n300", messages }
      for (const [path, asked] of [
        [stream, body],
        ["/v1/chat/completions", { ...body, stream: true }]
      ] as const) {
        const open = yield* openCalls(fake)
        const reading = yield* Effect.forkChild(sendJson("POST", path, asked, headers))
        yield* eventually("the provider is asked", openCalls(fake), (count) => count > open)
        yield* Effect.sleep("300 millis")
        const operator = { authorization: `Bearer ${operatorKey}` }
        const suspended = performance.now()
        yield* sendJson("POST", `/api/v1/tenants/${tenant.slug}/suspend`, {}, operator)
        const answer = yield* Fiber.join(reading)
        assert.isBelow(performance.now() - suspended, 1500)
        const problem = Object(dataOf(answer.text).at(-1)).error
        assert.strictEqual(problem.code, "TenantSuspended", answer.text)
        yield* eventually("the provider's call is cancelled", openCalls(fake), (count) => count === open)
        yield* sendJson("POST", `/api/v1/tenants/${tenant.slug}/activate`, {}, operator)
        yield* eventually(
          "the tenant is let in",
          send("/api/v1/state/none", { headers }),
          ({ status }) => status === 404
        )
      }
    })
  )

  it.effect("takes bodies of up to 10 MiB", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const headers = { "x-api-key": Redacted.value(tenant.apiKey) }
      const saying = (content: string) => ({
        model: "openai/mock-n10",
        messages: [{ role: "user", content }]
      })
      const large = yield* sendJson("POST", completion, saying("x ".repeat(2 * 1024 * 1024)), headers)
      assert.strictEqual(large.status, 200)
      const tooLarge = yield* sendJson("POST", completion, saying("x".repeat(10 * 1024 * 1024)), headers)
      assert.strictEqual(code(tooLarge), "PayloadTooLarge")
    })
  )
})
