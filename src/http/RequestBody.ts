import { Effect, Fiber } from "effect"
import { HttpMethod, HttpServerError } from "effect/http"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"

/**
 * How deep arrays and objects may stand in each other. Far beyond what people write, and far below where a
 * decoder of ours, or Postgres, would run out of stack.
 */
export const MAX_JSON_DEPTH = 100

const decoder = new TextDecoder()

/** Only a text with one of these escapes can hold what `isStorable` refuses: raw, JSON has neither. */
const suspicious = /\\u(?:0000|d[89a-f])/i

/** `"`, `\`, and the brackets of JSON. */
const QUOTE = 34
const BACKSLASH = 92
const OPEN_ARRAY = 91
const CLOSE_ARRAY = 93
const OPEN_OBJECT = 123
const CLOSE_OBJECT = 125

/** Looks at the text alone, so that nothing recurses into what is too deep. What is no JSON is for others to refuse. */
const isTooDeep = (text: string): boolean => {
  if (text.length <= MAX_JSON_DEPTH) return false
  let depth = 0
  let quoted = false
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index)
    if (quoted) {
      if (character === BACKSLASH) index++
      else if (character === QUOTE) quoted = false
    } else if (character === QUOTE) {
      quoted = true
    } else if (character === OPEN_ARRAY || character === OPEN_OBJECT) {
      depth++
      if (depth > MAX_JSON_DEPTH) return true
    } else if (character === CLOSE_ARRAY || character === CLOSE_OBJECT) {
      depth--
    }
  }
  return false
}

/**
 * Whether Postgres can keep every string of a JSON value: it stores neither NUL nor half of a surrogate pair,
 * and would refuse them late, as an error of the server.
 */
const isStorable = (value: unknown): boolean => {
  if (typeof value === "string") return value.isWellFormed() && !value.includes("\0")
  if (typeof value !== "object" || value === null) return true
  return Object.entries(value).every(([key, item]) => isStorable(key) && isStorable(item))
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    // Malformed JSON is for whoever decodes it to refuse.
    return undefined
  }
}

/**
 * Reads in a fiber of its own. Interrupting effect's own reader destroys the socket, and with it the answer to
 * a body that is too slow; this one lets the timeout be answered, and ends with the connection.
 */
const detached = <A, E>(read: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(Effect.forkDetach(read, { startImmediately: true }), Fiber.join)

const refused = (request: HttpServerRequest.HttpServerRequest, description: string) =>
  Effect.fail(
    new HttpServerError.HttpServerError({
      reason: new HttpServerError.RequestParseError({ request, reason: "Parse", description })
    })
  )

/**
 * Gives the request a body that survives the interruption of its reader, and whose text is UTF-8 (RFC 8259, 8.1),
 * nowhere too deep, and without a string that cannot be stored. In place: a copy through its prototype costs each
 * POST as much as the rest of the face.
 */
export const guardBody = (request: HttpServerRequest.HttpServerRequest): void => {
  if (!HttpMethod.hasBody(request.method)) {
    return
  }
  const bytes = detached(request.arrayBuffer)
  Object.defineProperty(request, "arrayBuffer", { value: bytes })
  const text = Effect.flatMap(bytes, (buffer) => {
    if (!isUtf8(buffer)) return refused(request, "The body is not UTF-8")
    const text = decoder.decode(buffer)
    if (isTooDeep(text)) {
      return refused(request, `The body nests deeper than ${MAX_JSON_DEPTH} levels`)
    }
    if (suspicious.test(text) && !isStorable(parse(text))) {
      return refused(request, "The body has a string with U+0000 or half of a surrogate pair")
    }
    return Effect.succeed(text)
  })
  Object.defineProperty(request, "text", { value: text })
}
