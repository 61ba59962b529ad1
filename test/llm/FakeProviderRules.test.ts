// What the fake provider takes and refuses, and how its answers end: as the vendors' do.
import type Anthropic from "@anthropic-ai/sdk"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type OpenAI from "openai"
import { startFakeProvider } from "../support/FakeProvider.ts"
import {
  cachedTokens,
  cacheWrittenTokens,
  reasoningTokens,
  refusalText
} from "../support/FakeProviderAnswers.ts"
import { anthropic, collect, openAi, refusalOf, user } from "../support/FakeProviderClients.ts"
import { promptTokens } from "../support/FakeProviderWire.ts"
import { words } from "../support/LlmCalls.ts"

const pixel =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const assistant = (content: string) => ({ role: "assistant" as const, content })

const textOf = ({ content }: Anthropic.Message) =>
  content.map((block) => (block.type === "text" ? block.text : "")).join("")

/** Each body is refused with 400, in words that say why; a body without words is taken. */
const judged = (
  post: (body: object) => Promise<unknown>,
  bodies: Readonly<Record<string, readonly [object, RegExp | undefined, string?]>>
) =>
  Effect.forEach(Object.entries(bodies), ([name, [body, why, param]]) =>
    why === undefined
      ? Effect.promise(() => post(body))
      : Effect.map(
          refusalOf(() => post(body)),
          (refused) => {
            assert.strictEqual(refused.status, 400, name)
            assert.match(refused.message, why, name)
            if (param !== undefined) assert.strictEqual(refused.param, param, name)
          }
        )
  )

describe("OpenAI's rules", () => {
  const call = (id: string) => ({ id, type: "function", function: { name: "weather", arguments: "{}" } })
  const calling = (...ids: ReadonlyArray<string>) => ({
    role: "assistant",
    content: null,
    tool_calls: ids.map(call)
  })
  const result = (tool_call_id: string) => ({ role: "tool", tool_call_id, content: "sun" })

  it.live("chat completions", () =>
    Effect.gen(function* () {
      const client = openAi(yield* startFakeProvider)
      const ask = (members: object) => ({ model: "mock-n3", messages: [user("hi")], ...members })
      const saying = (...messages: ReadonlyArray<object>) => ask({ messages: [user("hi"), ...messages] })
      const image = (url: string) =>
        ask({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url } }] }] })
      const unsupported = /Unsupported parameter: 'max_tokens'/
      yield* judged((body) => client.post("/chat/completions", { body }), {
        png: [image(`data:image/png;base64,${pixel}`), undefined],
        https: [image("https://example.com/a.png"), undefined],
        svg: [
          image(`data:image/svg+xml;base64,${pixel}`),
          /unsupported image/,
          "messages.[0].content.[0].image_url"
        ],
        "no base64": [image("data:image/png,hello there"), /unsupported image/],
        http: [image("http://example.com/a.png"), /Invalid image URL/],
        "no URL": [image("a.png"), /Invalid image URL/],
        "a result": [saying(calling("a", "b"), result("b"), result("a")), undefined],
        "a result without a call": [
          saying(result("a")),
          /preceeding message with 'tool_calls'/,
          "messages.[1].role"
        ],
        "another's result": [saying(calling("a"), result("b")), /preceeding message with 'tool_calls'/],
        "two results of one call": [saying(calling("a"), result("a"), result("a")), /preceeding message/],
        "a call without a result": [
          saying(calling("a", "b"), result("a")),
          /did not have response messages: b/
        ],
        "a call, then a user": [saying(calling("a"), user("go")), /did not have response messages: a/],
        "no content": [saying({ role: "assistant", content: null }), /expected a string, got null/],
        "five stop sequences": [ask({ stop: ["a", "b", "c", "d", "e"] }), /array too long/, "stop"],
        "gpt-5's max_tokens": [ask({ model: "gpt-5.4", max_tokens: 9 }), unsupported, "max_tokens"],
        "o3's max_tokens": [ask({ model: "o3", max_tokens: 9 }), unsupported],
        "gpt-5's max_completion_tokens": [ask({ model: "gpt-5.4", max_completion_tokens: 9 }), undefined],
        "gpt-4o's max_tokens": [ask({ model: "gpt-4o", max_tokens: 9 }), undefined]
      })
    })
  )

  it.live("responses", () =>
    Effect.gen(function* () {
      const client = openAi(yield* startFakeProvider)
      const saying = (...input: ReadonlyArray<object>) => ({ model: "mock", input: [user("hi"), ...input] })
      const call = { type: "function_call", call_id: "a", name: "weather", arguments: "{}" }
      const result = { type: "function_call_output", call_id: "a", output: "sun" }
      const image = (image_url: string) =>
        saying({ role: "user", content: [{ type: "input_image", detail: "auto", image_url }] })
      yield* judged((body) => client.post("/responses", { body }), {
        both: [saying(call, result), undefined],
        "a result without a call": [saying(result), /No tool call found .* call_id a/, "input"],
        "a result of an earlier call": [{ ...saying(result), previous_response_id: "resp_1" }, undefined],
        "a call without a result": [saying(call), /No tool output found for function call a/],
        webp: [image(`data:image/webp;base64,${pixel}`), undefined],
        bmp: [image(`data:image/bmp;base64,${pixel}`), /unsupported image/],
        http: [image("http://example.com/a.png"), /Invalid image URL/]
      })
    })
  )
})

