import { Duration, Effect, Option, Schema } from "effect"
import type { Scope } from "effect"
import { randomBytes } from "node:crypto"
import { createServer } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { badVersion } from "./FakeProviderAnthropic.ts"
import { behaviourOf, plan } from "./FakeProviderAnswers.ts"
import type { Behaviour, Planned } from "./FakeProviderAnswers.ts"
import { identify, openRow } from "./FakeProviderInvoice.ts"
import type { InvoiceRow, OpenRow } from "./FakeProviderInvoice.ts"
import type { JsonObject, Refusal, Script, Wire } from "./FakeProviderWire.ts"
import { realtimeProvider } from "./FakeRealtime.ts"
import { anthropicModels, isAnthropic, openAiModels, vendor, wires } from "./FakeProviderWires.ts"

/** One request as it came, and what became of it. */
export interface Attempt {
  /** When it came, in milliseconds of `performance.now()`. */
  readonly atMillis: number
  /** Without the query. */
  readonly path: string
  /** Empty where the request names none. */
  readonly model: string
  readonly headers: Readonly<Record<string, string>>
  /** As JSON, or as text where it is none. */
  readonly body: Schema.Json
  /**
   * `aborted` when the client closed the answer before its end, `cut` when a fault did; `refused` when its status is an
   * error's.
   */
  readonly outcome: "answered" | "aborted" | "refused" | "cut" | "open"
  /** From when it came until it was closed. */
  readonly abortedAfterMillis?: number
}

export interface FakeProvider {
  /** Without `/v1`: OpenAI's clients want it added, Anthropic's do not. */
  readonly url: string
  /** Since the start or the last `reset`, in the order in which they came. */
  readonly attempts: Effect.Effect<ReadonlyArray<Attempt>>
  /** Since the start, in the order in which they came: a `reset` forgets none. */
  readonly invoice: Effect.Effect<ReadonlyArray<InvoiceRow>>
  /** How many answers have not come to their end, those from before a `reset` too. */
  readonly open: Effect.Effect<number>
  /** Forgets all attempts: what fails once, fails once again. */
  readonly reset: Effect.Effect<void>
}

type Writable<A> = { -readonly [K in keyof A]: A[K] }

const streamFaults: ReadonlySet<string> = new Set([
  "hang",
  "slow-ttft",
  "cut",
  "stall",
  "inband",
  "malformed",
  "nodone",
  "nousage"
])

const rateLimited: Refusal = {
  status: 429,
  code: "rate_limit_exceeded",
  message: "Rate limit reached for requests."
}

interface Refusing {
  readonly refusal: Refusal
  /** Whether the first attempt alone is refused. */
  readonly once?: true
}

const refusals: Readonly<Record<string, Refusing>> = {
  "429-ra2": { refusal: { ...rateLimited, retryAfter: 2 }, once: true },
  "429": { refusal: rateLimited },
  "500-once": { refusal: { status: 500, code: null, message: "Internal server error" }, once: true },
  "503": { refusal: { status: 503, code: null, message: "The engine is currently overloaded." } },
  "529": { refusal: { status: 529, code: null, message: "Overloaded" } },
  context: {
    refusal: {
      status: 400,
      code: "context_length_exceeded",
      message: "prompt is too long: this model's maximum context length is 8192 tokens.",
      param: "messages"
    }
  },
  filter: {
    refusal: {
      status: 400,
      code: "content_policy_violation",
      message: "Your request was rejected as a result of our safety system."
    }
  },
  "401": { refusal: { status: 401, code: "invalid_api_key", message: "Incorrect API key provided." } },
  "403": { refusal: { status: 403, code: null, message: "You are not allowed to use this model." } },
  "408": { refusal: { status: 408, code: null, message: "Request timed out." } },
  "409": { refusal: { status: 409, code: null, message: "The request conflicts with another." } }
}

/** A request, and the row that says what it costs. */
interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly attempt: Writable<Attempt>
  readonly row: OpenRow
  readonly id: string
}

/** Waits until the socket takes more, as a slow reader makes it. */
const write = (response: ServerResponse, text: string | Buffer, written: () => void = () => {}) =>
  Effect.callback<void>((resume) => {
    const accepted = response.write(text, (error) => {
      if (error === undefined || error === null) written()
    })
    if (accepted) {
      resume(Effect.void)
      return
    }
    response.once("drain", () => resume(Effect.void))
  })

