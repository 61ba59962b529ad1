import type { Schema } from "effect"
import { isJsonObject } from "./JsonAt.ts"
import type { JsonObject } from "./Codec.ts"

/** Members that name what a provider keeps under a key: earlier responses, conversations, files, vector stores, prompts, containers. */
const NAMES = new Set([
  "previous_response_id",
  "conversation",
  "prompt",
  "container",
  "container_id",
  "file_id",
  "file_ids",
  "vector_store_ids",
  "memory_store_id"
])

const isReference = (value: Schema.Json | undefined): boolean => value !== undefined && value !== null

/** The members of a request that may hold references; what people and tools said holds none. */
const PLACES = new Set(["input", "messages", "tools", "system", "tool_resources"])

const refers = (json: Schema.Json): boolean => {
  if (Array.isArray(json)) return json.some(refers)
  if (!isJsonObject(json)) return false
  if (json["type"] === "item_reference") return true
  // A JSON schema, or arguments: names in there are the caller's own.
  return Object.entries(json).some(
    ([name, value]) =>
      (NAMES.has(name) && isReference(value)) ||
      (name !== "parameters" &&
        name !== "input_schema" &&
        name !== "input" &&
        name !== "arguments" &&
        refers(value))
  )
}

/**
 * Whether a request refers to what a provider keeps by id. Under the platform's key such things are nobody's own: who knew
 * another tenant's id would get what it stands for. They are for tenants with keys of their own.
 */
export const refersToKept = (body: JsonObject): boolean =>
  Object.entries(body).some(
    ([name, value]) => (NAMES.has(name) && isReference(value)) || (PLACES.has(name) && refers(value))
  )
