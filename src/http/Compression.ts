import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import type { HttpPlatform, HttpServerRequest } from "effect/http"
import { encodedETag } from "./ETag.ts"
import { preferredEncoding } from "./Negotiation.ts"

/** Bytes. What is smaller fits into one packet either way. */
const MIN_BYTES = 1024

/** Of Brotli's eleven: a third more time than gzip, and smaller. Compressed on the threads of libuv, not on ours. */
const LEVELS = { br: 4, gzip: 6 }

const compressible = /^(?:text\/|application\/(?:[\w.-]+\+)?json\b)/

/** `Vary` with one more field. */
const varying = (vary: string | undefined) =>
  vary === undefined ? "Accept-Encoding" : `${vary}, Accept-Encoding`

/**
 * Compresses an answer for who asks for it and where it pays: texts of a kilobyte or more that are made whole, never
 * a stream, whose events must not wait for each other.
 *
 * BREACH learns a secret from the lengths of many answers that hold it beside what the attacker chose. It takes a
 * browser that sends somebody's credential along with requests that another site makes: ours are headers that no
 * other site can set, and there are no cookies. Still, only what is read is compressed: what a `POST` answers can be a
 * secret just made (a token, a key) beside what the caller sent.
 */
export const compress = (
  compression: HttpPlatform.Compression,
  request: HttpServerRequest.HttpServerRequest,
  response: HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse> | undefined => {
  const { body, headers, status } = response
  if (body._tag !== "Uint8Array" || body.contentLength < MIN_BYTES) return undefined
  if (request.method !== "GET" || status !== 200 || headers["content-encoding"] !== undefined)
    return undefined
  if (!compressible.test(headers["content-type"] ?? body.contentType)) return undefined
  const vary = varying(headers["vary"])
  const encoding = preferredEncoding(request.headers["accept-encoding"])
  if (encoding === undefined) return Effect.succeed(HttpServerResponse.setHeader(response, "vary", vary))
  const etag = headers["etag"]
  return Effect.map(
    compression.compressResponse(response, encoding, { level: LEVELS[encoding] }),
    HttpServerResponse.setHeaders({
      vary,
      ...(etag === undefined ? undefined : { etag: encodedETag(etag, encoding) })
    })
  )
}
