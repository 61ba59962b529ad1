import { Effect } from "effect"
import { createHash } from "node:crypto"
import { answerWith } from "./AnswerHeaders.ts"

/** The entity tag of a version (RFC 9110, 8.8.3). */
export const etagOf = (version: number): string => `"${version}"`

/** Puts the tag of what was read or written on the answer. */
export const withETag = <A extends { readonly version: number }, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => Effect.tap(effect, ({ version }) => answerWith({ etag: etagOf(version) }))

/** The same for what has no version: a hash of its JSON. For reads that are rare, or small. */
export const withDigest = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.tap(effect, (value) => {
    const digest = createHash("sha256").update(JSON.stringify(value)).digest("base64url")
    return answerWith({ etag: `"${digest.slice(0, 22)}"` })
  })

/** What the tag of a compressed answer ends with: each encoding is a representation of its own (RFC 9110, 8.8.3.3). */
export const encodedETag = (etag: string, encoding: string): string =>
  /^".*"$/.test(etag) ? `${etag.slice(0, -1)}-${encoding}"` : etag

/** A tag for comparison: without its weakness, and without the encoding, since both hold the same. */
const opaque = (tag: string) =>
  tag
    .trim()
    .replace(/^W\//, "")
    .replace(/-(?:br|gzip)"$/, `"`)

/** Whether `If-None-Match` names the tag (RFC 9110, 13.1.2): comparison is weak, and `*` names any. */
export const namesETag = (header: string, etag: string): boolean => {
  if (header.trim() === "*") return true
  const current = opaque(etag)
  return header.split(",").some((tag) => opaque(tag) === current)
}

const entry = /^\s*"([0-9]{1,9})(?:-(?:br|gzip))?"\s*$/

/**
 * The versions that an `If-Match` allows (RFC 9110, 13.1.1): `undefined` for none given, or `*`. Comparison is strong,
 * so that weak tags, and whatever is no tag of ours, allow nothing. The tag of a compressed answer names its version.
 */
export const expectedVersions = (header: string | undefined): ReadonlyArray<number> | undefined => {
  if (header === undefined || header.trim() === "*") return undefined
  return header.split(",").flatMap((part) => {
    const match = entry.exec(part)
    return match === null ? [] : [Number(match[1])]
  })
}
