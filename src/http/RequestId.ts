import { randomUUID } from "node:crypto"

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

/**
 * The id a request gets: the caller's `X-Request-ID` if it is a UUID, else a new one. Nothing but a UUID is
 * taken over, since the id ends up in logs and traces that a caller must not be able to write into.
 */
export const requestIdFrom = (header: string | undefined): string =>
  header !== undefined && uuid.test(header) ? header : randomUUID()
