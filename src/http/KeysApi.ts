import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { PublicKey } from "../domain/SigningKey.ts"

/** The public keys that access tokens are checked with (RFC 7517). */
export class KeysApi extends HttpApiGroup.make("keys")
  .add(
    HttpApiEndpoint.get("jwks", "/.well-known/jwks.json", {
      success: Schema.Struct({ keys: Schema.Array(PublicKey) })
    }).annotateMerge(OpenApi.annotations({ summary: "The public keys of access tokens" }))
  )
  .annotateMerge(
    OpenApi.annotations({ title: "Keys", description: "What access tokens are checked with" })
  ) {}
