import { Context, Effect, Layer, Option, Redacted } from "effect"
import { HttpServerRequest } from "effect/http"
import { actorOf, CurrentActor } from "../domain/Actor.ts"
import { Authenticator } from "../services/Authenticator.ts"
import { Authentication, CurrentPrincipal, PresentedCredentials } from "./Authentication.ts"

const given = (value: string | undefined): Option.Option<Redacted.Redacted<string>> =>
  value === undefined || value === "" ? Option.none() : Option.some(Redacted.make(value))

export const AuthenticationLayer = Layer.effect(
  Authentication,
  Effect.gen(function* () {
    const authenticator = yield* Authenticator
    return Authentication.of({
      bearer: Effect.fnUntraced(function* (httpEffect, { credential }) {
        const request = yield* HttpServerRequest.HttpServerRequest
        const credentials = {
          bearer: given(Redacted.value(credential)),
          apiKey: given(request.headers["x-api-key"])
        }
        const principal = yield* authenticator.authenticate(credentials)
        return yield* Effect.provideContext(
          httpEffect,
          Context.make(CurrentPrincipal, principal).pipe(
            Context.add(PresentedCredentials, credentials),
            Context.add(CurrentActor, actorOf(principal))
          )
        )
      })
    })
  })
)
