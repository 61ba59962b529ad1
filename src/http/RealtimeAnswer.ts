import { DateTime, Duration, Effect, Redacted } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { CLIENT_SECRET_LIFETIME } from "../domain/ClientSecret.ts"
import type { SecretMaker } from "../domain/ClientSecret.ts"
import type { ClosedCode } from "../domain/Event.ts"
import { SessionId } from "../domain/Principal.ts"
import type { TenantPrincipal } from "../domain/Principal.ts"
import {
  DependencyUnavailable,
  Forbidden,
  InvalidRequest,
  TenantSuspended,
  Unauthenticated
} from "../domain/Problems.ts"
import { RequestId } from "../domain/RequestId.ts"
import { ClientSecrets } from "../services/ClientSecrets.ts"
import { stringAt } from "../services/llm/JsonAt.ts"
import type { JsonObject } from "../services/llm/Codec.ts"
import { Realtime } from "../services/llm/Realtime.ts"
import { wrongIn } from "../services/llm/RealtimeWire.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { TenantLlm } from "../services/TenantLlm.ts"
import { PresentedCredentials } from "./Authentication.ts"
import { PinnedSession } from "./ClientSecret.ts"
import { refused } from "./LlmAnswer.ts"
import { StillAllowed } from "./StillAllowed.ts"
import { takeHandshake } from "./WebSocketUpgrade.ts"

/** Who names no model in a client secret gets this group. */
const VOICE = "voice"

/** A secret's session is kept in memory, and sent at each opening. */
const MOST_SESSION_CHARACTERS = 64 * 1024

const invalid = (path: ReadonlyArray<string>, message: string) =>
  new InvalidRequest({ detail: message, errors: [{ path, message }] })

/** What ended before the upgrade was answered. */
const refusals: Readonly<
  Record<ClosedCode, () => Unauthenticated | Forbidden | TenantSuspended | DependencyUnavailable>
> = {
  Unauthenticated: () => new Unauthenticated({}),
  Forbidden: () => new Forbidden({}),
  TenantSuspended: () => new TenantSuspended({}),
  DependencyUnavailable: () => new DependencyUnavailable({}),
  ShuttingDown: () => new DependencyUnavailable({ detail: "The server shuts down" })
}

/** The model of a session: what the caller names, or what its client secret pins. */
const modelOf = (
  asked: string | undefined,
  pinned: JsonObject | undefined
): Effect.Effect<string, InvalidRequest | Forbidden> => {
  if (pinned === undefined) {
    return asked === undefined ? Effect.fail(invalid(["model"], "Expected a model")) : Effect.succeed(asked)
  }
  const own = stringAt(pinned, "model") ?? VOICE
  return asked === undefined || asked === own
    ? Effect.succeed(own)
    : Effect.fail(new Forbidden({ detail: "The client secret is for another model" }))
}

/**
 * Joins a caller to a session at a provider, and returns when that is over. Whatever can be refused is refused with a status,
 * before the upgrade: the provider's session is open by then.
 */
const openSession = Effect.fnUntraced(function* (
  realtime: Realtime["Service"],
  stillAllowed: StillAllowed["Service"],
  asked: string | undefined
) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const { accept } = yield* takeHandshake(request)
  const { tenantId } = yield* TenantContext
  const pinned = yield* PinnedSession
  const llm = yield* TenantLlm
  const grant = yield* Effect.catchTag(
    llm.realtime(yield* modelOf(asked, pinned)),
    "ProviderRefused",
    refused
  )
  const session = yield* Effect.catchTag(realtime.open(grant, pinned), "ProviderRefused", refused)
  let ended: ClosedCode | undefined
  yield* stillAllowed.watch(
    { credentials: yield* PresentedCredentials, tenantId, scope: "llm:use" },
    (code) => {
      ended = code
      session.end(code)
    }
  )
  if (ended !== undefined) return yield* refusals[ended]()
  yield* session.relay(yield* accept({ "X-Request-Id": yield* RequestId }))
  // Nobody reads it: for the log and the metrics.
  return HttpServerResponse.empty({ status: 101 })
})

const makerOf = (principal: TenantPrincipal): SecretMaker =>
  principal._tag === "ApiKey"
    ? { _tag: "ApiKey", tenantId: principal.tenantId, keyId: principal.keyId }
    : {
        _tag: "User",
        tenantId: principal.tenantId,
        userId: principal.userId,
        sessionId: SessionId.make(principal.sessionId)
      }

/** Makes a client secret for a session that the tenant may have. */
const mintSecret = Effect.fnUntraced(function* (
  secrets: ClientSecrets["Service"],
  given: JsonObject,
  seconds: number = CLIENT_SECRET_LIFETIME.usual
) {
  const session: JsonObject = { type: "realtime", model: VOICE, ...given }
  if (session["type"] !== "realtime") {
    return yield* invalid(["session", "type"], `Expected "realtime"`)
  }
  const model = stringAt(session, "model")
  if (model === undefined) return yield* invalid(["session", "model"], "Expected a model")
  if (JSON.stringify(session).length > MOST_SESSION_CHARACTERS) {
    return yield* invalid(["session"], `Expected ${MOST_SESSION_CHARACTERS} characters at most`)
  }
  const llm = yield* TenantLlm
  const grant = yield* Effect.catchTag(llm.realtime(model), "ProviderRefused", refused)
  if (wrongIn(session, grant) !== undefined) {
    return yield* new Forbidden({ detail: "The tenant may not use this model for transcription" })
  }
  const { principal } = yield* TenantContext
  const made = yield* secrets.mint({ maker: makerOf(principal), session }, Duration.seconds(seconds))
  return HttpServerResponse.jsonUnsafe({
    value: Redacted.value(made.value),
    expires_at: Math.floor(DateTime.toEpochMillis(made.expiresAt) / 1000),
    session: { ...session, object: "realtime.session", id: `sess_${(yield* RequestId).replaceAll("-", "")}` }
  })
})

/** What answers `/v1/realtime` and `/v1/realtime/client_secrets`. */
export const makeRealtimeAnswer = Effect.gen(function* () {
  const realtime = yield* Realtime
  const secrets = yield* ClientSecrets
  const stillAllowed = yield* StillAllowed
  return {
    open: (asked: string | undefined) => openSession(realtime, stillAllowed, asked),
    mint: (session: JsonObject, seconds: number | undefined) => mintSecret(secrets, session, seconds)
  }
})
