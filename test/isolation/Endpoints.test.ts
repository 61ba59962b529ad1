// Every endpoint of a tenant, called by another tenant. The list of endpoints is the Api itself: one that is added
// without a case here fails the first test.
import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { HttpApi } from "effect/http-api"
import { randomUUID } from "node:crypto"
import { CollectionName } from "../../src/domain/Record.ts"
import { SecretName } from "../../src/domain/Secret.ts"
import { StateKey } from "../../src/domain/State.ts"
import { OperatorOnly } from "../../src/http/Access.ts"
import { Api } from "../../src/http/Api.ts"
import { Authentication } from "../../src/http/Authentication.ts"
import { TenantScope } from "../../src/http/TenantScope.ts"
import { onRealClock, TestDatabase, TestApp } from "../support/Platform.ts"
import { keysOfData } from "../support/RedisKeys.ts"
import { comparable, credentialsOf, everything, send } from "../support/RawHttp.ts"
import type { Call } from "../support/RawHttp.ts"
import { rowsOf } from "../support/RawSession.ts"
import { addUser, operator, provisionTenant } from "../support/Tenants.ts"

const notes = CollectionName.make("notes")

/** What names something of one tenant: A's own, or what was never anybody's. */
interface Names {
  readonly recordId: string
  readonly stateKey: string
  readonly recordCursor: string
  readonly keyId: string
  readonly keyCursor: string
  readonly userId: string
  readonly userCursor: string
  readonly auditCursor: string
  readonly group: string
  readonly secretName: string
  readonly secretCursor: string
}

type Case =
  /** Names an object: for another tenant's it must be 404, the same as for one that never existed. */
  | { readonly names: (names: Names) => Call }
  /** Lists from a cursor on: another tenant's cursor is just a place in the order. */
  | { readonly lists: (names: Names) => Call }
  /** Names nothing of anybody's. */
  | { readonly own: Call }

const user = ({ userId }: Names) => `/api/v1/users/${userId}`
const changes = [
  { name: "Mallory" },
  { role: "member" },
  { is_active: false },
  { email: "mallory@jigtree.example", password: "staple a purple giraffe" }
]

const asJson = (data: unknown) => ({ data })

const ifMatch = (version: string, call: (names: Names) => Call) => (names: Names) => ({
  ...call(names),
  headers: { "if-match": version }
})
const record = ({ recordId }: Names) => `/api/v1/records/notes/${recordId}`
const replace = (names: Names): Call => ({ method: "PUT", path: record(names), body: asJson("theirs") })
const remove = (names: Names): Call => ({ method: "DELETE", path: record(names) })
const versions = [`"1"`, `"2"`, "*", `W/"1"`, "nonsense"]

const named = { model: "fast" }
const greeting = { role: "user", content: "Hi" }