describe("Anthropic's rules", () => {
  const ask = (members: object) => ({ model: "mock-n3", max_tokens: 100, messages: [user("hi")], ...members })
  const saying = (...messages: ReadonlyArray<object>) => ask({ messages: [user("hi"), ...messages] })

  it.live("messages", () =>
    Effect.gen(function* () {
      const client = anthropic(yield* startFakeProvider)
      const image = (source: object) =>
        ask({ messages: [{ role: "user", content: [{ type: "image", source }] }] })
      const base64 = { type: "base64", media_type: "image/png", data: pixel }
      const text = (text: string) => [{ type: "text", text }]
      const use = { role: "assistant", content: [{ type: "tool_use", id: "a", name: "weather", input: {} }] }
      const result = (...ids: ReadonlyArray<string>) => ({
        role: "user",
        content: ids.map((tool_use_id) => ({ type: "tool_result", tool_use_id, content: "sun" }))
      })
      yield* judged((body) => client.post("/v1/messages", { body }), {
        "no max_tokens": [{ model: "mock", messages: [user("hi")] }, /max_tokens: Field required/],
        temperature: [ask({ temperature: 1 }), /temperature: Extra inputs/],
        top_p: [ask({ top_p: 1 }), /top_p: Extra inputs/],
        top_k: [ask({ top_k: 1 }), /top_k: Extra inputs/],
        png: [image(base64), undefined],
        https: [image({ type: "url", url: "https://example.com/a.png" }), undefined],
        svg: [image({ ...base64, media_type: "image/svg+xml" }), /media_type: Input should be/],
        "no base64": [image({ ...base64, data: "data:image/png;base64,AAAA" }), /invalid base64 data/],
        http: [image({ type: "url", url: "http://example.com/a.png" }), /Only HTTPS URLs/],
        "OpenAI's source": [image({ image_url: { url: "https://example.com/a.png" } }), /does not match any/],
        "an empty block": [ask({ messages: [{ role: "user", content: text("") }] }), /must be non-empty/],
        "a blank block": [ask({ messages: [{ role: "user", content: text(" \n") }] }), /non-whitespace text/],
        "an empty system": [ask({ system: text("") }), /system: text content blocks must be non-empty/],
        "an empty turn": [
          saying(assistant(""), user("hi")),
          /messages\.1: all messages must have non-empty content/
        ],
        "an empty last turn": [saying(assistant("")), undefined],
        "white space at the end": [saying(assistant("tok01 ")), /cannot end with trailing whitespace/],
        "white space in a block": [
          saying({ role: "assistant", content: text("tok01\n") }),
          /cannot end with trailing whitespace/
        ],
        "white space before a user": [saying(assistant("tok01 "), user("hi")), undefined],
        "a blank stop sequence": [ask({ stop_sequences: ["\n"] }), /must contain non-whitespace/],
        "a result": [saying(use, result("a")), undefined],
        "a result without a call": [saying(result("a")), /unexpected `tool_use_id` found .*: a\./],
        "another's result": [saying(use, result("a", "b")), /unexpected `tool_use_id` found .*: b\./],
        "a call without a result": [
          saying(use, user("hi")),
          /without `tool_result` blocks immediately after: a/
        ]
      })
    })
  )

  it.live("the version is one of two, also for what is counted", () =>
    Effect.gen(function* () {
      const client = anthropic(yield* startFakeProvider)
      const body = ask({})
      for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
        const asking = (version: string | null) =>
          client.post(path, { body, headers: { "anthropic-version": version } })
        for (const known of ["2023-06-01", "2026-10-21"]) yield* Effect.promise(() => asking(known))
        for (const unknown of [null, "2026-10-22", "latest"]) {
          const refused = yield* refusalOf(() => asking(unknown))
          assert.strictEqual(refused.status, 400)
          assert.include(refused.message, "anthropic-version")
        }
      }
    })
  )

  it.live("models from 4.6 on take no prefill, the ones before go on from it", () =>
    Effect.gen(function* () {
      const client = anthropic(yield* startFakeProvider)
      const go = (model: string, ...messages: ReadonlyArray<Anthropic.MessageParam>) =>
        client.messages.create({ model, max_tokens: 1000, messages: [user("hi"), ...messages] })
      for (const model of [
        "claude-opus-4-6",
        "claude-sonnet-4-6",
        "claude-opus-4-8-20260901",
        "claude-sonnet-5",
        "claude-haiku-5-5",
        "claude-fable-5-2",
        "claude-mythos-preview",
        "anthropic/claude-opus-5-5"
      ]) {
        const refused = yield* refusalOf(() => go(model, assistant(words(3))))
        assert.strictEqual(refused.status, 400, model)
        assert.include(refused.message, "does not support assistant message prefill", model)
        const asked = yield* Effect.promise(() =>
          go(model, assistant(words(3)), user("You were cut off: continue."))
        )
        assert.strictEqual(words(3) + textOf(asked), words(50), model)
      }
      for (const model of [
        "claude-3-5-sonnet-20241022",
        "claude-3-haiku-20240307",
        "claude-sonnet-4-20250514",
        "claude-opus-4-1",
        "claude-opus-4-5-20251101",
        "claude-haiku-4-5",
        "mock",
        "fault-nousage"
      ]) {
        const rest = yield* Effect.promise(() => go(model, assistant(words(3))))
        assert.strictEqual(words(3) + textOf(rest), words(50), model)
      }
    })
  )
})

