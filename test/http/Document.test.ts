import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { bodyExamples } from "../../src/http/Document.ts"
import { member, send, sendJson } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

layer(TestApp, onRealClock)("the OpenAPI document", (it) => {
  it.effect("names both ways to present a credential, and what each operation takes", () =>
    Effect.gen(function* () {
      const { json } = yield* send("/openapi.json")
      assert.match(String(member(json, "openapi")), /^3\.1\./)
      const schemes = member(member(json, "components"), "securitySchemes")
      assert.strictEqual(member(member(schemes, "bearer"), "scheme"), "Bearer")
      assert.deepStrictEqual(member(schemes, "apiKey"), { type: "apiKey", in: "header", name: "X-API-Key" })
      const paths = member(json, "paths")
      const security = (path: string) => member(member(member(paths, path), "get"), "security")
      assert.deepStrictEqual(security("/api/v1/records/{collection}"), [{ bearer: [] }, { apiKey: [] }])
      assert.deepStrictEqual(security("/api/v1/tenants"), [{ bearer: [] }])
      const statuses = Object.keys(
        Object(member(member(member(paths, "/api/v1/records/{collection}/{id}"), "put"), "responses"))
      )
      for (const status of ["200", "400", "401", "403", "404", "408", "412", "413", "415", "500", "503"]) {
        assert.include(statuses, status)
      }
    })
  )

  it.effect("has an example for every body, which the server takes", () =>
    Effect.gen(function* () {
      const { json } = yield* send("/openapi.json")
      const acme = yield* provisionTenant("acme")
      const service = { "x-api-key": Redacted.value(acme.apiKey) }
      const record = yield* sendJson("POST", "/api/v1/records/notes", { data: 1 }, service)
      const made = yield* acme.asUser.auth.createApiKey({ payload: { name: "rotated" } })
      const keyId = made.id
      const credential: Record<string, Record<string, string>> = {
        tenants: { authorization: `Bearer ${operatorKey}` },
        auth: { authorization: `Bearer ${Redacted.value(acme.accessToken)}` },
        signIn: { "x-tenant-id": "skyvera" },
        records: service,
        state: service
      }
      const sent: Array<string> = []
      for (const [template, item] of Object.entries(Object(member(json, "paths")))) {
        for (const [method, operation] of Object.entries(Object(item))) {
          const content = Object(operation).requestBody?.content?.["application/json"]
          if (content === undefined) continue
          const id = String(Object(operation).operationId)
          assert.deepStrictEqual(content.example, bodyExamples[id], id)
          assert.notStrictEqual(content.example, undefined, id)
          const path = template
            .replace("{collection}", "notes")
            .replace("api-keys/{id}", `api-keys/${keyId}`)
            .replace("{id}", String(member(record.json, "id")))
            .replace("{key}", "presence")
            .replace("{tenant}", acme.slug)
          const answer = yield* sendJson(
            method.toUpperCase(),
            path,
            content.example,
            credential[id.split(".")[0] ?? ""] ?? {}
          )
          // Nobody has the password of the example's admin: what matters is that the body was understood.
          const expected = id === "signIn.login" ? [401] : [200, 201, 204]
          assert.include(expected, answer.status, `${id}: ${answer.text}`)
          sent.push(id)
        }
      }
      assert.deepStrictEqual(sent.toSorted(), Object.keys(bodyExamples).toSorted())
    })
  )
})
