// Whoever refuses, and however early: a vendor's client gets its vendor's envelope, with our code in it.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { HttpServerResponse } from "effect/http"
import {
  BudgetExceeded,
  DependencyUnavailable,
  InternalError,
  ProviderNotConfigured,
  RateLimited,
  RefusedByProvider,
  RequestTimeout
} from "../../src/domain/Problems.ts"
import type { Dialect } from "../../src/domain/Llm.ts"
import { toResponse } from "../../src/http/ProblemResponse.ts"
import { Tenants } from "../../src/services/Tenants.ts"
import { eventually } from "../support/Eventually.ts"
import { member, send, sendJson } from "../support/Http.ts"
import type { Answer } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

type Envelope = "openai" | "anthropic"

/** Asserts the envelope, its code, and what a client looks for beside it. */
const assertRefused = (answer: Answer, envelope: Envelope, status: number, code: string) => {
  const told = `${status} ${code}: ${answer.status} ${answer.text}`
  assert.strictEqual(answer.status, status, told)
  assert.strictEqual(answer.headers.get("content-type"), "application/json", told)
  const error = member(answer.json, "error")
  const message = member(error, "message")
  assert.isTrue(typeof message === "string" && message !== "", told)
  const requestId = answer.headers.get("x-request-id")
  assert.match(String(requestId), /^[0-9a-f-]{36}$/, told)
  if (envelope === "openai") {
    assert.strictEqual(member(error, "code"), code, told)
    assert.sameMembers(Object.keys(Object(error)), ["message", "type", "param", "code"], told)
    assert.isNull(answer.headers.get("request-id"), told)
  } else {
    assert.strictEqual(member(answer.json, "type"), "error", told)
    assert.strictEqual(member(member(error, "details"), "error_code"), code, told)
    assert.isString(member(error, "type"), told)
    assert.strictEqual(answer.headers.get("request-id"), requestId, told)
    assert.strictEqual(member(answer.json, "request_id"), requestId, told)
  }
}

const endpoints: ReadonlyArray<readonly [string, Envelope]> = [
  ["/v1/chat/completions", "openai"],
  ["/v1/responses", "openai"],
  ["/v1/embeddings", "openai"],
  ["/v1/messages", "anthropic"],
  ["/v1/messages/count_tokens", "anthropic"]
]

/** A problem as the one place that renders it does. */
const rendered = (problem: Parameters<typeof toResponse>[0], dialect: Dialect) => {
  const response = HttpServerResponse.toWeb(toResponse(problem, "an-id", undefined, dialect))
  return Effect.promise(async () => ({ headers: response.headers, body: Object(await response.json()) }))
}

