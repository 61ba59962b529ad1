import { Config, ConfigProvider, Context, Duration, Effect, FileSystem, Layer, Option, Schema } from "effect"
import type { LogLevel } from "effect"
import { Environment, isHosted } from "../domain/Environment.ts"
import { SigningKeys } from "../domain/SigningKey.ts"

/** A setting that can't be used: one line that names the variable and what it takes. */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>()("InvalidSetting", {
  message: Schema.String
}) {}

const url = (protocols: ReadonlyArray<string>) =>
  Schema.String.check(
    Schema.makeFilter((value: string) =>
      value
        .split(",")
        .every((part) => URL.canParse(part.trim()) && protocols.includes(new URL(part.trim()).protocol))
        ? undefined
        : `Expected a URL of ${protocols.join(", ")}`
    )
  )

const httpUrl = Schema.String.check(
  Schema.makeFilter((value: string) =>
    URL.canParse(value) && ["http:", "https:"].includes(new URL(value).protocol)
      ? undefined
      : "Expected a URL of http: or https:"
  )
)

const postgresUrl = Schema.RedactedFromValue(url(["postgres:", "postgresql:"]))

/** 32 bytes in base64, as `openssl rand -base64 32` prints them. */
const key32 = Schema.RedactedFromValue(
  Schema.Uint8ArrayFromBase64.check(
    Schema.makeFilter((bytes: Uint8Array) => (bytes.length === 32 ? undefined : "Expected 32 bytes"))
  )
)

const origins = Schema.String.check(
  Schema.makeFilter((value: string) =>
    value.split(",").every((origin) => origin.trim() === "*" || URL.canParse(origin.trim()))
      ? undefined
      : "Expected origins"
  )
)

const LogFormat = Schema.Literals(["pretty", "json"])

/** What each variable takes, in the words of the message that refuses another value. Settings are read by name. */
const takes = {
  ENVIRONMENT: "development, testing, staging or production",
  PORT: "a port from 0 to 65535 (0: a free one)",
  HOST: "an address to listen on, such as 0.0.0.0",
  DATA_DIR: "a directory",
  DATABASE_URL: "postgres://user:password@host:port/database, the app's unprivileged login",
  DATABASE_ADMIN_URL: "postgres://user:password@host:port/database, the migrator's login",
  DATABASE_POOL_SIZE: "a whole number from 1 to 1000",
  REDIS_URL: "redis://… or rediss://…; a comma-separated list of nodes is a Cluster",
  OPERATOR_API_KEY: "32 characters or more",
  TOKEN_SIGNING_KEYS:
    'a JWK set of private Ed25519 keys: {"keys":[{"kty":"OKP","crv":"Ed25519","x":…,"d":…}]}',
  TENANT_CLAIM_KEY: "32 bytes in base64",
  SECRETS_MASTER_KEY: "32 bytes in base64",
  ACCESS_TOKEN_TTL: 'a duration such as "30 minutes", a minute at least',
  REFRESH_TOKEN_TTL: 'a duration such as "7 days", a minute at least',
  CORS_ALLOWED_ORIGINS: "a comma-separated list of origins such as https://app.example.com",
  ANTHROPIC_API_KEY: "a key of Anthropic's API",
  OPENAI_API_KEY: "a key of OpenAI's API",
  ANTHROPIC_BASE_URL: "http:// or https://, without /v1",
  OPENAI_BASE_URL: "http:// or https://, with /v1",
  LLM_TIMEOUT: "seconds from 0.001 to 3600, may have a fraction",
  LLM_MAX_RETRIES: "a whole number from 0 to 10",
  LLM_FIRST_TOKEN_TIMEOUT: "seconds from 0.001 to 3600, may have a fraction",
  LLM_CHUNK_TIMEOUT: "seconds from 0.001 to 3600, may have a fraction",
  METRICS_PORT: "a port from 0 to 65535",
  LOG_LEVEL: "trace, debug, info, warning, error, fatal or none",
  LOG_FORMAT: "pretty or json"
} as const

