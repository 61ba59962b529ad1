import Anthropic from "@anthropic-ai/sdk"
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import OpenAI from "openai"
import { LlmSimulator } from "../../src/layers/LlmSimulator.ts"
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
})
