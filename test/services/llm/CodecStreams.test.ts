import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { Dialect } from "../../../src/domain/Llm.ts"
import type { JsonObject, StreamEvent, WireEvent } from "../../../src/services/llm/Codec.ts"
import { codecOf } from "../../../src/services/llm/Codecs.ts"
import { jsonAt, listAt, numberAt, parseObject, stringAt } from "../../../src/services/llm/JsonAt.ts"
import { withoutUsage } from "../../../src/services/llm/OpenAiChat.ts"
import { Plan, eventsOf, readAll, seenIn, summaryOf, through, writeAll } from "./CodecStreams.ts"

const dataOf = (frames: ReadonlyArray<WireEvent>): ReadonlyArray<JsonObject> =>
  frames.map((frame) => parseObject(frame.data)).filter((data) => data !== undefined)

/** The rules that clients hold each dialect to, whatever the stream tells. */
const wellFormed: Readonly<Record<Dialect, (frames: ReadonlyArray<WireEvent>) => void>> = {
  native: (frames) => {
    assert.strictEqual(frames.at(-1)?.data, "[DONE]")
    assert.strictEqual(dataOf(frames).filter((data) => "done" in data).length, 1)
  },
  "openai-chat": (frames) => {
    assert.strictEqual(frames.at(-1)?.data, "[DONE]")
    const chunks = dataOf(frames)
    const choices = chunks.flatMap((chunk) => listAt(chunk, "choices"))
    assert.deepStrictEqual(
      choices.flatMap((choice, index) => (jsonAt(choice, "delta", "role") === undefined ? [] : [index])),
      [0]
    )
    assert.strictEqual(choices.filter((choice) => stringAt(choice, "finish_reason") !== undefined).length, 1)
    const usages = chunks.filter(
      (chunk) => jsonAt(chunk, "usage") !== undefined && jsonAt(chunk, "usage") !== null
    )
    assert.strictEqual(usages.length, 1)
    assert.strictEqual(chunks.at(-1), usages[0])
    assert.deepStrictEqual(usages[0]?.["choices"], [])
    for (const chunk of chunks) assert.property(chunk, "usage")
  },
  "anthropic-messages": (frames) => {
    let open: number | undefined
    let next = 0
    for (const [place, frame] of frames.entries()) {
      const data = parseObject(frame.data)
      assert.strictEqual(stringAt(data, "type"), frame.event)
      const index = numberAt(data, "index")
      switch (frame.event) {
        case "message_start":
          assert.strictEqual(place, 0)
          break
        case "content_block_start":
          assert.isUndefined(open)
          assert.strictEqual(index, next++)
          open = index
          break
        case "content_block_delta":
          assert.strictEqual(index, open)
          break
        case "content_block_stop":
          assert.strictEqual(index, open)
          open = undefined
          break
        case "message_delta":
          assert.isUndefined(open)
          assert.strictEqual(place, frames.length - 2)
          break
        default:
          assert.strictEqual(frame.event, "message_stop")
          assert.strictEqual(place, frames.length - 1)
      }
    }
    assert.strictEqual(frames[0]?.event, "message_start")
    assert.strictEqual(frames.at(-1)?.event, "message_stop")
  },
  "openai-responses": (frames) => {
    const done: Array<Schema.Json> = []
    let open: number | undefined
    let text = ""
    for (const [place, frame] of frames.entries()) {
      const data = parseObject(frame.data)
      assert.strictEqual(stringAt(data, "type"), frame.event)
      assert.strictEqual(numberAt(data, "sequence_number"), place)
      if (frame.event === "response.output_item.added") {
        assert.isUndefined(open)
        open = numberAt(data, "output_index")
        assert.strictEqual(open, done.length)
        text = ""
      } else if (frame.event === "response.output_item.done") {
        assert.strictEqual(numberAt(data, "output_index"), open)
        open = undefined
        done.push(jsonAt(data, "item") ?? null)
      } else if (frame.event?.endsWith(".delta") === true) {
        assert.strictEqual(numberAt(data, "output_index"), open)
        text += stringAt(data, "delta") ?? ""
      } else if (frame.event?.startsWith("response.content_part") === true) {
        assert.strictEqual(numberAt(data, "output_index"), open)
        if (frame.event.endsWith("done")) {
          assert.strictEqual(stringAt(data, "part", "text") ?? stringAt(data, "part", "refusal"), text)
        }
      }
    }
    assert.deepStrictEqual(
      frames.slice(0, 2).map((frame) => frame.event),
      ["response.created", "response.in_progress"]
    )
    assert.isUndefined(open)
    const last = frames.at(-1)
    assert.include(["response.completed", "response.incomplete"], last?.event)
    assert.deepStrictEqual(listAt(parseObject(last?.data ?? ""), "response", "output"), done)
  }
}

