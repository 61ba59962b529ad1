import { Context, Effect, identity, Layer, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"
import { hash } from "node:crypto"
import { actorOf, CurrentActor } from "../domain/Actor.ts"
import { isClientSecret } from "../domain/ClientSecret.ts"
import type { Principal } from "../domain/Principal.ts"
import { Unauthenticated } from "../domain/Problems.ts"
import { Authenticator } from "../services/Authenticator.ts"
import type { Credentials } from "../services/Authenticator.ts"
import { ClientSecrets } from "../services/ClientSecrets.ts"
import type { JsonObject } from "../services/llm/Codec.ts"
import { RateLimits } from "../services/RateLimits.ts"
import { SignInLimits } from "../services/SignInLimits.ts"
import { Authentication, CurrentPrincipal, PresentedCredentials } from "./Authentication.ts"
import { keyOfProtocols, PinnedSession, TakesClientSecrets } from "./ClientSecret.ts"
import { currentAddress } from "./ClientAddress.ts"
import { enforce } from "./RateLimitHeaders.ts"

/** Credentials that an instance remembers to have been good, by their hashes. */
const REMEMBERED = 20_000

const given = (value: string | undefined): Option.Option<Redacted.Redacted<string>> =>
  value === undefined || value === "" ? Option.none() : Option.some(Redacted.make(value))

/** Who calls, what holds as long as the call does, and what a client secret pins. */
interface Identified {
  readonly principal: Principal
  readonly credentials: Credentials
  readonly session: JsonObject | undefined
}

const nothing: Credentials = { bearer: Option.none(), apiKey: Option.none() }

const digestOf = ({ apiKey, bearer }: Credentials): string =>
  hash(
    "sha256",
    // Whichever way a secret came.
    [bearer, apiKey]
      .flatMap(Option.match({ onNone: () => [], onSome: (given) => [Redacted.value(given)] }))
      .join("\0"),
    "base64"
  )

/**
 * Failed authentications are counted by address. An address beyond its limit gets no credential looked up any more, except
 * those that were good here before: who guesses keys must not lock out who has one and comes by the same address.
 */
export const AuthenticationLayer = Layer.effect(
  Authentication,
  Effect.gen(function* () {
    const authenticator = yield* Authenticator
    const clientSecrets = yield* ClientSecrets
    const limits = yield* RateLimits
    const signInLimits = yield* SignInLimits
    const good = new Set<string>()

    /** Keys whose hash is remembered already: a key's id stands for one secret, and a hash of it costs each request. */
    const knownKeys = new Set<string>()

    const remember = (principal: Principal, credentials: Credentials) => {
      if (principal._tag === "ApiKey") {
        if (knownKeys.has(principal.keyId)) return
        knownKeys.add(principal.keyId)
      }
      const digest = digestOf(credentials)
      if (good.has(digest)) return
      good.add(digest)
      if (good.size > REMEMBERED) {
        const oldest = good.values().next()
        if (oldest.done !== true) good.delete(oldest.value)
        // Whichever key that was: all are remembered anew.
        knownKeys.clear()
      }
    }

    /** By what the credential itself says. */
    const byCredentials = (credentials: Credentials) =>
      Effect.map(authenticator.authenticate(credentials), (principal): Identified => ({
        principal,
        credentials,
        session: undefined
      }))

    /** By who made the secret. */
    const bySecret = Effect.fnUntraced(function* (secret: Redacted.Redacted<string>) {
      const found = yield* clientSecrets.find(secret)
      if (Option.isNone(found)) return yield* new Unauthenticated({})
      const { maker, session } = found.value
      const credentials = { ...nothing, maker }
      const identified: Identified = {
        principal: yield* authenticator.authenticate(credentials),
        credentials,
        session
      }
      return identified
    })

    const authenticate = Effect.fnUntraced(function* (credentials: Credentials, taken: boolean) {
      // Nothing was guessed.
      if (Option.isNone(credentials.bearer) && Option.isNone(credentials.apiKey)) {
        return yield* byCredentials(credentials)
      }
      const failures = signInLimits.credentials(yield* currentAddress)
      const refused = yield* limits.refused(failures)
      if (refused !== undefined && !good.has(digestOf(credentials))) yield* enforce(refused)
      const { bearer } = credentials
      const found = yield* Effect.catchTag(
        taken && Option.isSome(bearer) && isClientSecret(bearer.value)
          ? bySecret(bearer.value)
          : byCredentials(credentials),
        "Unauthenticated",
        (error) =>
          Effect.gen(function* () {
            yield* enforce(yield* limits.charge([failures]))
            return yield* error
          })
      )
      if (found.session === undefined) remember(found.principal, credentials)
      return found
    })

    return Authentication.of({
      bearer: Effect.fnUntraced(function* (httpEffect, { credential, endpoint }) {
        const request = yield* HttpServerRequest.HttpServerRequest
        const taken = Context.get(endpoint.annotations, TakesClientSecrets)
        const bearer = given(Redacted.value(credential))
        const { credentials, principal, session } = yield* authenticate(
          {
            bearer: taken && Option.isNone(bearer) ? keyOfProtocols(request.headers) : bearer,
            apiKey: given(request.headers["x-api-key"])
          },
          taken
        )
        const actor = actorOf(principal)
        // Added, which lays them over the request's context; merging would copy all of it.
        return yield* Effect.updateContext(httpEffect, (request: Context.Context<never>) =>
          request.pipe(
            Context.add(CurrentPrincipal, principal),
            Context.add(PresentedCredentials, credentials),
            Context.add(CurrentActor, actor),
            session === undefined ? identity : Context.add(PinnedSession, session)
          )
        )
      })
    })
  })
)