layer(TestApp, onRealClock)("a vendor's endpoints", (it) => {
  it.effect("refuse in the vendor's envelope, from the face to the handler", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const other = yield* provisionTenant("other")
      const narrow = yield* tenant.asUser.auth.createApiKey({
        payload: { name: "narrow", scopes: ["records:read"] }
      })
      const key = { "x-api-key": Redacted.value(tenant.apiKey) }
      for (const [path, envelope] of endpoints) {
        const post = (body: unknown, headers: Record<string, string>) => sendJson("POST", path, body, headers)
        const assertPost = (status: number, code: string, body: unknown, headers: Record<string, string>) =>
          Effect.map(post(body, headers), (answer) => assertRefused(answer, envelope, status, code))
        yield* assertPost(401, "Unauthenticated", {}, {})
        yield* assertPost(401, "Unauthenticated", {}, { authorization: "Bearer aa_testing_nonsense" })
        yield* assertPost(403, "Forbidden", {}, { authorization: `Bearer ${operatorKey}` })
        yield* assertPost(403, "Forbidden", {}, { "x-api-key": narrow.key })
        yield* assertPost(403, "CrossTenantAccess", {}, { ...key, "x-tenant-id": other.slug })
        yield* assertPost(400, "InvalidRequest", "{", key)
        yield* assertPost(400, "InvalidRequest", "[]", key)
        yield* assertPost(406, "NotAcceptable", {}, { ...key, accept: "text/csv" })
        yield* assertPost(415, "UnsupportedMediaType", {}, { ...key, "content-type": "text/csv" })
        yield* assertPost(413, "PayloadTooLarge", { text: "x".repeat(10 * 1024 * 1024) }, key)
        assertRefused(yield* send(path, { headers: key }), envelope, 405, "MethodNotAllowed")
      }
      assertRefused(yield* send("/v1/nothing", { headers: key }), "openai", 404, "NotFound")
      assertRefused(yield* send("/v1/messages/nothing", { headers: key }), "anthropic", 404, "NotFound")
      assertRefused(yield* send("/v1/models/nothing", { headers: key }), "openai", 404, "NotFound")
      const anthropic = { ...key, "anthropic-version": "2023-06-01" }
      assertRefused(yield* send("/v1/models/nothing", { headers: anthropic }), "anthropic", 404, "NotFound")
    })
  )

  it.effect("say in the vendor's headers what is left, and how long to wait", () =>
    Effect.gen(function* () {
      const tenant = yield* provisionTenant("acme")
      const tenants = yield* Tenants
      yield* tenants.update(tenant.id, { settings: { "rate.requests_per_minute": 5 } })
      const key = { "x-api-key": Redacted.value(tenant.apiKey) }
      const openai = yield* eventually(
        "the limit is in force",
        send("/v1/models", { headers: key }),
        ({ status }) => status === 429
      )
      assertRefused(openai, "openai", 429, "RateLimited")
      const seconds = Number(openai.headers.get("retry-after"))
      assert.isAtLeast(seconds, 1)
      assert.strictEqual(openai.headers.get("retry-after-ms"), String(seconds * 1000))
      assert.strictEqual(openai.headers.get("x-ratelimit-limit-requests"), "5")
      assert.strictEqual(openai.headers.get("x-ratelimit-remaining-requests"), "0")
      assert.match(String(openai.headers.get("x-ratelimit-reset-requests")), /^\d+s$/)
      assert.isNotNull(openai.headers.get("ratelimit"))

      const anthropic = yield* sendJson("POST", "/v1/messages", {}, key)
      assertRefused(anthropic, "anthropic", 429, "RateLimited")
      assert.isNotNull(anthropic.headers.get("retry-after-ms"))
      assert.strictEqual(anthropic.headers.get("anthropic-ratelimit-requests-limit"), "5")
      assert.strictEqual(anthropic.headers.get("anthropic-ratelimit-requests-remaining"), "0")
      const reset = Date.parse(String(anthropic.headers.get("anthropic-ratelimit-requests-reset")))
      assert.approximately(reset, Date.now(), 70_000)
    })
  )

  it.effect("tell clients to wait for what passes, and not to ask again for what stays", () =>
    Effect.gen(function* () {
      for (const dialect of ["openai-chat", "openai-responses", "anthropic-messages"] as const) {
        const budget = yield* rendered(new BudgetExceeded({}), dialect)
        assert.strictEqual(budget.headers.get("x-should-retry"), "false")
        const keyless = yield* rendered(new ProviderNotConfigured({}), dialect)
        assert.strictEqual(keyless.headers.get("x-should-retry"), "false")
        const limited = yield* rendered(new RateLimited({ retry_after: 7 }), dialect)
        assert.strictEqual(limited.headers.get("retry-after"), "7")
        assert.strictEqual(limited.headers.get("retry-after-ms"), "7000")
        assert.isNull(limited.headers.get("x-should-retry"))
        const away = yield* rendered(new DependencyUnavailable({}), dialect)
        assert.isNotNull(away.headers.get("retry-after-ms"))
        for (const problem of [new InternalError({}), new RequestTimeout({})]) {
          const { body } = yield* rendered(problem, dialect)
          assert.include(JSON.stringify(body), problem.code)
        }
      }
    })
  )

  it.effect("hand on a provider's refusal in the provider's words", () =>
    Effect.gen(function* () {
      const refusal = new RefusedByProvider({
        detail: "That is too long",
        provider: "openai",
        provider_status: 422,
        provider_type: "invalid_request_error",
        provider_code: "context_length_exceeded",
        provider_param: "messages"
      })
      const response = toResponse(refusal, "an-id", undefined, "openai-chat")
      assert.strictEqual(response.status, 422)
      assert.deepStrictEqual((yield* rendered(refusal, "openai-chat")).body.error, {
        message: "That is too long",
        type: "invalid_request_error",
        param: "messages",
        code: "context_length_exceeded"
      })
    })
  )
})
