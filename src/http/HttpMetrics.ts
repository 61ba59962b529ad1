import { Context, Effect, Layer, Metric } from "effect"
import { HttpMethod } from "effect/http"
import { PrometheusMetrics } from "effect/observability"

/** Seconds. The bounds of the latency objectives are among them, so that they are read without interpolation. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** The label of whatever no route answers: a raw path as a label would let callers make series at will. */
export const UNMATCHED = "unmatched"

const requests = (method: string, endpoint: string, status: number) =>
  Metric.counter("http_requests_total", {
    description: "Requests answered",
    incremental: true,
    attributes: { method, endpoint, status_code: String(status) }
  })

const durations = (method: string, endpoint: string) =>
  Metric.histogram("http_request_duration_seconds", {
    description: "Time from a request's arrival to the head of its response",
    boundaries: Metric.boundariesFromIterable(BUCKETS),
    attributes: { method, endpoint }
  })

/** Seconds: what the best gateways come to, and what nobody would put up with. */
const OVERHEAD_BUCKETS = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1]

const overheads = (endpoint: string) =>
  Metric.histogram("llm_overhead_seconds", {
    description:
      "What the platform itself took of a request answered by one call of an LLM provider: to the head of the answer, without the wait for the provider",
    boundaries: Metric.boundariesFromIterable(OVERHEAD_BUCKETS),
    attributes: { endpoint }
  })

const labelOf = (method: string) => (HttpMethod.isHttpMethod(method) ? method : "OTHER")

/** Counts and times requests by route. Its labels are bounded: known methods, route templates, status codes. */
export class HttpMetrics extends Context.Service<
  HttpMetrics,
  {
    /** Starts the counter of a route's 500s at zero: the first increase of a series that begins at one is lost. */
    readonly expect: (method: string, endpoint: string) => Effect.Effect<void>
    readonly observe: (
      method: string,
      endpoint: string,
      status: number,
      seconds: number,
      /** What of it was the wait for one call of an LLM provider; `undefined` where there was none, or where there were pauses between several. */
      providerSeconds?: number
    ) => Effect.Effect<void>
  }
>()("agent-army/http/HttpMetrics") {
  static readonly layer = Layer.sync(HttpMetrics, () => {
    // A metric with fixed attributes is cheap to update and dear to make.
    const counters = new Map<string, ReturnType<typeof requests>>()
    const timers = new Map<string, ReturnType<typeof durations>>()
    const ofGateway = new Map<string, ReturnType<typeof overheads>>()

    const counter = (method: string, endpoint: string, status: number) => {
      const key = `${method} ${status} ${endpoint}`
      const known = counters.get(key)
      if (known !== undefined) return known
      const made = requests(method, endpoint, status)
      counters.set(key, made)
      return made
    }

    const timer = (method: string, endpoint: string) => {
      const key = `${method} ${endpoint}`
      const known = timers.get(key)
      if (known !== undefined) return known
      const made = durations(method, endpoint)
      timers.set(key, made)
      return made
    }

    const overhead = (endpoint: string) => {
      const known = ofGateway.get(endpoint)
      if (known !== undefined) return known
      const made = overheads(endpoint)
      ofGateway.set(endpoint, made)
      return made
    }

    return HttpMetrics.of({
      expect: (method, endpoint) => Metric.update(counter(labelOf(method), endpoint, 500), 0),
      observe: (method, endpoint, status, seconds, providerSeconds) =>
        Effect.withFiber((fiber) => {
          const label = labelOf(method)
          counter(label, endpoint, status).updateUnsafe(1, fiber.context)
          timer(label, endpoint).updateUnsafe(seconds, fiber.context)
          if (providerSeconds !== undefined) {
            overhead(endpoint).updateUnsafe(Math.max(0, seconds - providerSeconds), fiber.context)
          }
          return Effect.void
        })
    })
  })
}

/** `GET /metrics`, in Prometheus' text format. */
export const MetricsRoute = PrometheusMetrics.layerHttp()
