import { Schema } from "effect"

/** The one algorithm of our tokens. What a token's own header says of it decides nothing (RFC 8725, 3.1). */
export const ALGORITHM = "EdDSA"

/** An Ed25519 key as a private JWK (RFC 8037, 2). */
export const SigningKey = Schema.Struct({
  kty: Schema.Literal("OKP"),
  crv: Schema.Literal("Ed25519"),
  x: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/)),
  d: Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/)),
  kid: Schema.optionalKey(Schema.String)
})

/** A JWK set (RFC 7517, 5): the first key signs, all verify, so that keys rotate without downtime. */
export const SigningKeys = Schema.Struct({ keys: Schema.NonEmptyArray(SigningKey) })
export type SigningKeys = typeof SigningKeys.Type

/** A public key as `/.well-known/jwks.json` publishes it. */
export const PublicKey = Schema.Struct({
  kty: Schema.Literal("OKP"),
  crv: Schema.Literal("Ed25519"),
  x: Schema.String,
  kid: Schema.String,
  alg: Schema.Literal(ALGORITHM),
  use: Schema.Literal("sig")
})
