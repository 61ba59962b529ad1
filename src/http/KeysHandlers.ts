import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Tokens } from "../services/Tokens.ts"
import { answerWith } from "./AnswerHeaders.ts"
import { Api } from "./Api.ts"
import { withDigest } from "./ETag.ts"

/** Seconds. Public, and asked for by whoever checks our tokens; a new key is out long before the old one ends. */
const CACHE_CONTROL = "public, max-age=300"

export const KeysHandlers = HttpApiBuilder.group(
  Api,
  "keys",
  Effect.fn(function* (handlers) {
    const tokens = yield* Tokens
    return handlers.handleAll({
      jwks: () =>
        withDigest(Effect.succeed({ keys: tokens.publicKeys })).pipe(
          Effect.tap(answerWith({ "cache-control": CACHE_CONTROL }))
        )
    })
  })
)
