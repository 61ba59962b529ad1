import { Duration } from "effect"
import type { RawData, WebSocket } from "ws"

/** What may wait for a slow reader, before the other side is no longer read; one frame more at the most. */
const MOST_WAITING_BYTES = 1024 * 1024
/** So much has to be read of it, until the other side is read again. */
const FEW_WAITING_BYTES = 256 * 1024

/** How often each side is asked whether it is still there; who is silent for twice as long is gone. */
const PING_EVERY = Duration.seconds(20)

/** How long a provider may take to close what nobody listens to any more. */
const PROVIDER_CLOSES_WITHIN = Duration.millis(50)
/** How long a client may take to read why it is the end. */
const FAREWELL = Duration.seconds(3)

/** RFC 6455, 5.5: a control frame has 125 bytes, two of which are the code. */
const MOST_REASON_BYTES = 123

/** What a client is told at the end. */
export interface Ending {
  /** RFC 6455, 7.4, and IANA's registry. */
  readonly code: number
  readonly reason: string
  /** An `error` event before the close. */
  readonly event?: string | undefined
}

export interface RelayHooks {
  /** What goes on to the provider: the frame as it came, or a text in its place; or what the client is told instead, if anything. */
  readonly fromClient: (
    data: Buffer,
    isBinary: boolean
  ) => { readonly forward: Buffer | string } | { readonly refuse: string | undefined }
  /** Looks at a frame that has gone on to the client. */
  readonly fromProvider: (data: Buffer, isBinary: boolean) => void
  /** What the client is told when the provider closes, or breaks off (1006). */
  readonly providerClosed: (code: number, reason: string) => Ending
  /** A defect of a hook. Both sides are cut. */
  readonly failed: (error: unknown) => void
  /** Once, when the client is gone and the provider told so. */
  readonly closed: () => void
}

const bufferOf = (data: RawData): Buffer =>
  Buffer.isBuffer(data) ? data : Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data)

/** What an endpoint may send: 1004 to 1006 and 1015 are none (RFC 6455, 7.4.1). */
const sendable = (code: number): number =>
  (code >= 1000 && code <= 1014 && (code < 1004 || code > 1006)) || (code >= 3000 && code <= 4999)
    ? code
    : 1000

const shortened = (reason: string): string => {
  const bytes = Buffer.from(reason)
  return bytes.length <= MOST_REASON_BYTES
    ? reason
    : // Not in the middle of a character.
      new TextDecoder().decode(bytes.subarray(0, MOST_REASON_BYTES), { stream: true })
}

/**
 * Two WebSockets, both paused until now, as one: frames go both ways in their order and as they are. Events of Node and no fibers: a frame costs
 * one write. What a slow reader has not taken makes the other side wait, by TCP's own means.
 */
export class Relay {
  readonly #client: WebSocket
  readonly #provider: WebSocket
  readonly #hooks: RelayHooks
  readonly #pings: Array<NodeJS.Timeout> = []
  #over = false

