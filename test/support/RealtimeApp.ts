import { NodeHttpClient } from "@effect/platform-node"
import { Effect, Layer, Redacted } from "effect"
import { execFile } from "node:child_process"
import { connect } from "node:net"
import type { AddressInfo } from "node:net"
import { createServer } from "node:tls"
import { WebSocket } from "ws"
import { eventually } from "./Eventually.ts"
import { FakeRealtime } from "./FakeRealtime.ts"
import type { ProviderSession } from "./FakeRealtime.ts"
import { startServer, TestPlatform, TestServer } from "./Platform.ts"
import { operator, provisionTenant } from "./Tenants.ts"
import type { TestTenant } from "./Tenants.ts"

export const providerKey = "sk-of-the-tests-0123456789"

/** A server on a real socket, with a provider of realtime voice behind it. */
export const TestRealtimeApp = Layer.effect(
  TestServer,
  Effect.flatMap(FakeRealtime, ({ url }) =>
    startServer({ OPENAI_API_KEY: providerKey, OPENAI_BASE_URL: `${url}/v1` })
  )
).pipe(
  Layer.provideMerge(FakeRealtime.layer),
  Layer.provideMerge(TestPlatform),
  Layer.provideMerge(NodeHttpClient.layerUndici)
)

type Members = Readonly<Record<string, unknown>>

/** A member of a member of … an event. */
export const at = (value: unknown, ...path: ReadonlyArray<string>): unknown =>
  path.reduce<unknown>(
    (found, name) => (typeof found === "object" && found !== null ? Reflect.get(found, name) : undefined),
    value
  )

/** A caller's open socket, and all that came. */
export interface Caller {
  readonly socket: WebSocket
  readonly frames: ReadonlyArray<{ readonly data: Buffer; readonly binary: boolean }>
  readonly events: ReadonlyArray<Members>
  readonly closed: () => { readonly code: number; readonly reason: string } | undefined
  readonly send: (event: Members) => void
}

/** An upgrade that was answered by something else. */
export interface RefusedUpgrade {
  readonly status: number
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly text: string
  readonly json: unknown
}

export interface CallOptions {
  readonly headers?: Readonly<Record<string, string>>
  readonly protocols?: Array<string>
  /** In the place of the server of the layer. */
  readonly url?: string
}

const upgrade = Effect.fnUntraced(function* (query: string, options: CallOptions) {
  const base = options.url ?? (yield* TestServer).url
  return yield* Effect.acquireRelease(
    Effect.callback<{ readonly caller: Caller } | { readonly refused: RefusedUpgrade }>((resume) => {
      const frames: Array<{ data: Buffer; binary: boolean }> = []
      const events: Array<Members> = []
      let closed: { code: number; reason: string } | undefined
      const socket = new WebSocket(`${base.replace("http", "ws")}/v1/realtime${query}`, options.protocols, {
        headers: { ...options.headers },
        perMessageDeflate: false
      })
      socket.on("error", () => undefined)
      socket.on("message", (data, binary) => {
        if (!Buffer.isBuffer(data)) return
        frames.push({ data, binary })
        if (!binary) events.push(JSON.parse(data.toString("utf8")))
      })
      socket.on("close", (code, reason) => {
        closed = { code, reason: reason.toString() }
      })
      const send = (event: Members) => socket.send(JSON.stringify(event))
      socket.on("open", () =>
        resume(Effect.succeed({ caller: { socket, frames, events, closed: () => closed, send } }))
      )
      socket.on("unexpected-response", (request, response) => {
        let text = ""
        response.setEncoding("utf8")
        response.on("data", (chunk: string) => (text += chunk))
        response.on("end", () => {
          request.destroy()
          const isJson = String(response.headers["content-type"]).includes("json")
          resume(
            Effect.succeed({
              refused: {
                status: response.statusCode ?? 0,
                headers: response.headers,
                text,
                json: isJson ? JSON.parse(text) : undefined
              }
            })
          )
        })
      })
    }),
    (answer) => Effect.sync(() => ("caller" in answer ? answer.caller.socket.terminate() : undefined))
  )
})

/** With an API key of a tenant's, as OpenAI's own clients send it. */
export const bearer = (secret: Redacted.Redacted<string> | string) => ({
  authorization: `Bearer ${typeof secret === "string" ? secret : Redacted.value(secret)}`
})

