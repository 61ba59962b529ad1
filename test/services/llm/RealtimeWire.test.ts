// What a relay reads of OpenAI's realtime events, beside which they go on as they are.
import { assert, describe, it } from "@effect/vitest"
import {
  errorEvent,
  examineClient,
  readServer,
  sessionUpdate
} from "../../../src/services/llm/RealtimeWire.ts"

const done = (usage: unknown, members: object = {}) =>
  readServer(
    Buffer.from(JSON.stringify({ type: "response.done", response: { id: "resp_1", usage, ...members } }))
  )

const usageOf = (usage: unknown) => {
  const event = done(usage)
  return event?._tag === "Done" ? event.usage : undefined
}

describe("the usage of a response", () => {
  it("counts each token once, by kind", () => {
    const usage = {
      input_tokens: 100,
      output_tokens: 60,
      input_token_details: {
        text_tokens: 30,
        audio_tokens: 50,
        image_tokens: 20,
        cached_tokens: 37,
        cached_tokens_details: { text_tokens: 10, audio_tokens: 20, image_tokens: 7 }
      },
      output_token_details: { text_tokens: 20, audio_tokens: 40 }
    }
    assert.deepStrictEqual(usageOf(usage), {
      input: 33,
      cachedRead: 17,
      audioInput: 30,
      audioCachedRead: 20,
      cachedWrite: 0,
      output: 20,
      reasoning: 0,
      audioOutput: 40
    })
  })

  it("adds up to the provider's totals, whatever the details leave out or have wrong", () => {
    const odd = [
      {},
      { audio_tokens: 500 },
      { audio_tokens: 5, cached_tokens: 9 },
      { audio_tokens: 5, cached_tokens: 900 },
      { audio_tokens: -3, cached_tokens: 1.5 },
      { text_tokens: 10, cached_tokens: 4, cached_tokens_details: { audio_tokens: 400 } },
      { audio_tokens: "5", cached_tokens: null }
    ]
    for (const details of odd) {
      const usage = usageOf({
        input_tokens: 10,
        output_tokens: 7,
        input_token_details: details,
        output_token_details: details
      })
      const told = JSON.stringify([details, usage])
      if (usage === undefined) return assert.fail(told)
      const { audioCachedRead = 0, audioInput = 0, audioOutput = 0, cachedRead, input, output } = usage
      assert.strictEqual(input + cachedRead + audioInput + audioCachedRead, 10, told)
      assert.strictEqual(output + audioOutput, 7, told)
      assert.isTrue(
        Object.values(usage).every((count) => count >= 0),
        told
      )
    }
    assert.isUndefined(usageOf(null))
    assert.isUndefined(usageOf({}))
  })

  it("is found whatever the event's layout, and in no text that only speaks of it", () => {
    const spaced = `{ "response" : {"usage":null, "status":"cancelled","id":"resp_2"},\n "type" : "response.done" }`
    assert.deepInclude(readServer(Buffer.from(spaced)), { _tag: "Done", id: "resp_2", status: "cancelled" })
    const spoken = { type: "response.output_text.done", text: '"type":"response.done"' }
    assert.isUndefined(readServer(Buffer.from(JSON.stringify(spoken))))
    const piece = { type: "response.output_text.delta", delta: "response.done" }
    assert.deepStrictEqual(readServer(Buffer.from(JSON.stringify(piece))), { _tag: "Piece", audio: false })
    assert.isUndefined(readServer(Buffer.from("response.done")))
    assert.isUndefined(readServer(Buffer.from("")))
  })
})

describe("a client's frame", () => {
  const rules = { model: "rt", names: ["voice"], mayTranscribeWith: (model: string) => model === "whisper-1" }
  const tagOf = (text: string, isBinary = false) => examineClient(Buffer.from(text), isBinary, rules)._tag

  it("may be what it likes, but name no other model", () => {
    for (const text of [
      `{"type":"response.create"}`,
      `{"type":"session.update","session":{"model":"rt","audio":{"input":{"transcription":null}}}}`,
      `{"type":"session.update","session":null,"response":[{"model":"other"}]}`,
      `{"type":"unheard.of","model":"other"}`
    ]) {
      assert.strictEqual(tagOf(text), "Pass", text)
    }
    assert.strictEqual(tagOf(`{"session":{"model":"voice"}}`), "Renamed")
    for (const text of [
      `{"type":"session.update","session":{"model":"other"}}`,
      `{"type":"session.upd\\u0061te","sessi\\u006fn":{"mod\\u0065l":"other"}}`,
      `{"type":"nothing","response":{"model":7}}`,
      `{"session":{"model":"rt"},"response":{"model":"other"}}`,
      `{"session":{"model":"rt","model":"other"}}`,
      `\uFEFF{"session":{"model":"other"}}`,
      `[]`,
      `"text"`,
      ``
    ]) {
      assert.strictEqual(tagOf(text), "Refused", text)
    }
  })

  it("passes as bytes where it is no JSON, and is looked into where it could be", () => {
    assert.strictEqual(tagOf("\u0000\u0001\u0002", true), "Pass")
    assert.strictEqual(tagOf(`{"session":{"model":"other"}}`, true), "Refused")
    assert.strictEqual(tagOf(` {"session":{"model":"other"},}`, true), "Refused")
  })
})

describe("an event of ours", () => {
  it("is what OpenAI's clients read", () => {
    const error = { type: "t", code: "c", message: "m", param: null, eventId: "e" }
    assert.deepStrictEqual(JSON.parse(errorEvent("event_1", error)), {
      type: "error",
      event_id: "event_1",
      error: { type: "t", code: "c", message: "m", param: null, event_id: "e" }
    })
    assert.deepStrictEqual(JSON.parse(sessionUpdate({ model: "voice", voice: "marin" })), {
      type: "session.update",
      session: { type: "realtime", voice: "marin" }
    })
  })
})
