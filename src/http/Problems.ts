import { HttpApiMiddleware } from "effect/http-api"
import {
  DependencyUnavailable,
  InternalError,
  InvalidRequest,
  NotAcceptable,
  PayloadTooLarge,
  RequestTimeout,
  UnsupportedMediaType,
  UriTooLong
} from "../domain/Problems.ts"

/**
 * Renders the failures of every endpoint and middleware as RFC 9457 problems, and declares those that any
 * endpoint can answer. Put it last on the Api, which makes it the outermost.
 */
export class Problems extends HttpApiMiddleware.Service<Problems>()("agent-army/http/Problems", {
  error: [
    InvalidRequest,
    NotAcceptable,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    InternalError,
    DependencyUnavailable
  ]
}) {}
