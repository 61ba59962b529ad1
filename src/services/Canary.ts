import { Effect, Option, Redacted } from "effect"
import type { SecureRandom } from "effect/crypto"
import type { Conversation } from "./llm/Codec.ts"

/** As many as nobody guesses, and no text has by chance. */
const TOKEN_BYTES = 16

/** What stands in a system prompt for one call only: whoever reads it in the answer reads the system prompt. In hex. */
export type Canary = Redacted.Redacted<string>

export const hexOf = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")

/** A new one for each call. */
export const newCanary = (random: SecureRandom.SecureRandom["Service"]): Effect.Effect<Canary> =>
  Effect.map(random.randomBytes(TOKEN_BYTES), (bytes) => Redacted.make(hexOf(bytes), { label: "Canary" }))

/**
 * Adds the canary as a line of its own after the system prompt. The very same conversation where there is none to add, or
 * no system prompt to keep: a body that was not changed may go on as it came.
 */
export const withCanary = (conversation: Conversation, canary: Option.Option<Canary>): Conversation =>
  Option.isNone(canary) || conversation.system.length === 0
    ? conversation
    : {
        ...conversation,
        system: [...conversation.system, `Internal reference: ${Redacted.value(canary.value)}`]
      }

/** Watches one answer as it comes in. */
export interface LeakWatcher {
  /** Whether the canary has been seen, now or before. */
  readonly push: (text: string) => boolean
}

const LOWEST_LETTER = 0x61
const isLetterOrDigit = (code: number) =>
  (code >= 0x30 && code <= 0x39) || (code >= LOWEST_LETTER && code <= 0x7a)

/**
 * Finds the canary however the text is cut into chunks, in any case, and with anything but letters and digits between
 * its characters. Reads each character once and remembers one number (Knuth, Morris and Pratt, 1977).
 */
export const leakWatcher = (canary: Canary): LeakWatcher => {
  const token = Redacted.value(canary).toLowerCase()
  /** How much of the token still fits where the next character does not. */
  const fallbacks = new Uint16Array(token.length)
  for (let index = 1, fits = 0; index < token.length; index++) {
    while (fits > 0 && token[index] !== token[fits]) fits = fallbacks[fits - 1] ?? 0
    if (token[index] === token[fits]) fits++
    fallbacks[index] = fits
  }
  let fits = 0
  return {
    push: (text) => {
      for (let index = 0; index < text.length && fits < token.length; index++) {
        const code = text.charCodeAt(index)
        const lower = code >= 0x41 && code <= 0x5a ? code + 0x20 : code
        if (!isLetterOrDigit(lower)) continue
        while (fits > 0 && token.charCodeAt(fits) !== lower) fits = fallbacks[fits - 1] ?? 0
        if (token.charCodeAt(fits) === lower) fits++
      }
      return fits === token.length
    }
  }
}
