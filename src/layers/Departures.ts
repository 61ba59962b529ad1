import { ServerResponse } from "node:http"
import type { IncomingMessage } from "node:http"

/** Clients that are seen to leave in one turn of the event loop. */
const DEPARTURES_PER_TURN = 2

const waiting: Array<() => void> = []
/** Seen to leave in this turn. */
let seen = 0

const nextTurn = (): void => {
  const departing = waiting.splice(0, DEPARTURES_PER_TURN)
  seen = departing.length
  for (const depart of departing) depart()
  if (seen > 0) setImmediate(nextTurn)
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
    if (seen < DEPARTURES_PER_TURN) {
      if (seen++ === 0) setImmediate(nextTurn)
      return super.emit(event, ...args)
    }
    waiting.push(() => super.emit(event, ...args))
    return true
  }
}
