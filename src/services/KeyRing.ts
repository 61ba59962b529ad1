import { Context, Effect, Layer } from "effect"
import type { Redacted } from "effect"
import { calculateJwkThumbprint, importJWK } from "jose"
import { ALGORITHM } from "../domain/SigningKey.ts"
import type { SigningKeys } from "../domain/SigningKey.ts"

/** When a key begins to sign, and since when it does so no more: milliseconds since 1970. */
export interface Generation {
  readonly kid: string
  readonly activeFrom: number
  readonly retiredAt: number | null
}

export interface ClaimGeneration extends Generation {
  readonly key: Redacted.Redacted<Uint8Array>
}

/** A key of access tokens, ready for use. */
export const importSigningKey = (jwk: SigningKeys["keys"][number]) =>
  Effect.promise(async () => ({
    // RFC 7638: a name that follows from the key itself.
    kid: jwk.kid ?? (await calculateJwkThumbprint(jwk)),
    x: jwk.x,
    sign: await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x, d: jwk.d }, ALGORITHM),
    verify: await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x }, ALGORITHM)
  }))
export type SigningPair = Effect.Success<ReturnType<typeof importSigningKey>>

export type SigningGeneration = Generation & SigningPair

/** The keys that came after those of the settings, the oldest first. */
export interface RotatedKeys {
  readonly claim: ReadonlyArray<ClaimGeneration>
  readonly signing: ReadonlyArray<SigningGeneration>
  /** Since when a signing key of the settings signs no more. */
  readonly retired: ReadonlyMap<string, number>
}

/** The newest that is active already; none where it is still the settings' turn. */
export const activeAt = <G extends Generation>(generations: ReadonlyArray<G>, now: number): G | undefined =>
  generations.findLast(({ activeFrom }) => activeFrom <= now)

/**
 * What this instance knows of rotated keys. Only memory, so that who signs a claim on the way into the database can
 * look at it; `PlatformKeys` keeps it up to date.
 */
export class KeyRing extends Context.Service<
  KeyRing,
  {
    readonly keys: () => RotatedKeys
    readonly replace: (keys: RotatedKeys) => void
  }
>()("agent-army/services/KeyRing") {
  static readonly layer = Layer.sync(KeyRing, () => {
    let keys: RotatedKeys = { claim: [], signing: [], retired: new Map() }
    return KeyRing.of({
      keys: () => keys,
      replace: (next) => {
        keys = next
      }
    })
  })
}
