import { Effect, Redacted } from "effect"
import { randomBytes } from "node:crypto"
import type { Role } from "../../src/domain/Principal.ts"
import type { TenantId } from "../../src/domain/Tenant.ts"
import { TenantSlug } from "../../src/domain/Tenant.ts"
import { makeClient } from "../../src/http/Client.ts"
import type { Client } from "../../src/http/Client.ts"
import { operatorKey, TestServer } from "./Platform.ts"

/** A tenant of a test's own, signed in as its first admin, and with an API key of every scope. */
export interface TestTenant {
  readonly id: TenantId
  readonly slug: TenantSlug
  readonly schema: string
  readonly email: string
  readonly password: string
  readonly accessToken: Redacted.Redacted<string>
  readonly apiKey: Redacted.Redacted<string>
  readonly asUser: Client
  readonly asService: Client
}

export const uniqueSlug = (name: string) => TenantSlug.make(`${name}-${randomBytes(4).toString("hex")}`)

export const operator = Effect.flatMap(TestServer, ({ url }) =>
  makeClient({ baseUrl: url, bearer: Redacted.make(operatorKey) })
)

/** Signs in over HTTP; gives both tokens. */
export const signInPair = Effect.fnUntraced(function* (tenant: string, email: string, password: string) {
  const { url } = yield* TestServer
  const anonymous = yield* makeClient({ baseUrl: url })
  return yield* anonymous.signIn.login({
    headers: { "x-tenant-id": tenant },
    payload: { email, password: Redacted.make(password) }
  })
})

/** The same, of which most need only the access token. */
export const signIn = (tenant: string, email: string, password: string) =>
  Effect.map(signInPair(tenant, email, password), (pair) => Redacted.make(pair.access_token))

/** Provisions a tenant over HTTP, as an operator would. `name` begins its slug. */
export const provisionTenant = Effect.fnUntraced(function* (name: string) {
  const { url } = yield* TestServer
  const control = yield* operator
  const slug = uniqueSlug(name)
  const email = `admin@${slug}.example`
  const password = `correct horse ${slug}`
  const tenant = yield* control.tenants.provision({
    payload: { slug, name, admin_email: email, admin_password: Redacted.make(password) }
  })
  const accessToken = yield* signIn(slug, email, password)
  const asUser = yield* makeClient({ baseUrl: url, bearer: accessToken })
  const made = yield* asUser.auth.createApiKey({ payload: { name: "test" } })
  const apiKey = Redacted.make(made.key)
  const asService = yield* makeClient({ baseUrl: url, apiKey })
  const provisioned: TestTenant = {
    id: tenant.id,
    slug,
    schema: tenant.schema_name,
    email,
    password,
    accessToken,
    apiKey,
    asUser,
    asService
  }
  return provisioned
})

/** One more user of a tenant, made by its admin and signed in. */
export const addUser = Effect.fnUntraced(function* (tenant: TestTenant, role: Role = "member") {
  const { url } = yield* TestServer
  const email = `${role}-${randomBytes(4).toString("hex")}@${tenant.slug}.example`
  const password = "staple a purple giraffe"
  const { id } = yield* tenant.asUser.users.create({
    payload: { email, role, password: Redacted.make(password) }
  })
  const pair = yield* signInPair(tenant.slug, email, password)
  const accessToken = Redacted.make(pair.access_token)
  const asUser = yield* makeClient({ baseUrl: url, bearer: accessToken })
  return { id, email, password, accessToken, refreshToken: pair.refresh_token, asUser }
})
