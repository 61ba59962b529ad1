import { Predicate, Record as Records } from "effect"

/** A body for each operation that takes one, as a person would send it. Kept true by a test that sends them. */
export const bodyExamples: Readonly<Record<string, unknown>> = {
  "tenants.provision": { slug: "skyvera", name: "Skyvera", admin_email: "admin@skyvera.example" },
  "tenants.update": { settings: { "records.max_bytes": 65_536, "guard.policy": null } },
  "signIn.login": { email: "admin@skyvera.example", password: "correct horse battery" },
  "signIn.refresh": {
    refresh_token: `aa_rt_${"0190c9a033337aaa8bbb123456789abc".repeat(2)}_${"x".repeat(86)}`
  },
  "auth.changePassword": {
    current_password: "correct horse battery",
    new_password: "staple a purple giraffe"
  },
  "users.create": { email: "ada@skyvera.example", name: "Ada Lovelace", role: "member" },
  "users.update": { name: "Ada King", is_active: true },
  "auth.createApiKey": { name: "nightly import", scopes: ["records:read", "records:write"] },
  "auth.rotateApiKey": { overlap_seconds: 3600 },
  "records.create": { data: { text: "Call back on Monday", done: false } },
  "records.replace": { data: { text: "Call back on Monday", done: true } },
  "state.put": { value: { online: true }, ttl_seconds: 60 },
  "secrets.put": { value: "the key that a vendor gave you" },
  "events.publish": { type: "ticket.created", data: { ticket: 42 } }
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

const idempotencyKey = {
  name: "Idempotency-Key",
  in: "header",
  required: false,
  description:
    "Makes it safe to send this again: for 24 hours the same key and body get the first answer, with Idempotency-Replayed: true",
  schema: { type: "string", minLength: 1, maxLength: 255, pattern: "^[\\x20-\\x7e]*$" }
}

/** What can answer that a key was used before takes keys. */
const withIdempotencyKey = (operation: Json): Json => {
  const reused = JSON.stringify(objectAt(objectAt(operation, "responses"), "422"))
  if (!reused.includes("IdempotencyKeyReused")) return operation
  const parameters = Array.isArray(operation["parameters"]) ? operation["parameters"] : []
  return { ...operation, parameters: [...parameters, idempotencyKey] }
}

/** What the OpenAPI document needs beyond what the endpoints say of themselves: `X-API-Key`, a server, and examples. */
export const completeDocument = (document: Json): Record<string, unknown> => {
  const components = objectAt(document, "components")
  return {
    ...document,
    // Wherever it is read: an installation has the address that its operator gives it.
    servers: [{ url: "/", description: "This installation" }],
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
            isObject(operation) ? withApiKey(path, withIdempotencyKey(withExample(operation))) : operation
          )
        : item
    )
  }
}
