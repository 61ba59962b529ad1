import { NodeHttpServer } from "@effect/platform-node"
import { Clock, Context, Effect, Layer, Result, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { randomUUID } from "node:crypto"
import { createServer } from "node:http"
import type { Dialect, ModelRef, Provider } from "../domain/Llm.ts"
import { knownModels } from "../domain/ModelGroups.ts"
import type { Answer, Conversation, JsonObject, Summary, WireEvent } from "../services/llm/Codec.ts"
import { codecOf } from "../services/llm/Codecs.ts"
import { listAt, parseObject, stringAt } from "../services/llm/JsonAt.ts"

const CHARACTERS_A_TOKEN = 4

const tokensOf = (text: string): number => Math.max(1, Math.ceil(text.length / CHARACTERS_A_TOKEN))

const said = (conversation: Conversation): string =>
  conversation.turns
    .flatMap(({ parts, role }) => (role === "user" ? parts : []))
    .flatMap((part) => (part._tag === "Text" ? [part.text] : []))
    .at(-1) ?? ""

/** A sentence that nobody takes for a model's. */
const replyTo = (conversation: Conversation): string => {
  const question = said(conversation)
  const quoted = question.length > 200 ? `${question.slice(0, 200)} …` : question
  return (
    `This is the local simulator: no provider has a key. You said: "${quoted}". ` +
    "Set ANTHROPIC_API_KEY or OPENAI_API_KEY, or the secret of that name of your tenant, to ask a model."
  )
}

const answerTo = (conversation: Conversation, model: string): Answer => {
  const text = replyTo(conversation)
  return {
    id: `simulated-${randomUUID()}`,
    model,
    parts: [{ _tag: "Text", text }],
    stop: { reason: "stop", raw: "stop", sequence: undefined },
    usage: {
      input: tokensOf(said(conversation)),
      cachedRead: 0,
      cachedWrite: 0,
      output: tokensOf(text),
      reasoning: 0
    }
  }
}

const simulated = (asked: JsonObject): string => `simulator-${stringAt(asked, "model") ?? "model"}`

const unixSeconds = Effect.map(Clock.currentTimeMillis, (now) => Math.floor(now / 1000))

const frame = ({ data, event }: WireEvent): string =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${data}\n\n`

const summaryOf = (answer: Answer, created: number): Summary => ({
  answeredBy: { provider: "openai", model: answer.model },
  usage: answer.usage ?? { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 },
  costUsd: null,
  resumed: false,
  created,
  tenantId: "",
  requestId: "",
  guard: { flagged: false, score: 0, categories: [] }
})

/** The events of a stream, one for each word. */
const eventsOf = (dialect: Dialect, answer: Answer, created: number): ReadonlyArray<WireEvent> => {
  const writer = codecOf[dialect].writer({ usage: true, created })
  const text = answer.parts.map((part) => (part._tag === "Text" ? part.text : "")).join("")
  return [
    ...writer.write({ _tag: "Started", id: answer.id, model: answer.model }),
    ...(text.match(/\s*\S+/g) ?? []).flatMap((piece) => writer.write({ _tag: "Text", text: piece })),
    ...writer.write({ _tag: "Stopped", stop: answer.stop }),
    ...writer.end(summaryOf(answer, created))
  ]
}

/** A refusal in the words of the vendor whose wire is spoken. */
const refuse = (dialect: Dialect, status: number, message: string) => {
  const requestId = `simulated-${randomUUID()}`
  const problem = { status, code: null, type: null, param: null, requestId, message }
  return HttpServerResponse.jsonUnsafe(codecOf[dialect].encodeProblem(problem), {
    status,
    headers: { "request-id": requestId, "x-request-id": requestId }
  })
}

/** Answers a body; one that is no JSON object is refused. */
const post = (
  dialect: Dialect,
  answer: (asked: JsonObject) => Effect.Effect<HttpServerResponse.HttpServerResponse>
) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
    Effect.flatMap(request.text, (text) => {
      const asked = parseObject(text)
      return asked === undefined
        ? Effect.succeed(refuse(dialect, 400, "The body of the request is not a JSON object."))
        : answer(asked)
    })
  )

const converse = (dialect: Dialect) =>
  post(
    dialect,
    Effect.fnUntraced(function* (asked) {
      const decoded = codecOf[dialect].decodeRequest(asked)
      if (Result.isFailure(decoded)) {
        return refuse(dialect, 400, decoded.failure.detail ?? "The body is invalid")
      }
      const model = simulated(asked)
      const answer = answerTo(decoded.success, model)
      const created = yield* unixSeconds
      if (asked["stream"] !== true) {
        return HttpServerResponse.jsonUnsafe(
          codecOf[dialect].encodeAnswer(answer, summaryOf(answer, created))
        )
      }
      const frames = eventsOf(dialect, answer, created).map(frame)
      // A chunk, and a turn of the event loop, for each: as a provider's stream comes, without its pauses.
      const chunks = Stream.fromIterable(frames).pipe(
        Stream.rechunk(1),
        Stream.tap(() => Effect.yieldNow)
      )
      return HttpServerResponse.stream(Stream.encodeText(chunks), { contentType: "text/event-stream" })
    })
  )

const DIMENSIONS = 8

const embed = post("openai-chat", (asked) => {
  const input = asked["input"]
  const texts = typeof input === "string" ? [input] : listAt(asked, "input")
  const zeros = new Float32Array(DIMENSIONS)
  return Effect.succeed(
    HttpServerResponse.jsonUnsafe({
      object: "list",
      model: simulated(asked),
      data: texts.map((_, index) => ({
        object: "embedding",
        index,
        embedding:
          asked["encoding_format"] === "base64" ? Buffer.from(zeros.buffer).toString("base64") : [...zeros]
      })),
      usage: { prompt_tokens: texts.length, total_tokens: texts.length }
    })
  )
})

const count = post("anthropic-messages", (asked) =>
  Effect.succeed(
    HttpServerResponse.jsonUnsafe({ input_tokens: tokensOf(JSON.stringify(asked["messages"] ?? "")) })
  )
)

/** What a vendor would list; any other name is answered, too. */
const modelsOf = (vendor: Provider): ReadonlyArray<ModelRef> =>
  knownModels.filter(({ provider }) => provider === vendor)

const openAiModels: JsonObject = {
  object: "list",
  data: modelsOf("openai").map(({ model }) => ({
    id: model,
    object: "model",
    created: 0,
    owned_by: "simulator"
  }))
}

const anthropicModels: JsonObject = {
  data: modelsOf("anthropic").map(({ model }) => ({
    type: "model",
    id: model,
    display_name: `${model} (simulator)`,
    // What Anthropic says of a model whose release it doesn't know.
    created_at: "1970-01-01T00:00:00Z",
    capabilities: null,
    deprecated_at: null,
    lifecycle: "active",
    line: null,
    max_input_tokens: null,
    max_tokens: null
  })),
  has_more: false,
  first_id: modelsOf("anthropic").at(0)?.model ?? null,
  last_id: modelsOf("anthropic").at(-1)?.model ?? null
}

/** Only Anthropic's clients send an `anthropic-version`, which tells whose model list or unknown path is meant. */
const dialectOf = ({ headers, url }: HttpServerRequest.HttpServerRequest): Dialect =>
  headers["anthropic-version"] !== undefined || url.startsWith("/v1/messages")
    ? "anthropic-messages"
    : "openai-chat"

const models = Effect.map(HttpServerRequest.HttpServerRequest, (request) =>
  HttpServerResponse.jsonUnsafe(dialectOf(request) === "anthropic-messages" ? anthropicModels : openAiModels)
)

const unknownPath = Effect.map(HttpServerRequest.HttpServerRequest, (request) =>
  refuse(
    dialectOf(request),
    404,
    `The simulator does not have ${request.method} ${request.url.split("?", 1)[0]}`
  )
)

const routes = Layer.mergeAll(
  HttpRouter.add("POST", "/v1/chat/completions", converse("openai-chat")),
  HttpRouter.add("POST", "/v1/responses", converse("openai-responses")),
  HttpRouter.add("POST", "/v1/messages", converse("anthropic-messages")),
  HttpRouter.add("POST", "/v1/messages/count_tokens", count),
  HttpRouter.add("POST", "/v1/embeddings", embed),
  HttpRouter.add("GET", "/v1/models", models),
  HttpRouter.add("*", "/*", unknownPath)
)

/**
 * Answers in place of both vendors, over their own wires, where a developer has no key: a server on the loopback that the
 * vendors' SDKs talk to. For development alone: elsewhere a missing key is told (`ProviderNotConfigured`).
 */
export class LlmSimulator extends Context.Service<
  LlmSimulator,
  { readonly urls: Readonly<Record<Provider, string>> }
>()("agent-army/layers/LlmSimulator") {
  static readonly layer = Layer.effect(
    LlmSimulator,
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      const url = `http://127.0.0.1:${address._tag === "UnixPathAddress" ? 0 : address.port}`
      return LlmSimulator.of({ urls: { anthropic: url, openai: `${url}/v1` } })
    })
  ).pipe(
    Layer.provideMerge(HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true })),
    Layer.provide(NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1" }))
  )
}
