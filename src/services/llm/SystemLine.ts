import type { Schema } from "effect"
import { isJsonObject, stringAt } from "./JsonAt.ts"
import type { JsonObject } from "./Codec.ts"

const isSystem = (item: Schema.Json): item is JsonObject => {
  const role = stringAt(item, "role")
  return isJsonObject(item) && (role === "system" || role === "developer")
}

/** A list of messages with a line more, as a message of its own after the last that tells the model who it is. */
export const withSystemLine = (
  items: ReadonlyArray<Schema.Json>,
  line: string
): ReadonlyArray<Schema.Json> => {
  const last = items.findLastIndex(isSystem)
  const role = stringAt(items[last], "role")
  return role === undefined ? items : items.toSpliced(last + 1, 0, { role, content: line })
}

/** A text with a line more. */
export const withLine = (text: string, line: string): string => `${text}\n\n${line}`
