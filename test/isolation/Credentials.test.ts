// Which tenant a request speaks for: what its credential says, and nothing else.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { randomUUID } from "node:crypto"
import { onRealClock, operatorKey, TestApp } from "../support/Platform.ts"
import { comparable, credentialsOf, send } from "../support/RawHttp.ts"
import type { Answer, Call } from "../support/RawHttp.ts"
import { rowsOf } from "../support/RawSession.ts"
import { provisionTenant, uniqueSlug } from "../support/Tenants.ts"

const bearer = (value: string) => ({ authorization: `Bearer ${value}` })
const operator = bearer(operatorKey)

/** One call of each kind in a tenant: reading rows, writing rows, Redis, and the account. */
const inTenant: ReadonlyArray<Call> = [
  { method: "GET", path: "/api/v1/records/notes" },
  { method: "POST", path: "/api/v1/records/notes", body: { data: "planted" } },
  { method: "GET", path: `/api/v1/records/notes/${randomUUID()}` },
  { method: "PUT", path: "/api/v1/state/mood", body: { value: "planted" } },
  { method: "GET", path: "/api/v1/auth/me" },
  { method: "GET", path: "/api/v1/auth/api-keys" }
]

const onControlPlane = (tenant: string): ReadonlyArray<Call> => [
  { method: "GET", path: "/api/v1/tenants" },
  { method: "POST", path: "/api/v1/tenants", body: { slug: uniqueSlug("mine"), name: "Mine" } },
  { method: "GET", path: `/api/v1/tenants/${tenant}` },
  { method: "PATCH", path: `/api/v1/tenants/${tenant}`, body: { name: "Mine" } },
  { method: "POST", path: `/api/v1/tenants/${tenant}/suspend` },
  { method: "POST", path: `/api/v1/tenants/${tenant}/activate` }
]

const codeOf = ({ text }: Answer): unknown => {
  const body: unknown = JSON.parse(text)
  return typeof body === "object" && body !== null && "code" in body ? body.code : undefined
}

const withHeaders = (call: Call, headers: Readonly<Record<string, string>>): Call => ({
  ...call,
  headers: { ...call.headers, ...headers }
})

const assertAll = Effect.fnUntraced(function* (
  calls: ReadonlyArray<Call>,
  headers: Readonly<Record<string, string>>,
  status: number,
  code: string
) {
  const seen = new Set<string>()
  for (const call of calls) {
    const answer = yield* send(withHeaders(call, headers))
    const what = `${call.method} ${call.path} with ${Object.keys(headers).join(" and ")}`
    assert.strictEqual(answer.status, status, `${what}: ${answer.text}`)
    assert.strictEqual(codeOf(answer), code, what)
    seen.add(comparable(answer))
  }
  // One answer for all, so that none tells more than the others.
  assert.strictEqual(seen.size, 1)
  return seen
})

const twoTenants = Effect.all({ a: provisionTenant("skyvera"), b: provisionTenant("jigtree") })

