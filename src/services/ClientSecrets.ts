import { Context, DateTime, Duration, Effect, Layer, Option, Redacted, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { hash } from "node:crypto"
import { formatClientSecret, SecretMaker, tenantOfClientSecret } from "../domain/ClientSecret.ts"
import type { DependencyUnavailable } from "../domain/Problems.ts"
import type { TenantId } from "../domain/Tenant.ts"
import { newKeySecret } from "./KeySecret.ts"
import { Redis } from "./Redis.ts"
import { tenantPrefix } from "./TenantCache.ts"

const Stored = Schema.fromJsonString(
  Schema.Struct({ maker: SecretMaker, session: Schema.Record(Schema.String, Schema.Json) })
)
const encode = Schema.encodeEffect(Stored)
const decode = Schema.decodeEffect(Stored)

/** What a client secret stands for. */
export type ClientSecret = typeof Stored.Type

/** A secret just made: the only time that it is at hand. */
export interface MadeClientSecret {
  readonly value: Redacted.Redacted<string>
  readonly expiresAt: DateTime.Utc
}

/** 256 random bits need no slow hash. */
const keyOf = (tenantId: TenantId, secret: Redacted.Redacted<string>): string =>
  `${tenantPrefix(tenantId)}client-secret:${hash("sha256", Redacted.value(secret), "base64url")}`

/**
 * Short-lived secrets with which an app's own users, in browsers, open sessions of realtime voice. Made here and not at the
 * provider, whose own would lead round our metering. Redis has their hashes alone, each beneath its tenant's prefix.
 */
export class ClientSecrets extends Context.Service<
  ClientSecrets,
  {
    readonly mint: (
      secret: ClientSecret,
      lifetime: Duration.Duration
    ) => Effect.Effect<MadeClientSecret, DependencyUnavailable>
    /** None for one that is unknown or has expired. Whether its maker still may is another question. */
    readonly find: (
      secret: Redacted.Redacted<string>
    ) => Effect.Effect<Option.Option<ClientSecret>, DependencyUnavailable>
  }
>()("agent-army/services/ClientSecrets") {
  static readonly layer = Layer.effect(
    ClientSecrets,
    Effect.gen(function* () {
      const redis = yield* Redis
      const random = yield* SecureRandom.SecureRandom
      return ClientSecrets.of({
        mint: Effect.fn("ClientSecrets.mint")(function* (secret, lifetime) {
          const { tenantId } = secret.maker
          const value = formatClientSecret(tenantId, yield* newKeySecret(random))
          const stored = yield* Effect.orDie(encode(secret))
          const expiresAt = DateTime.addDuration(yield* DateTime.now, lifetime)
          const seconds = Math.ceil(Duration.toSeconds(lifetime))
          yield* redis.use((client) => client.set(keyOf(tenantId, value), stored, "EX", seconds))
          return { value, expiresAt }
        }),
        find: Effect.fn("ClientSecrets.find")(function* (secret) {
          const tenantId = tenantOfClientSecret(secret)
          if (Option.isNone(tenantId)) return Option.none()
          const stored = yield* redis.use((client) => client.get(keyOf(tenantId.value, secret)))
          if (stored === null) return Option.none()
          const found = yield* Effect.orDie(decode(stored))
          return found.maker.tenantId === tenantId.value ? Option.some(found) : Option.none()
        })
      })
    })
  )
}
