import { Clock, Context, Duration, Effect, Layer, Redacted, Schema } from "effect"
import type { Option } from "effect"
import { SecureRandom } from "effect/crypto"
import { decodeProtectedHeader, jwtVerify, SignJWT } from "jose"
import type { Environment } from "../domain/Environment.ts"
import { Role, SessionId, UserId } from "../domain/Principal.ts"
import { ALGORITHM } from "../domain/SigningKey.ts"
import type { PublicKey, SigningKeys } from "../domain/SigningKey.ts"
import { TenantId, TenantSlug } from "../domain/Tenant.ts"
import { activeAt, importSigningKey, KeyRing } from "./KeyRing.ts"
import type { SigningPair } from "./KeyRing.ts"
import { PlatformKeys } from "./PlatformKeys.ts"

export const ISSUER = "agent-army"
/** Clocks of two instances may differ by this much. */
const CLOCK_TOLERANCE_SECONDS = 5
/** A retired key may have signed for this long after, on an instance whose clock is late. */
const RETIREMENT_TOLERANCE = Duration.minutes(1)

export const AccessClaims = Schema.Struct({
  sub: UserId,
  tenant_id: TenantId,
  tenant_slug: TenantSlug,
  email: Schema.String,
  role: Role,
  type: Schema.Literal("access"),
  sid: SessionId,
  jti: Schema.String,
  iat: Schema.Int,
  exp: Schema.Int
})
export type AccessClaims = typeof AccessClaims.Type

export type AccessSubject = Pick<AccessClaims, "sub" | "tenant_id" | "tenant_slug" | "email" | "role" | "sid">

const decodeClaims = Schema.decodeUnknownEffect(AccessClaims)

/**
 * Access tokens: JWTs (RFC 7519) signed with EdDSA, checked as RFC 8725 asks: algorithm pinned, key by `kid`,
 * issuer and audience required. The audience carries the environment: a token of one is worthless in another.
 */
export class Tokens extends Context.Service<
  Tokens,
  {
    readonly issue: (subject: AccessSubject) => Effect.Effect<Redacted.Redacted<string>>
    /** None for a token that is malformed, expired, of another environment, or not ours. */
    readonly verify: (token: Redacted.Redacted<string>) => Effect.Effect<Option.Option<AccessClaims>>
    /** Those that verify now, and the next one that is about to sign. */
    readonly publicKeys: Effect.Effect<ReadonlyArray<typeof PublicKey.Type>>
    readonly lifetime: Duration.Duration
  }
>()("agent-army/services/Tokens") {
  static readonly layer = (options: {
    readonly keys: Redacted.Redacted<SigningKeys>
    readonly environment: Environment
    readonly lifetime: Duration.Duration
  }) =>
    Layer.effect(
      Tokens,
      Effect.gen(function* () {
        const random = yield* SecureRandom.SecureRandom
        const ring = yield* KeyRing
        const platformKeys = yield* PlatformKeys
        const audience = `agent-army/${options.environment}`

        /** The first generation. The keys after it are in the ring. */
        const first = yield* Effect.forEach(Redacted.value(options.keys).keys, importSigningKey)
        const [firstToSign] = first
        if (firstToSign === undefined) return yield* Effect.die(new Error("No signing key"))

        /** How long after its retirement a key's tokens may be alive. */
        const needed = Duration.toMillis(Duration.sum(options.lifetime, RETIREMENT_TOLERANCE))

        const verifying = (now: number): ReadonlyArray<SigningPair> => {
          const { retired, signing } = ring.keys()
          const isNeeded = ({ kid }: SigningPair) => now < (retired.get(kid) ?? now) + needed
          return [...signing.toReversed(), ...first].filter(isNeeded)
        }
        const verifierOf = (kid: string | undefined, now: number) =>
          verifying(now).find((key) => key.kid === kid)?.verify

        const isUnknown = (token: string, now: number): boolean => {
          try {
            const { kid } = decodeProtectedHeader(token)
            return kid !== undefined && verifierOf(kid, now) === undefined
          } catch {
            return false
          }
        }

        return Tokens.of({
          lifetime: options.lifetime,
          publicKeys: Effect.map(Clock.currentTimeMillis, (now) =>
            verifying(now).map(({ kid, x }) => ({
              kty: "OKP",
              crv: "Ed25519",
              x,
              kid,
              alg: ALGORITHM,
              use: "sig"
            }))
          ),
          issue: Effect.fn("Tokens.issue")(function* (subject) {
            const jti = yield* random.uuidV4()
            const nowMillis = yield* Clock.currentTimeMillis
            const now = Math.floor(nowMillis / 1000)
            const current = activeAt(ring.keys().signing, nowMillis) ?? firstToSign
            const token = yield* Effect.promise(() =>
              new SignJWT({ ...subject, type: "access" })
                .setProtectedHeader({ alg: ALGORITHM, kid: current.kid, typ: "JWT" })
                .setIssuer(ISSUER)
                .setAudience(audience)
                .setIssuedAt(now)
                .setExpirationTime(now + Math.floor(Duration.toSeconds(options.lifetime)))
                .setJti(jti)
                .sign(current.sign)
            )
            return Redacted.make(token)
          }),
          verify: Effect.fn("Tokens.verify")(function* (token) {
            const now = yield* Clock.currentTimeMillis
            // Another instance may sign already with what this one has not read yet.
            if (isUnknown(Redacted.value(token), now)) yield* platformKeys.refreshSoon
            return yield* Effect.tryPromise(() =>
              jwtVerify(
                Redacted.value(token),
                (header) => {
                  const key = verifierOf(header.kid, now)
                  if (key === undefined) throw new Error("Unknown key")
                  return key
                },
                {
                  algorithms: [ALGORITHM],
                  issuer: ISSUER,
                  audience,
                  typ: "JWT",
                  clockTolerance: CLOCK_TOLERANCE_SECONDS,
                  requiredClaims: ["exp", "iat", "jti", "sub"],
                  currentDate: new Date(now)
                }
              )
            ).pipe(
              Effect.flatMap(({ payload }) => decodeClaims(payload)),
              Effect.option
            )
          })
        })
      })
    )
}
