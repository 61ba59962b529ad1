import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { AuditAction, AuditEntry } from "../domain/Audit.ts"
import { Cursor, pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const id = Schema.String.check(Schema.isUUID())

/** What was done in a tenant that matters to its security. There is no endpoint that writes here. */
export class AuditApi extends HttpApiGroup.make("audit")
  .add(
    HttpApiEndpoint.get("list", "/", {
      query: {
        limit: pageByIdQuery.limit,
        cursor: Schema.optionalKey(Cursor.check(Schema.isPattern(/^[1-9][0-9]{0,14}$/))),
        action: Schema.optionalKey(AuditAction),
        actor_id: Schema.optionalKey(id),
        target_id: Schema.optionalKey(id),
        from: Schema.optionalKey(Schema.DateTimeUtcFromString),
        to: Schema.optionalKey(Schema.DateTimeUtcFromString)
      },
      success: pageSchema(AuditEntry)
    })
      .annotate(Access, { scope: "audit:read" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "List the security-relevant acts, the newest first",
          description:
            "Append-only, and chained: `hash` is over the entry and `previous_hash`, so that a change or a gap shows."
        })
      )
  )
  .prefix("/api/v1/audit")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(
    OpenApi.annotations({ title: "Audit log", description: "What was done that matters to security" })
  ) {}