layer(TestApp, onRealClock)("A request", (it) => {
  it.effect(
    "that names another tenant is CrossTenantAccess, byte for byte the same where there is no such tenant",
    () =>
      Effect.gen(function* () {
        const { a, b } = yield* twoTenants
        const before = yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)])
        const others = [
          b.id,
          b.slug,
          b.id.toUpperCase(),
          randomUUID(),
          uniqueSlug("nobody"),
          "x",
          "..",
          "a.b",
          "*"
        ]
        for (const headers of Object.values(credentialsOf(a))) {
          const answers = new Set<string>()
          for (const other of others) {
            const seen = yield* assertAll(
              inTenant,
              { ...headers, "x-tenant-id": other },
              403,
              "CrossTenantAccess"
            )
            for (const answer of seen) answers.add(answer)
          }
          assert.strictEqual(answers.size, 1)
        }
        assert.deepStrictEqual(yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)]), before)
      })
  )

  it.effect("may name its own tenant, by id or slug", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      for (const own of [a.id, a.id.toUpperCase(), a.slug]) {
        for (const headers of Object.values(credentialsOf(a))) {
          const answer = yield* send({
            method: "GET",
            path: "/api/v1/records/notes",
            headers: { ...headers, "x-tenant-id": own }
          })
          assert.strictEqual(answer.status, 200, own)
        }
      }
    })
  )

  it.effect("with credentials of two tenants is CrossTenantAccess, whichever stands first", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const before = yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)])
      for (const [first, second] of [
        [a, b],
        [b, a]
      ] as const) {
        const key = { "x-api-key": Redacted.value(second.apiKey) }
        for (const value of [Redacted.value(first.accessToken), Redacted.value(first.apiKey)]) {
          for (const named of [{}, { "x-tenant-id": a.slug }, { "x-tenant-id": b.slug }]) {
            yield* assertAll(inTenant, { ...bearer(value), ...key, ...named }, 403, "CrossTenantAccess")
          }
        }
      }
      assert.deepStrictEqual(yield* Effect.all([rowsOf(a.schema), rowsOf(b.schema)]), before)

      const both = { ...bearer(Redacted.value(a.accessToken)), "x-api-key": Redacted.value(a.apiKey) }
      const answer = yield* send({ method: "GET", path: "/api/v1/auth/me", headers: both })
      assert.strictEqual(answer.status, 200)
    })
  )

  it.effect("with one credential that holds and one that does not is Unauthenticated", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      const token = Redacted.value(a.accessToken)
      const key = Redacted.value(a.apiKey)
      const otherSecret = key.slice(0, -43) + "0".repeat(43)
      yield* assertAll(inTenant, { ...bearer(token), "x-api-key": otherSecret }, 401, "Unauthenticated")
      yield* assertAll(inTenant, { ...bearer("x"), "x-api-key": key }, 401, "Unauthenticated")
    })
  )

  it.effect("with nothing but X-Tenant-ID is Unauthenticated", () =>
    Effect.gen(function* () {
      const { a } = yield* twoTenants
      const answers = new Set<string>()
      for (const headers of [
        {},
        { "x-tenant-id": a.slug },
        { "x-tenant-id": a.id },
        { "x-tenant-id": "nobody" }
      ]) {
        for (const answer of yield* assertAll(inTenant, headers, 401, "Unauthenticated")) answers.add(answer)
      }
      assert.strictEqual(answers.size, 1)
    })
  )

  it.effect("with a credential that was bent to another tenant is Unauthenticated", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      const hex = (id: string) => id.replaceAll("-", "")
      const [header = "", payload = "", signature = ""] = Redacted.value(a.accessToken).split(".")
      const claims = Buffer.from(payload, "base64url")
        .toString()
        .replaceAll(a.id, b.id)
        .replaceAll(a.slug, b.slug)
      const bent = Buffer.from(claims).toString("base64url")
      const none = Buffer.from(JSON.stringify({ alg: "none", typ: "JWT" })).toString("base64url")
      const key = Redacted.value(a.apiKey)
      for (const value of [
        `${header}.${bent}.${signature}`,
        `${none}.${bent}.`,
        key.replace(hex(a.id), hex(b.id)),
        key.replace("aa_testing_", "aa_production_")
      ]) {
        assert.notStrictEqual(value, key)
        yield* assertAll(inTenant, bearer(value), 401, "Unauthenticated")
      }
    })
  )

  it.effect("with the operator key opens no tenant's data, whatever tenant it names", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      for (const named of [
        {},
        { "x-tenant-id": a.slug },
        { "x-tenant-id": a.id },
        { "x-tenant-id": "nobody" }
      ]) {
        yield* assertAll(inTenant, { ...operator, ...named }, 403, "Forbidden")
      }
      // Beside a tenant's key it is a second credential, of nobody's tenant.
      const both = { ...operator, "x-api-key": Redacted.value(a.apiKey) }
      yield* assertAll(inTenant, both, 403, "CrossTenantAccess")
      yield* assertAll(inTenant, { "x-api-key": operatorKey }, 401, "Unauthenticated")
    })
  )

  it.effect("of a tenant has no way into the control plane, not even to itself", () =>
    Effect.gen(function* () {
      const { a, b } = yield* twoTenants
      for (const headers of Object.values(credentialsOf(a))) {
        for (const tenant of [a.slug, b.slug, b.id]) {
          yield* assertAll(onControlPlane(tenant), headers, 403, "Forbidden")
        }
      }
    })
  )

  it.effect("without a credential has no way into the control plane", () =>
    Effect.gen(function* () {
      const a = yield* provisionTenant("skyvera")
      for (const headers of [
        {},
        { "x-tenant-id": a.slug },
        bearer("aa_op_guess"),
        bearer(`${operatorKey}x`)
      ]) {
        yield* assertAll(onControlPlane(a.slug), headers, 401, "Unauthenticated")
      }
      const listed = yield* send({ method: "GET", path: `/api/v1/tenants/${a.slug}`, headers: operator })
      assert.strictEqual(listed.status, 200)
      assert.include(listed.text, `"status":"active"`)
    })
  )
})
