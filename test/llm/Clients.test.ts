// Clients of others, as they are on npm: nothing but the base URL and the key is changed, and behind us is a provider that
// speaks the true wire.
import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import Anthropic, * as anthropicErrors from "@anthropic-ai/sdk"
import { assert, layer } from "@effect/vitest"
import { ChatAnthropic } from "@langchain/anthropic"
import { tool as langChainTool } from "@langchain/core/tools"
import { ChatOpenAI } from "@langchain/openai"
import { generateText, jsonSchema, streamText } from "ai"
import type { ToolSet } from "ai"
import { Effect, Redacted } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import OpenAI, * as openAiErrors from "openai"
import { FakeProvider, lastBody, TestLlmApp, words } from "../support/LlmApp.ts"
import { onRealClock, TestServer } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const canary = fileURLToPath(new URL("../../node_modules/compatcanary/src/cli.js", import.meta.url))

const gpt = "openai/mock-n10"
const claude = "anthropic/mock-n10"
const CHUNKS = 10
const TEXT = words(CHUNKS)

/** The text of a message of Anthropic's. */
const textOf = ({ content }: Anthropic.Message) =>
  content.map((block) => (block.type === "text" ? block.text : "")).join("")

/** All that a stream brings. */
const collect = async <A>(stream: AsyncIterable<A>): Promise<ReadonlyArray<A>> => {
  const all: Array<A> = []
  for await (const one of stream) all.push(one)
  return all
}

const prepared = Effect.gen(function* () {
  const { url } = yield* TestServer
  const tenant = yield* provisionTenant("clients")
  const apiKey = Redacted.value(tenant.apiKey)
  return {
    tenant,
    url,
    apiKey,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }),
    anthropic: new Anthropic({ baseURL: url, apiKey, maxRetries: 0 })
  }
})

const greeting = { role: "user", content: "Say it" } as const

/** A picture of one pixel. */
const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false
} as const

const description = "The weather in a city"

/** What a promise rejects with. */
const rejection = (promise: () => Promise<unknown>) =>
  Effect.promise(() =>
    promise().then(
      () => undefined,
      (error: unknown) => error
    )
  )

const openAiModels = [
  ["a model of its vendor", gpt],
  ["a model of the other vendor", claude]
] as const
const anthropicModels = [
  ["a model of its vendor", claude],
  ["a model of the other vendor", gpt]
] as const

