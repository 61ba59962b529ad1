import Anthropic, { APIError as AnthropicError } from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import OpenAI, { APIError as OpenAiError } from "openai"
import type { Dialect } from "../../../src/domain/Llm.ts"
import type { StreamEvent, WireEvent } from "../../../src/services/llm/Codec.ts"
import { codecOf } from "../../../src/services/llm/Codecs.ts"
import { Plan, eventsOf, seenIn, sse, summaryOf, through, writeAll } from "./CodecStreams.ts"

/** The official clients read what we write: they are stricter judges than any reader of our own. */

const answering = (body: string) => async () =>
  new Response(body, { headers: { "content-type": "text/event-stream" } })

const openai = (frames: ReadonlyArray<WireEvent>) =>
  new OpenAI({ apiKey: "none", maxRetries: 0, fetch: answering(sse(frames)), logLevel: "off" })

const anthropic = (frames: ReadonlyArray<WireEvent>) =>
  new Anthropic({ apiKey: "none", maxRetries: 0, fetch: answering(sse(frames)), logLevel: "off" })

const chatOf = (frames: ReadonlyArray<WireEvent>) =>
  openai(frames)
    .chat.completions.stream({ model: "m", messages: [], stream_options: { include_usage: true } })
    .finalChatCompletion()

const responseOf = (frames: ReadonlyArray<WireEvent>) =>
  openai(frames).responses.stream({ model: "m", input: "" }).finalResponse()

const messageOf = (frames: ReadonlyArray<WireEvent>) =>
  anthropic(frames).messages.stream({ model: "m", max_tokens: 1, messages: [] }).finalMessage()

/** What the client throws. */
const errorOf = (read: () => Promise<unknown>) =>
  Effect.promise(() =>
    read().then(
      () => undefined,
      (error: unknown) => error
    )
  )

const textsOf = (seen: ReturnType<typeof seenIn>, tag: "Text" | "Refusal") =>
  seen.said
    .filter((run) => run.tag === tag)
    .map((run) => run.text)
    .join("")

const parse = Schema.decodeSync(Schema.fromJsonString(Schema.Json))

