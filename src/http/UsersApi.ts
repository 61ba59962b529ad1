import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { pageByIdQuery, pageSchema } from "../domain/Page.ts"
import { Role, UserId } from "../domain/Principal.ts"
import { Conflict, Forbidden, InvalidRequest, NotFound } from "../domain/Problems.ts"
import { Account, Email, NewPassword, PersonName } from "../domain/User.ts"
import { Access, AccessControl } from "./Access.ts"
import { Authentication } from "./Authentication.ts"
import { Idempotent } from "./Idempotent.ts"
import { RateLimit } from "./RateLimit.ts"
import { TenantScope } from "./TenantScope.ts"

const one = { id: UserId }

/** A user just made. `password` is there where it was made here: this once. */
export class NewAccount extends Schema.Class<NewAccount>("agent-army/http/NewAccount")({
  ...Account.fields,
  password: Schema.optionalKey(Schema.String)
}) {}

/** The people of a tenant, for its admins. */
export class UsersApi extends HttpApiGroup.make("users")
  .add(
    HttpApiEndpoint.post("create", "/", {
      payload: Schema.Struct({
        email: Email,
        name: Schema.optionalKey(Schema.NullOr(PersonName)),
        role: Schema.optionalKey(Role),
        password: Schema.optionalKey(Schema.RedactedFromValue(NewPassword))
      }),
      success: NewAccount.pipe(HttpApiSchema.status(201)),
      error: [Conflict, Forbidden, InvalidRequest]
    })
      .middleware(Idempotent)
      .annotate(Access, { scope: "users:write" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Add a user",
          description:
            "A `member`, unless `role` says otherwise. Without a `password` one is made, and shown in this answer alone. Making an admin takes every scope that an admin has."
        })
      ),
    HttpApiEndpoint.get("list", "/", { query: pageByIdQuery, success: pageSchema(Account) })
      .annotate(Access, { scope: "users:read" })
      .annotateMerge(OpenApi.annotations({ summary: "List the users in the order of creation" })),
    HttpApiEndpoint.get("get", "/:id", { params: one, success: Account, error: NotFound })
      .annotate(Access, { scope: "users:read" })
      .annotateMerge(OpenApi.annotations({ summary: "Read a user" })),
    HttpApiEndpoint.patch("update", "/:id", {
      params: one,
      payload: Schema.Struct({
        email: Schema.optionalKey(Email),
        name: Schema.optionalKey(Schema.NullOr(PersonName)),
        role: Schema.optionalKey(Role),
        is_active: Schema.optionalKey(Schema.Boolean),
        password: Schema.optionalKey(Schema.RedactedFromValue(NewPassword))
      }),
      success: Account,
      error: [NotFound, Conflict, Forbidden, InvalidRequest]
    })
      .annotate(Access, { scope: "users:write" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Change a user",
          description:
            "What is left out stays. `is_active: false` and a new `password` end the user's sessions; the API keys of a user who is not active do not work, and those of a former admin lose an admin's scopes. Your own password is changed at `/api/v1/auth/password`. The last active admin stays one (`Conflict`)."
        })
      ),
    HttpApiEndpoint.delete("remove", "/:id", {
      params: one,
      success: HttpApiSchema.NoContent,
      error: [NotFound, Conflict, Forbidden]
    })
      .annotate(Access, { scope: "users:write" })
      .annotateMerge(
        OpenApi.annotations({
          summary: "Delete a user, with all sessions and API keys",
          description: "The last active admin can't be deleted (`Conflict`); any other may delete themselves."
        })
      )
  )
  .prefix("/api/v1/users")
  .middleware(AccessControl)
  .middleware(TenantScope)
  .middleware(RateLimit)
  .middleware(Authentication)
  .annotateMerge(OpenApi.annotations({ title: "Users", description: "The people of a tenant" })) {}
