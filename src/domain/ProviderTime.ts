import { Context } from "effect"

/**
 * What a request waits for an LLM provider. The face makes one for each request and reads it when the head of the answer goes out; filled in
 * place by whoever waits.
 */
export interface ProviderTime {
  /** Calls of a provider. */
  calls: number
  millis: number
}

/** Of the request being answered; nobody's outside of one. */
export const ProviderTime = Context.Reference<ProviderTime | undefined>("agent-army/domain/ProviderTime", {
  defaultValue: () => undefined
})
