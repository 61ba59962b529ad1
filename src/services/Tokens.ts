import { Clock, Context, Duration, Effect, Layer, Redacted, Schema } from "effect"
import type { Option } from "effect"
import { SecureRandom } from "effect/crypto"
import { calculateJwkThumbprint, importJWK, jwtVerify, SignJWT } from "jose"
import type { Environment } from "../domain/Environment.ts"
import { Role, SessionId, UserId } from "../domain/Principal.ts"
import { ALGORITHM } from "../domain/SigningKey.ts"
import type { PublicKey, SigningKeys } from "../domain/SigningKey.ts"
import { TenantId, TenantSlug } from "../domain/Tenant.ts"

export const ISSUER = "agent-army"
/** Clocks of two instances may differ by this much. */
const CLOCK_TOLERANCE_SECONDS = 5

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
    readonly publicKeys: ReadonlyArray<typeof PublicKey.Type>
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
        const audience = `agent-army/${options.environment}`

        const keys = yield* Effect.forEach(Redacted.value(options.keys).keys, (jwk) =>
          Effect.promise(async () => {
            // RFC 7638: a name that follows from the key itself.
            const kid = jwk.kid ?? (await calculateJwkThumbprint(jwk))
            return {
              kid,
              x: jwk.x,
              sign: await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x, d: jwk.d }, ALGORITHM),
              verify: await importJWK({ kty: jwk.kty, crv: jwk.crv, x: jwk.x }, ALGORITHM)
            }
          })
        )
        const [current] = keys
        if (current === undefined) return yield* Effect.die(new Error("No signing key"))
        const byId = new Map(keys.map((key) => [key.kid, key.verify]))

        return Tokens.of({
          lifetime: options.lifetime,
          publicKeys: keys.map(({ kid, x }) => ({
            kty: "OKP",
            crv: "Ed25519",
            x,
            kid,
            alg: ALGORITHM,
            use: "sig"
          })),
          issue: Effect.fn("Tokens.issue")(function* (subject) {
            const jti = yield* random.uuidV4()
            const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
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
            return yield* Effect.tryPromise(() =>
              jwtVerify(
                Redacted.value(token),
                (header) => {
                  const key = header.kid === undefined ? undefined : byId.get(header.kid)
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
