import { ServerResponse } from "node:http"
import type { IncomingMessage } from "node:http"

/** Clients that are seen to leave in one turn of the event loop. */
const DEPARTURES_PER_TURN = 2

const waiting: Array<() => void> = []

const attend = (): void => {
  for (const depart of waiting.splice(0, DEPARTURES_PER_TURN)) depart()
  if (waiting.length > 0) setImmediate(attend)
}

/**
 * A response whose client's leaving is told a few at a time. To stop what a client waited for takes up to a millisecond, and Node tells of
 * all who left together in one turn: the requests of those who stay would wait for the whole crowd. Like this they
 * take their turns in between.
 */
export class OrderlyResponse<
  Request extends IncomingMessage = IncomingMessage
> extends ServerResponse<Request> {
  override emit(event: string, ...args: ReadonlyArray<unknown>): boolean {
    if (event !== "close" || this.writableEnded) return super.emit(event, ...args)
    if (waiting.push(() => super.emit(event, ...args)) === 1) setImmediate(attend)
    return true
  }
}