/** The names of all variables, as `.env.example` has them. */
export const settingNames = Object.keys(takes)

type Name = keyof typeof takes

/** Reads one variable. What was given is never in the message: it may be a secret. */
const read = <A>(name: Name, config: Config.Config<A>): Effect.Effect<A, InvalidSetting> =>
  Effect.mapError(config, () => new InvalidSetting({ message: `${name} must be ${takes[name]}` }))

const optional = <T>(name: Name, schema: Schema.ConstraintCodec<T, unknown>) =>
  read(name, Config.option(Config.schema(schema, name)))

const withDefault = <T>(name: Name, schema: Schema.ConstraintCodec<T, unknown>, value: T) =>
  read(name, Config.schema(schema, name).pipe(Config.withDefault(value)))

const atLeastAMinute = Schema.DurationFromString.check(
  Schema.makeFilter((duration: Duration.Duration) =>
    Duration.isGreaterThanOrEqualTo(duration, Duration.minutes(1)) && Duration.isFinite(duration)
      ? undefined
      : "Expected a minute at least"
  )
)

/** Seconds that may have a fraction. */
const seconds = Schema.NumberFromString.check(Schema.isBetween({ minimum: 0.001, maximum: 3600 }))

const apiKey = Schema.RedactedFromValue(Schema.NonEmptyString)

const logLevels: Readonly<Record<string, LogLevel.LogLevel>> = {
  trace: "Trace",
  debug: "Debug",
  info: "Info",
  warning: "Warn",
  warn: "Warn",
  error: "Error",
  fatal: "Fatal",
  none: "None"
}
const LogLevelName = Schema.String.check(
  Schema.makeFilter((name: string) =>
    Object.hasOwn(logLevels, name.toLowerCase()) ? undefined : "Expected a log level"
  )
)