const cases: Readonly<Record<string, ReadonlyArray<Case>>> = {
  "auth.me": [{ own: { method: "GET", path: "/api/v1/auth/me" } }],
  "auth.createApiKey": [{ own: { method: "POST", path: "/api/v1/auth/api-keys", body: { name: "mine" } } }],
  "auth.listApiKeys": [
    { own: { method: "GET", path: "/api/v1/auth/api-keys?limit=200" } },
    { lists: ({ keyCursor }) => ({ method: "GET", path: `/api/v1/auth/api-keys?cursor=${keyCursor}` }) }
  ],
  "auth.changePassword": [
    {
      own: {
        method: "POST",
        path: "/api/v1/auth/password",
        body: { current_password: "not the password", new_password: "staple a purple giraffe" }
      }
    }
  ],
  "users.create": [{ own: { method: "POST", path: "/api/v1/users", body: { email: "me@jigtree.example" } } }],
  "users.list": [
    { own: { method: "GET", path: "/api/v1/users?limit=200" } },
    { lists: ({ userCursor }) => ({ method: "GET", path: `/api/v1/users?cursor=${userCursor}` }) }
  ],
  "users.get": [{ names: (names) => ({ method: "GET", path: user(names) }) }],
  "users.update": changes.map((body) => ({
    names: (names) => ({ method: "PATCH", path: user(names), body })
  })),
  "users.remove": [{ names: (names) => ({ method: "DELETE", path: user(names) }) }],
  "auth.revokeApiKey": [
    { names: ({ keyId }) => ({ method: "DELETE", path: `/api/v1/auth/api-keys/${keyId}` }) }
  ],
  "auth.rotateApiKey": [
    { names: ({ keyId }) => ({ method: "POST", path: `/api/v1/auth/api-keys/${keyId}/rotate`, body: {} }) }
  ],
  "audit.list": [
    { own: { method: "GET", path: "/api/v1/audit?limit=200" } },
    { lists: ({ auditCursor }) => ({ method: "GET", path: `/api/v1/audit?cursor=${auditCursor}` }) }
  ],
  "records.create": [{ own: { method: "POST", path: "/api/v1/records/notes", body: asJson("mine") } }],
  "records.list": [
    { own: { method: "GET", path: "/api/v1/records/notes?limit=200" } },
    { lists: ({ recordCursor }) => ({ method: "GET", path: `/api/v1/records/notes?cursor=${recordCursor}` }) }
  ],
  "records.get": [
    { names: (names) => ({ method: "GET", path: record(names) }) },
    // Not 304 either: that would tell that it is there, and in which version.
    ...versions.map((version) => ({
      names: (names: Names): Call => ({
        method: "GET",
        path: record(names),
        headers: { "if-none-match": version }
      })
    }))
  ],
  "records.replace": [replace, ...versions.map((version) => ifMatch(version, replace))].map((names) => ({
    names
  })),
  "records.remove": [remove, ...versions.map((version) => ifMatch(version, remove))].map((names) => ({
    names
  })),
  "state.put": [{ own: { method: "PUT", path: "/api/v1/state/mood", body: { value: "mine" } } }],
  "state.get": [{ names: ({ stateKey }) => ({ method: "GET", path: `/api/v1/state/${stateKey}` }) }],
  "state.remove": [{ names: ({ stateKey }) => ({ method: "DELETE", path: `/api/v1/state/${stateKey}` }) }],
  "secrets.put": [{ own: { method: "PUT", path: "/api/v1/secrets/mine", body: { value: "mine" } } }],
  "secrets.list": [
    { own: { method: "GET", path: "/api/v1/secrets?limit=200" } },
    { lists: ({ secretCursor }) => ({ method: "GET", path: `/api/v1/secrets?cursor=${secretCursor}` }) }
  ],
  "secrets.remove": [
    { names: ({ secretName }) => ({ method: "DELETE", path: `/api/v1/secrets/${secretName}` }) }
  ],
  "events.publish": [
    { own: { method: "POST", path: "/api/v1/events/tickets", body: { type: "mine", data: "mine" } } }
  ],
  // An answer without an end: the head is enough here, and Events.test.ts reads on.
  "events.subscribe": [
    { own: { method: "HEAD", path: "/api/v1/events/tickets", headers: { "last-event-id": "0-0" } } }
  ],
  "llm.complete": [
    { own: { method: "POST", path: "/api/v1/llm/completion", body: { ...named, messages: [greeting] } } }
  ],
  "llm.stream": [
    {
      own: { method: "POST", path: "/api/v1/llm/completion/stream", body: { ...named, messages: [greeting] } }
    }
  ],
  "llm.usage": [{ own: { method: "GET", path: "/api/v1/llm/usage?group_by=key" } }],
  "openai.chat": [
    { own: { method: "POST", path: "/v1/chat/completions", body: { ...named, messages: [greeting] } } }
  ],
  "openai.responses": [{ own: { method: "POST", path: "/v1/responses", body: { ...named, input: "Hi" } } }],
  "openai.embeddings": [{ own: { method: "POST", path: "/v1/embeddings", body: { ...named, input: "Hi" } } }],
  "openai.models": [{ own: { method: "GET", path: "/v1/models" } }],
  // Another tenant's group is a name like any other that nobody has.
  "openai.model": [{ names: ({ group }) => ({ method: "GET", path: `/v1/models/${group}` }) }],
  // No upgrade: what is refused is enough here, and Realtime.test.ts goes on.
  "openai.realtime": [{ own: { method: "GET", path: "/v1/realtime?model=voice" } }],
  "openai.clientSecret": [
    { own: { method: "POST", path: "/v1/realtime/client_secrets", body: { session: { model: "voice" } } } }
  ],
  "anthropic.messages": [
    { own: { method: "POST", path: "/v1/messages", body: { ...named, max_tokens: 9, messages: [greeting] } } }
  ],
  "anthropic.countTokens": [
    { own: { method: "POST", path: "/v1/messages/count_tokens", body: { ...named, messages: [greeting] } } }
  ],
  // The last, since the access token is worth nothing after it.
  "auth.logout": [{ own: { method: "POST", path: "/api/v1/auth/logout" } }]
}

