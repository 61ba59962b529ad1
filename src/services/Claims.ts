import { Clock, Context, Duration, Effect, Layer, Redacted } from "effect"
import { createHash, createHmac } from "node:crypto"
import type { TenantId } from "../domain/Tenant.ts"
import { activeAt, KeyRing } from "./KeyRing.ts"
import type { ClaimGeneration } from "./KeyRing.ts"

/** How long a claim is believed. Long enough for a clock that is five minutes off; it names only its own tenant. */
export const CLAIM_LIFETIME = Duration.minutes(15)
const LIFETIME_SECONDS = Duration.toSeconds(CLAIM_LIFETIME)
/** A claim is made anew when less than this is left of it. */
const RENEW_BELOW_SECONDS = 10 * 60
/** Claims kept ready at most; the oldest goes first. */
const KEPT = 20_000

/** Whose rows a transaction may see: one tenant's, or the platform's own registry. */
export type ClaimSubject = TenantId | "platform"

/** The short name by which the database finds a claim key. It tells nothing of the key. */
export const claimKeyId = (key: Redacted.Redacted<Uint8Array>): string =>
  createHash("sha256").update("agent-army claim key id").update(Redacted.value(key)).digest("hex").slice(0, 8)

/**
 * The two padded blocks of HMAC (RFC 2104). The database keeps these instead of the key, so that verifying a
 * claim there is two calls of the built-in `sha256()`.
 */
export const claimKeyPads = (
  key: Redacted.Redacted<Uint8Array>
): { readonly inner: Uint8Array; readonly outer: Uint8Array } => {
  const raw = Redacted.value(key)
  const block = new Uint8Array(64)
  block.set(raw.length > 64 ? createHash("sha256").update(raw).digest() : raw)
  return { inner: block.map((byte) => byte ^ 0x36), outer: block.map((byte) => byte ^ 0x5c) }
}

/**
 * Signs `app.claim`, which `shared.current_tenant()` verifies: `v1.<key id>.<subject>.<expiry>.<mac>`, the MAC an
 * HMAC-SHA256 (RFC 2104) of all that stands before it. The expiry is in seconds since 1970.
 *
 * Node's own HMAC because a claim is signed on the way into a transaction, where a detour through Web
 * Crypto's promises would cost more than the signature.
 */
export class Claims extends Context.Service<
  Claims,
  {
    readonly sign: (subject: ClaimSubject) => Effect.Effect<string>
  }
>()("agent-army/services/Claims") {
  /** By the key of the settings, and by those that came after it. */
  static readonly layerRotating = (key: Redacted.Redacted<Uint8Array>) =>
    Layer.effect(
      Claims,
      Effect.map(KeyRing, (ring) => makeClaims(key, () => ring.keys().claim))
    )

  /** By one key for ever. */
  static readonly layer = (key: Redacted.Redacted<Uint8Array>) =>
    Layer.sync(Claims, () => makeClaims(key, () => []))
}

const makeClaims = (
  first: Redacted.Redacted<Uint8Array>,
  rotated: () => ReadonlyArray<ClaimGeneration>
): Claims["Service"] => {
  let key = first
  let keyId = claimKeyId(key)
  const kept = new Map<ClaimSubject, { readonly claim: string; readonly renewAt: number }>()

  /** The current key; what the one before has signed is not given out any more. */
  const useKeyOf = (nowMillis: number): void => {
    const current = activeAt(rotated(), nowMillis)?.key ?? first
    if (current === key) return
    key = current
    keyId = claimKeyId(key)
    kept.clear()
  }

  const sign = (subject: ClaimSubject, nowMillis: number): string => {
    useKeyOf(nowMillis)
    const nowSeconds = Math.floor(nowMillis / 1000)
    const found = kept.get(subject)
    if (found !== undefined && nowSeconds < found.renewAt) return found.claim
    const body = `v1.${keyId}.${subject}.${nowSeconds + LIFETIME_SECONDS}`
    const mac = createHmac("sha256", Redacted.value(key)).update(body).digest("hex")
    const claim = `${body}.${mac}`
    kept.delete(subject)
    kept.set(subject, { claim, renewAt: nowSeconds + LIFETIME_SECONDS - RENEW_BELOW_SECONDS })
    if (kept.size > KEPT) {
      const oldest = kept.keys().next()
      if (oldest.done !== true) kept.delete(oldest.value)
    }
    return claim
  }

  return Claims.of({
    sign: (subject) =>
      Clock.clockWith((clock) => Effect.sync(() => sign(subject, clock.currentTimeMillisUnsafe())))
  })
}
