import { Effect, Redacted } from "effect"
import type { SecureRandom } from "effect/crypto"
import { hash } from "node:crypto"

/** 256 bits as 43 digits of base 62, so that a plain hash is as good as a slow one. */
const LENGTH = 43
const ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

/** The secret part of a key of ours. */
export const newKeySecret = Effect.fnUntraced(function* (random: SecureRandom.SecureRandom["Service"]) {
  let secret = ""
  for (let index = 0; index < LENGTH; index++) {
    secret += ALPHABET[yield* random.intBetween(0, ALPHABET.length, { halfOpen: true })]
  }
  return Redacted.make(secret)
})

/** What is stored of it. */
export const hashOfSecret = (secret: Redacted.Redacted<string>): Uint8Array =>
  hash("sha256", Redacted.value(secret), "buffer")