/** Signing in, the public keys and health: what anybody may ask. A new one has to be put here on purpose. */
const open = [
  "signIn.login",
  "signIn.refresh",
  "keys.jwks",
  "system.health",
  "system.ready",
  "system.startup"
]

const endpoints = () => {
  const ofTenants: Array<string> = []
  const ofOperators: Array<string> = []
  const ofAnybody: Array<string> = []
  HttpApi.reflect(Api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint, group, middleware }) => {
      const keys = new Set([...middleware].map(({ key }) => key))
      const name = `${group.identifier}.${endpoint.identifier}`
      if (keys.has(TenantScope.key)) ofTenants.push(name)
      else if (keys.has(OperatorOnly.key) && keys.has(Authentication.key)) ofOperators.push(name)
      else ofAnybody.push(name)
    }
  })
  return { ofTenants, ofOperators, ofAnybody }
}

/** Tenant A with something of every kind, each with a text in it that nobody else may see. */
const victim = Effect.gen(function* () {
  const tenant = yield* provisionTenant("skyvera")
  const secret = `secret-of-${tenant.slug}`
  const params = { collection: notes }
  const first = yield* tenant.asUser.records.create({ params, payload: { data: { secret } } })
  yield* tenant.asUser.records.create({ params, payload: { data: { secret, second: true } } })
  const stateKey = StateKey.make(`mood-of-${tenant.slug}`)
  // As a person: when a key was used is written down seconds later, and what is stored is compared.
  yield* tenant.asUser.state.put({ params: { key: stateKey }, payload: { value: secret } })
  yield* tenant.asUser.state.put({ params: { key: StateKey.make("mood") }, payload: { value: secret } })
  yield* tenant.asUser.auth.createApiKey({ payload: { name: secret } })
  const records = yield* tenant.asUser.records.list({ params, query: { limit: 1 } })
  const keys = yield* tenant.asUser.auth.listApiKeys({ query: { limit: 1 } })
  yield* (yield* operator).tenants.update({ params: { tenant: tenant.id }, payload: { name: secret } })
  const group = `group-of-${tenant.slug}`.slice(0, 40)
  yield* (yield* operator).tenants.update({
    params: { tenant: tenant.id },
    payload: { settings: { "llm.groups": { [group]: ["openai/mock"] } } }
  })
  const audit = yield* tenant.asUser.audit.list({ query: { limit: 1 } })
  const secretName = SecretName.make(`vendor-of-${tenant.slug}`)
  for (const name of [SecretName.make("mine"), secretName, SecretName.make("zeta")]) {
    yield* tenant.asUser.secrets.put({ params: { name }, payload: { value: Redacted.make(secret) } })
  }
  const own = yield* tenant.asUser.secrets.list({ query: { limit: 2 } })
  yield* addUser(tenant)
  const people = yield* tenant.asUser.users.list({ query: { limit: 1 } })
  const names: Names = {
    userId: people.items[0]?.id ?? "",
    userCursor: people.next_cursor ?? "",
    recordId: first.id,
    stateKey,
    recordCursor: records.next_cursor ?? "",
    keyId: keys.items[0]?.id ?? "",
    keyCursor: keys.next_cursor ?? "",
    auditCursor: audit.next_cursor ?? "",
    group,
    secretName,
    secretCursor: own.next_cursor ?? ""
  }
  assert.notInclude(Object.values(names), "")
  return { tenant, secret, names, keyIds: keys.items.map(({ id }) => id) }
})

