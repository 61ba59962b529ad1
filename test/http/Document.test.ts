import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Ajv2020 } from "ajv/dist/2020.js"
import formats from "ajv-formats"
import { Effect, FileSystem, Redacted } from "effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { bodyExamples } from "../../src/http/Document.ts"
import { member, send, sendJson } from "../support/Http.ts"
import type { Answer } from "../support/Http.ts"
import { onRealClock, operatorKey, TestApp } from "../support/Platform.ts"
import { provisionTenant } from "../support/Tenants.ts"

const redocly = fileURLToPath(new URL("../../node_modules/@redocly/cli/bin/cli.js", import.meta.url))

/** What asks a language model. */
const asksModel: ReadonlySet<string> = new Set([
  "llm.complete",
  "llm.stream",
  "openai.chat",
  "openai.responses",
  "openai.embeddings",
  "openai.clientSecret",
  "anthropic.messages",
  "anthropic.countTokens"
])

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
        state: service,
        events: service,
        llm: service,
        openai: service,
        anthropic: service,
        secrets: service,
        users: { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
      }
      const userId = (yield* acme.asUser.auth.me()).id
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
            .replace("{id}", id.startsWith("users.") ? userId : String(member(record.json, "id")))
            .replace("{key}", "presence")
            .replace("{model}", "fast")
            .replace("{name}", "crm_token")
            .replace("{stream}", "tickets")
            .replace("{tenant}", acme.slug)
          const answer = yield* sendJson(
            method.toUpperCase(),
            path,
            content.example,
            credential[id.split(".")[0] ?? ""] ?? {}
          )
          // Nobody has the examples' passwords and tokens: what matters is that the body was understood.
          const secret = ["signIn.login", "signIn.refresh", "auth.changePassword"]
          // Nor has this platform a provider's key.
          const expected = secret.includes(id) ? [401] : asksModel.has(id) ? [503] : [200, 201, 202, 204]
          assert.include(expected, answer.status, `${id}: ${answer.text}`)
          sent.push(id)
        }
      }
      assert.deepStrictEqual(sent.toSorted(), Object.keys(bodyExamples).toSorted())
    })
  )

  it.effect("has nothing that a linter of OpenAPI minds", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const { text } = yield* send("/openapi.json")
      const file = yield* fs.makeTempFileScoped({ suffix: ".json" })
      yield* fs.writeFileString(file, text)
      const found = yield* Effect.callback<string>((resume) => {
        const env = { ...process.env, REDOCLY_TELEMETRY: "off", REDOCLY_SUPPRESS_UPDATE_NOTICE: "true" }
        execFile(
          process.execPath,
          [redocly, "lint", file, "--extends=recommended", "--format=json"],
          { env },
          (_error, stdout) => resume(Effect.succeed(stdout))
        )
      })
      const { problems } = Object(JSON.parse(found))
      assert.deepStrictEqual(problems, [])
    }).pipe(Effect.provide(NodeServices.layer))
  )

  it.effect("says of each operation what the server answers, well asked and badly", () =>
    Effect.gen(function* () {
      const { json } = yield* send("/openapi.json")
      const ajv = new Ajv2020({ strict: false, allErrors: true })
      formats.default(ajv)
      ajv.addSchema(Object(json), "document")
      const acme = yield* provisionTenant("acme")
      const service = { "x-api-key": Redacted.value(acme.apiKey) }
      const user = { authorization: `Bearer ${Redacted.value(acme.accessToken)}` }
      const operator = { authorization: `Bearer ${operatorKey}` }
      const record = yield* sendJson("POST", "/api/v1/records/notes", { data: 1 }, service)
      yield* sendJson("PUT", "/api/v1/state/presence", { value: 1 }, service)

      /** Whether an answer's status and content type are in the document, and its body is as that says. */
      const assertDocumented = (template: string, method: string, answer: Answer) => {
        const told = `${method} ${template}: ${answer.status} ${answer.text}`
        const responses = Object(member(member(member(json, "paths"), template), method)).responses
        const response = responses[answer.status]
        assert.isDefined(response, `not documented: ${told}`)
        if (answer.text === "") return assert.isUndefined(response.content, told)
        const type = answer.headers.get("content-type") ?? ""
        assert.property(response.content, type, told)
        const escape = (text: string) => encodeURIComponent(text.replaceAll("~", "~0").replaceAll("/", "~1"))
        const pointer = [
          "paths",
          template,
          method,
          "responses",
          String(answer.status),
          "content",
          type,
          "schema"
        ]
        const said = type === "text/event-stream" ? answer.text : answer.json
        const valid = ajv.validate({ $ref: `document#/${pointer.map(escape).join("/")}` }, said)
        assert.isTrue(valid, `${told} ${ajv.errorsText()}`)
      }

      const operations = Object.entries(Object(member(json, "paths"))).flatMap(([template, item]) =>
        Object.entries(Object(item)).map(([method, operation]) => ({
          template,
          method,
          example: Object(operation).requestBody?.content?.["application/json"]?.example
        }))
      )
      // Deletions last, so that the others find what they ask for.
      const ordered = operations.toSorted(
        (a, b) => Number(a.method === "delete") - Number(b.method === "delete")
      )
      for (const { template, method, example } of ordered) {
        const path = template
          .replace("{collection}", "notes")
          .replace("{id}", String(member(record.json, "id")))
          .replace("{key}", "presence")
          .replace("{model}", "fast")
          .replace("{name}", "crm_token")
          .replace("{tenant}", acme.slug)
        const credential = template.startsWith("/api/v1/tenants")
          ? operator
          : template === "/api/v1/auth/login"
            ? { "x-tenant-id": acme.slug }
            : template.startsWith("/api/v1/auth")
              ? user
              : service
        const sent = (headers: Record<string, string>, body: unknown) =>
          example === undefined
            ? send(path, { method: method.toUpperCase(), headers })
            : sendJson(method.toUpperCase(), path, body, headers)
        assertDocumented(template, method, yield* sent(credential, example))
        assertDocumented(template, method, yield* sent({}, example))
        assertDocumented(template, method, yield* sent({ ...credential, accept: "text/csv" }, example))
        assertDocumented(
          template,
          method,
          yield* sent({ ...credential, "if-match": `"99"` }, { data: [], x: 1 })
        )
        if (example !== undefined) assertDocumented(template, method, yield* sent(credential, "{"))
        yield* sendJson("POST", `/api/v1/tenants/${acme.slug}/activate`, {}, operator)
      }
    })
  )
})
