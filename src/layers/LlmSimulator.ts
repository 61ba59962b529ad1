import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer, Result, Schema, Stream } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createServer } from "node:http"
import type { Dialect, Provider } from "../domain/Llm.ts"
import type { Answer, Conversation, JsonObject, Summary, WireEvent } from "../services/llm/Codec.ts"
import { codecOf } from "../services/llm/Codecs.ts"
import { listOf, textOf } from "../services/llm/Json.ts"

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
    id: "simulated",
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

const frame = ({ data, event }: WireEvent): string =>
  `${event === undefined ? "" : `event: ${event}\n`}data: ${data}\n\n`

const summaryOf = (answer: Answer, model: string): Summary => ({
  answeredBy: { provider: "openai", model },
  usage: answer.usage ?? { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 },
  costUsd: null,
  resumed: false,
  tenantId: "",
  requestId: "",
  guard: { flagged: false, score: 0, categories: [] }
})

const streamed = (dialect: Dialect, answer: Answer): string => {
  const writer = codecOf[dialect].writer({ usage: true })
  const text = answer.parts.map((part) => (part._tag === "Text" ? part.text : "")).join("")
  const events = [
    ...writer.write({ _tag: "Started", id: answer.id, model: answer.model }),
    ...(text.match(/\s*\S+/g) ?? []).flatMap((piece) => writer.write({ _tag: "Text", text: piece })),
    ...writer.write({ _tag: "Stopped", stop: answer.stop }),
    ...writer.end(summaryOf(answer, answer.model))
  ]
  return events.map(frame).join("")
}

const body = HttpServerRequest.schemaBodyJson(Schema.Record(Schema.String, Schema.Json))

const converse = (dialect: Dialect) =>
  Effect.gen(function* () {
    const asked: JsonObject = yield* body
    const decoded = codecOf[dialect].decodeRequest(asked)
    if (Result.isFailure(decoded)) {
      const problem = { status: 400, code: null, type: null, param: null, requestId: "simulated" }
      const message = decoded.failure.detail ?? "The body is invalid"
      return HttpServerResponse.jsonUnsafe(codecOf[dialect].encodeProblem({ ...problem, message }), {
        status: 400
      })
    }
    const model = `simulator-${textOf(asked["model"]) ?? "model"}`
    const answer = answerTo(decoded.success, model)
    if (asked["stream"] !== true) {
      return HttpServerResponse.jsonUnsafe(codecOf[dialect].encodeAnswer(answer, summaryOf(answer, model)))
    }
    return HttpServerResponse.stream(Stream.encodeText(Stream.succeed(streamed(dialect, answer))), {
      contentType: "text/event-stream"
    })
  })

const DIMENSIONS = 8

const embed = Effect.gen(function* () {
  const asked: JsonObject = yield* body
  const input = asked["input"]
  const texts = typeof input === "string" ? [input] : listOf(input)
  const zeros = new Float32Array(DIMENSIONS)
  return HttpServerResponse.jsonUnsafe({
    object: "list",
    model: `simulator-${textOf(asked["model"]) ?? "model"}`,
    data: texts.map((_, index) => ({
      object: "embedding",
      index,
      embedding:
        asked["encoding_format"] === "base64" ? Buffer.from(zeros.buffer).toString("base64") : [...zeros]
    })),
    usage: { prompt_tokens: texts.length, total_tokens: texts.length }
  })
})

const count = Effect.gen(function* () {
  const asked: JsonObject = yield* body
  return HttpServerResponse.jsonUnsafe({ input_tokens: tokensOf(JSON.stringify(asked["messages"] ?? "")) })
})

const routes = Layer.mergeAll(
  HttpRouter.add("POST", "/v1/chat/completions", converse("openai-chat")),
  HttpRouter.add("POST", "/v1/responses", converse("openai-responses")),
  HttpRouter.add("POST", "/v1/messages", converse("anthropic-messages")),
  HttpRouter.add("POST", "/v1/messages/count_tokens", count),
  HttpRouter.add("POST", "/v1/embeddings", embed)
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
