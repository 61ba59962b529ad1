import { SchemaIssue } from "effect"
import type { Schema } from "effect"
import type { InvalidField } from "./Problems.ts"

/** How many refused fields an answer lists. A body of a mebibyte can have very many. */
const MAX_FIELDS = 50

const formatIssues = SchemaIssue.makeFormatterStandardSchemaV1()

const toSegment = (segment: PropertyKey | { readonly key: PropertyKey }): string | number => {
  const key = typeof segment === "object" ? segment.key : segment
  return typeof key === "number" ? key : String(key)
}

/**
 * What a schema refused, field by field, the paths as the caller wrote them. The messages name what was expected:
 * the received value, which may be a password, is not in them unless a schema turns `reportInput` on.
 */
export const invalidFields = (error: Schema.SchemaError): ReadonlyArray<typeof InvalidField.Type> =>
  formatIssues(error.issue)
    .issues.slice(0, MAX_FIELDS)
    .map((issue) => ({ path: (issue.path ?? []).map(toSegment), message: issue.message }))
