import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { faultOf, faultTable, remedyOf } from "../../../src/services/llm/Faults.ts"
import type { FaultKind, Remedy } from "../../../src/services/llm/Faults.ts"
import { startFakeProvider } from "../../support/FakeProvider.ts"
import { callOf, completed, gatewayAt, providersAt } from "../../support/LlmCalls.ts"
import { startScriptedProvider } from "../../support/ScriptedProvider.ts"
import { LlmGateway } from "../../../src/services/llm/LlmGateway.ts"

const error = (type: string | null, code: string | null, message = "No") =>
  JSON.stringify({ error: { message, type, code, param: null } })

/** What a provider says, what is done, and so how often it is asked (twice again at most). */
const rows: ReadonlyArray<{
  readonly status: number
  readonly type?: string
  readonly code?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly remedy: Remedy
}> = [
  { status: 400, type: "invalid_request_error", remedy: "Return" },
  { status: 400, code: "content_policy_violation", remedy: "Return" },
  { status: 400, code: "context_length_exceeded", remedy: "Return" },
  { status: 403, code: "content_filter", remedy: "Return" },
  { status: 405, remedy: "Return" },
  { status: 413, type: "request_too_large", remedy: "Return" },
  { status: 415, remedy: "Return" },
  { status: 422, remedy: "Return" },
  { status: 401, code: "invalid_api_key", remedy: "Alarm" },
  { status: 402, type: "billing_error", remedy: "Alarm" },
  { status: 403, type: "permission_error", remedy: "Alarm" },
  { status: 404, code: "model_not_found", remedy: "Alarm" },
  { status: 429, code: "insufficient_quota", remedy: "Alarm" },
  { status: 408, remedy: "Retry" },
  { status: 409, remedy: "Retry" },
  { status: 429, code: "rate_limit_exceeded", remedy: "Retry" },
  { status: 500, remedy: "Retry" },
  { status: 502, remedy: "Retry" },
  { status: 503, remedy: "Retry" },
  { status: 504, remedy: "Retry" },
  { status: 529, type: "overloaded_error", remedy: "Retry" },
  { status: 503, headers: { "x-should-retry": "false" }, remedy: "Next" },
  { status: 429, headers: { "retry-after": "3600" }, remedy: "Next" }
]

describe("the table of faults", () => {
  for (const { code, headers, remedy, status, type } of rows) {
    const told = [status, code ?? type, headers === undefined ? undefined : JSON.stringify(headers)]
    it.live(`${told.filter((part) => part !== undefined).join(" ")}: ${remedy}`, () =>
      Effect.gen(function* () {
        const broken = yield* startScriptedProvider([
          { status, body: error(type ?? null, code ?? null), ...(headers && { headers }) }
        ])
        const fake = yield* startFakeProvider
        // The two vendors stand at two addresses: OpenAI refuses, Anthropic would answer.
        const { records, result } = yield* Effect.provide(
          Effect.gen(function* () {
            const { call, records } = yield* callOf(["openai/gpt-5.4", "anthropic/mock"])
            const other = yield* Effect.provide(callOf(["anthropic/mock"]), providersAt(fake.url))
            const gateway = yield* LlmGateway
            const [first] = call.candidates
            const result = yield* Effect.result(
              gateway.complete({ ...call, candidates: [first, ...other.call.candidates] })
            )
            return { records, result }
          }),
          gatewayAt(broken.url)
        )
        assert.strictEqual(broken.asked(), remedy === "Retry" ? 3 : 1)
        if (remedy === "Return") {
          assert.lengthOf(yield* fake.attempts, 0)
          assert.isTrue(Result.isFailure(result) && result.failure._tag === "ProviderRefused")
          assert.deepStrictEqual(
            records.map(({ status }) => status),
            ["refused"]
          )
          if (Result.isFailure(result) && result.failure._tag === "ProviderRefused") {
            assert.strictEqual(result.failure.status, status)
            assert.strictEqual(result.failure.code, code ?? null)
          }
          return
        }
        assert.isTrue(Result.isSuccess(result) && result.success.answeredBy.provider === "anthropic")
        assert.lengthOf(records, broken.asked() + 1)
        assert.strictEqual(records.at(-1)?.status, "ok")
        assert.strictEqual(records[0]?.httpStatus, status)
      })
    )
  }

  const kinds: Readonly<Record<FaultKind, Remedy>> = {
    Status: "Return",
    InBand: "Retry",
    Connection: "Retry",
    Cut: "Retry",
    Silent: "Next",
    Stalled: "Next",
    Malformed: "Next",
    CircuitOpen: "Next",
    TimeUp: "Next",
    Unaffordable: "Next"
  }
  it("has a row for whatever has no status", () => {
    for (const [kind, remedy] of Object.entries(kinds)) {
      const row = faultTable.find(
        ({ kinds, says }) => says === undefined && kinds.some((one) => one === kind)
      )
      assert.isDefined(row, kind)
      if (kind !== "Status") assert.strictEqual(row?.remedy, remedy, kind)
    }
    assert.strictEqual(remedyOf(faultOf("InBand", "", { type: "invalid_request_error" })), "Return")
    assert.strictEqual(remedyOf(faultOf("InBand", "", { type: "overloaded_error" })), "Retry")
    assert.strictEqual(remedyOf(faultOf("InBand", "", { type: "authentication_error" })), "Alarm")
  })

  it.live("a model that the caller named itself and that is not there is told to the caller", () =>
    Effect.gen(function* () {
      const vendor = yield* startScriptedProvider([{ status: 404, body: error(null, "model_not_found") }])
      const { result } = yield* Effect.provide(completed(["openai/gpt-9"]), gatewayAt(vendor.url))
      assert.isTrue(Result.isFailure(result) && result.failure._tag === "ProviderRefused")
    })
  )

  it.live("when all fail, who and why is told in our own words", () =>
    Effect.gen(function* () {
      const vendor = yield* startScriptedProvider([
        { status: 503, body: error("server_error", null, "secret words") }
      ])
      const { records, result } = yield* Effect.provide(
        completed(["openai/gpt-5.4", "anthropic/claude-sonnet-5-5"]),
        gatewayAt(vendor.url)
      )
      assert.lengthOf(records, 6)
      assert.isTrue(Result.isFailure(result) && result.failure._tag === "ProviderUnavailable")
      if (Result.isFailure(result) && result.failure._tag === "ProviderUnavailable") {
        assert.strictEqual(
          result.failure.detail,
          "openai/gpt-5.4: HTTP 503 (server_error); anthropic/claude-sonnet-5-5: HTTP 503 (server_error)"
        )
      }
    })
  )
})