const parse = Effect.gen(function* () {
  const environment = yield* withDefault("ENVIRONMENT", Environment, "development")
  const port = Schema.NumberFromString.check(
    Schema.isInt(),
    Schema.isBetween({ minimum: 0, maximum: 65_535 })
  )
  const poolSize = Schema.NumberFromString.check(
    Schema.isInt(),
    Schema.isBetween({ minimum: 1, maximum: 1000 })
  )
  const retries = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 0, maximum: 10 }))
  const llmTimeout = yield* withDefault("LLM_TIMEOUT", seconds, 30)
  const allowedOrigins = yield* optional("CORS_ALLOWED_ORIGINS", origins)
  const logLevel = yield* withDefault("LOG_LEVEL", LogLevelName, "info")
  const settings = {
    environment,
    port: yield* withDefault("PORT", port, 8080),
    host: yield* withDefault("HOST", Schema.NonEmptyString, "0.0.0.0"),
    dataDir: yield* withDefault("DATA_DIR", Schema.NonEmptyString, ".data"),
    databaseUrl: yield* optional("DATABASE_URL", postgresUrl),
    databaseAdminUrl: yield* optional("DATABASE_ADMIN_URL", postgresUrl),
    databasePoolSize: yield* withDefault("DATABASE_POOL_SIZE", poolSize, 10),
    redisUrl: yield* optional("REDIS_URL", Schema.RedactedFromValue(url(["redis:", "rediss:"]))),
    operatorApiKey: yield* optional(
      "OPERATOR_API_KEY",
      Schema.RedactedFromValue(Schema.String.check(Schema.isMinLength(32)))
    ),
    tokenSigningKeys: yield* optional(
      "TOKEN_SIGNING_KEYS",
      Schema.RedactedFromValue(Schema.fromJsonString(SigningKeys))
    ),
    tenantClaimKey: yield* optional("TENANT_CLAIM_KEY", key32),
    secretsMasterKey: yield* optional("SECRETS_MASTER_KEY", key32),
    accessTokenTtl: yield* withDefault("ACCESS_TOKEN_TTL", atLeastAMinute, Duration.minutes(30)),
    refreshTokenTtl: yield* withDefault("REFRESH_TOKEN_TTL", atLeastAMinute, Duration.days(7)),
    corsAllowedOrigins: Option.match(allowedOrigins, {
      onNone: () => [],
      onSome: (list) => list.split(",").map((origin) => origin.trim())
    }),
    anthropicApiKey: yield* optional("ANTHROPIC_API_KEY", apiKey),
    openaiApiKey: yield* optional("OPENAI_API_KEY", apiKey),
    anthropicBaseUrl: yield* optional("ANTHROPIC_BASE_URL", httpUrl),
    openaiBaseUrl: yield* optional("OPENAI_BASE_URL", httpUrl),
    llmTimeout: Duration.seconds(llmTimeout),
    llmMaxRetries: yield* withDefault("LLM_MAX_RETRIES", retries, 3),
    llmFirstTokenTimeout: Duration.seconds(
      yield* withDefault("LLM_FIRST_TOKEN_TIMEOUT", seconds, llmTimeout)
    ),
    llmChunkTimeout: Duration.seconds(yield* withDefault("LLM_CHUNK_TIMEOUT", seconds, 15)),
    metricsPort: yield* optional("METRICS_PORT", port),
    logLevel: logLevels[logLevel.toLowerCase()] ?? "Info",
    logFormat: yield* withDefault(
      "LOG_FORMAT",
      LogFormat,
      environment === "development" || environment === "testing" ? "pretty" : "json"
    )
  }
  if (Option.isSome(settings.databaseUrl) !== Option.isSome(settings.databaseAdminUrl)) {
    return yield* new InvalidSetting({
      message:
        "DATABASE_URL and DATABASE_ADMIN_URL go together: set both, or neither for the embedded Postgres"
    })
  }
  if (isHosted(environment)) {
    const given: Readonly<Record<string, boolean>> = {
      DATABASE_URL: Option.isSome(settings.databaseUrl),
      DATABASE_ADMIN_URL: Option.isSome(settings.databaseAdminUrl),
      REDIS_URL: Option.isSome(settings.redisUrl),
      OPERATOR_API_KEY: Option.isSome(settings.operatorApiKey),
      TOKEN_SIGNING_KEYS: Option.isSome(settings.tokenSigningKeys),
      TENANT_CLAIM_KEY: Option.isSome(settings.tenantClaimKey),
      SECRETS_MASTER_KEY: Option.isSome(settings.secretsMasterKey)
    }
    const missing = Object.keys(given).filter((name) => given[name] === false)
    if (missing.length > 0) {
      return yield* new InvalidSetting({
        message: `In ${environment} these must be set: ${missing.join(", ")}`
      })
    }
  }
  return settings
})

/** The environment; in development also `.env`, which the environment's own variables go before. */
const provider = Effect.gen(function* () {
  const env = process.env
  const fromEnv = ConfigProvider.fromEnvRecord(env)
  if ((env["ENVIRONMENT"] ?? "development") !== "development") return fromEnv
  const fs = yield* FileSystem.FileSystem
  const lines = yield* fs.readFileString(".env").pipe(Effect.orElseSucceed(() => ""))
  return ConfigProvider.orElse(fromEnv, ConfigProvider.fromDotEnvContents(lines))
})

/** The platform's settings: environment variables, read once, secrets as `Redacted`. */
export class Settings extends Context.Service<Settings, Effect.Success<typeof parse>>()(
  "agent-army/layers/Settings"
) {
  static readonly layer: Layer.Layer<Settings, InvalidSetting, FileSystem.FileSystem> = Layer.effect(
    Settings,
    Effect.flatMap(provider, (found) =>
      Effect.map(Effect.provideService(parse, ConfigProvider.ConfigProvider, found), Settings.of)
    )
  )

  /** From given variables instead of the environment: for tests. */
  static readonly layerFrom = (
    env: Readonly<Record<string, string>>
  ): Layer.Layer<Settings, InvalidSetting> =>
    Layer.effect(
      Settings,
      Effect.map(
        Effect.provideService(parse, ConfigProvider.ConfigProvider, ConfigProvider.fromEnvRecord(env)),
        Settings.of
      )
    )
}
