import { Effect, Option, Redacted } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { pageRequest } from "../domain/Page.ts"
import { Users } from "../services/Users.ts"
import { Api } from "./Api.ts"
import { NewAccount } from "./UsersApi.ts"

export const UsersHandlers = HttpApiBuilder.group(
  Api,
  "users",
  Effect.fn(function* (handlers) {
    const users = yield* Users
    return handlers.handleAll({
      create: Effect.fnUntraced(function* ({ payload }) {
        const { account, password } = yield* users.create(payload)
        return new NewAccount({
          ...account,
          ...(Option.isSome(password) && { password: Redacted.value(password.value) })
        })
      }),
      list: ({ query }) => users.list(pageRequest(query)),
      get: ({ params }) => users.find(params.id),
      update: ({ params, payload }) => users.update(params.id, payload),
      remove: ({ params }) => users.remove(params.id)
    })
  })
)
