import { assert, layer } from "@effect/vitest"
import { DateTime, Effect, Redacted } from "effect"
import {
  createLocalJWKSet,
  decodeJwt,
  decodeProtectedHeader,
  exportJWK,
  generateKeyPair,
  jwtVerify,
  SignJWT
} from "jose"
import { createHmac } from "node:crypto"
import { CollectionName } from "../../src/domain/Record.ts"
import { StateKey } from "../../src/domain/State.ts"
import { makeClient } from "../../src/http/Client.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, startServer, TestApp, TestDatabase, TestServer } from "../support/Platform.ts"
import { addUser, provisionTenant, signIn } from "../support/Tenants.ts"

const notes = CollectionName.make("notes")
const anyKey = StateKey.make("any")

const me = (token: string) => send("/api/v1/auth/me", { headers: { authorization: `Bearer ${token}` } })

const base64url = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url")

layer(TestApp, onRealClock)("signing in", (it) => {
  it.effect("gives a token with the claims of the contract, which the published keys verify", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const answer = yield* sendJson(
        "POST",
        "/api/v1/auth/login",
        { email: acme.email, password: acme.password },
        { "x-tenant-id": acme.id }
      )
      assert.strictEqual(answer.status, 200)
      assert.strictEqual(member(answer.json, "token_type"), "bearer")
      assert.strictEqual(member(answer.json, "expires_in"), 1800)
      assert.isString(member(answer.json, "refresh_token"))
      assert.strictEqual(answer.headers.get("cache-control"), "no-store")
      const token = String(member(answer.json, "access_token"))

      const jwks = yield* send("/.well-known/jwks.json")
      assert.notInclude(jwks.text, `"d"`)
      const keys = createLocalJWKSet(JSON.parse(jwks.text))
      const { payload, protectedHeader } = yield* Effect.promise(() =>
        jwtVerify(token, keys, { issuer: "agent-army", audience: "agent-army/testing" })
      )
      assert.strictEqual(protectedHeader.alg, "EdDSA")
      assert.strictEqual(payload["tenant_id"], acme.id)
      assert.strictEqual(payload["tenant_slug"], acme.slug)
      assert.strictEqual(payload["email"], acme.email)
      assert.strictEqual(payload["role"], "admin")
      assert.strictEqual(payload["type"], "access")
      for (const claim of ["sub", "iss", "aud", "iat", "exp", "jti", "sid"]) assert.property(payload, claim)
      assert.strictEqual((payload.exp ?? 0) - (payload.iat ?? 0), 1800)

      const who = yield* me(token)
      assert.deepStrictEqual(who.json, {
        id: String(payload.sub),
        email: acme.email,
        name: null,
        role: "admin",
        tenant_id: acme.id,
        tenant_slug: acme.slug
      })
    })
  )

  it.effect("answers a wrong tenant, address and password with the same bytes", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const tries = [
        { tenant: acme.slug, email: acme.email, password: "wrong password" },
        { tenant: acme.slug, email: "nobody@acme.example", password: acme.password },
        { tenant: "no-such-tenant", email: acme.email, password: acme.password },
        { tenant: "' OR '1'='1", email: acme.email, password: acme.password },
        { tenant: acme.slug, email: "", password: "" }
      ]
      const id = "6f1c1f0e-58a5-4b5a-9a86-6d9c1d3c1b11"
      const answers = yield* Effect.forEach(tries, ({ email, password, tenant }) =>
        sendJson(
          "POST",
          "/api/v1/auth/login",
          { email, password },
          { "x-tenant-id": tenant, "x-request-id": id }
        )
      )
      for (const answer of answers) {
        assert.strictEqual(answer.status, 401)
        assert.strictEqual(code(answer), "InvalidCredentials")
        assert.strictEqual(answer.text, answers[0]?.text)
      }
    })
  )

  it.effect("does the same work for an account that does not exist as for a wrong password", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const time = (tenant: string, email: string) =>
        Effect.gen(function* () {
          const start = performance.now()
          yield* sendJson(
            "POST",
            "/api/v1/auth/login",
            { email, password: "wrong" },
            { "x-tenant-id": tenant }
          )
          return performance.now() - start
        })
      // Side by side in turns, so that what slows the machine down slows all three.
      const rounds = 15
      const times = { wrong: [0], user: [0], tenant: [0] }
      for (let round = 0; round < rounds; round++) {
        times.wrong.push(yield* time(acme.slug, acme.email))
        times.user.push(yield* time(acme.slug, "nobody@acme.example"))
        times.tenant.push(yield* time("no-such-tenant", acme.email))
      }
      const median = (list: ReadonlyArray<number>) =>
        list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN
      // Without the hash for nobody the ratio is below a tenth; the bounds leave room for a noisy machine.
      for (const other of [median(times.user), median(times.tenant)]) {
        assert.isAbove(other / median(times.wrong), 0.4)
        assert.isBelow(other / median(times.wrong), 2.5)
      }
    })
  )

  it.effect("needs to be told the tenant", () =>
    Effect.gen(function* () {
      const answer = yield* sendJson("POST", "/api/v1/auth/login", { email: "a@b.example", password: "x" })
      assert.strictEqual(answer.status, 400)
      assert.include(answer.text, "x-tenant-id")
    })
  )

  it.effect("refuses every forged token with the same 401", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const token = Redacted.value(acme.accessToken)
      const claims = decodeJwt(token)
      const { kid } = decodeProtectedHeader(token)
      const other = yield* Effect.promise(() =>
        generateKeyPair("EdDSA", { crv: "Ed25519", extractable: true })
      )
      const publicKey = yield* Effect.promise(() => exportJWK(other.publicKey))
      const signed = (header: Record<string, unknown>, payload: Record<string, unknown> = claims) =>
        Effect.promise(() =>
          new SignJWT(payload)
            .setProtectedHeader({ alg: "EdDSA", typ: "JWT", ...header })
            .sign(other.privateKey)
        )
      const [head = "", body = "", signature = ""] = token.split(".")
      const jwks = yield* send("/.well-known/jwks.json")
      const hmacInput = `${base64url({ alg: "HS256", typ: "JWT", kid })}.${body}`
      const forged: Record<string, string> = {
        "alg none": `${base64url({ alg: "none", typ: "JWT" })}.${body}.`,
        "alg none with the kid": `${base64url({ alg: "none", typ: "JWT", kid })}.${body}.`,
        "HMAC with the public key as its secret": `${hmacInput}.${createHmac("sha256", jwks.text).update(hmacInput).digest("base64url")}`,
        "another key": yield* signed({ kid: "another" }),
        "another key under our kid": yield* signed({ kid }),
        "no kid": yield* signed({}),
        "a key of its own in the header": yield* signed({ kid, jwk: publicKey }),
        "another tenant in the body": `${head}.${base64url({ ...claims, tenant_id: "00000000-0000-4000-8000-000000000000" })}.${signature}`,
        "no signature": `${head}.${body}.`,
        "cut short": token.slice(0, -2),
        "not a token": "abc.def.ghi"
      }
      const expected = yield* send("/api/v1/auth/me", {
        headers: { "x-request-id": "6f1c1f0e-58a5-4b5a-9a86-6d9c1d3c1b11" }
      })
      assert.strictEqual(expected.status, 401)
      for (const [name, value] of Object.entries(forged)) {
        const answer = yield* send("/api/v1/auth/me", {
          headers: {
            authorization: `Bearer ${value}`,
            "x-request-id": "6f1c1f0e-58a5-4b5a-9a86-6d9c1d3c1b11"
          }
        })
        assert.strictEqual(answer.status, 401, name)
        assert.strictEqual(answer.text, expected.text, name)
      }
      assert.strictEqual((yield* me(token)).status, 200)
    })
  )

  it.effect("a token and a key of one environment are worthless in another", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const elsewhere = yield* startServer({ ENVIRONMENT: "development" })
      const there = Effect.provideService(TestServer, elsewhere)
      const token = yield* me(Redacted.value(acme.accessToken)).pipe(there)
      const key = yield* send("/api/v1/records/notes", {
        headers: { "x-api-key": Redacted.value(acme.apiKey) }
      }).pipe(there)
      assert.deepStrictEqual([token.status, key.status], [401, 401])
      // The same database and the same signing keys: only the environment differs.
      const local = yield* signIn(acme.slug, acme.email, acme.password).pipe(there)
      assert.strictEqual((yield* me(Redacted.value(local)).pipe(there)).status, 200)
      assert.strictEqual((yield* me(Redacted.value(local))).status, 401)
    })
  )
})