describe("going on", () => {
  // In the middle of a token, after one, before its first, and where nothing is left.
  const cuts = [0, 5, 6, 8, 23, words(5).length]

  it.live("yields the rest, be it the last turn or the one before a request to go on", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const whole = words(5)
      for (const at of cuts) {
        const soFar = whole.slice(0, at)
        const ways = [[assistant(soFar)], [assistant(soFar), user("Please GO ON.")]]
        for (const turns of soFar === "" || soFar.endsWith(" ") ? ways.slice(1) : ways) {
          const messages = [user("hi"), ...turns]
          if (soFar !== "") {
            const message = yield* Effect.promise(() =>
              anthropic(provider).messages.create({ model: "mock-n5", max_tokens: 99, messages })
            )
            assert.strictEqual(soFar + textOf(message), whole)
          }
          const chunks = yield* Effect.promise(async () =>
            collect(
              await openAi(provider).chat.completions.create({ model: "mock-n5", messages, stream: true })
            )
          )
          const rest = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")
          assert.strictEqual(soFar + rest, whole)
          const response = yield* Effect.promise(() =>
            openAi(provider).responses.create({ model: "mock-n5", input: messages })
          )
          assert.strictEqual(soFar + response.output_text, whole)
        }
      }
    })
  )

  it.live("is not done for a user who says something else, nor from another text", () =>
    Effect.gen(function* () {
      const client = openAi(yield* startFakeProvider)
      const after = (...turns: ReadonlyArray<OpenAI.ChatCompletionMessageParam>) =>
        Effect.promise(async () => {
          const messages = [user("hi"), ...turns]
          const answer = await client.chat.completions.create({ model: "mock-n5", messages })
          return answer.choices[0]?.message.content
        })
      assert.strictEqual(yield* after(assistant(words(3)), user("And tomorrow?")), words(5))
      assert.strictEqual(yield* after(assistant("Once upon"), user("Continue")), words(5))
    })
  )

  it.live("goes on with JSON, too", () =>
    Effect.gen(function* () {
      const client = openAi(yield* startFakeProvider)
      const schema = { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } }
      const answer = yield* Effect.promise(() =>
        client.chat.completions.create({
          model: "mock",
          messages: [user("hi"), assistant('{"city":"mo'), user("continue")],
          response_format: { type: "json_schema", json_schema: { name: "trip", schema } }
        })
      )
      assert.strictEqual(answer.choices[0]?.message.content, 'ck","days":1}')
    })
  )
})

