import { Result, Schema } from "effect"
import { invalidFields } from "../../domain/InvalidFields.ts"
import { InvalidRequest } from "../../domain/Problems.ts"
import type { JsonObject, WireEvent } from "./Codec.ts"

// Reading of what vendors send. Nothing here fails on a member that is missing or of another kind: their wires grow.

export const isObject = (json: Schema.Json | undefined): json is JsonObject =>
  typeof json === "object" && json !== null && !Array.isArray(json)

export const objectOf = (json: Schema.Json | undefined): JsonObject => (isObject(json) ? json : {})

export const listOf = (json: Schema.Json | undefined): ReadonlyArray<Schema.Json> =>
  Array.isArray(json) ? json : []

export const textOf = (json: Schema.Json | undefined): string | undefined =>
  typeof json === "string" ? json : undefined

export const numberOf = (json: Schema.Json | undefined): number | undefined =>
  typeof json === "number" ? json : undefined

/** A count of tokens; none where there is none. */
export const countOf = (json: Schema.Json | undefined): number => Math.max(0, Math.trunc(numberOf(json) ?? 0))

const parseJson = Schema.decodeUnknownResult(Schema.fromJsonString(Schema.Json))

/** The JSON of a frame; `undefined` for what is none. */
export const parsed = (text: string): Schema.Json | undefined =>
  Result.getOrElse(parseJson(text), () => undefined)

/** Members whose value is `undefined` left out, as JSON leaves them out. */
export const compact = (members: Readonly<Record<string, Schema.Json | undefined>>): JsonObject =>
  Object.fromEntries(
    Object.entries(members).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]))
  )

export const frame = (event: string | undefined, body: JsonObject): WireEvent => ({
  event,
  data: JSON.stringify(body)
})

/** A decoder of requests, whose refusal lists the fields. */
export const requestDecoder = <T>(
  schema: Schema.ConstraintDecoder<T>
): ((body: JsonObject) => Result.Result<T, InvalidRequest>) => {
  const decode = Schema.decodeUnknownResult(schema, { errors: "all" })
  return (body) =>
    Result.mapError(
      decode(body),
      (error) => new InvalidRequest({ detail: "The body is invalid", errors: invalidFields(error) })
    )
}