const Choice = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_000 }))

describe("a stream", () => {
  it.prop(
    "is whole in every dialect, and tells the same that was written",
    [Plan, Dialect],
    ([plan, dialect]) => {
      const events = eventsOf(plan)
      const frames = writeAll(dialect, events, plan.usage)
      wellFormed[dialect](frames)
      assert.deepStrictEqual(seenIn(readAll(dialect, frames)), through[dialect](seenIn(events)))
    },
    { arbitrary: { runs: 400 } }
  )

  it.prop(
    "goes through any pair of dialects",
    [Plan, Dialect, Dialect],
    ([plan, first, second]) => {
      const events = eventsOf(plan)
      const between = readAll(first, writeAll(first, events, plan.usage))
      const usage = seenIn(between).usage ?? plan.usage
      const frames = writeAll(second, between, usage)
      wellFormed[second](frames)
      assert.deepStrictEqual(seenIn(readAll(second, frames)), through[second](through[first](seenIn(events))))
    },
    { arbitrary: { runs: 400 } }
  )

  it.prop(
    "that broke off anywhere is gone on with by another provider, as one whole stream",
    [Plan, Dialect, Choice],
    ([plan, dialect, choice]) => {
      const frames = writeAll(dialect, eventsOf(plan), plan.usage)
      const cut = frames.slice(0, choice % (frames.length + 1))
      const reader = codecOf[dialect].reader()
      const writer = codecOf[dialect].writer({ usage: true })
      const before: Array<StreamEvent> = []
      for (const frame of cut) {
        const events = Result.getOrThrow(reader.read(frame))
        before.push(...events)
        writer.adopt(events, frame)
      }
      const rest = eventsOf({
        steps: [
          { kind: "Text", pieces: ["and ", "on"] },
          { kind: "Call", arguments: { a: "b" }, cuts: 3 }
        ],
        together: false,
        reason: "stop",
        usage: plan.usage
      })
      const written = [...rest.flatMap((event) => writer.write(event)), ...writer.end(summaryOf(plan.usage))]
      const whole = [...cut, ...written]
      wellFormed[dialect](whole)
      const events = readAll(dialect, whole)
      assert.isAtMost(events.filter((event) => event._tag === "Started").length, 1)
      const told = (events: ReadonlyArray<StreamEvent>) =>
        seenIn(events)
          .said.map(({ text }) => text)
          .join("")
      const wasOver = before.some((event) => event._tag === "Stopped")
      assert.strictEqual(told(events), wasOver ? told(before) : `${told(before)}and on`)
      assert.isTrue(seenIn(events).ended)
      if (dialect !== "native" && !wasOver) {
        assert.deepStrictEqual(seenIn(events).calls.at(-1)?.arguments, { a: "b" })
      }
      assert.deepStrictEqual(writer.end(summaryOf(plan.usage)), [])
    },
    { arbitrary: { runs: 600 } }
  )

  it.prop(
    "that broke off ends in its error, and in nothing else",
    [Plan, Dialect, Choice],
    ([plan, dialect, choice]) => {
      const events = eventsOf(plan).slice(0, -1)
      const writer = codecOf[dialect].writer({ usage: true })
      const before = events.slice(0, choice % (events.length + 1)).flatMap((event) => writer.write(event))
      const failed = writer.fail({
        status: 502,
        code: "ProviderUnavailable",
        type: null,
        message: "gone",
        param: null,
        requestId: "r"
      })
      assert.deepStrictEqual(writer.end(summaryOf(plan.usage)), [])
      assert.deepStrictEqual(writer.write({ _tag: "Text", text: "more" }), [])
      const read = readAll(dialect, [...before, ...failed])
      const last = read.at(-1)
      assert.strictEqual(last?._tag, "Failed")
      if (last?._tag === "Failed")
        assert.deepStrictEqual([last.code, last.message], ["ProviderUnavailable", "gone"])
      assert.isFalse(read.some((event) => event._tag === "Ended" || event._tag === "Stopped"))
    }
  )

  it.prop("of chat completions has no usage anywhere where none was asked for", [Plan], ([plan]) => {
    const events = eventsOf(plan)
    const quiet = writeAll("openai-chat", events, plan.usage, false)
    for (const frame of quiet) assert.notInclude(frame.data, '"usage"')
    // What passes from a provider, who is asked in any case, comes out as if nobody had asked.
    const passed = writeAll("openai-chat", events, plan.usage).flatMap((frame) => withoutUsage(frame) ?? [])
    assert.deepStrictEqual(passed, quiet)
  })
})
