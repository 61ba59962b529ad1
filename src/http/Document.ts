import { Predicate, Record as Records } from "effect"

const greeting = { role: "user", content: "Which plan suits a team of five?" }

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
  "events.publish": { type: "ticket.created", data: { ticket: 42 } },
  "llm.complete": { messages: [greeting], model: "fast", max_tokens: 500 },
  "llm.stream": { messages: [greeting], model: "reasoning", resume: true },
  "openai.chat": { model: "reasoning", messages: [greeting] },
  "openai.responses": { model: "reasoning", input: greeting.content },
  "openai.embeddings": { model: "embedding", input: ["Call back on Monday"] },
  "openai.clientSecret": {
    expires_after: { anchor: "created_at", seconds: 600 },
    session: { type: "realtime", model: "voice", instructions: "Answer in one sentence." }
  },
  "anthropic.messages": { model: "reasoning", max_tokens: 500, messages: [greeting] },
  "anthropic.countTokens": { model: "reasoning", messages: [greeting] }
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

/** The vendors' envelopes of errors (`ProblemResponse.ts`), with one of our codes, or the provider's own. */
const vendorErrors = {
  OpenAIError: {
    type: "object",
    properties: {
      error: {
        type: "object",
        properties: {
          message: { type: "string" },
          type: { type: ["string", "null"] },
          param: { type: ["string", "null"] },
          code: { type: ["string", "null"] }
        },
        required: ["message", "type", "param", "code"]
      }
    },
    required: ["error"]
  },
  AnthropicError: {
    type: "object",
    properties: {
      type: { const: "error" },
      error: {
        type: "object",
        properties: {
          type: { type: "string" },
          message: { type: "string" },
          details: {
            type: ["object", "null"],
            properties: { error_code: { type: ["string", "null"] } }
          }
        },
        required: ["type", "message"]
      },
      request_id: { type: "string" }
    },
    required: ["type", "error", "request_id"]
  }
} as const

const errorSchema = (name: keyof typeof vendorErrors) => ({ $ref: `#/components/schemas/${name}` })

const vendorError = (path: string) => {
  if (path.startsWith("/v1/messages")) return errorSchema("AnthropicError")
  if (!path.startsWith("/v1/models")) return errorSchema("OpenAIError")
  return { anyOf: [errorSchema("OpenAIError"), errorSchema("AnthropicError")] }
}

/** A vendor's endpoints refuse in the vendor's words. */
const withVendorErrors = (path: string, operation: Json): Json => {
  if (!path.startsWith("/v1/")) return operation
  const responses = Records.map(objectAt(operation, "responses"), (response, status) =>
    isObject(response) && Number(status) >= 400
      ? { ...response, content: { "application/json": { schema: vendorError(path) } } }
      : response
  )
  return { ...operation, responses }
}

/** What the OpenAPI document needs beyond what the endpoints say of themselves: `X-API-Key`, a server, examples, vendors' errors. */
export const completeDocument = (document: Json): Record<string, unknown> => {
  const components = objectAt(document, "components")
  return {
    ...document,
    // Wherever it is read: an installation has the address that its operator gives it.
    servers: [{ url: "/", description: "This installation" }],
    components: {
      ...components,
      schemas: { ...objectAt(components, "schemas"), ...vendorErrors },
      securitySchemes: {
        ...objectAt(components, "securitySchemes"),
        apiKey: { type: "apiKey", in: "header", name: "X-API-Key" }
      }
    },
    paths: Records.map(objectAt(document, "paths"), (item, path) =>
      isObject(item)
        ? Records.map(item, (operation) =>
            isObject(operation)
              ? withVendorErrors(path, withApiKey(path, withIdempotencyKey(withExample(operation))))
              : operation
          )
        : item
    )
  }
}
