import { assert, layer } from "@effect/vitest"
import { Effect, Redacted, Schema } from "effect"
import { superuserClient } from "../../src/layers/DatabaseRoles.ts"
import { onRealClock } from "../support/Platform.ts"
import { document, Programs, runProgram, scopedTenant, setBack } from "../support/Programs.ts"

const doctor = (...args: Parameters<typeof runProgram> extends [string, ...infer Rest] ? Rest : never) =>
  runProgram("doctor", ...args)

const asDiagnosis = document(
  Schema.Struct({
    ok: Schema.Boolean,
    checks: Schema.Array(
      Schema.Struct({
        name: Schema.String,
        status: Schema.Literals(["ok", "failed", "skipped"]),
        detail: Schema.String
      })
    ),
    urls: Schema.optionalKey(
      Schema.Struct({
        app: Schema.NullOr(Schema.String),
        migrator: Schema.NullOr(Schema.String),
        superuser: Schema.NullOr(Schema.String),
        redis: Schema.NullOr(Schema.String)
      })
    )
  })
)
type Diagnosis = Effect.Success<ReturnType<typeof asDiagnosis>>

const named = ({ checks }: Diagnosis, status: string) =>
  checks.filter((check) => check.status === status).map(({ name }) => name)

const closed = "postgres://somebody:hunter2@127.0.0.1:1/nowhere"

layer(Programs.layer, onRealClock)("bin/doctor", (it) => {
  it.effect("finds all in order, and has no secret in what it says", () =>
    Effect.gen(function* () {
      yield* scopedTenant("healthy")
      const [json, text] = yield* Effect.all([doctor(["--json"]), doctor([])], { concurrency: 2 })
      assert.deepStrictEqual([json.code, json.stderr, text.code], [0, "", 0], json.stdout)
      const diagnosis = yield* asDiagnosis(json)
      assert.isTrue(diagnosis.ok)
      assert.isUndefined(diagnosis.urls)
      assert.deepStrictEqual(
        diagnosis.checks.map(({ name, status }) => [name, status]),
        [
          "settings",
          "servers",
          "postgres_app",
          "app_login",
          "postgres_migrator",
          "registry",
          "claim_key",
          "tenants",
          "redis"
        ].map((name) => [name, "ok"])
      )
      assert.match(json.stdout, /development/)
      assert.match(json.stdout, /Postgres \d\d\.\d/)
      assert.match(json.stdout, /Redis \d+\.\d+/)
      assert.notMatch(json.stdout + text.stdout, /:\/\/[^/]*:[^/]*@/)
    })
  )

  it.effect("shows URLs that open the embedded servers, in development only", () =>
    Effect.gen(function* () {
      const [shown, refused] = yield* Effect.all(
        [doctor(["--show-urls", "--json"]), doctor(["--show-urls"], { env: { ENVIRONMENT: "testing" } })],
        { concurrency: 2 }
      )
      const { urls } = yield* asDiagnosis(shown)
      assert.match(urls?.redis ?? "", /^redis:\/\//)
      const logins = yield* Effect.forEach([urls?.app, urls?.migrator, urls?.superuser], (url) =>
        Effect.gen(function* () {
          const sql = yield* superuserClient(Redacted.make(url ?? ""))
          return (yield* sql`SELECT current_user AS name`)[0]?.["name"]
        })
      )
      assert.deepStrictEqual(logins, ["aa_app", "aa_migrator", "postgres"])
      assert.deepStrictEqual([refused.code, refused.stdout], [1, ""])
      assert.match(refused.stderr, /^Forbidden: .*testing\n$/)
    })
  )

  it.effect("names a Postgres that is down, and goes on with the rest", () =>
    Effect.gen(function* () {
      const env = { DATABASE_URL: closed, DATABASE_ADMIN_URL: closed }
      const outcome = yield* doctor(["--json"], { env })
      assert.strictEqual(outcome.code, 1)
      assert.strictEqual(outcome.stderr, "Unhealthy: not in order: postgres_app, postgres_migrator\n")
      const diagnosis = yield* asDiagnosis(outcome)
      assert.isFalse(diagnosis.ok)
      assert.deepStrictEqual(named(diagnosis, "failed"), ["postgres_app", "postgres_migrator"])
      assert.deepStrictEqual(named(diagnosis, "ok"), ["settings", "servers", "redis"])
      const detail = diagnosis.checks.find(({ name }) => name === "postgres_app")?.detail ?? ""
      for (const word of ["127.0.0.1:1", "ECONNREFUSED", "DATABASE_URL"]) assert.include(detail, word)
      assert.notInclude(outcome.stdout, "hunter2")
    })
  )

  it.effect("names a wrong setting, a Redis that is down, and a key that the registry does not know", () =>
    Effect.gen(function* () {
      yield* scopedTenant("any")
      const [setting, redis, key] = yield* Effect.all(
        [
          doctor(["--json"], { env: { PORT: "eighty" } }),
          doctor(["--json"], { env: { REDIS_URL: "redis://127.0.0.1:1" } }),
          doctor(["--json"], { env: { TENANT_CLAIM_KEY: Buffer.alloc(32, 1).toString("base64") } })
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual([setting.code, redis.code, key.code], [1, 1, 1])
      const found = yield* Effect.forEach([setting, redis, key], asDiagnosis)
      assert.deepStrictEqual(
        found.map((diagnosis) => named(diagnosis, "failed")),
        [["settings"], ["redis"], ["claim_key"]]
      )
      assert.include(found[0]?.checks[0]?.detail, "PORT")
    })
  )

  it.effect("names the tenants that are behind", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("behind")
      yield* setBack(slug, { sound: true })
      const outcome = yield* doctor(["--json"])
      assert.strictEqual(outcome.code, 1)
      const diagnosis = yield* asDiagnosis(outcome)
      assert.deepStrictEqual(named(diagnosis, "failed"), ["tenants"])
      const detail = diagnosis.checks.find(({ name }) => name === "tenants")?.detail ?? ""
      for (const word of [slug, "npm run migrate"]) assert.include(detail, word)
    })
  )
})
