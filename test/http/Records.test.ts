import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { Page } from "../../src/domain/Page.ts"
import { CollectionName, RecordId } from "../../src/domain/Record.ts"
import type { StoredRecord } from "../../src/domain/Record.ts"
import { code, member, send, sendJson } from "../support/Http.ts"
import { onRealClock, TestApp } from "../support/Platform.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"
import type { TestTenant } from "../support/Tenants.ts"

const notes = { collection: CollectionName.make("notes") }
const as = (tenant: TestTenant) => ({ "x-api-key": Redacted.value(tenant.apiKey) })

layer(TestApp, onRealClock)("records", (it) => {
  it.effect("keep any JSON as it was given", () =>
    Effect.gen(function* () {
      const { asService } = yield* provisionTenant("acme")
      const documents = [
        null,
        true,
        0,
        -1.5,
        "",
        "text ☃ 🦄",
        [],
        {},
        [1, [2, { three: null }]],
        { "": { a: "\\u0000" } }
      ]
      for (const data of documents) {
        const made = yield* asService.records.create({ params: notes, payload: { data } })
        const read = yield* asService.records.get({ params: { ...notes, id: made.id } })
        assert.deepStrictEqual(read.data, data)
      }
    })
  )

  it.effect("answer with the fields of the contract, 201 and an ETag", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const made = yield* sendJson("POST", "/api/v1/records/notes", { data: { n: 1 } }, as(acme))
      assert.strictEqual(made.status, 201)
      assert.strictEqual(made.headers.get("etag"), `"1"`)
      assert.strictEqual(member(made.json, "version"), 1)
      assert.strictEqual(member(made.json, "collection"), "notes")
      assert.match(String(member(made.json, "created_at")), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/)
      const read = yield* send(`/api/v1/records/notes/${String(member(made.json, "id"))}`, {
        headers: as(acme)
      })
      assert.strictEqual(read.headers.get("etag"), `"1"`)
      assert.deepStrictEqual(read.json, made.json)
    })
  )

  it.effect(
    "list a collection in the order of creation, each once, while others are inserted and deleted",
    () =>
      Effect.gen(function* () {
        const { asService } = yield* provisionTenant("acme")
        const create = (data: number) => asService.records.create({ params: notes, payload: { data } })
        const first = yield* Effect.forEach([1, 2, 3, 4, 5], create)
        yield* asService.records.create({
          params: { collection: CollectionName.make("other") },
          payload: { data: 99 }
        })

        const seen: Array<unknown> = []
        let cursor: string | undefined
        do {
          const { items, next_cursor }: Page<StoredRecord> = yield* asService.records.list({
            params: notes,
            query: { limit: 2, ...(cursor === undefined ? {} : { cursor }) }
          })
          seen.push(...items.map((record) => record.data))
          // One comes, and one that was seen already goes: neither may shift what is still to come.
          if (seen.length === 2) {
            yield* create(6)
            yield* asService.records.remove({ params: { ...notes, id: first[0]?.id ?? noId }, headers: {} })
          }
          cursor = next_cursor === null ? undefined : decodeCursor(next_cursor)
        } while (cursor !== undefined)
        assert.deepStrictEqual(seen, [1, 2, 3, 4, 5, 6])
      })
  )

  it.effect("are replaced and deleted only in the version that If-Match names", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const { asService } = acme
      const { id } = yield* asService.records.create({ params: notes, payload: { data: "one" } })
      const params = { ...notes, id }
      const two = yield* asService.records.replace({
        params,
        headers: { "if-match": `"1"` },
        payload: { data: "two" }
      })
      assert.strictEqual(two.version, 2)
      for (const stale of [`"1"`, `"3"`, `W/"2"`, `2`, `"x"`, `""`]) {
        const replaced = yield* Effect.flip(
          asService.records.replace({ params, headers: { "if-match": stale }, payload: { data: "lost" } })
        )
        assert.strictEqual(replaced._tag, "PreconditionFailed", stale)
        const removed = yield* Effect.flip(
          asService.records.remove({ params, headers: { "if-match": stale } })
        )
        assert.strictEqual(removed._tag, "PreconditionFailed", stale)
      }
      assert.strictEqual((yield* asService.records.get({ params })).data, "two")
      const any = yield* asService.records.replace({
        params,
        headers: { "if-match": "*" },
        payload: { data: "three" }
      })
      assert.strictEqual(any.version, 3)
      yield* asService.records.remove({ params, headers: { "if-match": `"1", "3"` } })
      assert.strictEqual((yield* Effect.flip(asService.records.get({ params })))._tag, "NotFound")
      const gone = yield* Effect.flip(asService.records.remove({ params, headers: { "if-match": `"3"` } }))
      assert.strictEqual(gone._tag, "NotFound")
    })
  )

  it.effect("lose no update where two write the same version at once: one gets 412", () =>
    Effect.gen(function* () {
      const { asService } = yield* provisionTenant("acme")
      const { id } = yield* asService.records.create({ params: notes, payload: { data: 0 } })
      const write = (data: number) =>
        Effect.result(
          asService.records.replace({
            params: { ...notes, id },
            headers: { "if-match": `"1"` },
            payload: { data }
          })
        )
      const results = yield* Effect.all([write(1), write(2), write(3)], { concurrency: "unbounded" })
      assert.deepStrictEqual(results.map((result) => result._tag).toSorted(), [
        "Failure",
        "Failure",
        "Success"
      ])
    })
  )

  it.effect("are refused beyond the tenant's own size, and the server's", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const control = yield* operator
      yield* control.tenants.update({
        params: { tenant: acme.slug },
        payload: { settings: { "records.max_bytes": 100 } }
      })
      // In force on every instance within a second: until then the old size still counts.
      const refused = yield* sendJson(
        "POST",
        "/api/v1/records/notes",
        { data: "x".repeat(200) },
        as(acme)
      ).pipe(Effect.repeat({ until: (answer) => answer.status === 413 }), Effect.timeout("1 second"))
      assert.strictEqual(code(refused), "PayloadTooLarge")
      const large = yield* sendJson(
        "POST",
        "/api/v1/records/notes",
        { data: "x".repeat(1_100_000) },
        as(acme)
      )
      assert.strictEqual(large.status, 413)
      assert.strictEqual(code(large), "PayloadTooLarge")
    })
  )

  it.effect("refuse what can't be kept or does not fit, with 400 and never 500", () =>
    Effect.gen(function* () {
      const acme = yield* provisionTenant("acme")
      const bodies = [
        `{"data":"\\u0000"}`,
        `{"data":{"\\u0000":1}}`,
        `{"data":"\\ud800"}`,
        `{"data":["\\udc00x"]}`,
        `{"data":`,
        `{}`,
        `[]`,
        `null`,
        ``
      ]
      for (const body of bodies) {
        const answer = yield* sendJson("POST", "/api/v1/records/notes", body, as(acme))
        assert.strictEqual(answer.status, 400, body)
        assert.strictEqual(code(answer), "InvalidRequest", body)
      }
      for (const path of [
        "/api/v1/records/no%20spaces",
        "/api/v1/records/1st",
        "/api/v1/records/notes/not-a-uuid"
      ]) {
        assert.strictEqual((yield* send(path, { headers: as(acme) })).status, 400, path)
      }
      const cursor = Buffer.from("'; drop table records; --").toString("base64url")
      assert.strictEqual(
        (yield* send(`/api/v1/records/notes?cursor=${cursor}`, { headers: as(acme) })).status,
        400
      )
    })
  )

  it.effect("of an id that never was, or in another collection, are 404", () =>
    Effect.gen(function* () {
      const { asService } = yield* provisionTenant("acme")
      const made = yield* asService.records.create({ params: notes, payload: { data: 1 } })
      const elsewhere = { collection: CollectionName.make("elsewhere"), id: made.id }
      for (const params of [{ ...notes, id: noId }, elsewhere]) {
        const answers = [
          yield* Effect.flip(asService.records.get({ params })),
          yield* Effect.flip(asService.records.replace({ params, headers: {}, payload: { data: 2 } })),
          yield* Effect.flip(asService.records.remove({ params, headers: {} }))
        ]
        assert.deepStrictEqual(
          answers.map((error) => error._tag),
          ["NotFound", "NotFound", "NotFound"]
        )
      }
    })
  )
})

const noId = RecordId.make("00000000-0000-4000-8000-000000000000")
/** The typed client takes a cursor as what it stands for, and answers with it as it is sent. */
const decodeCursor = (cursor: string): string => Buffer.from(cursor, "base64url").toString("utf8")
