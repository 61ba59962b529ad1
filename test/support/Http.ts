import { Effect, Schema } from "effect"
import { TestServer } from "./Platform.ts"

/** An answer as bytes tell it. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The body as JSON; undefined where there is none. */
  readonly json: Schema.Json | undefined
}

const decodeJson = Schema.decodeSync(Schema.fromJsonString(Schema.Json))

/** One request over the real socket, where the bytes matter and the typed client would be in the way. */
export const send = Effect.fnUntraced(function* (path: string, init: RequestInit = {}) {
  const { url } = yield* TestServer
  return yield* Effect.promise(async (): Promise<Answer> => {
    const response = await fetch(url + path, init)
    const text = await response.text()
    const isJson = response.headers.get("content-type")?.includes("json") === true
    return {
      status: response.status,
      headers: response.headers,
      text,
      json: isJson && text !== "" ? decodeJson(text) : undefined
    }
  })
})

/** A request with a JSON body. */
export const sendJson = (method: string, path: string, body: unknown, headers: Record<string, string> = {}) =>
  send(path, {
    method,
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body)
  })

/** One member of a JSON object; undefined where it has none. */
export const member = (json: Schema.Json | undefined, name: string): Schema.Json | undefined =>
  typeof json === "object" && json !== null && !Array.isArray(json)
    ? Object.entries(json).find(([key]) => key === name)?.[1]
    : undefined

export const code = (answer: Answer) => member(answer.json, "code")
