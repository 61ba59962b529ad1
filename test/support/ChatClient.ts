import { Effect, Redacted, Schema } from "effect"
import { member } from "./Http.ts"
import { TestServer } from "./Platform.ts"
import type { TestTenant } from "./Tenants.ts"

/** What a client of chat completions saw, byte for byte; of a stream as much as came. */
export interface Seen {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** Whether the stream's end mark came. */
  readonly done: boolean
  readonly finish: string | undefined
  /** The error of the answer, or the one inside the stream. */
  readonly error: Schema.Json | undefined
  readonly usages: ReadonlyArray<Schema.Json>
  readonly model: string | undefined
  readonly millis: number
  readonly raw: string
}

const decodeJson = Schema.decodeSync(Schema.fromJsonString(Schema.Json))

const stringOf = (json: Schema.Json | undefined) => (typeof json === "string" ? json : undefined)

const first = (json: Schema.Json | undefined) => (Array.isArray(json) ? json[0] : undefined)

const readStream = (raw: string) => {
  const events = raw
    .split("\n\n")
    .flatMap((frame) => frame.split("\n"))
    .flatMap((line) => (line.startsWith("data: ") ? [line.slice("data: ".length)] : []))
  const chunks = events.filter((data) => data !== "[DONE]").map((data) => decodeJson(data))
  const choices = chunks.map((chunk) => first(member(chunk, "choices")))
  const present = (json: Schema.Json | undefined) => (json === undefined || json === null ? [] : [json])
  return {
    text: choices.map((choice) => stringOf(member(member(choice, "delta"), "content")) ?? "").join(""),
    done: events.includes("[DONE]"),
    finish: choices.flatMap((choice) => stringOf(member(choice, "finish_reason")) ?? []).at(-1),
    error: chunks.map((chunk) => member(chunk, "error")).find((error) => error !== undefined),
    usages: chunks.flatMap((chunk) => present(member(chunk, "usage"))),
    model: chunks.flatMap((chunk) => stringOf(member(chunk, "model")) ?? []).at(-1)
  }
}

const readAnswer = (raw: string) => {
  const json = decodeJson(raw)
  const choice = first(member(json, "choices"))
  const usage = member(json, "usage")
  return {
    text: stringOf(member(member(choice, "message"), "content")) ?? "",
    done: false,
    finish: stringOf(member(choice, "finish_reason")),
    error: member(json, "error"),
    usages: usage === undefined ? [] : [usage],
    model: stringOf(member(json, "model"))
  }
}

/** One call of `/v1/chat/completions`. To interrupt it is to leave: the socket is closed. */
export const ask = Effect.fnUntraced(function* (
  tenant: TestTenant,
  body: Readonly<Record<string, unknown>>,
  headers: Readonly<Record<string, string>> = {}
) {
  const { url } = yield* TestServer
  const startedAt = performance.now()
  const authorization = `Bearer ${Redacted.value(tenant.apiKey)}`
  return yield* Effect.promise(async (signal): Promise<Seen> => {
    const response = await fetch(`${url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization, ...headers },
      body: JSON.stringify({ messages: [{ role: "user", content: "hi" }], ...body }),
      signal
    })
    const raw = await response.text()
    const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true
    return {
      status: response.status,
      headers: response.headers,
      raw,
      millis: performance.now() - startedAt,
      ...(isStream ? readStream(raw) : readAnswer(raw))
    }
  })
})
