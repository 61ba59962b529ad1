import {
  AnthropicError,
  APIError as AnthropicApiError,
  AuthenticationError,
  BadRequestError,
  RateLimitError as AnthropicRateLimitError
} from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { APIError, RateLimitError } from "openai"
import type OpenAI from "openai"
import { eventually } from "../support/Eventually.ts"
import { startFakeProvider } from "../support/FakeProvider.ts"
import type { FakeProvider } from "../support/FakeProvider.ts"
import { anthropic, collect, openAi, rejection, user } from "../support/FakeProviderClients.ts"
import { promptTokens } from "../support/FakeProviderWire.ts"

const first3 = "tok01 tok02 tok03"

const parameters = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false
}
const input = { city: "mock", days: 1 }

describe("chat completions", () => {
  const tool = { type: "function" as const, function: { name: "weather", parameters } }

  it.live("an answer in one piece has exact usage, and its id is in the header", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const { data, request_id } = yield* Effect.promise(() =>
        openAi(provider)
          .chat.completions.create({ model: "mock-n3", messages: [user("hi")] })
          .withResponse()
      )
      assert.strictEqual(data.choices[0]?.message.content, first3)
      assert.strictEqual(data.choices[0]?.finish_reason, "stop")
      assert.deepInclude(data.usage, {
        prompt_tokens: promptTokens,
        completion_tokens: 3,
        total_tokens: promptTokens + 3
      })
      assert.match(request_id ?? "", /^req_[0-9a-f]{8}000001$/)
      const [attempt] = yield* eventually(
        "it is answered",
        provider.attempts,
        ([one]) => one?.outcome === "answered"
      )
      assert.strictEqual(attempt?.path, "/v1/chat/completions")
      assert.strictEqual(attempt?.model, "mock-n3")
      assert.strictEqual(attempt?.headers["authorization"], "Bearer sk-test")
      assert.deepStrictEqual(attempt?.body, { model: "mock-n3", messages: [{ role: "user", content: "hi" }] })
    })
  )

  it.live("a stream ends with its usage when asked to, and goes on after the text so far", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const stream = (so: ReadonlyArray<OpenAI.ChatCompletionMessageParam>, include_usage: boolean) =>
        Effect.promise(async () =>
          collect(
            await openAi(provider).chat.completions.create({
              model: "mock-n5",
              messages: [user("hi"), ...so],
              stream: true,
              stream_options: { include_usage }
            })
          )
        )
      const text = (chunks: ReadonlyArray<OpenAI.ChatCompletionChunk>) =>
        chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")
      const whole = yield* stream([], false)
      assert.strictEqual(text(whole), `${first3} tok04 tok05`)
      assert.isTrue(whole.every((chunk) => !("usage" in chunk)))
      const rest = yield* stream([{ role: "assistant", content: first3 }], true)
      assert.strictEqual(text(rest), " tok04 tok05")
      assert.strictEqual(rest.at(-1)?.usage?.completion_tokens, 2)
    })
  )

  it.live("a tool is called when forced, or when the user says so, and not after its result", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = openAi(provider)
      const forced = yield* Effect.promise(() =>
        client.chat.completions.create({
          model: "gpt-5.4",
          messages: [user("hi")],
          tools: [tool],
          tool_choice: { type: "function", function: { name: "weather" } }
        })
      )
      const call = forced.choices[0]?.message.tool_calls?.[0]
      assert.strictEqual(forced.choices[0]?.finish_reason, "tool_calls")
      assert.strictEqual(call?.type === "function" ? call.function.arguments : "", JSON.stringify(input))
      const chunks = yield* Effect.promise(async () =>
        collect(
          await client.chat.completions.create({
            model: "gpt-5.4",
            messages: [user("please use the tool")],
            tools: [tool],
            stream: true
          })
        )
      )
      const calls = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? [])
      assert.strictEqual(calls[0]?.function?.name, "weather")
      assert.strictEqual(calls.map((one) => one.function?.arguments ?? "").join(""), JSON.stringify(input))
      const after = yield* Effect.promise(() =>
        client.chat.completions.create({
          model: "mock-n3",
          messages: [
            user("please use the tool"),
            { role: "assistant", content: null, ...(call === undefined ? {} : { tool_calls: [call] }) },
            { role: "tool", tool_call_id: call?.id ?? "", content: "sun" }
          ],
          tools: [tool]
        })
      )
      assert.strictEqual(after.choices[0]?.message.content, first3)
    })
  )

  it.live("a strict schema is answered", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const answer = yield* Effect.promise(() =>
        openAi(provider).chat.completions.create({
          model: "mock",
          messages: [user("hi")],
          response_format: {
            type: "json_schema",
            json_schema: { name: "trip", strict: true, schema: parameters }
          }
        })
      )
      assert.strictEqual(answer.choices[0]?.message.content, JSON.stringify(input))
    })
  )
})

