import { Predicate } from "effect"
import type { Schema } from "effect"
import type { JsonObject } from "./Codec.ts"

/**
 * Reads what providers answer. Not by schemas, on purpose: a schema loses a whole answer, which was paid for, over one
 * field of a kind that nobody asked for. What is missing or of another type is `undefined` here, or 0 or "".
 */

export const isJsonObject = (json: Schema.Json | undefined): json is JsonObject =>
  Predicate.isObject(json) && !Array.isArray(json)

const isList = (json: Schema.Json | undefined): json is ReadonlyArray<Schema.Json> => Array.isArray(json)

export const jsonAt = (
  json: Schema.Json | undefined,
  ...path: ReadonlyArray<string>
): Schema.Json | undefined => {
  let at = json
  for (const name of path) {
    if (!isJsonObject(at)) return undefined
    at = at[name]
  }
  return at
}

export const objectAt = (json: Schema.Json | undefined, ...path: ReadonlyArray<string>): JsonObject => {
  const found = jsonAt(json, ...path)
  return isJsonObject(found) ? found : {}
}

export const stringAt = (
  json: Schema.Json | undefined,
  ...path: ReadonlyArray<string>
): string | undefined => {
  const found = jsonAt(json, ...path)
  return Predicate.isString(found) ? found : undefined
}

export const numberAt = (
  json: Schema.Json | undefined,
  ...path: ReadonlyArray<string>
): number | undefined => {
  const found = jsonAt(json, ...path)
  return Predicate.isNumber(found) ? found : undefined
}

/** A count, such as of tokens: never below 0, never a fraction. */
export const countAt = (json: Schema.Json | undefined, ...path: ReadonlyArray<string>): number =>
  Math.max(0, Math.trunc(numberAt(json, ...path) ?? 0))

export const listAt = (
  json: Schema.Json | undefined,
  ...path: ReadonlyArray<string>
): ReadonlyArray<Schema.Json> => {
  const found = jsonAt(json, ...path)
  return isList(found) ? found : []
}

/** Parses a text that should hold a JSON object. */
export const parseObject = (text: string): JsonObject | undefined => {
  try {
    const json: Schema.Json = JSON.parse(text)
    return isJsonObject(json) ? json : undefined
  } catch {
    return undefined
  }
}

/** An object without the members that are undefined. */
export const present = (members: { readonly [name: string]: Schema.Json | undefined }): JsonObject => {
  const object: Record<string, Schema.Json> = {}
  for (const [name, value] of Object.entries(members)) if (value !== undefined) object[name] = value
  return object
}
