import { Context, Effect, Layer, Redacted, Semaphore } from "effect"
import { SecureRandom } from "effect/crypto"
import { argon2, timingSafeEqual } from "node:crypto"

/** Argon2id (RFC 9106) with what OWASP's password storage sheet asks for at least: 19 MiB, two passes, one lane. */
const MEMORY_KIB = 19_456
const PASSES = 2
const LANES = 1
const SALT_BYTES = 16
const TAG_BYTES = 32
/** Hashes at one time: each holds its memory and a thread of the pool, and the pool has four. */
const CONCURRENCY = 2

/** Characters of a password that is made here: no look-alikes, since people copy it from a screen. */
const ALPHABET = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
/** 20 of 57 characters: 116 bits. */
const GENERATED_LENGTH = 20

const phc = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64").replaceAll("=", "")

/**
 * Passwords as argon2id hashes in PHC string format. Hashing runs on Node's thread pool, never on the event loop.
 *
 * Node's own Argon2 rather than `effect/crypto`'s `Kdf`, whose argon2 asks for a WebCrypto that has it.
 */
export class Passwords extends Context.Service<
  Passwords,
  {
    readonly hash: (password: Redacted.Redacted<string>) => Effect.Effect<string>
    /** False for a wrong password, and for a hash that can't be read. */
    readonly verify: (password: Redacted.Redacted<string>, hash: string) => Effect.Effect<boolean>
    /** Takes as long as `verify` and is always false: for accounts that do not exist. */
    readonly verifyNothing: (password: Redacted.Redacted<string>) => Effect.Effect<false>
    readonly generate: Effect.Effect<Redacted.Redacted<string>>
  }
>()("agent-army/services/Passwords") {
  static readonly layer = Layer.effect(
    Passwords,
    Effect.gen(function* () {
      const random = yield* SecureRandom.SecureRandom
      const semaphore = yield* Semaphore.make(CONCURRENCY)

      const derive = (
        password: Redacted.Redacted<string>,
        nonce: Uint8Array,
        cost: {
          readonly memory: number
          readonly passes: number
          readonly parallelism: number
          readonly tagLength: number
        }
      ) =>
        semaphore.withPermit(
          Effect.callback<Uint8Array>((resume) => {
            // The same characters typed on another keyboard must give the same bytes (RFC 8265, 4.2).
            const message = Buffer.from(Redacted.value(password).normalize("NFC"), "utf8")
            argon2("argon2id", { message, nonce, ...cost }, (error, tag) => {
              resume(error === null ? Effect.succeed(tag) : Effect.die(error))
            })
          })
        )

      const cost = { memory: MEMORY_KIB, passes: PASSES, parallelism: LANES, tagLength: TAG_BYTES }

      const hash = Effect.fn("Passwords.hash")(function* (password: Redacted.Redacted<string>) {
        const salt = yield* random.randomBytes(SALT_BYTES)
        const tag = yield* derive(password, salt, cost)
        return `$argon2id$v=19$m=${MEMORY_KIB},t=${PASSES},p=${LANES}$${base64(salt)}$${base64(tag)}`
      })

      const verify = Effect.fn("Passwords.verify")(function* (
        password: Redacted.Redacted<string>,
        stored: string
      ) {
        const match = phc.exec(stored)
        if (match === null) return false
        const [, memory, passes, lanes, salt = "", tag = ""] = match
        const expected = Buffer.from(tag, "base64")
        const actual = yield* derive(password, Buffer.from(salt, "base64"), {
          memory: Number(memory),
          passes: Number(passes),
          parallelism: Number(lanes),
          tagLength: expected.length
        })
        return timingSafeEqual(actual, expected)
      })

      const nobody = yield* random.randomBytes(SALT_BYTES)

      return Passwords.of({
        hash,
        verify,
        verifyNothing: (password) => Effect.as(derive(password, nobody, cost), false),
        generate: Effect.gen(function* () {
          let password = ""
          for (let index = 0; index < GENERATED_LENGTH; index++) {
            password += ALPHABET[yield* random.intBetween(0, ALPHABET.length, { halfOpen: true })]
          }
          return Redacted.make(password)
        })
      })
    })
  )
}
