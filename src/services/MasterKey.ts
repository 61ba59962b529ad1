import { Context, Effect, Layer, Redacted, Schema } from "effect"
import { Aead, SecureRandom } from "effect/crypto"
import { createHmac } from "node:crypto"

/** The first byte of what is sealed: how it was. */
const FORMAT = 1
const NONCE_BYTES = 12

const utf8 = new TextEncoder()

/** What was sealed does not open: another key, another place, or bytes that somebody changed. */
export class WrongMasterKey extends Schema.TaggedError<WrongMasterKey>()("WrongMasterKey", {
  message: Schema.String
}) {}

/**
 * Seals secrets that have to stand in the database, under SECRETS_MASTER_KEY: AES-256-GCM (NIST SP 800-38D), a random nonce
 * each. The purpose is authenticated with them, so that one that is moved to another row or column does not open.
 */
export class MasterKey extends Context.Service<
  MasterKey,
  {
    readonly seal: (secret: Redacted.Redacted<Uint8Array>, purpose: string) => Effect.Effect<Uint8Array>
    readonly open: (
      sealed: Uint8Array,
      purpose: string
    ) => Effect.Effect<Redacted.Redacted<Uint8Array>, WrongMasterKey>
    /** A key of its own for a purpose (HMAC-SHA256), the same on all instances: it tells nothing of this one. */
    readonly derive: (purpose: string) => Redacted.Redacted<Uint8Array>
  }
>()("agent-army/services/MasterKey") {
  static readonly layer = (bytes: Redacted.Redacted<Uint8Array>) =>
    Layer.effect(
      MasterKey,
      Effect.gen(function* () {
        const aead = yield* Aead.Aead
        const random = yield* SecureRandom.SecureRandom
        const key = yield* Effect.orDie(Aead.key(Aead.aes256Gcm, Redacted.value(bytes)))

        return MasterKey.of({
          derive: (purpose) =>
            Redacted.make(createHmac("sha256", Redacted.value(bytes)).update(`derived:${purpose}`).digest()),
          seal: Effect.fn("MasterKey.seal")(function* (secret, purpose) {
            const nonce = yield* random.randomBytes(NONCE_BYTES)
            const sealed = yield* aead
              .encrypt(key, Redacted.value(secret), { nonce, aad: utf8.encode(purpose) })
              .pipe(Effect.orDie)
            return Buffer.concat([Uint8Array.of(FORMAT), nonce, sealed])
          }),
          open: Effect.fn("MasterKey.open")(function* (sealed, purpose) {
            const refused = new WrongMasterKey({
              message: `SECRETS_MASTER_KEY does not open the ${purpose}: is it the key that the other instances have?`
            })
            if (sealed[0] !== FORMAT) return yield* refused
            const nonce = sealed.slice(1, 1 + NONCE_BYTES)
            return yield* aead
              .decrypt(key, sealed.slice(1 + NONCE_BYTES), { nonce, aad: utf8.encode(purpose) })
              .pipe(
                Effect.map(Redacted.make),
                Effect.mapError(() => refused)
              )
          })
        })
      })
    ).pipe(Layer.provide(Aead.layerWebCrypto), Layer.provide(SecureRandom.layerWebCrypto))
}
