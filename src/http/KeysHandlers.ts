import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Tokens } from "../services/Tokens.ts"
import { Api } from "./Api.ts"

export const KeysHandlers = HttpApiBuilder.group(
  Api,
  "keys",
  Effect.fn(function* (handlers) {
    const tokens = yield* Tokens
    return handlers.handleAll({ jwks: () => Effect.map(tokens.publicKeys, (keys) => ({ keys })) })
  })
)
