// Two instances under load, while the keys that everything is signed with are replaced.
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Redacted } from "effect"
import { decodeProtectedHeader } from "jose"
import { claimKeyId } from "../../src/services/Claims.ts"
import { PlatformKeys } from "../../src/services/PlatformKeys.ts"
import { Installation } from "../../src/layers/Installation.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { send } from "../support/RawHttp.ts"
import type { Call } from "../support/RawHttp.ts"
import { provisionTenant, signIn } from "../support/Tenants.ts"

const bearer = (token: Redacted.Redacted<string>) => ({ authorization: `Bearer ${Redacted.value(token)}` })
const kidOf = (token: Redacted.Redacted<string>) => decodeProtectedHeader(Redacted.value(token)).kid ?? ""
const notes = "/api/v1/records/notes"

layer(TestApp, onRealClock)("Rotating the platform's keys", (it) => {
  it.effect("under load refuses no request on any instance", () =>
    Effect.gen(function* () {
      const first = yield* TestServer
      const second = yield* startServer()
      const urls = [first.url, second.url]
      const tenant = yield* provisionTenant("skyvera")
      const keys = yield* PlatformKeys
      const { superuser: sql } = yield* TestDatabase
      const { tenantClaimKey } = yield* Installation
      const settingsKid = claimKeyId(tenantClaimKey)
      const apiKey = { "x-api-key": Redacted.value(tenant.apiKey) }
      const old = bearer(tenant.accessToken)

      const refused: Array<string> = []
      let answered = 0
      let newest = tenant.accessToken
      const ask = (call: Call, url: string) =>
        send(call, url).pipe(
          Effect.tap(({ status, text }) =>
            Effect.sync(() => {
              answered++
              if (status >= 300) refused.push(`${call.method} ${call.path}: ${status} ${text}`)
            })
          )
        )
      const round = (url: string) =>
        Effect.all([
          ask({ method: "GET", path: notes, headers: apiKey }, url),
          ask({ method: "POST", path: notes, headers: apiKey, body: { data: 1 } }, url),
          ask({ method: "GET", path: "/api/v1/auth/me", headers: old }, url),
          ask({ method: "GET", path: "/api/v1/auth/me", headers: bearer(newest) }, url)
        ])
      const signingIn = Effect.gen(function* () {
        newest = yield* signIn(tenant.slug, tenant.email, tenant.password)
        // At once on the instance that did not sign it.
        yield* ask({ method: "GET", path: "/api/v1/auth/me", headers: bearer(newest) }, second.url)
      })
      const load = yield* Effect.all(
        [...urls.map((url) => Effect.forever(round(url))), Effect.forever(signingIn)],
        { concurrency: "unbounded" }
      ).pipe(Effect.forkScoped)

      const [signing, claim] = yield* Effect.all([keys.rotate("signing"), keys.rotate("claim")])
      assert.strictEqual((yield* Effect.flip(keys.rotate("claim")))._tag, "Conflict")
      yield* eventually(
        "tokens are signed with the new key",
        Effect.sync(() => kidOf(newest)),
        (kid) => kid === signing.kid
      )
      const before = answered
      yield* eventually(
        "there was more load",
        Effect.sync(() => answered),
        (count) => count > before + 100
      )

      const jwks = yield* send({ method: "GET", path: "/.well-known/jwks.json" }, second.url)
      assert.include(jwks.text, signing.kid)
      assert.include(jwks.text, kidOf(tenant.accessToken))

      // As if the claims of the old key had expired long ago: its pads go, and nobody misses them.
      yield* sql`UPDATE shared.platform_keys SET retired_at = now() - interval '1 hour'
        WHERE kind = 'claim' AND kid = ${settingsKid}`
      yield* eventually(
        "the old pads are gone",
        sql<{ kid: string }>`SELECT kid FROM shared.claim_keys`,
        (rows) => rows.length === 1 && rows[0]?.kid === claim.kid
      )
      const after = answered
      yield* eventually(
        "there was more load",
        Effect.sync(() => answered),
        (count) => count > after + 100
      )
      yield* Fiber.interrupt(load)
      assert.deepStrictEqual(refused, [])

      // An instance that starts now finds its way in, and so does one's own provisioning.
      const third = yield* startServer()
      const answer = yield* send({ method: "GET", path: notes, headers: apiKey }, third.url)
      assert.strictEqual(answer.status, 200, answer.text)
      assert.include(answer.text, `"data":1`)
      yield* provisionTenant("jigtree")

      // A signing key whose tokens have all expired vanishes, and verifies no more.
      yield* sql`UPDATE shared.platform_keys SET retired_at = now() - interval '1 day'
        WHERE kind = 'signing' AND kid = ${kidOf(tenant.accessToken)}`
      yield* eventually(
        "the old key is not published",
        send({ method: "GET", path: "/.well-known/jwks.json" }, second.url),
        ({ text }) => !text.includes(kidOf(tenant.accessToken))
      )
      const late = yield* send({ method: "GET", path: "/api/v1/auth/me", headers: old }, second.url)
      assert.strictEqual(late.status, 401)
    })
  )
})
