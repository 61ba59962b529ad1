import { Redacted } from "effect"
import type { Effect } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Api } from "./Api.ts"

/** What a client presents. At most one of the two credentials is needed. */
export interface ClientOptions {
  readonly baseUrl: string
  /** An access token, an API key or an operator key. */
  readonly bearer?: Redacted.Redacted<string> | undefined
  readonly apiKey?: Redacted.Redacted<string> | undefined
  /** The tenant's id or slug: needed to sign in, and else only checked against the credential. */
  readonly tenant?: string | undefined
}

/**
 * The typed client of the platform, made from the same contract as the server: every answer is decoded, every problem
 * comes back as its class.
 */
export const makeClient = (options: ClientOptions) =>
  HttpApiClient.make(Api, {
    baseUrl: options.baseUrl,
    transformClient: HttpClient.mapRequest((request) => {
      let prepared = request
      if (options.bearer !== undefined) {
        prepared = HttpClientRequest.bearerToken(prepared, Redacted.value(options.bearer))
      }
      if (options.apiKey !== undefined) {
        prepared = HttpClientRequest.setHeader(prepared, "x-api-key", Redacted.value(options.apiKey))
      }
      if (options.tenant !== undefined) {
        prepared = HttpClientRequest.setHeader(prepared, "x-tenant-id", options.tenant)
      }
      return prepared
    })
  })

export type Client = Effect.Success<ReturnType<typeof makeClient>>
