// The provider of `bench llm`: OpenAI's chat completions, answered at once and always alike, by as little as it takes. What it
// costs is the same for whoever asks.
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** Pieces of a streamed answer. */
export const CHUNKS = 50

const usage = { prompt_tokens: 12, completion_tokens: CHUNKS, total_tokens: 12 + CHUNKS }
const known = { id: "chatcmpl-bench", created: 1_790_000_000, model: "mock" }

const whole = JSON.stringify({
  ...known,
  object: "chat.completion",
  choices: [
    {
      index: 0,
      finish_reason: "stop",
      message: { role: "assistant", content: "word ".repeat(CHUNKS).trim(), refusal: null }
    }
  ],
  usage
})

const frame = (choices: ReadonlyArray<unknown>, more: object = {}) =>
  `data: ${JSON.stringify({ ...known, object: "chat.completion.chunk", choices, ...more })}\n\n`

const frames = [
  ...Array.from({ length: CHUNKS }, (_, index) =>
    frame([
      {
        index: 0,
        finish_reason: null,
        delta: index === 0 ? { role: "assistant", content: "word" } : { content: " word" }
      }
    ])
  ),
  frame([{ index: 0, finish_reason: "stop", delta: {} }]),
  frame([], { usage }),
  "data: [DONE]\n\n"
]

const server = createServer((request, response) => {
  let body = ""
  request.setEncoding("utf8")
  request.on("data", (chunk: string) => (body += chunk))
  request.on("end", () => {
    if (!body.includes('"stream":true')) {
      response.writeHead(200, { "content-type": "application/json", "content-length": whole.length })
      response.end(whole)
      return
    }
    response.writeHead(200, { "content-type": "text/event-stream" })
    // Each a write of its own, as a model's words come, and a turn of the loop between them.
    let next = 0
    const write = () => {
      if (response.destroyed) return
      const text = frames[next++]
      if (text === undefined) {
        response.end()
        return
      }
      response.write(text)
      setImmediate(write)
    }
    write()
  })
})
server.keepAliveTimeout = 60_000
server.listen(0, "127.0.0.1", () => {
  const address: AddressInfo | string | null = server.address()
  process.stdout.write(
    `Ready on http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}\n`
  )
})
