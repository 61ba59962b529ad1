import { Predicate, Record as Records } from "effect"

/** A body for each operation that takes one, as a person would send it. Kept true by a test that sends them. */
export const bodyExamples: Readonly<Record<string, unknown>> = {
  "tenants.provision": { slug: "skyvera", name: "Skyvera", admin_email: "admin@skyvera.example" },
  "tenants.update": { settings: { "records.max_bytes": 65_536, "guard.policy": null } },
  "signIn.login": { email: "admin@skyvera.example", password: "correct horse battery" },
  "auth.createApiKey": { name: "nightly import", scopes: ["records:read", "records:write"] },
  "auth.rotateApiKey": { overlap_seconds: 3600 },
  "records.create": { data: { text: "Call back on Monday", done: false } },
  "records.replace": { data: { text: "Call back on Monday", done: true } },
  "state.put": { value: { online: true }, ttl_seconds: 60 }
}

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json => Predicate.isObject(value) && !Array.isArray(value)

const objectAt = (parent: Json, name: string): Json => {
  const value = parent[name]
  return isObject(value) ? value : {}
}

/** Adds the example of an operation to its body, whatever content types that has. */
const withExample = (operation: Json): Json => {
  const example = bodyExamples[String(operation["operationId"])]
  const body = objectAt(operation, "requestBody")
  if (example === undefined || body["content"] === undefined) return operation
  const content = Records.map(objectAt(body, "content"), (media) =>
    isObject(media) ? { ...media, example } : media
  )
  return { ...operation, requestBody: { ...body, content } }
}

/** A tenant's endpoints take an API key in its own header as well; the control plane takes none. */
const withApiKey = (path: string, operation: Json): Json =>
  Array.isArray(operation["security"]) &&
  operation["security"].length > 0 &&
  !path.startsWith("/api/v1/tenants")
    ? { ...operation, security: [...operation["security"], { apiKey: [] }] }
    : operation

/** What the OpenAPI document needs beyond what the endpoints say of themselves: `X-API-Key`, and examples. */
export const completeDocument = (document: Json): Record<string, unknown> => {
  const components = objectAt(document, "components")
  return {
    ...document,
    components: {
      ...components,
      securitySchemes: {
        ...objectAt(components, "securitySchemes"),
        apiKey: { type: "apiKey", in: "header", name: "X-API-Key" }
      }
    },
    paths: Records.map(objectAt(document, "paths"), (item, path) =>
      isObject(item)
        ? Records.map(item, (operation) =>
            isObject(operation) ? withApiKey(path, withExample(operation)) : operation
          )
        : item
    )
  }
}
