import { Schema } from "effect"

export const RecordId = Schema.String.check(Schema.isUUID()).pipe(Schema.brand("RecordId"))
export type RecordId = typeof RecordId.Type

/** A collection of records: a name a URL can carry as it is. */
export const CollectionName = Schema.String.check(
  Schema.isPattern(/^[A-Za-z][A-Za-z0-9_-]{0,62}$/, {
    message: "Expected 1 to 63 of letters, digits, - and _, beginning with a letter"
  })
).pipe(Schema.brand("CollectionName"))
export type CollectionName = typeof CollectionName.Type

/** A tenant's own JSON document. `version` counts its changes from 1, and is its `ETag`. */
export class StoredRecord extends Schema.Class<StoredRecord>("agent-army/domain/StoredRecord")({
  id: RecordId,
  collection: CollectionName,
  data: Schema.Json,
  version: Schema.Int,
  created_at: Schema.DateTimeUtcFromString,
  updated_at: Schema.DateTimeUtcFromString
}) {}
