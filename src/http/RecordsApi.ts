import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { InvalidRequest, NotFound, PayloadTooLarge, PreconditionFailed } from "../domain/Problems.ts"
import { CollectionName, RecordId, StoredRecord } from "../domain/Record.ts"
import { StorableJson } from "../domain/StorableJson.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { Idempotent } from "./Idempotent.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const inCollection = { collection: CollectionName }
const one = { collection: CollectionName, id: RecordId }
const document = Schema.Struct({ data: StorableJson }).annotate({
  examples: [{ data: { text: "Call back on Monday", done: false } }]
})
const conditional = {
  "if-match": Schema.optionalKey(
    Schema.String.annotate({ description: 'The version that is expected, as an ETag: "3"' })
  )
}

/** A tenant's own JSON documents, in collections. */
export class RecordsApi extends HttpApiGroup.make("records")
  .add(
    HttpApiEndpoint.post("create", "/", {
      params: inCollection,
      payload: document,
      success: StoredRecord.pipe(HttpApiSchema.status(201)),
      error: [PayloadTooLarge, InvalidRequest]
    })
      .middleware(Idempotent)
      .annotate(Access, { scope: "records:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Store a document" })),
    HttpApiEndpoint.get("list", "/", {
      params: inCollection,
      query: pageByIdQuery,
      success: pageSchema(StoredRecord)
    })
      .annotate(Access, { scope: "records:read" })
      .annotateMerge(OpenApi.annotations({ summary: "List a collection in the order of creation" })),
    HttpApiEndpoint.get("get", "/:id", { params: one, success: StoredRecord, error: NotFound })
      .annotate(Access, { scope: "records:read" })
      .annotateMerge(OpenApi.annotations({ summary: "Read a document; its ETag is its version" })),
    HttpApiEndpoint.put("replace", "/:id", {
      params: one,
      headers: conditional,
      payload: document,
      success: StoredRecord,
      error: [NotFound, PreconditionFailed, PayloadTooLarge, InvalidRequest]
    })
      .annotate(Access, { scope: "records:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Replace a document, if it is still the one you read" })),
    HttpApiEndpoint.delete("remove", "/:id", {
      params: one,
      headers: conditional,
      success: HttpApiSchema.NoContent,
      error: [NotFound, PreconditionFailed]
    })
      .annotate(Access, { scope: "records:write" })
      .annotateMerge(OpenApi.annotations({ summary: "Delete a document, if it is still the one you read" }))
  )
  .prefix("/api/v1/records/:collection")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(OpenApi.annotations({ title: "Records", description: "A tenant's own JSON documents" })) {}
