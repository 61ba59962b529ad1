// The original's faults 11 and 14, of credentials that last for ever. Each test would fail on a system that has the fault.
import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Redacted } from "effect"
import { generateKeyPairSync, randomUUID } from "node:crypto"
import { SignJWT } from "jose"
import { member, sendJson } from "../support/Http.ts"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp, TestServer } from "../support/Platform.ts"
import { send } from "../support/RawHttp.ts"
import { operator, provisionTenant, signInPair } from "../support/Tenants.ts"

const me = (token: string) =>
  send({ method: "GET", path: "/api/v1/auth/me", headers: { authorization: `Bearer ${token}` } })

layer(TestApp, onRealClock)("The original's fault", (it) => {
  it.effect(
    "11, a signing key in the source: here a hosted platform does not start without one of its own",
    () =>
      Effect.gen(function* () {
        const refused = yield* Effect.flip(
          Effect.scoped(startServer({ ENVIRONMENT: "production", TOKEN_SIGNING_KEYS: "" }))
        )
        assert.include(String(refused), "TOKEN_SIGNING_KEYS")

        // And a token that somebody else signed is worth nothing, whatever it says.
        const acme = yield* provisionTenant("acme")
        const { privateKey } = generateKeyPairSync("ed25519")
        const forged = yield* Effect.promise(() =>
          new SignJWT({
            tenant_id: acme.id,
            tenant_slug: acme.slug,
            email: acme.email,
            role: "admin",
            sid: randomUUID()
          })
            .setProtectedHeader({ alg: "EdDSA" })
            .setSubject(randomUUID())
            .setIssuer("agent-army")
            .setAudience("agent-army/testing")
            .setIssuedAt()
            .setExpirationTime("1h")
            .sign(privateKey)
        )
        assert.strictEqual((yield* me(forged)).status, 401)
        assert.strictEqual((yield* me(Redacted.value(acme.accessToken))).status, 200)
      })
  )

  it.effect("11, refresh tokens that never rotate and never end: here each is good once", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const first = yield* signInPair(acme.slug, acme.email, acme.password)
      const refresh = (token: string) => sendJson("POST", "/api/v1/auth/refresh", { refresh_token: token })
      const second = yield* refresh(first.refresh_token)
      assert.strictEqual(second.status, 200)
      const successor = String(member(second.json, "refresh_token"))
      assert.notStrictEqual(successor, first.refresh_token)
      // The successor has been used: whoever comes with the first one now has stolen it, or was stolen from.
      assert.strictEqual((yield* refresh(successor)).status, 200)
      assert.strictEqual((yield* refresh(first.refresh_token)).status, 401)
      yield* eventually("the session has ended", me(first.access_token), ({ status }) => status === 401, 1000)
    })
  )

  it.effect("11, CORS for everyone with credentials: here never both", () =>
    Effect.gen(function* () {
      const { url } = yield* startServer({ CORS_ALLOWED_ORIGINS: "*" })
      const ask = (headers: Readonly<Record<string, string>>) =>
        Effect.provideService(
          send({ method: "GET", path: "/health", headers: { origin: "https://evil.example", ...headers } }),
          TestServer,
          { url }
        )
      const everyone = yield* ask({})
      assert.strictEqual(everyone.headers["access-control-allow-origin"], "*")
      assert.isUndefined(everyone.headers["access-control-allow-credentials"])
      const nobody = yield* send({
        method: "GET",
        path: "/health",
        headers: { origin: "https://evil.example" }
      })
      assert.isUndefined(nobody.headers["access-control-allow-origin"])
    })
  )

  it.effect("14, that keys can't be listed, expire or be revoked, nor tenants suspended: here they can", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const control = yield* operator
      const use = (key: string) =>
        send({ method: "GET", path: "/api/v1/records/notes", headers: { "x-api-key": key } })
      const refusedWithinASecond = (key: string, status: number) =>
        eventually("the key is refused", use(key), (answer) => answer.status === status, 1000)
      const make = (expiresAt?: DateTime.Utc) =>
        acme.asUser.auth.createApiKey({
          payload: { name: "one of many", ...(expiresAt !== undefined && { expires_at: expiresAt }) }
        })

      const soon = DateTime.add(yield* DateTime.now, { seconds: 2 })
      const short = yield* make(soon)
      const revoked = yield* make()
      const kept = yield* make()
      const { items } = yield* acme.asUser.auth.listApiKeys({ query: {} })
      assert.includeMembers(
        items.map(({ id }) => id),
        [short.id, revoked.id, kept.id]
      )
      for (const { key } of [short, revoked, kept]) assert.strictEqual((yield* use(key)).status, 200)

      yield* acme.asUser.auth.revokeApiKey({ params: { id: revoked.id } })
      yield* refusedWithinASecond(revoked.key, 401)
      yield* eventually("the key has expired", use(short.key), ({ status }) => status === 401, 3000)
      assert.strictEqual((yield* use(kept.key)).status, 200)

      yield* control.tenants.suspend({ params: { tenant: acme.id } })
      yield* refusedWithinASecond(kept.key, 403)
      yield* control.tenants.activate({ params: { tenant: acme.id } })
      yield* eventually("the tenant is back", use(kept.key), ({ status }) => status === 200, 1000)
    })
  )
})
