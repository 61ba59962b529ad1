import { assert, describe, it } from "@effect/vitest"
import { NodeServices } from "@effect/platform-node"
import { Duration, Effect, FileSystem, Option } from "effect"
import { Settings, settingNames } from "../../src/layers/Settings.ts"

const read = (env: Record<string, string>) => Effect.provide(Settings, Settings.layerFrom(env))
const refusal = (env: Record<string, string>) => Effect.map(Effect.flip(read(env)), (error) => error.message)

const hosted = {
  ENVIRONMENT: "production",
  DATABASE_URL: "postgres://aa_app:secret@db:5432/agent_army",
  DATABASE_ADMIN_URL: "postgres://aa_migrator:secret@db:5432/agent_army",
  REDIS_URL: "rediss://redis:6379",
  OPERATOR_API_KEY: "an-operator-key-of-at-least-32-chars",
  TOKEN_SIGNING_KEYS: JSON.stringify({
    keys: [{ kty: "OKP", crv: "Ed25519", x: "a".repeat(43), d: "b".repeat(43) }]
  }),
  TENANT_CLAIM_KEY: Buffer.alloc(32, 7).toString("base64"),
  SECRETS_MASTER_KEY: Buffer.alloc(32, 8).toString("base64")
}

describe("settings", () => {
  it.effect("have a default for everything in development", () =>
    Effect.gen(function* () {
      const settings = yield* read({})
      assert.strictEqual(settings.environment, "development")
      assert.strictEqual(settings.port, 8080)
      assert.strictEqual(settings.host, "0.0.0.0")
      assert.strictEqual(settings.databasePoolSize, 10)
      assert.strictEqual(settings.logFormat, "pretty")
      assert.strictEqual(Duration.toMinutes(settings.accessTokenTtl), 30)
      assert.strictEqual(Duration.toDays(settings.refreshTokenTtl), 7)
      assert.isTrue(Option.isNone(settings.databaseUrl))
    })
  )

  it.effect(
    "refuse a wrong value with one line that names the variable and what it takes, and not the value",
    () =>
      Effect.gen(function* () {
        const wrong = {
          ENVIRONMENT: "sandbox",
          PORT: "http",
          DATABASE_POOL_SIZE: "plenty",
          REDIS_URL: "localhost:6379",
          OPERATOR_API_KEY: "hunter2",
          TOKEN_SIGNING_KEYS: `{"keys":[]}`,
          TENANT_CLAIM_KEY: "c2hvcnQ=",
          SECRETS_MASTER_KEY: "c2hvcnQ=",
          ACCESS_TOKEN_TTL: "soon",
          REFRESH_TOKEN_TTL: "1 second",
          CORS_ALLOWED_ORIGINS: "not an origin",
          METRICS_PORT: "70000",
          LOG_LEVEL: "loud",
          LOG_FORMAT: "xml"
        }
        for (const [name, value] of Object.entries(wrong)) {
          const message = yield* refusal({ [name]: value })
          assert.match(message, new RegExp(`^${name} must be [^\\n]+$`), name)
          assert.notInclude(message, value, name)
        }
      })
  )

  it.effect("go together where one without the other would mix two databases", () =>
    Effect.gen(function* () {
      assert.match(yield* refusal({ DATABASE_URL: hosted.DATABASE_URL }), /DATABASE_ADMIN_URL/)
    })
  )

  it.effect("are all required in staging and production, each by name", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* read(hosted)).logFormat, "json")
      for (const environment of ["staging", "production"]) {
        for (const name of Object.keys(hosted)) {
          if (name === "ENVIRONMENT") continue
          const message = yield* refusal({ ...hosted, ENVIRONMENT: environment, [name]: "" })
          assert.include(message, name)
          assert.notInclude(message, "secret")
        }
      }
    })
  )

  it.effect("are the variables that .env.example lists, all and only", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const example = yield* fs.readFileString(".env.example")
      const listed = [...example.matchAll(/^([A-Z_]+)=/gm)].map((match) => match[1])
      assert.deepStrictEqual(listed.toSorted(), settingNames.toSorted())
      const values = Object.fromEntries(
        [...example.matchAll(/^([A-Z_]+)=(.*)$/gm)].map((match) => [match[1], match[2]])
      )
      yield* read(values)
    }).pipe(Effect.provide(NodeServices.layer))
  )
})