  constructor(client: WebSocket, provider: WebSocket, hooks: RelayHooks) {
    this.#client = client
    this.#provider = provider
    this.#hooks = hooks

    client.on("message", (data, isBinary) => this.#guarded(() => this.#fromClient(bufferOf(data), isBinary)))
    provider.on("message", (data, isBinary) =>
      this.#guarded(() => this.#fromProvider(bufferOf(data), isBinary))
    )
    client.once("close", (code) => this.#clientClosed(code))
    provider.once("close", (code, reason) => {
      this.#conclude(() => hooks.providerClosed(code, reason.toString("utf8")))
    })
    for (const side of [client, provider]) {
      // `close` follows.
      side.on("error", () => undefined)
      this.#keepAlive(side)
    }
    // What closed before anybody listened.
    if (client.readyState === client.CLOSED) this.#clientClosed(1006)
    if (provider.readyState === provider.CLOSED) {
      this.#conclude(() => hooks.providerClosed(1006, ""))
    }
    for (const side of [client, provider]) if (side.isPaused) side.resume()
  }

  /** Sends an event of ours to the provider. Before the client's own: from whoever makes a relay, at once. */
  tellProvider(text: string): void {
    this.#provider.send(text, this.#flushed)
  }

  /** Ends both sides; the client is told why. */
  end(ending: Ending): void {
    this.#conclude(() => ending)
  }

  /** Cuts both sides. */
  cut(): void {
    this.#over = true
    this.#client.terminate()
    this.#provider.terminate()
  }

  /** In an event of Node's, what is thrown would end the process, and every tenant's sessions with it. */
  #guarded(handle: () => void): void {
    try {
      handle()
    } catch (error) {
      this.#hooks.failed(error)
      this.cut()
    }
  }

  #fromClient(data: Buffer, isBinary: boolean): void {
    if (this.#over) return
    const verdict = this.#hooks.fromClient(data, isBinary)
    if ("forward" in verdict) {
      this.#send(this.#client, this.#provider, verdict.forward, isBinary)
      return
    }
    // Who does not read what it is told has said enough.
    if (this.#client.bufferedAmount > MOST_WAITING_BYTES) this.cut()
    else if (verdict.refuse !== undefined) this.#client.send(verdict.refuse, this.#flushed)
  }

  #fromProvider(data: Buffer, isBinary: boolean): void {
    if (this.#over) return
    this.#send(this.#provider, this.#client, data, isBinary)
    // After it, since it may end the session.
    this.#hooks.fromProvider(data, isBinary)
  }

  #send(from: WebSocket, to: WebSocket, data: Buffer | string, isBinary: boolean): void {
    if (to.readyState !== to.OPEN) return
    to.send(data, { binary: isBinary }, this.#flushed)
    if (to.bufferedAmount > MOST_WAITING_BYTES) from.pause()
  }

  /** A write is done: whoever waits for it is read again. */
  #flushed = (): void => {
    if (this.#over) return
    const [client, provider] = [this.#client, this.#provider]
    if (client.isPaused && provider.bufferedAmount <= FEW_WAITING_BYTES) client.resume()
    if (provider.isPaused && client.bufferedAmount <= FEW_WAITING_BYTES) provider.resume()
  }

  #keepAlive(side: WebSocket): void {
    let heardAt = performance.now()
    const heard = () => {
      heardAt = performance.now()
    }
    side.on("message", heard)
    side.on("pong", heard)
    side.on("ping", (data) => {
      heard()
      // Not by itself: who asks and never reads the answers would have them pile up.
      if (side.readyState === side.OPEN && side.bufferedAmount <= MOST_WAITING_BYTES) side.pong(data)
    })
    const millis = Duration.toMillis(PING_EVERY)
    const task = () => {
      // Whom we don't read can't be heard.
      if (side.isPaused) heard()
      else if (performance.now() - heardAt > 2 * millis) side.terminate()
      if (side.readyState === side.OPEN) side.ping()
    }
    // Outside of any fiber.
    // @effect-diagnostics-next-line globalTimers:off
    this.#pings.push(setInterval(task, millis))
  }

  #clientClosed(code: number): void {
    if (!this.#over) {
      this.#over = true
      this.#leaveProvider(sendable(code))
    }
    for (const timer of this.#pings) clearInterval(timer)
    this.#hooks.closed()
  }

  /** The end, for whatever reason comes first. */
  #conclude(ending: () => Ending): void {
    if (this.#over) return
    this.#over = true
    this.#leaveProvider(1000)
    const { code, event, reason } = ending()
    const client = this.#client
    if (client.readyState === client.OPEN && event !== undefined) client.send(event)
    client.close(sendable(code), shortened(reason))
    if (client.isPaused) client.resume()
    this.#terminateAfter(client, FAREWELL)
  }

  #leaveProvider(code: number): void {
    const provider = this.#provider
    provider.close(code)
    if (provider.isPaused) provider.resume()
    this.#terminateAfter(provider, PROVIDER_CLOSES_WITHIN)
  }

  #terminateAfter(side: WebSocket, wait: Duration.Duration): void {
    if (side.readyState === side.CLOSED) return
    // Outside of any fiber.
    // @effect-diagnostics-next-line globalTimers:off
    const timer = setTimeout(() => side.terminate(), Duration.toMillis(wait))
    side.once("close", () => clearTimeout(timer))
  }
}