describe("responses", () => {
  it.live("in one piece, as a stream, and with a tool", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = openAi(provider)
      const whole = yield* Effect.promise(() => client.responses.create({ model: "mock-n3", input: "hi" }))
      assert.strictEqual(whole.output_text, first3)
      assert.strictEqual(whole.usage?.output_tokens, 3)
      const rest = yield* Effect.promise(() =>
        client.responses
          .stream({ model: "mock-n5", input: [user("hi"), { role: "assistant", content: first3 }] })
          .finalResponse()
      )
      assert.strictEqual(rest.output_text, " tok04 tok05")
      const called = yield* Effect.promise(() =>
        client.responses
          .stream({
            model: "mock",
            input: "use the tool",
            tools: [{ type: "function", name: "weather", parameters, strict: true }]
          })
          .finalResponse()
      )
      const [item] = called.output
      assert.strictEqual(item?.type === "function_call" ? item.arguments : "", JSON.stringify(input))
      const cut = yield* Effect.promise(() =>
        client.responses.create({ model: "mock", input: "hi", max_output_tokens: 3 })
      )
      assert.strictEqual(cut.status, "incomplete")
    })
  )
})

describe("messages", () => {
  const ask = { model: "mock-n3", max_tokens: 100, messages: [user("hi")] }
  const tools = [{ name: "weather", input_schema: { ...parameters, type: "object" as const } }]

  it.live("in one piece, as a stream, and counted", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = anthropic(provider)
      const whole = yield* Effect.promise(() => client.messages.create(ask))
      assert.deepInclude(whole.content[0], { type: "text", text: first3 })
      assert.match(whole._request_id ?? "", /^req_[0-9a-f]{8}000001$/)
      assert.deepInclude(whole.usage, { input_tokens: promptTokens, output_tokens: 3 })
      const rest = yield* Effect.promise(() =>
        client.messages
          .stream({
            ...ask,
            model: "mock-n5",
            messages: [user("hi"), { role: "assistant", content: first3 }]
          })
          .finalMessage()
      )
      assert.deepInclude(rest.content[0], { type: "text", text: " tok04 tok05" })
      assert.strictEqual(rest.usage.output_tokens, 2)
      const counted = yield* Effect.promise(() =>
        client.messages.countTokens({ model: "mock", messages: [user("hi")] })
      )
      assert.strictEqual(counted.input_tokens, promptTokens)
      const models = yield* Effect.promise(() => collect(client.models.list()))
      assert.include(
        models.map(({ id }) => id),
        "mock"
      )
    })
  )

  it.live("a tool is called, in one piece and as a stream", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = anthropic(provider)
      const whole = yield* Effect.promise(() =>
        client.messages.create({ ...ask, tools, tool_choice: { type: "tool", name: "weather" } })
      )
      assert.strictEqual(whole.stop_reason, "tool_use")
      assert.deepInclude(whole.content[0], { type: "tool_use", name: "weather", input })
      const streamed = yield* Effect.promise(() =>
        client.messages.stream({ ...ask, messages: [user("use the tool")], tools }).finalMessage()
      )
      assert.deepInclude(streamed.content[0], { type: "tool_use", name: "weather", input })
    })
  )

  it.live("refuses what the version of 2026-10-21 no longer takes, and who brings no key", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const client = anthropic(provider)
      const post = (body: object, headers: Record<string, string | null> = {}) =>
        rejection(() => client.post("/v1/messages", { body, headers }))
      assert.instanceOf(yield* post({ ...ask, temperature: 1 }), BadRequestError)
      assert.instanceOf(yield* post({ model: "mock", messages: ask.messages }), BadRequestError)
      assert.instanceOf(yield* post(ask, { authorization: "Basic none" }), AuthenticationError)
      const older = { "anthropic-version": "2023-06-01", authorization: "Basic none", "x-api-key": "sk-test" }
      yield* Effect.promise(() =>
        client.post("/v1/messages", { body: { ...ask, temperature: 1 }, headers: older })
      )
    })
  )
})

it.live("embeddings come as base64 and as numbers, one for each input", () =>
  Effect.gen(function* () {
    const provider = yield* startFakeProvider
    const make = (encoding_format?: "float") =>
      Effect.promise(() =>
        openAi(provider).embeddings.create({
          model: "mock",
          input: ["a", "b"],
          dimensions: 3,
          ...(encoding_format === undefined ? {} : { encoding_format })
        })
      )
    const vectors = [
      [1, 0, 0],
      [0, 1, 0]
    ]
    assert.deepStrictEqual(
      (yield* make()).data.map(({ embedding }) => [...embedding]),
      vectors
    )
    assert.deepStrictEqual(
      (yield* make("float")).data.map(({ embedding }) => embedding),
      vectors
    )
    const models = yield* Effect.promise(() => collect(openAi(provider).models.list()))
    assert.include(
      models.map(({ id }) => id),
      "mock"
    )
  })
)