/** Names of the same shape that were never anybody's; the cursors stand at the same place of the order. */
const neverExisted = (names: Names): Names => {
  const besides = (cursor: string) => {
    const id = Buffer.from(cursor, "base64url").toString()
    const last = id.endsWith("0") ? "1" : "0"
    return Buffer.from(id.slice(0, -1) + last).toString("base64url")
  }
  return {
    userId: randomUUID(),
    userCursor: besides(names.userCursor),
    recordId: randomUUID(),
    stateKey: "mood-of-nobody",
    recordCursor: besides(names.recordCursor),
    keyId: randomUUID(),
    keyCursor: besides(names.keyCursor),
    auditCursor: names.auditCursor,
    group: "group-of-nobody",
    secretName: "vendor-of-nobody",
    secretCursor: besides(names.secretCursor)
  }
}

const stored = Effect.fnUntraced(function* (id: string, schema: string) {
  const { redis } = yield* TestDatabase
  const keys = yield* keysOfData(`t:{${id}}:*`)
  const values = yield* Effect.promise(() => redis.mget(keys))
  return { rows: yield* rowsOf(schema), keys, values }
})

layer(TestApp, onRealClock)("Another tenant's endpoints", (it) => {
  it.effect("are all in this file, and none is open that is not meant to be", () =>
    Effect.sync(() => {
      const { ofAnybody, ofTenants } = endpoints()
      assert.sameMembers(ofTenants, Object.keys(cases))
      assert.sameMembers(ofAnybody, open)
    })
  )

  it.effect("neither show nor touch anything, with any credential, and tell nothing of what exists", () =>
    Effect.gen(function* () {
      const a = yield* victim
      const b = yield* provisionTenant("jigtree")
      const before = yield* stored(a.tenant.id, a.tenant.schema)
      const nobodys = neverExisted(a.names)
      const secrets = [a.secret, a.tenant.id, a.tenant.slug, a.tenant.schema, a.tenant.email, ...a.keyIds]

      for (const [credential, headers] of Object.entries(credentialsOf(b))) {
        for (const [endpoint, variants] of Object.entries(cases)) {
          for (const variant of variants) {
            const what = `${endpoint} by ${credential}`
            const ask = (call: Call) => send({ ...call, headers: { ...headers, ...call.headers } })
            if ("own" in variant) {
              const answer = yield* ask(variant.own)
              for (const secret of secrets) assert.notInclude(everything(answer), secret, what)
              continue
            }
            const call = "names" in variant ? variant.names : variant.lists
            const theirs = yield* ask(call(a.names))
            assert.strictEqual(comparable(theirs), comparable(yield* ask(call(nobodys))), what)
            const byService = endpoint.startsWith("auth.") && credential !== "access token"
            assert.strictEqual(theirs.status, byService ? 403 : "names" in variant ? 404 : 200, what)
          }
        }
      }
      assert.deepStrictEqual(yield* stored(a.tenant.id, a.tenant.schema), before)
    })
  )

  it.effect("give from another tenant's cursor on only what is one's own", () =>
    Effect.gen(function* () {
      const b = yield* provisionTenant("jigtree")
      const params = { collection: notes }
      yield* b.asUser.records.create({ params, payload: { data: "before" } })
      const a = yield* victim
      const after = yield* b.asUser.records.create({ params, payload: { data: "after" } })
      for (const client of [b.asUser, b.asService]) {
        const cursor = Buffer.from(a.names.recordCursor, "base64url").toString()
        const page = yield* client.records.list({ params, query: { cursor } })
        assert.deepStrictEqual(page, { items: [after], next_cursor: null })
      }
    })
  )

  it.effect("answer their own tenant, by the same calls", () =>
    Effect.gen(function* () {
      const { names, secret, tenant } = yield* victim
      for (const [credential, headers] of Object.entries(credentialsOf(tenant))) {
        for (const path of [record(names), `/api/v1/state/${names.stateKey}`, `/api/v1/records/notes`]) {
          const answer = yield* send({ method: "GET", path, headers })
          assert.strictEqual(answer.status, 200, credential)
          assert.include(answer.text, secret, credential)
        }
      }
    })
  )
})
