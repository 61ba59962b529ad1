import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Tokens } from "../services/Tokens.ts"
import { answerWith } from "./AnswerHeaders.ts"
import { Api } from "./Api.ts"
import { withDigest } from "./ETag.ts"

/** Public; and no longer than a new key is out before it signs (`PlatformKeys`). */
const CACHE_CONTROL = "public, max-age=5"

export const KeysHandlers = HttpApiBuilder.group(
  Api,
  "keys",
  Effect.fn(function* (handlers) {
    const tokens = yield* Tokens
    return handlers.handleAll({
      jwks: () =>
        withDigest(Effect.map(tokens.publicKeys, (keys) => ({ keys }))).pipe(
          Effect.tap(answerWith({ "cache-control": CACHE_CONTROL }))
        )
    })
  })
)