layer(TestLlmApp, onRealClock)("the client of", (it) => {
  for (const [which, model] of openAiModels) {
    it.effect(`OpenAI gets from ${which}: text, a stream, tools, images and structured output`, () =>
      Effect.gen(function* () {
        const { openai } = yield* prepared
        const chat = yield* Effect.promise(() =>
          openai.chat.completions.create({ model, messages: [greeting] })
        )
        assert.strictEqual(chat.choices[0]?.message.content, TEXT)
        assert.strictEqual(chat.choices[0]?.finish_reason, "stop")
        assert.strictEqual(chat.usage?.completion_tokens, CHUNKS)
        assert.match(String(chat._request_id), /^[0-9a-f-]{36}$/)

        const chunks = yield* Effect.promise(async () => {
          const stream = await openai.chat.completions.create({
            model,
            messages: [greeting],
            stream: true,
            stream_options: { include_usage: true }
          })
          return collect(stream)
        })
        assert.strictEqual(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), TEXT)
        assert.strictEqual(
          chunks.findLast(({ choices }) => choices.length > 0)?.choices[0]?.finish_reason,
          "stop"
        )
        assert.deepStrictEqual(
          chunks.flatMap(({ usage }) => usage?.completion_tokens ?? []),
          [CHUNKS]
        )

        const tools = [{ type: "function", function: { name: "weather", description, parameters } }] as const
        const forced = {
          model,
          messages: [greeting],
          tools: [...tools],
          tool_choice: { type: "function" as const, function: { name: "weather" } }
        }
        const called = yield* Effect.promise(() => openai.chat.completions.create(forced))
        const call = called.choices[0]?.message.tool_calls?.[0]
        assert.strictEqual(called.choices[0]?.finish_reason, "tool_calls")
        assert.isTrue(call?.type === "function" && call.function.name === "weather")
        if (call?.type === "function") assert.property(JSON.parse(call.function.arguments), "city")
        const runner = openai.chat.completions.stream(forced)
        const streamed = yield* Effect.promise(() => runner.finalChatCompletion())
        const streamedCall = streamed.choices[0]?.message.tool_calls?.[0]
        if (streamedCall?.type !== "function") return assert.fail("no call of a tool")
        assert.property(JSON.parse(streamedCall.function.arguments), "city")

        // The result goes back, and the model goes on.
        const after = yield* Effect.promise(() =>
          openai.chat.completions.create({
            model,
            tools: [...tools],
            messages: [
              greeting,
              { role: "assistant", content: null, tool_calls: [streamedCall] },
              { role: "tool", tool_call_id: streamedCall.id, content: "Sunny" }
            ]
          })
        )
        assert.strictEqual(after.choices[0]?.message.content, TEXT)

        const seen = yield* Effect.promise(() =>
          openai.chat.completions.create({
            model,
            messages: [
              {
                role: "user",
                content: [
                  { type: "text", text: "What is this?" },
                  { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } }
                ]
              }
            ]
          })
        )
        assert.strictEqual(seen.choices[0]?.message.content, TEXT)
        const fake = yield* FakeProvider
        assert.include(JSON.stringify(yield* lastBody(fake)), PIXEL)

        const structured = yield* Effect.promise(() =>
          openai.chat.completions.create({
            model,
            messages: [greeting],
            response_format: {
              type: "json_schema",
              json_schema: { name: "place", schema: parameters, strict: true }
            }
          })
        )
        assert.property(JSON.parse(structured.choices[0]?.message.content ?? ""), "city")
      })
    )

    it.effect(`OpenAI gets responses from ${which}, whole and as a stream`, () =>
      Effect.gen(function* () {
        const { openai } = yield* prepared
        const answer = yield* Effect.promise(() => openai.responses.create({ model, input: "Say it" }))
        assert.strictEqual(answer.status, "completed")
        assert.strictEqual(answer.output_text, TEXT)
        assert.strictEqual(answer.usage?.output_tokens, CHUNKS)
        const stream = openai.responses.stream({ model, input: "Say it" })
        const events = yield* Effect.promise(() => collect(stream))
        assert.strictEqual(events.at(0)?.type, "response.created")
        assert.strictEqual(events.at(-1)?.type, "response.completed")
        assert.deepStrictEqual(
          events.map(({ sequence_number }) => sequence_number),
          events.map((_, index) => index)
        )
        const final = yield* Effect.promise(() => stream.finalResponse())
        assert.strictEqual(final.output_text, TEXT)
      })
    )
  }

  for (const [which, model] of anthropicModels) {
    it.effect(`Anthropic gets from ${which}: text, a stream, tools and images`, () =>
      Effect.gen(function* () {
        const { anthropic } = yield* prepared
        const base = { model, max_tokens: 100, messages: [greeting] }
        const message = yield* Effect.promise(() => anthropic.messages.create(base))
        assert.strictEqual(textOf(message), TEXT)
        assert.strictEqual(message.stop_reason, "end_turn")
        assert.strictEqual(message.usage.output_tokens, CHUNKS)
        assert.match(String(message._request_id), /^[0-9a-f-]{36}$/)

        const stream = anthropic.messages.stream(base)
        const final = yield* Effect.promise(() => stream.finalMessage())
        assert.strictEqual(textOf(final), TEXT)
        assert.strictEqual(final.stop_reason, "end_turn")
        assert.strictEqual(final.usage.output_tokens, CHUNKS)

        const tooled = {
          ...base,
          tools: [{ name: "weather", description, input_schema: { ...parameters, required: ["city"] } }],
          tool_choice: { type: "tool" as const, name: "weather" }
        }
        const called = yield* Effect.promise(() => anthropic.messages.create(tooled))
        assert.strictEqual(called.stop_reason, "tool_use")
        const streamed = yield* Effect.promise(() => anthropic.messages.stream(tooled).finalMessage())
        for (const { content } of [called, streamed]) {
          const use = content.find((block) => block.type === "tool_use")
          assert.strictEqual(use?.name, "weather")
          assert.property(use?.input, "city")
        }
        const use = streamed.content.find((block) => block.type === "tool_use")
        if (use === undefined) return assert.fail("no use of a tool")
        const after = yield* Effect.promise(() =>
          anthropic.messages.create({
            ...base,
            tools: tooled.tools,
            messages: [
              greeting,
              { role: "assistant", content: [use] },
              { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "Sunny" }] }
            ]
          })
        )
        assert.strictEqual(textOf(after), TEXT)

        const seen = yield* Effect.promise(() =>
          anthropic.messages.create({
            ...base,
            messages: [
              {
                role: "user",
                content: [
                  { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } },
                  { type: "text", text: "What is this?" }
                ]
              }
            ]
          })
        )
        assert.strictEqual(textOf(seen), TEXT)
        assert.include(JSON.stringify(yield* lastBody(yield* FakeProvider)), PIXEL)
      })
    )
  }

  it.effect("either vendor reads what it is refused as the class of its own", () =>
    Effect.gen(function* () {
      const { anthropic, openai, tenant, url } = yield* prepared
      const nobody = { apiKey: "aa_testing_nonsense", maxRetries: 0 }
      const openAiError = yield* rejection(() =>
        new OpenAI({ ...nobody, baseURL: `${url}/v1` }).models.list()
      )
      assert.instanceOf(openAiError, openAiErrors.AuthenticationError)
      assert.strictEqual(openAiError.code, "Unauthenticated")
      const anthropicError = yield* rejection(() => new Anthropic({ ...nobody, baseURL: url }).models.list())
      assert.instanceOf(anthropicError, anthropicErrors.AuthenticationError)

      const missing = yield* rejection(() => openai.models.retrieve("nothing"))
      assert.instanceOf(missing, openAiErrors.NotFoundError)
      assert.instanceOf(
        yield* rejection(() => anthropic.models.retrieve("nothing")),
        anthropicErrors.NotFoundError
      )

      const narrow = yield* tenant.asUser.auth.createApiKey({
        payload: { name: "narrow", scopes: ["records:read"] }
      })
      const forbidden = yield* rejection(() =>
        new OpenAI({ apiKey: narrow.key, baseURL: `${url}/v1`, maxRetries: 0 }).models.list()
      )
      assert.instanceOf(forbidden, openAiErrors.PermissionDeniedError)

      // What the provider refuses comes with its own code, and the right class.
      const long = { model: "openai/fault-context", messages: [greeting] }
      const refused = yield* rejection(() => openai.chat.completions.create(long))
      assert.instanceOf(refused, openAiErrors.BadRequestError)
      assert.strictEqual(refused.code, "context_length_exceeded")
      assert.match(String(refused.requestID), /^[0-9a-f-]{36}$/)
      const crossed = yield* rejection(() => anthropic.messages.create({ ...long, max_tokens: 9 }))
      assert.instanceOf(crossed, anthropicErrors.BadRequestError)
    })
  )

  it.effect("either vendor fails on a stream that breaks off, instead of taking it for complete", () =>
    Effect.gen(function* () {
      const { anthropic, openai } = yield* prepared
      const read = rejection(async () => {
        const stream = await openai.chat.completions.create({
          model: "openai/fault-cut",
          messages: [greeting],
          stream: true
        })
        return collect(stream)
      })
      assert.instanceOf(yield* read, openAiErrors.APIError)
      const responses = rejection(() =>
        openai.responses.stream({ model: "openai/fault-cut", input: "Say it" }).finalResponse()
      )
      assert.instanceOf(yield* responses, Error)
      const messages = rejection(() =>
        anthropic.messages
          .stream({ model: "anthropic/fault-cut", max_tokens: 100, messages: [greeting] })
          .finalMessage()
      )
      assert.instanceOf(yield* messages, anthropicErrors.APIError)
    })
  )

  it.effect("OpenAI does not ask again for what is refused for good", () =>
    Effect.gen(function* () {
      const { apiKey, url } = yield* prepared
      const tries: Array<string | null> = []
      const counting = (input: string | URL | Request, init?: RequestInit) => {
        tries.push(new Headers(init?.headers).get("x-stainless-retry-count"))
        // @effect-diagnostics-next-line globalFetch:off
        return fetch(input, init)
      }
      const patient = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 2, fetch: counting })
      const ask = (model: string) =>
        rejection(() => patient.chat.completions.create({ model, messages: [greeting] }))
      assert.instanceOf(yield* ask("openai/fault-context"), openAiErrors.BadRequestError)
      assert.deepStrictEqual(tries.splice(0), ["0"])
    })
  )

  it.effect("either vendor lists the models, counts tokens and embeds", () =>
    Effect.gen(function* () {
      const { anthropic, apiKey, openai, url } = yield* prepared
      const ofOpenAi = (yield* Effect.promise(() => openai.models.list())).data.map(({ id }) => id)
      assert.includeMembers(ofOpenAi, ["reasoning", "fast"])
      const ofAnthropic = (yield* Effect.promise(() => anthropic.models.list())).data.map(({ id }) => id)
      assert.deepStrictEqual(ofAnthropic, ofOpenAi)
      for (const id of ofOpenAi) {
        assert.strictEqual((yield* Effect.promise(() => openai.models.retrieve(id))).id, id)
      }
      assert.strictEqual((yield* Effect.promise(() => anthropic.models.retrieve("fast"))).type, "model")
      const counted = yield* Effect.promise(() =>
        anthropic.messages.countTokens({ model: claude, messages: [greeting] })
      )
      assert.isAbove(counted.input_tokens, 0)
      const embedded = yield* Effect.promise(() =>
        openai.embeddings.create({ model: gpt, input: ["one", "two"] })
      )
      assert.lengthOf(embedded.data, 2)

      // The version and the header of the clients before 1.0.
      const old = yield* Effect.promise(() =>
        fetch(`${url}/v1/messages`, {
          method: "POST",
          headers: {
            "x-api-key": apiKey,
            "anthropic-version": "2023-06-01",
            "content-type": "application/json"
          },
          body: JSON.stringify({ model: claude, max_tokens: 100, temperature: 0.5, messages: [greeting] })
        })
      )
      assert.strictEqual(old.status, 200)
    })
  )

  it.effect("Vercel's AI SDK generates, streams and calls tools, by both of its providers", () =>
    Effect.gen(function* () {
      const { apiKey, url } = yield* prepared
      const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey })
      const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey })
      const tools: ToolSet = {
        weather: { description, inputSchema: jsonSchema({ ...parameters, required: ["city"] }) }
      }
      for (const model of [
        openai.chat(gpt),
        openai.responses(gpt),
        openai.chat(claude),
        openai.responses(claude),
        anthropic(claude),
        anthropic(gpt)
      ]) {
        const told = `${model.provider} ${model.modelId}`
        const generated = yield* Effect.promise(() => generateText({ model, prompt: "Say it" }))
        assert.strictEqual(generated.text, TEXT, told)
        assert.strictEqual(generated.usage.outputTokens, CHUNKS, told)
        const streamed = streamText({ model, prompt: "Say it" })
        assert.strictEqual(yield* Effect.promise(async () => streamed.text), TEXT, told)
        assert.strictEqual(yield* Effect.promise(async () => streamed.finishReason), "stop", told)
        const asked = { model, prompt: "Say it", tools, toolChoice: "required" as const }
        const called = yield* Effect.promise(() => generateText(asked))
        assert.deepStrictEqual(
          called.toolCalls.map(({ toolName }) => toolName),
          ["weather"],
          told
        )
        const calls = yield* Effect.promise(async () => streamText(asked).toolCalls)
        assert.deepStrictEqual(
          calls.map(({ toolName }) => toolName),
          ["weather"],
          told
        )
      }
    })
  )

  it.effect("LangChain invokes, streams and calls tools, by both of its providers", () =>
    Effect.gen(function* () {
      const { apiKey, url } = yield* prepared
      const weather = langChainTool(() => "Sunny", { name: "weather", description, schema: parameters })
      const ofOpenAi = (model: string) =>
        new ChatOpenAI({ model, apiKey, maxRetries: 0, configuration: { baseURL: `${url}/v1` } })
      const ofAnthropic = (model: string) =>
        new ChatAnthropic({ model, apiKey, maxRetries: 0, maxTokens: 100, anthropicApiUrl: url })
      for (const chat of [ofOpenAi(gpt), ofOpenAi(claude), ofAnthropic(claude), ofAnthropic(gpt)]) {
        const told = `${chat.getName()} ${chat.model}`
        const invoked = yield* Effect.promise(() => chat.invoke("Say it"))
        assert.strictEqual(invoked.text, TEXT, told)
        assert.strictEqual(Object(invoked.usage_metadata).output_tokens, CHUNKS, told)
        const chunks = yield* Effect.promise(async () => collect(await chat.stream("Say it")))
        assert.strictEqual(chunks.map(({ text }) => text).join(""), TEXT, told)
        const bound = chat.bindTools([weather], { tool_choice: "weather" })
        const called = yield* Effect.promise(() => bound.invoke("Say it"))
        assert.deepStrictEqual(
          called.tool_calls?.map(({ name }) => name),
          ["weather"],
          told
        )
      }
    })
  )

  it.effect("CompatCanary finds nothing amiss", () =>
    Effect.gen(function* () {
      const { apiKey, url } = yield* prepared
      // Groups, since a model is looked for in the list.
      for (const model of ["reasoning", "fast"]) {
        const report = yield* Effect.callback<string>((resume) => {
          const options = ["scan", "--base-url", `${url}/v1`, "--model", model, "--profile", "modern"]
          execFile(
            process.execPath,
            [canary, ...options, "--format", "json", "--fail-on", "never"],
            { env: { ...process.env, OPENAI_API_KEY: apiKey } },
            (_error, stdout) => resume(Effect.succeed(stdout))
          )
        })
        assert.strictEqual(Object(JSON.parse(report)).score, 100, report)
      }
    })
  )
})
