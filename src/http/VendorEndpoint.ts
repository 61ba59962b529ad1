import { Schema } from "effect"
import { HttpApiSchema } from "effect/http-api"
import {
  BudgetExceeded,
  NotFound,
  PromptInjectionBlocked,
  ProviderNotConfigured,
  ProviderUnavailable,
  RateLimited,
  RefusedByProvider
} from "../domain/Problems.ts"

/**
 * A body in a vendor's dialect. Any object: what we don't know of it is for the provider to judge, and goes on to it as it
 * came.
 */
export const VendorBody = Schema.Record(Schema.String, Schema.Json)

/** What a vendor's endpoint answers: a body, or a stream where the request says `"stream": true`. */
export const vendorAnswer = [
  VendorBody,
  HttpApiSchema.StreamUint8Array({ contentType: "text/event-stream" })
] as const

/** What a vendor's endpoint refuses with, in the vendor's own envelope (`ProblemResponse.ts`). */
export const vendorErrors = [
  NotFound,
  RateLimited,
  PromptInjectionBlocked,
  BudgetExceeded,
  ProviderUnavailable,
  ProviderNotConfigured,
  RefusedByProvider
] as const
