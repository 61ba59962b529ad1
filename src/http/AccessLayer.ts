import { Context, Effect, Layer, Option } from "effect"
import { allows } from "../domain/Principal.ts"
import { Forbidden } from "../domain/Problems.ts"
import { TenantContext } from "../services/TenantContext.ts"
import { Access, AccessControl, OperatorOnly } from "./Access.ts"
import { CurrentPrincipal } from "./Authentication.ts"

const AccessControlLayer = Layer.succeed(
  AccessControl,
  AccessControl.of(
    Effect.fnUntraced(function* (httpEffect, { endpoint }) {
      const { principal, scopes } = yield* TenantContext
      const rule = Context.getOption(endpoint.annotations, Access)
      if (Option.isNone(rule)) return yield* new Forbidden({})
      if ("scope" in rule.value && !allows(scopes, rule.value.scope)) {
        return yield* new Forbidden({ detail: `This needs the scope ${rule.value.scope}` })
      }
      if ("user" in rule.value && principal._tag !== "User") {
        return yield* new Forbidden({ detail: "This needs a user's access token" })
      }
      return yield* httpEffect
    })
  )
)

const OperatorOnlyLayer = Layer.succeed(
  OperatorOnly,
  OperatorOnly.of(
    Effect.fnUntraced(function* (httpEffect) {
      const principal = yield* CurrentPrincipal
      if (principal._tag !== "Operator") return yield* new Forbidden({ detail: "This needs an operator key" })
      return yield* httpEffect
    })
  )
)

export const AccessLayer = Layer.mergeAll(AccessControlLayer, OperatorOnlyLayer)