const sendJson = (
  response: ServerResponse,
  status: number,
  body: JsonObject,
  headers: Readonly<Record<string, string>>
) => {
  const bytes = Buffer.from(JSON.stringify(body))
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json",
    "content-length": bytes.length
  })
  response.end(bytes)
}

/** How many tokens of `total` come before a fault. */
const sentBefore = (fault: string | undefined, total: number) =>
  fault === "cut"
    ? Math.floor(total * 0.6)
    : fault === "stall" || fault === "inband"
      ? Math.floor(total * 0.4)
      : total

const sendStream = Effect.fnUntraced(function* (
  { response, row }: Exchange,
  wire: Wire,
  script: Script,
  answer: Planned,
  { fault, intervalMillis }: Behaviour
) {
  const { before, usage } = answer
  const sent = Math.max(0, sentBefore(fault, before + script.body.length) - before)
  row.usage = { ...usage, output: usage.reasoning }
  for (const text of script.head) yield* write(response, text)
  for (const [index, text] of script.body.slice(0, sent).entries()) {
    row.usage.output += 1
    yield* fault === "malformed" && index === 9
      ? write(response, wire.malformed)
      : write(response, text, () => {
          row.delivered += 1
        })
    // At least a turn of the event loop, so that every chunk is a write of its own.
    yield* Effect.sleep(Duration.millis(intervalMillis))
  }
  if (fault === "cut") {
    row.ended = "cut"
    response.destroy()
    return
  }
  if (fault === "stall") return yield* Effect.never
  if (fault === "inband") {
    row.ended = "cut"
    response.end(wire.inBandError)
    return
  }
  for (const text of script.tail) yield* write(response, text)
  if (fault === "nodone") row.ended = "cut"
  else for (const text of script.end) yield* write(response, text)
  response.end()
})

/** The faults of a stream, as an answer in one piece has them: it has no chunks, but bytes. */
const sendWhole = Effect.fnUntraced(function* (
  { response, row }: Exchange,
  body: JsonObject,
  answer: Planned,
  { fault }: Behaviour
) {
  const bytes = Buffer.from(JSON.stringify(body))
  row.usage = { ...answer.usage }
  if (fault === "malformed") {
    response.end(bytes.subarray(0, bytes.length - 1))
    return
  }
  const sent = sentBefore(fault === "inband" ? undefined : fault, bytes.length)
  yield* write(response, bytes.subarray(0, sent), () => {
    if (sent === bytes.length) row.delivered = answer.pieces.length
  })
  if (fault === "stall") return yield* Effect.never
  if (fault === "cut") {
    row.ended = "cut"
    response.destroy()
    return
  }
  response.end()
})

const sendAnswer = Effect.fnUntraced(function* (
  exchange: Exchange,
  wire: Wire,
  answer: Planned,
  behaviour: Behaviour,
  headers: Readonly<Record<string, string>>
) {
  const { response } = exchange
  const script = answer.asked.stream ? wire.script?.(answer) : undefined
  response.writeHead(200, {
    ...headers,
    ...(script === undefined
      ? { "content-type": "application/json" }
      : { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" })
  })
  response.flushHeaders()
  if (behaviour.fault === "slow-ttft") yield* Effect.sleep(Duration.seconds(5))
  yield* script === undefined
    ? sendWhole(exchange, wire.json(answer), answer, behaviour)
    : sendStream(exchange, wire, script, answer, behaviour)
})

const readBody = (request: IncomingMessage) =>
  Effect.callback<string>((resume) => {
    const parts: Array<Buffer> = []
    request.on("data", (part: Buffer) => parts.push(part))
    request.on("end", () => resume(Effect.succeed(Buffer.concat(parts).toString("utf8"))))
  })

const parseJson = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Json))

const modelOf = (body: Schema.Json): string =>
  Option.match(Schema.decodeUnknownOption(Schema.Struct({ model: Schema.String }))(body), {
    onNone: () => "",
    onSome: ({ model }) => model
  })

const flatHeaders = (request: IncomingMessage): Readonly<Record<string, string>> =>
  Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(", ") : (value ?? "")
    ])
  )

