import { Context, Effect, Layer, SchemaAST } from "effect"
import type { Cause } from "effect"
import { HttpServerRequest } from "effect/http"
import type { HttpServerResponse } from "effect/http"
import { HttpApiSchema } from "effect/http-api"
import type { HttpApiEndpoint } from "effect/http-api"
import { NotAcceptable } from "../domain/Problems.ts"
import { acceptsAny } from "./Negotiation.ts"
import { problemOf, respondWith } from "./ProblemResponse.ts"
import { Problems } from "./Problems.ts"

/**
 * Renders a problem, also where effect makes it a defect, as it does with a body that is too large. What is
 * none is left to the face, which logs it and has the one answer.
 */
const render = <E>(cause: Cause.Cause<E>): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  for (const reason of cause.reasons) {
    if (reason._tag === "Interrupt") continue
    const problem = problemOf(reason._tag === "Fail" ? reason.error : reason.defect)
    if (problem !== undefined) return respondWith(problem)
  }
  return Effect.orDie(Effect.failCause(cause))
}

/** The encoding that effect keeps on the schema of an answer that is not JSON. */
const encodingOf = SchemaAST.resolveAt<{ readonly contentType: string }>("~httpApiEncoding")

/** The media types an endpoint answers with; none where it has nothing to say. */
const mediaTypesOf = (endpoint: HttpApiEndpoint.Top): ReadonlyArray<string> =>
  [...endpoint.success].flatMap((schema) => {
    if (HttpApiSchema.isNoContent(schema.ast)) return []
    return [encodingOf(schema.ast)?.contentType ?? "application/json"]
  })

/**
 * Refuses what could only be answered in a way that the caller excludes, before anything is done. A problem goes out
 * as `application/problem+json` whatever `Accept` says (RFC 9110, 15.5.7 lets it).
 */
const isRefused = (accept: string | undefined, mediaTypes: () => ReadonlyArray<string>): boolean => {
  if (accept === undefined || accept === "*/*") return false
  const types = mediaTypes()
  // A stream may be asked for by name everywhere: whether there is one can depend on the body.
  return types.length > 0 && !acceptsAny(accept, types) && !accept.includes("text/event-stream")
}

export const ProblemsLayer = Layer.sync(Problems, () => {
  const known = new WeakMap<HttpApiEndpoint.Top, ReadonlyArray<string>>()
  const remembered = (endpoint: HttpApiEndpoint.Top) => {
    const types = known.get(endpoint) ?? mediaTypesOf(endpoint)
    known.set(endpoint, types)
    return types
  }
  return Problems.of((httpEffect, { endpoint }) =>
    Effect.withFiber((fiber) => {
      const { headers } = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
      return isRefused(headers["accept"], () => remembered(endpoint))
        ? respondWith(new NotAcceptable({ detail: "Accept excludes every content type of this endpoint" }))
        : Effect.catchCause(httpEffect, render)
    })
  )
})
