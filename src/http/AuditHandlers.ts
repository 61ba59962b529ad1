import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import { AuditLog } from "../services/AuditLog.ts"
import { Api } from "./Api.ts"

export const AuditHandlers = HttpApiBuilder.group(
  Api,
  "audit",
  Effect.fn(function* (handlers) {
    const audit = yield* AuditLog
    return handlers.handleAll({
      list: ({ query }) =>
        audit.list(
          {
            action: query.action,
            actorId: query.actor_id,
            targetId: query.target_id,
            from: query.from,
            to: query.to
          },
          pageRequest(query)
        )
    })
  })
)
