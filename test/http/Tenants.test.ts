import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { CollectionName } from "../../src/domain/Record.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp } from "../support/Platform.ts"
import { operator, provisionTenant, signIn, uniqueSlug } from "../support/Tenants.ts"

const notes = CollectionName.make("notes")
const asOperator = { authorization: `Bearer ${operatorKey}` }

layer(TestApp, onRealClock)("the control plane", (it) => {
  it.effect("provisions a tenant with an admin whose password is made, and told this once", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const slug = uniqueSlug("acme")
      const tenant = yield* control.tenants.provision({
        payload: { slug, name: "Acme", admin_email: "root@acme.example" }
      })
      assert.strictEqual(tenant.slug, slug)
      assert.strictEqual(tenant.name, "Acme")
      assert.strictEqual(tenant.schema_name, `tenant_${slug.replaceAll("-", "_")}`)
      assert.strictEqual(tenant.status, "active")
      assert.isTrue(tenant.is_active)
      assert.strictEqual(tenant.admin?.email, "root@acme.example")
      const password = tenant.admin?.password ?? ""
      assert.match(password, /^[A-Za-z0-9]{20}$/)
      yield* signIn(slug, "ROOT@acme.example", password)

      const read = yield* send(`/api/v1/tenants/${slug}`, { headers: asOperator })
      assert.strictEqual(read.status, 200)
      assert.notInclude(read.text, password)
    })
  )

  it.effect("answers 201 with the fields of the contract, and no password that was given", () =>
    Effect.gen(function* () {
      const slug = uniqueSlug("acme")
      const answer = yield* sendJson(
        "POST",
        "/api/v1/tenants",
        { slug, name: "  Acme ", admin_email: "a@acme.example", admin_password: "a password of mine" },
        asOperator
      )
      assert.strictEqual(answer.status, 201)
      assert.notInclude(answer.text, "a password of mine")
      assert.strictEqual(member(answer.json, "name"), "Acme")
      assert.deepStrictEqual(member(answer.json, "admin"), { email: "a@acme.example" })
      for (const name of ["id", "slug", "name", "schema_name", "status", "is_active", "created_at"]) {
        assert.notStrictEqual(member(answer.json, name), undefined, name)
      }
    })
  )

  it.effect("makes a tenant without an admin where none is asked for", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const tenant = yield* control.tenants.provision({ payload: { slug: uniqueSlug("bare"), name: "Bare" } })
      assert.isNull(tenant.admin)
    })
  )

  it.effect("refuses a taken slug with 409, one of two that ask at once too", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const payload = { slug: uniqueSlug("twice"), name: "Twice" }
      const answers = yield* Effect.all(
        [
          Effect.result(control.tenants.provision({ payload })),
          Effect.result(control.tenants.provision({ payload }))
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(answers.map((answer) => answer._tag).toSorted(), ["Failure", "Success"])
      const third = yield* Effect.flip(control.tenants.provision({ payload }))
      assert.strictEqual(third._tag, "Conflict")
    })
  )

  it.effect("refuses reserved and malformed slugs, and says which field it was", () =>
    Effect.gen(function* () {
      const refused = [
        "shared",
        "public",
        "pg-toast",
        "ab",
        "-abc",
        "abc-",
        "Abc",
        "a_b_c",
        `x${"y".repeat(50)}`,
        "a;drop schema shared",
        "0191e0f0-0000-7000-8000-000000000000"
      ]
      for (const slug of refused) {
        const answer = yield* sendJson("POST", "/api/v1/tenants", { slug, name: "No" }, asOperator)
        assert.strictEqual(answer.status, 400, slug)
        assert.strictEqual(code(answer), "InvalidRequest", slug)
        assert.include(answer.text, `"path":["slug"]`, slug)
      }
    })
  )

  it.effect("never echoes a password that it refuses", () =>
    Effect.gen(function* () {
      const answer = yield* sendJson(
        "POST",
        "/api/v1/tenants",
        { slug: uniqueSlug("acme"), name: "Acme", admin_email: "a@b.example", admin_password: "hunter2" },
        asOperator
      )
      assert.strictEqual(answer.status, 400)
      assert.notInclude(answer.text, "hunter2")
    })
  )

  it.effect("lists tenants page by page, each once, whatever is provisioned meanwhile", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const slugs = ["m", "n", "o"].map((name) => uniqueSlug(`page-${name}`))
      for (const slug of slugs) yield* control.tenants.provision({ payload: { slug, name: slug } })
      const seen: Array<string> = []
      let cursor: string | undefined
      do {
        const page = yield* send(
          `/api/v1/tenants?limit=1${cursor === undefined ? "" : `&cursor=${cursor}`}`,
          { headers: asOperator }
        )
        assert.strictEqual(page.status, 200)
        const items = member(page.json, "items")
        assert.isArray(items)
        for (const item of Array.isArray(items) ? items : []) seen.push(String(member(item, "slug")))
        const next = member(page.json, "next_cursor")
        cursor = typeof next === "string" ? next : undefined
        // Comes before everything that is still to be seen, and so must not shift the pages.
        if (seen.length === 1) {
          yield* control.tenants.provision({ payload: { slug: uniqueSlug("aaa-first"), name: "First" } })
        }
      } while (cursor !== undefined)
      assert.strictEqual(new Set(seen).size, seen.length)
      for (const slug of slugs) assert.include(seen, slug)
    })
  )

  it.effect("refuses limits and cursors that make no sense", () =>
    Effect.gen(function* () {
      for (const query of ["limit=0", "limit=201", "limit=x", "limit=1.5", "cursor=%25%25"]) {
        const answer = yield* send(`/api/v1/tenants?${query}`, { headers: asOperator })
        assert.strictEqual(answer.status, 400, query)
      }
    })
  )

  it.effect("finds a tenant by id and by slug; answers 404 for another", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const acme = yield* provisionTenant("acme")
      assert.strictEqual((yield* control.tenants.get({ params: { tenant: acme.id } })).slug, acme.slug)
      assert.strictEqual((yield* control.tenants.get({ params: { tenant: acme.slug } })).id, acme.id)
      for (const tenant of ["no-such-tenant", "00000000-0000-4000-8000-000000000000", "' OR 1=1 --"]) {
        assert.strictEqual((yield* Effect.flip(control.tenants.get({ params: { tenant } })))._tag, "NotFound")
      }
    })
  )

  it.effect("merges settings as JSON Merge Patch has it, and refuses what no setting is", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const { slug } = yield* provisionTenant("acme")
      const params = { tenant: slug }
      yield* control.tenants.update({
        params,
        payload: { settings: { "guard.policy": "block", "records.max_bytes": 2000 } }
      })
      const merged = yield* control.tenants.update({
        params,
        payload: { name: "New name", settings: { "guard.policy": null, "llm.monthly_budget_usd": "12.50" } }
      })
      assert.strictEqual(merged.name, "New name")
      assert.deepStrictEqual(merged.settings, {
        "records.max_bytes": 2000,
        "llm.monthly_budget_usd": "12.50"
      })

      for (const settings of [
        { "no.such": 1 },
        { "guard.policy": "sometimes" },
        { "llm.monthly_budget_usd": 12.5 }
      ]) {
        const refused = yield* Effect.flip(control.tenants.update({ params, payload: { settings } }))
        assert.strictEqual(refused._tag, "InvalidRequest")
      }
      assert.deepStrictEqual((yield* control.tenants.get({ params })).settings, merged.settings)
    })
  )

  it.effect("a suspended tenant is refused with TenantSuspended, and goes on when it is activated", () =>
    Effect.gen(function* () {
      const control = yield* operator
      const acme = yield* provisionTenant("acme")
      const suspended = yield* control.tenants.suspend({ params: { tenant: acme.slug } })
      assert.strictEqual(suspended.status, "suspended")
      assert.isFalse(suspended.is_active)
      assert.strictEqual((yield* Effect.flip(acme.asUser.auth.me()))._tag, "TenantSuspended")
      assert.strictEqual(
        (yield* Effect.flip(acme.asService.records.list({ params: { collection: notes }, query: {} })))._tag,
        "TenantSuspended"
      )
      assert.strictEqual(
        (yield* Effect.flip(signIn(acme.slug, acme.email, acme.password)))._tag,
        "TenantSuspended"
      )
      assert.strictEqual(
        (yield* Effect.flip(signIn(acme.slug, acme.email, "wrong")))._tag,
        "InvalidCredentials"
      )
      yield* control.tenants.activate({ params: { tenant: acme.slug } })
      assert.strictEqual((yield* acme.asUser.auth.me()).email, acme.email)
    })
  )

  it.effect("needs an operator key: nothing at all is 401, a tenant's credential 403", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const paths = [
        ["GET", "/api/v1/tenants"],
        ["GET", `/api/v1/tenants/${acme.slug}`],
        ["POST", `/api/v1/tenants/${acme.slug}/suspend`],
        ["POST", `/api/v1/tenants/${acme.slug}/activate`]
      ] as const
      for (const [method, path] of paths) {
        const nobody = yield* send(path, { method })
        assert.strictEqual(nobody.status, 401, path)
        assert.match(nobody.headers.get("www-authenticate") ?? "", /^Bearer/)
        const wrong = yield* send(path, { method, headers: { authorization: `Bearer ${operatorKey}x` } })
        assert.strictEqual(wrong.status, 401, path)
        const tenant = yield* send(path, {
          method,
          headers: { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
        })
        assert.strictEqual(tenant.status, 403, path)
        assert.strictEqual(code(tenant), "Forbidden")
      }
      assert.strictEqual((yield* acme.asUser.auth.me()).tenant_slug, acme.slug)
    })
  )
})
