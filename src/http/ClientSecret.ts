import { Context, Option, Redacted } from "effect"
import type { Headers } from "effect/http"
import type { JsonObject } from "../services/llm/Codec.ts"

/** How OpenAI's clients name a key among the subprotocols: a browser's WebSocket can send no header. */
const KEY_PROTOCOL = "openai-insecure-api-key."

/**
 * Marks an endpoint, as an annotation, that takes what browsers may have: a client secret in the place of a key, and either
 * of them among the WebSocket's subprotocols. No other endpoint does.
 */
export const TakesClientSecrets = Context.Reference<boolean>("agent-army/http/TakesClientSecrets", {
  defaultValue: () => false
})

/** The session that the caller's client secret pins; none for who came with a credential of its own. */
export const PinnedSession = Context.Reference<JsonObject | undefined>("agent-army/http/PinnedSession", {
  defaultValue: () => undefined
})

/** The key among the subprotocols (RFC 6455, 4.1). */
export const keyOfProtocols = (headers: Headers.Headers): Option.Option<Redacted.Redacted<string>> => {
  const found = (headers["sec-websocket-protocol"] ?? "")
    .split(",")
    .map((protocol) => protocol.trim())
    .find((protocol) => protocol.startsWith(KEY_PROTOCOL))
  const key = found?.slice(KEY_PROTOCOL.length) ?? ""
  return key === "" ? Option.none() : Option.some(Redacted.make(key))
}