describe("ends", () => {
  it.live("before a stop sequence, and the text does not have it", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const messages = [user("hi")]
      for (const [stop, text, tokens] of [
        [["tok04"], "tok01 tok02 tok03 ", 4],
        [["k05", "k03"], "tok01 tok02 to", 3]
      ] as const) {
        const ask = { model: "mock-n9", messages, stop: [...stop] }
        const chat = yield* Effect.promise(() => openAi(provider).chat.completions.create(ask))
        assert.strictEqual(chat.choices[0]?.message.content, text)
        assert.strictEqual(chat.choices[0]?.finish_reason, "stop")
        assert.strictEqual(chat.usage?.completion_tokens, tokens)
        const streamed = yield* Effect.promise(() =>
          openAi(provider).chat.completions.stream(ask).finalChatCompletion()
        )
        assert.strictEqual(streamed.choices[0]?.message.content, text)
        const asked = { model: "mock-n9", max_tokens: 99, messages, stop_sequences: [...stop] }
        const message = yield* Effect.promise(() => anthropic(provider).messages.create(asked))
        const final = yield* Effect.promise(() => anthropic(provider).messages.stream(asked).finalMessage())
        for (const one of [message, final]) {
          assert.strictEqual(textOf(one), text)
          assert.strictEqual(one.stop_reason, "stop_sequence")
          assert.strictEqual(one.stop_sequence, stop.at(-1) ?? "")
        }
      }
      const unheard = yield* Effect.promise(() =>
        openAi(provider).chat.completions.create({ model: "mock-n2", messages, stop: "tok03" })
      )
      assert.strictEqual(unheard.choices[0]?.message.content, words(2))
    })
  )

  it.live("at the limit of tokens", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const messages = [user("hi")]
      for (const limit of [{ max_tokens: 3 }, { max_completion_tokens: 3 }]) {
        const chat = yield* Effect.promise(() =>
          openAi(provider).chat.completions.create({ model: "mock", messages, ...limit })
        )
        assert.strictEqual(chat.choices[0]?.message.content, words(3))
        assert.strictEqual(chat.choices[0]?.finish_reason, "length")
      }
      const message = yield* Effect.promise(() =>
        anthropic(provider).messages.create({ model: "mock", max_tokens: 3, messages })
      )
      assert.strictEqual(textOf(message), words(3))
      assert.strictEqual(message.stop_reason, "max_tokens")
      const response = yield* Effect.promise(() =>
        openAi(provider)
          .responses.stream({ model: "mock", input: "hi", max_output_tokens: 3 })
          .finalResponse()
      )
      assert.strictEqual(response.output_text, words(3))
      assert.strictEqual(response.status, "incomplete")
      assert.deepStrictEqual(response.incomplete_details, { reason: "max_output_tokens" })
    })
  )
})