/** Opens a session; closed with the scope. */
export const dial = Effect.fnUntraced(function* (
  tenant: TestTenant,
  model: string,
  options: CallOptions = {}
) {
  const answer = yield* upgrade(`?model=${encodeURIComponent(model)}`, {
    headers: bearer(tenant.apiKey),
    ...options
  })
  if ("refused" in answer) {
    return yield* Effect.die(new Error(`Refused: ${answer.refused.status} ${answer.refused.text}`))
  }
  return answer.caller
})

/** Asks for an upgrade that is refused. */
export const refusedDial = Effect.fnUntraced(function* (query: string, options: CallOptions) {
  const answer = yield* upgrade(query, options)
  return "refused" in answer
    ? answer.refused
    : yield* Effect.die(new Error("The upgrade was answered with a socket"))
})

/** Opens one with a query of its own. */
export const openWith = Effect.fnUntraced(function* (query: string, options: CallOptions) {
  const answer = yield* upgrade(query, options)
  return "caller" in answer
    ? answer.caller
    : yield* Effect.die(new Error(`Refused: ${answer.refused.status} ${answer.refused.text}`))
})

const typed = (type: string) => (event: Members) => event["type"] === type

/** The events of a type, as soon as there are so many. */
export const heard = ({ events }: Caller, type: string, count = 1) =>
  eventually(
    `${count} of ${type}`,
    Effect.sync(() => events.filter(typed(type))),
    ({ length }) => length >= count
  )

/** The close, once it came. */
export const closeOf = ({ closed }: Caller) =>
  Effect.flatMap(
    eventually("the socket is closed", Effect.sync(closed), (found) => found !== undefined),
    Effect.fromNullishOr
  ).pipe(Effect.orDie)

/** The provider's side of a caller's session: the last one of a model. */
export const sideOf = (model: string) =>
  Effect.flatMap(FakeRealtime, ({ sessions }) =>
    eventually(
      `a session of ${model}`,
      Effect.sync(() => sessions.filter((session) => session.model === model)),
      ({ length }) => length > 0
    )
  ).pipe(
    Effect.map((all): ProviderSession => {
      const last = all.at(-1)
      if (last === undefined) throw new Error("No session")
      return last
    })
  )

/** Gives a tenant settings, and waits until they are in force: they are remembered for a moment. */
export const settingsFor = Effect.fnUntraced(function* (
  tenant: TestTenant,
  settings: Readonly<Record<string, unknown>>
) {
  yield* (yield* operator).tenants.update({
    params: { tenant: tenant.id },
    payload: {
      settings: {
        ...settings,
        "llm.groups": { ...Object(settings["llm.groups"]), "in-force": ["openai/rt"] }
      }
    }
  })
  yield* eventually("the settings are in force", tenant.asService.openai.models(), (models) =>
    JSON.stringify(models).includes(`"in-force"`)
  )
})

export const tenantWith = Effect.fnUntraced(function* (settings: Readonly<Record<string, unknown>>) {
  const tenant = yield* provisionTenant("voice")
  yield* settingsFor(tenant, settings)
  return tenant
})

const pem = Effect.callback<string>((resume) => {
  execFile(
    "openssl",
    [
      ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(" "),
      ..."-keyout - -out - -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1".split(" ")
    ],
    (error, stdout) => resume(error === null ? Effect.succeed(stdout) : Effect.die(error))
  )
})

/** TLS in front of the server, as a balancer terminates it: OpenAI's class for Node speaks `wss:` alone. */
export const tlsFront = Effect.gen(function* () {
  const { url } = yield* TestServer
  const both = yield* pem
  const target = Number(new URL(url).port)
  const server = yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof createServer>>((resume) => {
      const server = createServer({ key: both, cert: both }, (front) => {
        const back = connect(target, "127.0.0.1")
        front.on("error", () => back.destroy())
        back.on("error", () => front.destroy())
        front.pipe(back)
        back.pipe(front)
      })
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )
  const address: AddressInfo | string | null = server.address()
  const port = typeof address === "object" && address !== null ? address.port : 0
  return { url: `https://127.0.0.1:${port}`, ca: /-----BEGIN CERT[^]*$/.exec(both)?.[0] ?? "" }
})
