import { Effect, Fiber } from "effect"
import { HttpMethod, HttpServerError } from "effect/http"
import type { HttpServerRequest } from "effect/http"

/** Only a text with one of these escapes can hold what `isStorable` refuses: raw, JSON has neither. */
const suspicious = /\\u(?:0000|d[89a-f])/i

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

const unstorable = (request: HttpServerRequest.HttpServerRequest) =>
  new HttpServerError.HttpServerError({
    reason: new HttpServerError.RequestParseError({
      request,
      reason: "Parse",
      description: "The body has a string with U+0000 or half of a surrogate pair"
    })
  })

/**
 * Gives the request a body that survives the interruption of its reader, and whose JSON holds no string that
 * cannot be stored. In place: a copy through its prototype costs each POST as much as the rest of the face.
 */
export const guardBody = (request: HttpServerRequest.HttpServerRequest): void => {
  if (!HttpMethod.hasBody(request.method)) {
    return
  }
  // The getters of the class only make effects; the text is made from the bytes, and so from the guarded ones.
  Object.defineProperty(request, "arrayBuffer", { value: detached(request.arrayBuffer) })
  const text = Effect.flatMap(request.text, (text) =>
    !suspicious.test(text) || isStorable(parse(text))
      ? Effect.succeed(text)
      : Effect.fail(unstorable(request))
  )
  Object.defineProperty(request, "text", { value: text })
}
