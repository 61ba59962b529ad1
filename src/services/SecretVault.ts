import { Cache, Context, Duration, Effect, Exit, Layer, Option, Redacted, Schema } from "effect"
import { Aead, SecureRandom } from "effect/crypto"
import { DependencyUnavailable } from "../domain/Problems.ts"
import { SecretName } from "../domain/Secret.ts"
import { TenantId } from "../domain/Tenant.ts"
import { orUnavailable } from "./DbErrors.ts"
import { MasterKey } from "./MasterKey.ts"
import { TenantDb } from "./TenantDb.ts"

/** The first byte of what is sealed: how it was. */
const FORMAT = 1
const NONCE_BYTES = 12
const DATA_KEY_BYTES = 32

/** How long an instance may believe what it read: a new value is in use everywhere within a second. */
const REMEMBERED = Duration.millis(500)
/** At 16 KiB each, 80 MB at the most. */
const REMEMBERED_SECRETS = 5_000

const utf8 = new TextEncoder()

/** Where a value belongs. It is authenticated with the value, which opens nowhere else. */
export interface SecretPlace {
  readonly tenantId: TenantId
  readonly name: SecretName
  readonly version: number
}

const aadOf = ({ name, tenantId, version }: SecretPlace) =>
  utf8.encode(`secret ${tenantId} ${name} ${version}`)

const purposeOf = (tenantId: TenantId) => `data key of tenant ${tenantId}`

/** To the operator the log says which key or row it is; the caller can do nothing but tell them. */
const unreadable = (message: string) =>
  Effect.andThen(
    Effect.logError(message),
    Effect.fail(new DependencyUnavailable({ detail: "This server's keys do not open the tenant's secrets" }))
  )

const SealedSecret = Schema.Struct({
  version: Schema.Int,
  sealed: Schema.Uint8Array,
  data_key: Schema.Uint8Array
})
const decodeRow = Schema.decodeUnknownEffect(SealedSecret)

/**
 * Seals the secrets of tenants, and remembers those it has opened: envelope encryption. Each tenant has a data key
 * of 256 random bits, sealed by `MasterKey`; under it, each value is sealed by AES-256-GCM (NIST SP 800-38D), a random
 * nonce each. Sealed bytes are a format byte, the nonce, the ciphertext and its tag.
 *
 * What does not open, by another master key or because rows were moved or changed, is logged with what it was, and fails
 * with `DependencyUnavailable`.
 */
export class SecretVault extends Context.Service<
  SecretVault,
  {
    /** A new data key, sealed. */
    readonly newDataKey: (tenantId: TenantId) => Effect.Effect<Uint8Array>
    readonly seal: (
      place: SecretPlace,
      value: Redacted.Redacted<string>,
      dataKey: Uint8Array
    ) => Effect.Effect<Uint8Array, DependencyUnavailable>
    /** The current value, remembered for half a second; so is that there is none. */
    readonly open: (
      tenantId: TenantId,
      name: SecretName
    ) => Effect.Effect<Option.Option<Redacted.Redacted<string>>, DependencyUnavailable, TenantDb>
    /** To be called once another value, or none, is committed. */
    readonly forget: (tenantId: TenantId, name: SecretName) => Effect.Effect<void>
  }
>()("agent-army/services/SecretVault") {
  static readonly layer = Layer.effect(
    SecretVault,
    Effect.gen(function* () {
      const master = yield* MasterKey
      const aead = yield* Aead.Aead
      const random = yield* SecureRandom.SecureRandom

      const openDataKey = Effect.fnUntraced(function* (tenantId: TenantId, sealed: Uint8Array) {
        const bytes = yield* master
          .open(sealed, purposeOf(tenantId))
          .pipe(Effect.catchTag("WrongMasterKey", ({ message }) => unreadable(message)))
        return yield* Effect.orDie(Aead.key(Aead.aes256Gcm, Redacted.value(bytes)))
      })

      const openValue = Effect.fnUntraced(function* (
        place: SecretPlace,
        sealed: Uint8Array,
        dataKey: Uint8Array
      ) {
        const key = yield* openDataKey(place.tenantId, dataKey)
        const damaged = unreadable(
          `The secret ${place.name} of tenant ${place.tenantId} does not open: its row was changed or moved`
        )
        if (sealed[0] !== FORMAT) return yield* damaged
        const nonce = sealed.slice(1, 1 + NONCE_BYTES)
        const value = yield* aead
          .decrypt(key, sealed.slice(1 + NONCE_BYTES), { nonce, aad: aadOf(place) })
          .pipe(Effect.catchTag("CryptoError", () => damaged))
        return Redacted.make(Buffer.from(value).toString())
      })

      const keyOf = (tenantId: TenantId, name: SecretName) => `${tenantId}/${name}`

      const read = Effect.fn("SecretVault.read")(function* (key: string) {
        const separator = key.indexOf("/")
        const tenantId = TenantId.make(key.slice(0, separator))
        const name = SecretName.make(key.slice(separator + 1))
        const db = yield* TenantDb
        const [row] = yield* db
          .query(
            (sql, table) => sql`SELECT s.version, s.sealed, k.sealed AS data_key
              FROM ${table("secrets")} s JOIN ${table("data_keys")} k ON k.tenant_id = s.tenant_id
              WHERE s.name = ${name}`
          )
          .pipe(orUnavailable)
        if (row === undefined) return Option.none<Redacted.Redacted<string>>()
        const { data_key, sealed, version } = yield* Effect.orDie(decodeRow(row))
        return Option.some(yield* openValue({ tenantId, name, version }, sealed, data_key))
      })

      const remembered = yield* Cache.makeWith(read, {
        capacity: REMEMBERED_SECRETS,
        // That there is none is remembered too: most tenants have no key of their own, and each call asks.
        timeToLive: (exit) => (Exit.isSuccess(exit) ? REMEMBERED : Duration.zero),
        // Whoever asks first reads it, as the tenant that the key names.
        requireServicesAt: "lookup"
      })

      return SecretVault.of({
        newDataKey: Effect.fnUntraced(function* (tenantId) {
          const bytes = yield* random.randomBytes(DATA_KEY_BYTES)
          return yield* master.seal(Redacted.make(bytes), purposeOf(tenantId))
        }),
        seal: Effect.fn("SecretVault.seal")(function* (place, value, dataKey) {
          const key = yield* openDataKey(place.tenantId, dataKey)
          const nonce = yield* random.randomBytes(NONCE_BYTES)
          const sealed = yield* aead
            .encrypt(key, utf8.encode(Redacted.value(value)), { nonce, aad: aadOf(place) })
            .pipe(Effect.orDie)
          return Buffer.concat([Uint8Array.of(FORMAT), nonce, sealed])
        }),
        open: (tenantId, name) => Cache.get(remembered, keyOf(tenantId, name)),
        forget: (tenantId, name) => Cache.invalidate(remembered, keyOf(tenantId, name))
      })
    })
  ).pipe(Layer.provide(Aead.layerWebCrypto), Layer.provide(SecureRandom.layerWebCrypto))
}
