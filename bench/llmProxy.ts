// The floor of `bench llm`: a bare proxy of node:http, which looks at nothing. `PROVIDER` is where it sends everything.
//
// @effect-diagnostics processEnv:off -- nothing of effect's is to run here.
import { Agent, createServer, request as send } from "node:http"
import type { AddressInfo } from "node:net"

const provider = new URL(process.env["PROVIDER"] ?? "")
const agent = new Agent({ keepAlive: true, maxSockets: 1024, scheduling: "lifo" })

const server = createServer((request, response) => {
  const headers = {
    "content-type": "application/json",
    authorization: "Bearer of-the-measurement",
    "content-length": request.headers["content-length"]
  }
  const upstream = send(
    {
      host: provider.hostname,
      port: provider.port,
      path: request.url,
      method: request.method,
      agent,
      headers
    },
    (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    }
  )
  upstream.on("error", () => response.destroy())
  request.pipe(upstream)
})
server.keepAliveTimeout = 60_000
server.listen(0, "127.0.0.1", () => {
  const address: AddressInfo | string | null = server.address()
  process.stdout.write(
    `Ready on http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}\n`
  )
})
