import { Effect } from "effect"
import type { HttpServerRequest } from "effect/http"
import { answerWithHeader } from "./AnswerHeaders.ts"

/** The entity tag of a version (RFC 9110, 8.8.3). */
export const etagOf = (version: number): string => `"${version}"`

/** Puts the tag of what was read or written on the answer. */
export const withETag = <A extends { readonly version: number }, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.tap(effect, ({ version }) => answerWithHeader("etag", etagOf(version)))

const entry = /^\s*"([0-9]{1,9})"\s*$/

/**
 * The versions that an `If-Match` allows (RFC 9110, 13.1.1): `undefined` for none given, or `*`. Comparison is strong,
 * so that weak tags, and whatever is no tag of ours, allow nothing.
 */
export const expectedVersions = (header: string | undefined): ReadonlyArray<number> | undefined => {
  if (header === undefined || header.trim() === "*") return undefined
  return header.split(",").flatMap((part) => {
    const match = entry.exec(part)
    return match === null ? [] : [Number(match[1])]
  })
}