describe("the official client reads", () => {
  it.effect.prop(
    "a chat completion",
    [Plan],
    ([plan]) =>
      Effect.gen(function* () {
        const events = eventsOf(plan)
        const seen = through["openai-chat"](seenIn(events))
        const completion = yield* Effect.promise(() => chatOf(writeAll("openai-chat", events, plan.usage)))
        const [choice] = completion.choices
        assert.strictEqual(completion.id, seen.id)
        assert.strictEqual(completion.model, seen.model)
        assert.strictEqual(choice?.message.content ?? "", textsOf(seen, "Text"))
        assert.strictEqual(choice?.message.refusal ?? "", textsOf(seen, "Refusal"))
        assert.deepStrictEqual(
          (choice?.message.tool_calls ?? [])
            .filter((call) => call.type === "function")
            .map((call) => ({
              id: call.id,
              name: call.function.name,
              arguments: parse(call.function.arguments)
            })),
          [...seen.calls]
        )
        assert.strictEqual(choice?.finish_reason, seen.reason === "other" ? "novel_reason" : seen.reason)
        const { cachedRead, cachedWrite, input, output, reasoning } = plan.usage
        assert.strictEqual(completion.usage?.prompt_tokens, input + cachedRead + cachedWrite)
        assert.strictEqual(completion.usage?.completion_tokens, output)
        assert.strictEqual(completion.usage?.prompt_tokens_details?.cached_tokens, cachedRead)
        assert.strictEqual(completion.usage?.completion_tokens_details?.reasoning_tokens, reasoning)
      }),
    { arbitrary: { runs: 100 } }
  )

  it.effect.prop(
    "a response",
    [Plan],
    ([plan]) =>
      Effect.gen(function* () {
        const events = eventsOf(plan)
        const seen = seenIn(events)
        const response = yield* Effect.promise(() =>
          responseOf(writeAll("openai-responses", events, plan.usage))
        )
        const unfinished = ["length", "content_filter", "pause", "other"].includes(seen.reason ?? "")
        assert.strictEqual(response.status, unfinished ? "incomplete" : "completed")
        assert.strictEqual(response.output_text, textsOf(seen, "Text"))
        assert.deepStrictEqual(
          response.output
            .filter((item) => item.type === "function_call")
            .map((item) => ({ id: item.call_id, name: item.name, arguments: parse(item.arguments) })),
          [...seen.calls]
        )
        const { cachedRead, cachedWrite, input, output } = plan.usage
        assert.strictEqual(response.usage?.input_tokens, input + cachedRead + cachedWrite)
        assert.strictEqual(response.usage?.output_tokens, output)
      }),
    { arbitrary: { runs: 100 } }
  )

  it.effect.prop(
    "a message",
    [Plan],
    ([plan]) =>
      Effect.gen(function* () {
        const events = eventsOf(plan)
        const seen = through["anthropic-messages"](seenIn(events))
        const message = yield* Effect.promise(() =>
          messageOf(writeAll("anthropic-messages", events, plan.usage))
        )
        assert.strictEqual(message.id, seen.id)
        assert.strictEqual(
          message.content.map((block) => (block.type === "text" ? block.text : "")).join(""),
          textsOf(seen, "Text")
        )
        assert.deepStrictEqual(
          message.content
            .filter((block) => block.type === "tool_use")
            .map((block) => ({ id: block.id, name: block.name, arguments: block.input })),
          seen.calls.map((call) => ({ ...call }))
        )
        assert.strictEqual(message.usage.input_tokens, plan.usage.input)
        assert.strictEqual(message.usage.cache_read_input_tokens, plan.usage.cachedRead)
        assert.strictEqual(message.usage.cache_creation_input_tokens, plan.usage.cachedWrite)
        assert.strictEqual(message.usage.output_tokens, plan.usage.output)
        // Version 2026-10-21: always there, null when empty.
        for (const name of ["container", "diagnostics", "stop_details"]) assert.property(message, name)
        for (const name of ["cache_creation", "inference_geo", "output_tokens_details", "server_tool_use"]) {
          assert.property(message.usage, name)
        }
        for (const name of ["service_tier", "speed"]) assert.property(message.usage, name)
        const reasons = {
          stop: "end_turn",
          length: "max_tokens",
          stop_sequence: "stop_sequence",
          tool_calls: "tool_use",
          content_filter: "refusal",
          pause: "pause_turn",
          other: "novel_reason"
        } as const
        assert.strictEqual<string | null>(message.stop_reason, reasons[seen.reason ?? "other"])
      }),
    { arbitrary: { runs: 100 } }
  )

  it.effect("a failure in the middle of each as an error with our code", () =>
    Effect.gen(function* () {
      const begun: ReadonlyArray<StreamEvent> = [
        { _tag: "Started", id: "answer-1", model: "a-model" },
        { _tag: "Text", text: "so far" }
      ]
      const broken = (dialect: Dialect): ReadonlyArray<WireEvent> => {
        const writer = codecOf[dialect].writer({ usage: true })
        return [
          ...begun.flatMap((event) => writer.write(event)),
          ...writer.fail({
            status: 502,
            code: "ProviderUnavailable",
            type: null,
            message: "No provider went on",
            param: null,
            requestId: "request-1"
          })
        ]
      }
      const chat = yield* errorOf(() => chatOf(broken("openai-chat")))
      assert.instanceOf(chat, OpenAiError)
      assert.include(String(chat), "No provider went on")
      assert.strictEqual(chat instanceof OpenAiError ? chat.code : "", "ProviderUnavailable")

      const response = yield* errorOf(() => responseOf(broken("openai-responses")))
      assert.instanceOf(response, OpenAiError)
      assert.include(String(response), "No provider went on")
      assert.strictEqual(response instanceof OpenAiError ? response.code : "", "ProviderUnavailable")

      const message = yield* errorOf(() => messageOf(broken("anthropic-messages")))
      assert.instanceOf(message, AnthropicError)
      assert.include(String(message), "No provider went on")
      assert.include(String(message), '"error_code":"ProviderUnavailable"')
    })
  )

  it.effect("whole answers, as their types have them", () =>
    Effect.gen(function* () {
      const usage = { input: 5, cachedRead: 3, cachedWrite: 2, output: 7, reasoning: 1 }
      const answer = {
        id: "answer-1",
        model: "a-model",
        parts: [
          { _tag: "Text" as const, text: "hello" },
          { _tag: "ToolCall" as const, id: "call-1", name: "look", arguments: '{"a":1}' }
        ],
        stop: { reason: "tool_calls" as const, raw: "tool_use", sequence: undefined },
        usage
      }
      const fetch = (dialect: Dialect) => async () =>
        Response.json(codecOf[dialect].encodeAnswer(answer, summaryOf(usage)))
      const chat = yield* Effect.promise(() =>
        new OpenAI({ apiKey: "none", fetch: fetch("openai-chat") }).chat.completions.create({
          model: "m",
          messages: []
        })
      )
      assert.strictEqual(chat.choices[0]?.message.content, "hello")
      assert.strictEqual(chat.usage?.total_tokens, 17)
      const response = yield* Effect.promise(() =>
        new OpenAI({ apiKey: "none", fetch: fetch("openai-responses") }).responses.create({
          model: "m",
          input: ""
        })
      )
      assert.strictEqual(response.output_text, "hello")
      assert.strictEqual(response.usage?.total_tokens, 17)
      const message = yield* Effect.promise(() =>
        new Anthropic({ apiKey: "none", fetch: fetch("anthropic-messages") }).messages.create({
          model: "m",
          max_tokens: 1,
          messages: []
        })
      )
      assert.deepStrictEqual(
        message.content.map((block) => block.type),
        ["text", "tool_use"]
      )
      assert.strictEqual(message.usage.input_tokens, 5)
      assert.strictEqual(message.stop_reason, "tool_use")
    })
  )
})