describe("by the model's name", () => {
  const model = "mock-n3-cached-reasoning"
  const output = 3 + reasoningTokens

  it.live("usage tells cached tokens and thoughts, each vendor in its own way", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const messages = [user("hi")]
      const ask = { model, messages }
      const chat = yield* Effect.promise(() => openAi(provider).chat.completions.create(ask))
      const chunks = yield* Effect.promise(async () =>
        collect(
          await openAi(provider).chat.completions.create({
            ...ask,
            stream: true,
            stream_options: { include_usage: true }
          })
        )
      )
      for (const usage of [chat.usage, chunks.at(-1)?.usage]) {
        assert.deepInclude(usage, {
          prompt_tokens: promptTokens,
          completion_tokens: output,
          total_tokens: promptTokens + output
        })
        assert.strictEqual(usage?.prompt_tokens_details?.cached_tokens, cachedTokens)
        assert.strictEqual(usage?.prompt_tokens_details?.cache_write_tokens, cacheWrittenTokens)
        assert.strictEqual(usage?.completion_tokens_details?.reasoning_tokens, reasoningTokens)
      }
      const response = yield* Effect.promise(() => openAi(provider).responses.create({ model, input: "hi" }))
      assert.deepStrictEqual(response.usage, {
        input_tokens: promptTokens,
        input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: cacheWrittenTokens },
        output_tokens: output,
        output_tokens_details: { reasoning_tokens: reasoningTokens },
        total_tokens: promptTokens + output
      })
      const asked = { ...ask, max_tokens: 99 }
      const message = yield* Effect.promise(() => anthropic(provider).messages.create(asked))
      const final = yield* Effect.promise(() => anthropic(provider).messages.stream(asked).finalMessage())
      for (const { usage } of [message, final]) {
        assert.deepInclude(usage, {
          input_tokens: promptTokens - cachedTokens - cacheWrittenTokens,
          cache_read_input_tokens: cachedTokens,
          cache_creation_input_tokens: cacheWrittenTokens,
          output_tokens: output,
          output_tokens_details: { thinking_tokens: reasoningTokens }
        })
      }
      const short = yield* Effect.promise(() =>
        anthropic(provider).messages.create({ ...ask, max_tokens: reasoningTokens + 1 })
      )
      assert.strictEqual(textOf(short), words(1))
      assert.strictEqual(short.stop_reason, "max_tokens")
    })
  )

  it.live("a model refuses", () =>
    Effect.gen(function* () {
      const provider = yield* startFakeProvider
      const ask = { model: "mock-refusal", messages: [user("hi")] }
      const chat = yield* Effect.promise(() => openAi(provider).chat.completions.create(ask))
      const streamed = yield* Effect.promise(() =>
        openAi(provider).chat.completions.stream(ask).finalChatCompletion()
      )
      for (const { choices } of [chat, streamed]) {
        assert.strictEqual(choices[0]?.message.refusal, refusalText)
        assert.isNull(choices[0]?.message.content)
        assert.strictEqual(choices[0]?.finish_reason, "stop")
      }
      const input = { model: "mock-refusal", input: "hi" }
      const response = yield* Effect.promise(() => openAi(provider).responses.create(input))
      const final = yield* Effect.promise(() => openAi(provider).responses.stream(input).finalResponse())
      for (const { output } of [response, final]) {
        const [item] = output
        assert.deepInclude(item?.type === "message" ? item.content[0] : undefined, {
          type: "refusal",
          refusal: refusalText
        })
      }
      const asked = { ...ask, max_tokens: 99 }
      const message = yield* Effect.promise(() => anthropic(provider).messages.create(asked))
      const last = yield* Effect.promise(() => anthropic(provider).messages.stream(asked).finalMessage())
      for (const one of [message, last]) {
        assert.strictEqual(one.stop_reason, "refusal")
        assert.deepStrictEqual(one.stop_details, { type: "refusal", category: null, explanation: null })
      }
    })
  )

  it.live("a turn is paused, and gone on with when it comes back as it was", () =>
    Effect.gen(function* () {
      const client = anthropic(yield* startFakeProvider)
      // Such a turn is no prefill: new models take it.
      const ask = { model: "claude-opus-5-5-pause-n7", max_tokens: 99, messages: [user("hi")] }
      const paused = yield* Effect.promise(() => client.messages.create(ask))
      const streamed = yield* Effect.promise(() => client.messages.stream(ask).finalMessage())
      for (const one of [paused, streamed]) {
        assert.strictEqual(one.stop_reason, "pause_turn")
        assert.strictEqual(textOf(one), words(4))
        assert.deepInclude(one.content[1], { type: "server_tool_use", input: { query: "mock" } })
      }
      const sent = paused.content.flatMap((block): ReadonlyArray<Anthropic.ContentBlockParam> =>
        block.type === "text" || block.type === "server_tool_use" ? [block] : []
      )
      const rest = yield* Effect.promise(() =>
        client.messages.create({ ...ask, messages: [user("hi"), { role: "assistant", content: [...sent] }] })
      )
      assert.strictEqual(rest.stop_reason, "end_turn")
      assert.strictEqual(words(4) + textOf(rest), words(7))
    })
  )
})
