import { Context, Schema } from "effect"
import type { Principal } from "./Principal.ts"

/** Who did something: a person or a service of the tenant, an operator, or the platform of itself. */
export const Actor = Schema.Struct({
  type: Schema.Literals(["user", "api_key", "operator", "system"]),
  id: Schema.NullOr(Schema.String),
  name: Schema.NullOr(Schema.String)
})
export type Actor = typeof Actor.Type

export const systemActor: Actor = { type: "system", id: null, name: null }

/** Who is acting. `Authentication` sets it with the principal; outside of a request it is the platform itself. */
export const CurrentActor = Context.Reference<Actor>("agent-army/domain/CurrentActor", {
  defaultValue: () => systemActor
})

export const actorOf = (principal: Principal): Actor => {
  switch (principal._tag) {
    case "User":
      return { type: "user", id: principal.userId, name: principal.email }
    case "ApiKey":
      return { type: "api_key", id: principal.keyId, name: null }
    case "Operator":
      return { type: "operator", id: principal.id, name: principal.name }
  }
}