layer(TestApp, onRealClock)("API keys", (it) => {
  it.effect("are shown once and listed without the key", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const made = yield* acme.asUser.auth.createApiKey({
        payload: { name: "reports", scopes: ["records:read"] }
      })
      assert.match(made.key, /^aa_testing_[0-9a-f]{64}_[A-Za-z0-9]{43}$/)
      assert.isTrue(made.key.startsWith(made.prefix))
      assert.deepStrictEqual(made.scopes, ["records:read"])
      assert.isNull(made.expires_at)

      const list = yield* send("/api/v1/auth/api-keys", {
        headers: { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
      })
      assert.strictEqual(list.status, 200)
      assert.include(list.text, made.id)
      assert.notInclude(list.text, made.key.slice(-43))

      const { superuser: sql } = yield* TestDatabase
      const stored = yield* sql`SELECT * FROM ${sql(`${acme.schema}.api_keys`)}`
      assert.notInclude(JSON.stringify(stored), made.key.slice(-43))
    })
  )

  it.effect("open what their scopes say, and nothing else", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { url } = yield* TestServer
      const made = yield* acme.asUser.auth.createApiKey({
        payload: { name: "reader", scopes: ["records:read"] }
      })
      const reader = yield* makeClient({ baseUrl: url, bearer: Redacted.make(made.key) })
      yield* reader.records.list({ params: { collection: notes }, query: {} })
      const refused = [
        yield* Effect.flip(reader.records.create({ params: { collection: notes }, payload: { data: 1 } })),
        yield* Effect.flip(reader.state.get({ params: { key: anyKey } })),
        yield* Effect.flip(reader.auth.me()),
        yield* Effect.flip(reader.auth.createApiKey({ payload: { name: "more" } })),
        yield* Effect.flip(reader.auth.listApiKeys({ query: {} }))
      ]
      assert.deepStrictEqual(
        refused.map((error) => error._tag),
        refused.map(() => "Forbidden")
      )
      const wildcard = yield* acme.asUser.auth.createApiKey({
        payload: { name: "state", scopes: ["state:*"] }
      })
      const stateful = yield* makeClient({ baseUrl: url, apiKey: Redacted.make(wildcard.key) })
      yield* stateful.state.put({ params: { key: anyKey }, payload: { value: 1 } })
      assert.strictEqual((yield* stateful.state.get({ params: { key: anyKey } })).value, 1)
    })
  )

  it.effect("a member makes keys with a member's scopes at the most, and sees only their own", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { asUser: member } = yield* addUser(acme)
      const refused = yield* Effect.flip(
        member.auth.createApiKey({ payload: { name: "too much", scopes: ["records:read", "users:*"] } })
      )
      assert.strictEqual(refused._tag, "Forbidden")
      const made = yield* member.auth.createApiKey({ payload: { name: "mine" } })
      assert.notInclude(made.scopes, "users:*")
      const mine = yield* member.auth.listApiKeys({ query: {} })
      assert.deepStrictEqual(
        mine.items.map((key) => key.name),
        ["mine"]
      )
      const all = yield* acme.asUser.auth.listApiKeys({ query: {} })
      assert.deepStrictEqual(
        all.items.map((key) => key.name),
        ["test", "mine"]
      )
    })
  )

  it.effect("stop at their time, and can't be made with one that has passed", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const past = DateTime.subtract(yield* DateTime.now, { minutes: 1 })
      const refused = yield* Effect.flip(
        acme.asUser.auth.createApiKey({ payload: { name: "late", expires_at: past } })
      )
      assert.strictEqual(refused._tag, "InvalidRequest")

      const made = yield* acme.asUser.auth.createApiKey({
        payload: { name: "short", expires_at: DateTime.add(yield* DateTime.now, { hours: 1 }) }
      })
      const { superuser: sql } = yield* TestDatabase
      yield* sql`UPDATE ${sql(`${acme.schema}.api_keys`)} SET expires_at = now() - interval '1 second' WHERE id = ${made.id}`
      const answer = yield* send("/api/v1/records/notes", { headers: { "x-api-key": made.key } })
      assert.strictEqual(answer.status, 401)
    })
  )

  it.effect("with another secret, id or tenant open nothing", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const other = yield* provisionTenant("other")
      const key = Redacted.value(acme.apiKey)
      const [prefix = "", environment = "", ids = "", secret = ""] = key.split("_")
      const otherIds = Redacted.value(other.apiKey).split("_")[2] ?? ""
      const altered = [
        `${prefix}_${environment}_${ids}_${secret.slice(0, -1)}${secret.endsWith("a") ? "b" : "a"}`,
        `${prefix}_${environment}_${"0".repeat(32)}${ids.slice(32)}_${secret}`,
        `${prefix}_${environment}_${ids.slice(0, 32)}${otherIds.slice(32)}_${secret}`,
        `${prefix}_${environment}_${otherIds}_${secret}`,
        `${prefix}_production_${ids}_${secret}`,
        `${key}x`,
        key.toUpperCase()
      ]
      for (const value of altered) {
        const answer = yield* send("/api/v1/records/notes", { headers: { "x-api-key": value } })
        assert.strictEqual(answer.status, 401, value)
      }
      const right = yield* send("/api/v1/records/notes", { headers: { "x-api-key": key } })
      assert.strictEqual(right.status, 200)
    })
  )
})
