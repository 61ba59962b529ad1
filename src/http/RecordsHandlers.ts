import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import { Records } from "../services/Records.ts"
import { Api } from "./Api.ts"
import { expectedVersions, withETag } from "./ETag.ts"

export const RecordsHandlers = HttpApiBuilder.group(
  Api,
  "records",
  Effect.fn(function* (handlers) {
    const records = yield* Records
    return handlers.handleAll({
      create: ({ params, payload }) => withETag(records.create(params.collection, payload.data)),
      list: ({ params, query }) => records.list(params.collection, pageRequest(query)),
      get: ({ params }) => withETag(records.get(params.collection, params.id)),
      replace: ({ headers, params, payload }) =>
        withETag(
          records.replace(params.collection, params.id, payload.data, expectedVersions(headers["if-match"]))
        ),
      remove: ({ headers, params }) =>
        records.remove(params.collection, params.id, expectedVersions(headers["if-match"]))
    })
  })
)