const hasKey = (headers: Readonly<Record<string, string>>, anthropic: boolean) =>
  /^Bearer \S/i.test(headers["authorization"] ?? "") || (anthropic && (headers["x-api-key"] ?? "") !== "")

const noKey: Refusal = {
  status: 401,
  code: "invalid_api_key",
  message: "You didn't provide an API key."
}

const notFound = (path: string): Refusal => ({ status: 404, code: null, message: `Not found: ${path}` })

/**
 * A vendor of language models on a loopback port (0 for a free one), which speaks the wires of OpenAI (chat completions,
 * responses, embeddings, models) and Anthropic (messages, counting of tokens, models). It answers
 * `tok01 tok02 …`, and the name of the model says how:
 *
 * - `mock[-dMS][-iMS][-nN]`: the delay before the first byte, the gap between chunks, the number of chunks
 *   (50). These and the options below may follow any name, a fault's or a real model's, too; a name that is no
 *   fault's is a `mock`.
 * - `-lines`: each token ends its line. `-cached`: some of the prompt comes from the cache, and some goes to it.
 *   `-reasoning`: the answer is thought about first. `-refusal`: the model refuses. `-echo`: it says what it was
 *   sent. `-pause`: Anthropic's wire
 *   pauses the turn halfway (`pause_turn`).
 * - `fault-429-ra2`, `fault-500-once`, `fault-reset-once`: fail the first time that the name is asked for.
 * - `fault-{401,403,408,409,429,503,529}`, `fault-context`, `fault-filter`: always refuse.
 * - `fault-hang` never answers; `fault-slow-ttft` sends its headers at once and the rest after 5 s.
 * - `fault-cut` ends in a lost connection after 60 % of the tokens; after 40 %, `fault-stall` falls silent and
 *   `fault-inband` sends an error as an event; `fault-malformed` breaks its chunk 10; `fault-nodone` leaves
 *   out the last event, `fault-nousage` all usage.
 *
 * An unknown fault is refused with 404. What the vendors refuse is refused: unknown versions, bad images, empty
 * texts, results without calls, a prefill by the names of Anthropic's models from 4.6 on. Text that comes back as
 * the last turn of the assistant is gone on with, and so is the one before a user who asks to continue; `stop` and
 * the limits of tokens hold. The delays are those of the real clock, also under a `TestClock`.
 *
 * Realtime voice is answered as by `FakeRealtime`. `GET /invoice` answers the invoice, for one who is in another process.
 */
