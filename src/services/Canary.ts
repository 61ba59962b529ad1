import { Redacted } from "effect"
import { createHmac } from "node:crypto"

/** As many hex digits as nobody guesses, and no text has by chance. */
const TOKEN_DIGITS = 32

/** What stands in a tenant's system prompts and nowhere else: whoever reads it in an answer reads the system prompt. In hex. */
export type Canary = Redacted.Redacted<string>

export const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** A tenant's own, always the same: one that changed with each call would keep the providers' caches from knowing the prompt again. */
export const canaryOf = (key: Redacted.Redacted<Uint8Array>, tenantId: string): Canary =>
  Redacted.make(
    createHmac("sha256", Redacted.value(key)).update(tenantId).digest("hex").slice(0, TOKEN_DIGITS),
    { label: "Canary" }
  )

/** The line that a system prompt gets. */
export const canaryLine = (canary: Canary): string => `Internal reference: ${Redacted.value(canary)}`

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