describe("faults", () => {
  const statuses = {
    "fault-context": 400,
    "fault-filter": 400,
    "fault-401": 401,
    "fault-403": 403,
    "fault-408": 408,
    "fault-409": 409,
    "fault-429": 429,
    "fault-503": 503,
    "fault-529": 529,
    "fault-unheard-of": 404
  }

  it.live("each refusal has its status, and the class of error that the clients know it by", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      for (const [model, status] of Object.entries(statuses)) {
        const ofOpenAi = yield* rejection(() =>
          openAi(provider).chat.completions.create({ model, messages: [user("hi")] })
        )
        const ofAnthropic = yield* rejection(() =>
          anthropic(provider).messages.create({ model, max_tokens: 10, messages: [user("hi")] })
        )
        assert.strictEqual(ofOpenAi instanceof APIError ? ofOpenAi.status : 0, status)
        assert.strictEqual(ofAnthropic instanceof AnthropicApiError ? ofAnthropic.status : 0, status)
        if (model === "fault-429") {
          assert.instanceOf(ofOpenAi, RateLimitError)
          assert.instanceOf(ofAnthropic, AnthropicRateLimitError)
        }
        if (model === "fault-context") {
          assert.strictEqual(ofOpenAi instanceof APIError ? ofOpenAi.code : "", "context_length_exceeded")
        }
      }
      const attempts = yield* eventually("all are refused", provider.attempts, (all) =>
        all.every(({ outcome }) => outcome === "refused")
      )
      assert.lengthOf(attempts, 2 * Object.keys(statuses).length)
    })
  )

  it.live("what fails once succeeds the next time, and fails again after a reset", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const ask = (model: string) =>
        openAi(provider).chat.completions.create({ model, messages: [user("hi")] })
      for (const model of ["fault-429-ra2", "fault-500-once", "fault-reset-once"]) {
        const error = yield* rejection(() => ask(model))
        assert.instanceOf(error, APIError)
        if (model === "fault-429-ra2") {
          assert.strictEqual(error instanceof APIError ? error.headers?.get("retry-after") : "", "2")
        }
        yield* Effect.promise(() => ask(model))
        yield* provider.reset
        yield* rejection(() => ask(model))
        assert.lengthOf(yield* provider.attempts, 1)
      }
    })
  )

  /** The text that came, and what the stream ended with. */
  const streamed = (provider: FakeProvider, model: string) =>
    Effect.promise(async () => {
      let text = ""
      try {
        const stream = await openAi(provider).chat.completions.create({
          model,
          messages: [user("hi")],
          stream: true
        })
        for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ""
        return { tokens: text.split(" ").length, failed: undefined }
      } catch (error) {
        return { tokens: text.split(" ").length, failed: error }
      }
    })

  it.live("a stream breaks where its name says", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const cut = yield* streamed(provider, "fault-cut-n20")
      assert.strictEqual(cut.tokens, 12)
      assert.isDefined(cut.failed)
      const inBand = yield* streamed(provider, "fault-inband-n20")
      assert.strictEqual(inBand.tokens, 8)
      assert.instanceOf(inBand.failed, APIError)
      const malformed = yield* streamed(provider, "fault-malformed-n20")
      assert.strictEqual(malformed.tokens, 9)
      assert.instanceOf(malformed.failed, SyntaxError)
      const noDone = yield* streamed(provider, "fault-nodone-n20")
      assert.deepStrictEqual(noDone, { tokens: 20, failed: undefined })
      const ofAnthropic = yield* rejection(() =>
        anthropic(provider)
          .messages.stream({ model: "fault-nodone", max_tokens: 100, messages: [user("hi")] })
          .finalMessage()
      )
      assert.instanceOf(ofAnthropic, AnthropicError)
    })
  )

  it.live("a client that goes away is written down as aborted, and nothing stays open", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      for (const model of ["fault-hang", "fault-stall-n10", "mock-i50-n1000"]) {
        yield* provider.reset
        const call = yield* Effect.forkChild(
          Effect.promise(async (signal) => {
            const ask = { model, messages: [user("hi")], stream: true as const }
            await collect(await openAi(provider).chat.completions.create(ask, { signal }))
          })
        )
        yield* eventually("it is asked", provider.attempts, ([one]) => one?.model === model)
        assert.strictEqual(yield* provider.open, 1)
        yield* Fiber.interrupt(call)
        const [attempt] = yield* eventually(
          "it is aborted",
          provider.attempts,
          ([one]) => one?.outcome === "aborted"
        )
        assert.isAbove(attempt?.abortedAfterMillis ?? 0, 0)
        assert.strictEqual(yield* provider.open, 0)
      }
    })
  )
})
