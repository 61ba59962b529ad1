import Anthropic, {
  BadRequestError as AnthropicBadRequest,
  NotFoundError as AnthropicNotFound
} from "@anthropic-ai/sdk"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { request } from "node:http"
import OpenAI, { BadRequestError, NotFoundError } from "openai"
import { knownModels } from "../../src/domain/ModelGroups.ts"
import { LlmSimulator } from "../../src/layers/LlmSimulator.ts"
import { collect, rejection } from "../support/FakeProviderClients.ts"
import { onRealClock } from "../support/Platform.ts"

const clients = Effect.map(LlmSimulator, ({ urls }) => ({
  openai: new OpenAI({ baseURL: urls.openai, apiKey: "none", maxRetries: 0 }),
  anthropic: new Anthropic({ baseURL: urls.anthropic, apiKey: "none", maxRetries: 0 })
}))

const messages = [{ role: "user", content: "What is the weather?" } as const]

const isSimulated = (text: string | null | undefined, model: string, asked: string) => {
  assert.include(text ?? "", "What is the weather?")
  assert.include(text ?? "", "simulator")
  assert.strictEqual(model, `simulator-${asked}`)
}

layer(LlmSimulator.layer, onRealClock)("the local simulator", (it) => {
  it.effect("answers OpenAI's own client: chat, responses and embeddings, whole and as streams", () =>
    Effect.gen(function* () {
      const { openai } = yield* clients
      const asked = { model: "gpt-5.4", messages: [...messages] }
      const whole = yield* Effect.promise(() => openai.chat.completions.create(asked))
      isSimulated(whole.choices[0]?.message.content, whole.model, "gpt-5.4")
      assert.isAbove(whole.usage?.completion_tokens ?? 0, 0)
      const streamed = yield* Effect.promise(() =>
        openai.chat.completions.stream(asked).finalChatCompletion()
      )
      isSimulated(streamed.choices[0]?.message.content, streamed.model, "gpt-5.4")

      const input = { model: "gpt-5.4", input: "What is the weather?" }
      const answer = yield* Effect.promise(() => openai.responses.create(input))
      isSimulated(answer.output_text, answer.model, "gpt-5.4")
      const response = yield* Effect.promise(() => openai.responses.stream(input).finalResponse())
      isSimulated(response.output_text, response.model, "gpt-5.4")

      const embedding = { model: "text-embedding-3-small", input: ["one", "two"] }
      const embedded = yield* Effect.promise(() => openai.embeddings.create(embedding))
      assert.deepStrictEqual(
        embedded.data.map(({ embedding }) => embedding.length),
        [8, 8]
      )
    })
  )

  it.effect("answers Anthropic's own client: messages, whole and as a stream, and counts", () =>
    Effect.gen(function* () {
      const { anthropic } = yield* clients
      const asked = { model: "claude-sonnet-5-5", max_tokens: 100, messages: [...messages] }
      const whole = yield* Effect.promise(() => anthropic.messages.create(asked))
      const textOf = ({ content }: Anthropic.Message) =>
        content.map((block) => (block.type === "text" ? block.text : "")).join("")
      isSimulated(textOf(whole), whole.model, "claude-sonnet-5-5")
      const streamed = yield* Effect.promise(() => anthropic.messages.stream(asked).finalMessage())
      isSimulated(textOf(streamed), streamed.model, "claude-sonnet-5-5")
      const { model } = asked
      const counted = yield* Effect.promise(() =>
        anthropic.messages.countTokens({ model, messages: [...messages] })
      )
      assert.isAbove(counted.input_tokens, 0)
    })
  )

  it.effect("says when an answer was made, and gives each an id of its own", () =>
    Effect.gen(function* () {
      const { openai } = yield* clients
      const asked = { model: "gpt-5.4", messages: [...messages] }
      const before = Math.floor(performance.timeOrigin / 1000)
      const whole = yield* Effect.promise(() => openai.chat.completions.create(asked))
      const chunks = yield* Effect.promise(async () =>
        collect(await openai.chat.completions.create({ ...asked, stream: true }))
      )
      const response = yield* Effect.promise(() =>
        openai.responses.stream({ model: "gpt-5.4", input: "hi" }).finalResponse()
      )
      for (const at of [whole.created, ...chunks.map(({ created }) => created), response.created_at]) {
        assert.isAtLeast(at, before)
        assert.isBelow(at, before + 3600)
      }
      assert.notStrictEqual(whole.id, chunks[0]?.id)
    })
  )

  it.effect("streams word by word", () =>
    Effect.gen(function* () {
      const { anthropic, openai } = yield* clients
      const chunks = yield* Effect.promise(async () =>
        collect(
          await openai.chat.completions.create({ model: "gpt-5.4", messages: [...messages], stream: true })
        )
      )
      const words = chunks.flatMap((chunk) => chunk.choices[0]?.delta.content ?? [])
      assert.isAbove(words.length, 20)
      for (const word of words) assert.match(word, /^\s*\S*$/)
      const events = yield* Effect.promise(async () =>
        collect(
          await anthropic.messages.create({
            model: "claude-sonnet-5-5",
            max_tokens: 100,
            messages: [...messages],
            stream: true
          })
        )
      )
      // Each is a write of its own: a chunk of the transfer coding.
      const writes = yield* Effect.callback<number>((resume) => {
        const asked = request(`${anthropic.baseURL}/v1/messages`, { method: "POST" }, (response) => {
          let count = 0
          response.on("data", () => count++)
          response.on("end", () => resume(Effect.succeed(count)))
        })
        asked.end(
          JSON.stringify({
            model: "claude-sonnet-5-5",
            max_tokens: 100,
            messages: [...messages],
            stream: true
          })
        )
      })
      assert.isAtLeast(writes, events.length)
    })
  )

  it.effect("lists each vendor's models to its own client", () =>
    Effect.gen(function* () {
      const { anthropic, openai } = yield* clients
      const of = (vendor: string) =>
        knownModels.flatMap(({ model, provider }) => (provider === vendor ? [model] : []))
      const ofOpenAi = yield* Effect.promise(() => collect(openai.models.list()))
      assert.deepStrictEqual(
        ofOpenAi.map(({ id }) => id),
        of("openai")
      )
      assert.isTrue(ofOpenAi.every(({ owned_by }) => owned_by === "simulator"))
      const ofAnthropic = yield* Effect.promise(() => collect(anthropic.models.list()))
      assert.deepStrictEqual(
        ofAnthropic.map(({ id }) => id),
        of("anthropic")
      )
    })
  )

  it.effect("refuses what is no JSON, and what it does not have, in each vendor's words", () =>
    Effect.gen(function* () {
      const { anthropic, openai } = yield* clients
      for (const path of ["/chat/completions", "/responses", "/embeddings"]) {
        for (const body of ['{"model": ', "[]", ""]) {
          const error = yield* rejection(() =>
            openai.post(path, { body: Buffer.from(body), headers: { "content-type": "application/json" } })
          )
          assert.instanceOf(error, BadRequestError, `${path} ${body}`)
          if (error instanceof BadRequestError) {
            assert.strictEqual(error.type, "invalid_request_error")
            assert.match(error.requestID ?? "", /^simulated-/)
          }
        }
      }
      for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
        const error = yield* rejection(() =>
          anthropic.post(path, {
            body: Buffer.from('{"model": '),
            headers: { "content-type": "application/json" }
          })
        )
        assert.instanceOf(error, AnthropicBadRequest, path)
        if (error instanceof AnthropicBadRequest) {
          assert.strictEqual(error.type, "invalid_request_error")
          assert.match(error.requestID ?? "", /^simulated-/)
        }
      }
      const invalid = yield* rejection(() => openai.post("/chat/completions", { body: { model: "gpt-5.4" } }))
      assert.instanceOf(invalid, BadRequestError)
      const lost = yield* rejection(() => openai.get("/nothing/here"))
      assert.instanceOf(lost, NotFoundError)
      assert.include(lost instanceof NotFoundError ? lost.message : "", "GET /v1/nothing/here")
      const gone = yield* rejection(() => anthropic.get("/v1/nothing"))
      assert.instanceOf(gone, AnthropicNotFound)
      assert.strictEqual(gone instanceof AnthropicNotFound ? gone.type : "", "not_found_error")
      // Neither is a path that is there, asked for in another way.
      assert.instanceOf(yield* rejection(() => anthropic.get("/v1/messages")), AnthropicNotFound)
    })
  )
})
