import { Effect, Layer } from "effect"
import type { Cause } from "effect"
import type { HttpServerResponse } from "effect/http"
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

export const ProblemsLayer = Layer.succeed(
  Problems,
  Problems.of((httpEffect) => Effect.catchCause(httpEffect, render))
)
