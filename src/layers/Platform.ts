import { Effect, Layer, Option } from "effect"
import { SecureRandom } from "effect/crypto"
import { join } from "node:path"
import { AdminDb } from "../services/AdminDb.ts"
import { ApiKeys } from "../services/ApiKeys.ts"
import { AuditLog } from "../services/AuditLog.ts"
import { Authenticator } from "../services/Authenticator.ts"
import { ClientSecrets } from "../services/ClientSecrets.ts"
import { Claims } from "../services/Claims.ts"
import { EventReader } from "../services/EventReader.ts"
import { Idempotency } from "../services/Idempotency.ts"
import { KeyRing } from "../services/KeyRing.ts"
import { MasterKey } from "../services/MasterKey.ts"
import { LlmGateway } from "../services/llm/LlmGateway.ts"
import { DiskJournal } from "../services/llm/DiskJournal.ts"
import { LlmBudgets } from "../services/llm/LlmBudgets.ts"
import { LlmLimits } from "../services/llm/LlmLimits.ts"
import { LlmUsage } from "../services/llm/LlmUsage.ts"
import { Realtime } from "../services/llm/Realtime.ts"
import { RealtimeMeter } from "../services/llm/RealtimeMeter.ts"
import { Migrations } from "../services/Migrations.ts"
import { OperatorKeys } from "../services/OperatorKeys.ts"
import { Passwords } from "../services/Passwords.ts"
import { PlatformDb } from "../services/PlatformDb.ts"
import { PlatformKeys } from "../services/PlatformKeys.ts"
import { PromptGuard } from "../services/PromptGuard.ts"
import { Provisioning } from "../services/Provisioning.ts"
import { RateLimits } from "../services/RateLimits.ts"
import { Records } from "../services/Records.ts"
import { Redis } from "../services/Redis.ts"
import { SecretVault } from "../services/SecretVault.ts"
import { Sessions } from "../services/Sessions.ts"
import { SignInLimits } from "../services/SignInLimits.ts"
import { States } from "../services/States.ts"
import { TenantPool } from "../services/TenantPool.ts"
import { Tenants } from "../services/Tenants.ts"
import { Tokens } from "../services/Tokens.ts"
import { Users } from "../services/Users.ts"
import { Installation } from "./Installation.ts"
import { ProvidersLayer } from "./Providers.ts"
import { Settings } from "./Settings.ts"

/** Postgres, as the app and as the migrator, and Redis. Nothing connects before it is used. */
export const StorageLayer = Layer.unwrap(
  Effect.gen(function* () {
    const settings = yield* Settings
    const installation = yield* Installation
    return Layer.mergeAll(
      PlatformDb.layer.pipe(
        Layer.provideMerge(
          TenantPool.layer({ url: installation.databaseUrl, size: settings.databasePoolSize })
        )
      ),
      AdminDb.layer({ url: installation.databaseAdminUrl }),
      Option.match(installation.redisUrl, {
        onNone: () => Redis.layerAbsent,
        onSome: (url) => Redis.layer({ url })
      })
    ).pipe(
      Layer.provide(Claims.layerRotating(installation.tenantClaimKey)),
      Layer.provideMerge(KeyRing.layer)
    )
  })
)

/** One value, so that all who seal and open share one: layers are memoized by reference. */
const MasterKeyLayer = Layer.unwrap(
  Effect.map(Installation, ({ secretsMasterKey }) => MasterKey.layer(secretsMasterKey))
)

/** The platform's own keys, and their rotation. */
export const PlatformKeysLayer = Layer.unwrap(
  Effect.gen(function* () {
    const { accessTokenTtl } = yield* Settings
    const { tenantClaimKey, tokenSigningKeys } = yield* Installation
    return PlatformKeys.layer({
      claimKey: tenantClaimKey,
      signingKeys: tokenSigningKeys,
      tokenLifetime: accessTokenTtl
    }).pipe(Layer.provide(MasterKeyLayer), Layer.provide(SecureRandom.layerWebCrypto))
  })
)

/** What operators do with tenants: by HTTP, and by the programs of `bin/`. */
export const ControlPlaneLayer = Layer.unwrap(
  Effect.map(Installation, ({ tenantClaimKey }) =>
    Provisioning.layer.pipe(
      Layer.provideMerge(
        Layer.mergeAll(
          Tenants.layer,
          Migrations.layer({ claimKey: tenantClaimKey }),
          OperatorKeys.layer,
          PlatformKeysLayer
        )
      ),
      Layer.provideMerge(AuditLog.layer),
      Layer.provide(Passwords.layer),
      Layer.provide(SecureRandom.layerWebCrypto)
    )
  )
)

/** What tenants do: signing in, and their data. */
export const TenantPlaneLayer = Layer.unwrap(
  Effect.gen(function* () {
    const settings = yield* Settings
    const installation = yield* Installation
    const { environment } = settings
    return Authenticator.layer({ operatorKey: installation.operatorApiKey }).pipe(
      Layer.provideMerge(Sessions.layer({ refreshLifetime: settings.refreshTokenTtl })),
      Layer.provideMerge(
        Layer.mergeAll(
          ApiKeys.layer({ environment }),
          Records.layer,
          States.layer,
          Users.layer,
          EventReader.layer(),
          SecretVault.layer.pipe(Layer.provide(MasterKeyLayer)),
          ClientSecrets.layer
        )
      ),
      Layer.provideMerge(
        Tokens.layer({ keys: installation.tokenSigningKeys, environment, lifetime: settings.accessTokenTtl })
      ),
      Layer.provide(Passwords.layer),
      Layer.provide(SecureRandom.layerWebCrypto)
    )
  })
)

/** The way to the models, and what it leaves of each attempt. */
const LlmLayer = Layer.unwrap(
  Effect.map(Settings, (settings) =>
    Layer.mergeAll(
      LlmGateway.layer({
        answer: settings.llmTimeout,
        firstToken: settings.llmFirstTokenTimeout,
        chunk: settings.llmChunkTimeout,
        maxRetries: settings.llmMaxRetries
      }),
      Realtime.layer.pipe(
        Layer.provide(RealtimeMeter.layer),
        Layer.provideMerge(LlmUsage.layer),
        Layer.provideMerge(LlmBudgets.layer),
        Layer.provideMerge(LlmLimits.layer),
        Layer.provide(DiskJournal(join(settings.dataDir, "llm-journal")))
      ),
      PromptGuard.layer.pipe(Layer.provide(MasterKeyLayer)),
      ProvidersLayer
    ).pipe(Layer.provide(SecureRandom.layerWebCrypto))
  )
)

/** Whatever the claim's key is good for, HKDF makes another one of it. */
const IdempotencyLayer = Layer.unwrap(
  Effect.map(Installation, ({ tenantClaimKey }) => Idempotency.layer({ secret: tenantClaimKey }))
)

/** The platform without its HTTP face. */
export const PlatformLayer = Layer.mergeAll(
  TenantPlaneLayer,
  LlmLayer,
  SignInLimits.layer,
  IdempotencyLayer
).pipe(
  Layer.provideMerge(RateLimits.layer),
  Layer.provideMerge(ControlPlaneLayer),
  Layer.provideMerge(StorageLayer)
)