export const startFakeProviderAt = Effect.fnUntraced(function* (wantedPort: number) {
  let attempts: Array<Writable<Attempt>> = []
  const timesAsked = new Map<string, number>()
  const openResponses = new Set<ServerResponse>()
  const invoice: Array<OpenRow> = []
  // Several fakes may stand behind one ledger.
  const run = randomBytes(4).toString("hex")

  const answerModel = Effect.fnUntraced(function* (exchange: Exchange, wire: Wire) {
    const { attempt, id, request, response, row } = exchange
    const refuse = (refusal: Refusal) => {
      const { retryAfter, status } = refusal
      sendJson(response, status, wire.refusal(refusal, `req_${id}`), {
        ...wire.headers(`req_${id}`, status),
        ...(retryAfter === undefined ? {} : { "retry-after": String(retryAfter) })
      })
    }
    if (!hasKey(attempt.headers, isAnthropic(wire))) return refuse(noKey)
    const asked = wire.read(attempt.body, attempt.headers)
    if ("status" in asked) return refuse(asked)
    const time = (timesAsked.get(asked.model) ?? 0) + 1
    timesAsked.set(asked.model, time)
    const behaviour = behaviourOf(asked.model)
    const { fault } = behaviour
    yield* Effect.sleep(Duration.millis(behaviour.delayMillis))
    if (fault === "hang") return yield* Effect.never
    if (fault === "reset-once" && time === 1) {
      row.ended = "cut"
      request.socket.resetAndDestroy()
      return
    }
    const refusing = fault === undefined ? undefined : refusals[fault]
    if (refusing !== undefined && (refusing.once === undefined || time === 1)) return refuse(refusing.refusal)
    if (fault !== undefined && refusing === undefined && fault !== "reset-once" && !streamFaults.has(fault)) {
      return refuse({
        status: 404,
        code: "model_not_found",
        message: `The model '${asked.model}' does not exist.`
      })
    }
    const answer = plan(wire, asked, id, behaviour, attempt.body)
    yield* sendAnswer(exchange, wire, answer, behaviour, wire.headers(`req_${id}`, 200))
  })

  const serve = Effect.fnUntraced(function* (exchange: Exchange) {
    const { attempt, id, request, response, row } = exchange
    const text = yield* readBody(request)
    const parsed = parseJson(text)
    attempt.body = Option.getOrElse(parsed, () => text)
    attempt.model = modelOf(attempt.body)
    identify(row, attempt.model, attempt.body)
    const { headers, path } = attempt
    const wire = request.method === "POST" ? wires.get(path) : undefined
    if (wire !== undefined) return yield* answerModel(exchange, wire)
    const by = vendor(path, headers)
    const refuse = (refusal: Refusal) =>
      sendJson(
        response,
        refusal.status,
        by.refusal(refusal, `req_${id}`),
        by.headers(`req_${id}`, refusal.status)
      )
    if (request.method !== "GET" || path !== "/v1/models") return refuse(notFound(path))
    if (!hasKey(headers, isAnthropic(by))) return refuse(noKey)
    const version = isAnthropic(by) ? badVersion(headers) : undefined
    if (version !== undefined) return refuse(version)
    sendJson(response, 200, isAnthropic(by) ? anthropicModels : openAiModels, by.headers(`req_${id}`, 200))
  })

  const server = createServer((request, response) => {
    const path = (request.url ?? "/").split("?", 1)[0] ?? "/"
    if (request.method === "GET" && path === "/invoice") {
      response.writeHead(200, { "content-type": "application/json" })
      response.end(JSON.stringify(invoice))
      return
    }
    const headers = flatHeaders(request)
    const id = `${run}${String(invoice.length + 1).padStart(6, "0")}`
    const row = openRow(`req_${id}`, path, headers)
    invoice.push(row)
    const attempt: Writable<Attempt> = {
      atMillis: performance.now(),
      path,
      model: "",
      headers,
      body: null,
      outcome: "open"
    }
    attempts.push(attempt)
    openResponses.add(response)
    // Outside the scope's fiber and its services: a test's clock must not hold up the vendor.
    const fiber = Effect.runFork(
      // A bug in here is to be seen at once, not as a client that waits.
      Effect.onError(serve({ request, response, attempt, row, id }), () =>
        Effect.sync(() => response.destroy())
      )
    )
    response.on("close", () => {
      openResponses.delete(response)
      fiber.interruptUnsafe()
      row.status = response.headersSent ? response.statusCode : null
      if (row.ended === "open") {
        const refused = response.statusCode >= 400
        row.ended = response.writableFinished ? (refused ? "refused" : "finished") : "aborted"
      }
      attempt.outcome = row.ended === "finished" ? "answered" : row.ended
      if (!response.writableFinished) attempt.abortedAfterMillis = performance.now() - attempt.atMillis
    })
  })

  const voice = realtimeProvider((response, model) => {
    const row: OpenRow = { ...openRow(response, "/v1/realtime", {}), model }
    invoice.push(row)
    return (ended, usage) => {
      if (row.ended !== "open") return
      row.ended = ended
      row.usage = usage
    }
  })
  server.on("upgrade", voice.upgrade)

  const port = yield* Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(wantedPort, "127.0.0.1", () => {
        const address: AddressInfo | string | null = server.address()
        resume(
          typeof address === "object" && address !== null
            ? Effect.succeed(address.port)
            : Effect.die(new Error("The fake provider has no port"))
        )
      })
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        voice.close()
        server.closeAllConnections()
      })
  )

  const fake: FakeProvider = {
    url: `http://127.0.0.1:${port}`,
    attempts: Effect.sync(() => attempts.map((attempt) => ({ ...attempt }))),
    invoice: Effect.sync(() => invoice.map((row) => ({ ...row, usage: { ...row.usage } }))),
    open: Effect.sync(() => openResponses.size),
    reset: Effect.sync(() => {
      attempts = []
      timesAsked.clear()
    })
  }
  return fake
})

/** On a port of its own choice. */
export const startFakeProvider: Effect.Effect<FakeProvider, never, Scope.Scope> = startFakeProviderAt(0)
