import { Context, Effect } from "effect"
import type { Duration, Scope, Stream } from "effect"
import type { Dialect, GuardVerdict, ModelRef, ProviderRefused } from "../domain/Llm.ts"
import { ProviderNotConfigured } from "../domain/Problems.ts"
import type {
  BudgetExceeded,
  DependencyUnavailable,
  Forbidden,
  InvalidRequest,
  PromptInjectionBlocked,
  ProviderUnavailable,
  RateLimited
} from "../domain/Problems.ts"
import type { Answer, JsonObject, Summary, WireEvent } from "./llm/Codec.ts"

/** A call as it came in. */
export interface LlmCall {
  readonly dialect: Dialect
  readonly body: JsonObject
  /** The caller's headers that a provider of the same dialect understands, such as `anthropic-beta`. */
  readonly headers: Readonly<Record<string, string>>
  /** How long the caller waits (`X-Stainless-Timeout`). */
  readonly deadline: Duration.Duration | undefined
  /** Whether another provider may go on with a stream that died midway. */
  readonly resume: boolean
}

export type LlmFailure =
  | ProviderUnavailable
  | ProviderNotConfigured
  | ProviderRefused
  | PromptInjectionBlocked
  | BudgetExceeded
  | RateLimited
  | InvalidRequest
  | Forbidden
  | DependencyUnavailable

/** Who answered, known with the head of the answer. */
export interface LlmHead {
  readonly answeredBy: ModelRef
  /** The provider's headers that go on to the caller: rate limits and the like, never cookies. */
  readonly headers: Readonly<Record<string, string>>
  readonly guard: GuardVerdict
}

export interface LlmAnswer extends LlmHead {
  /** In the caller's dialect; the provider's own words where it speaks the same. */
  readonly body: JsonObject
  readonly answer: Answer
  readonly summary: Summary
}

export interface LlmStream extends LlmHead {
  /** In the caller's dialect. Ends with an end mark or, where no provider could finish it, with an error event. */
  readonly events: Stream.Stream<WireEvent>
}

/**
 * The tenant's way to the models: its groups, keys and policies over the `LlmGateway`, which knows no tenant. Each
 * attempt leaves one row in the tenant's `llm_usage`.
 *
 * @effect-leakable-service
 */
export class TenantLlm extends Context.Service<
  TenantLlm,
  {
    readonly complete: (call: LlmCall) => Effect.Effect<LlmAnswer, LlmFailure>
    /** Fails until the first token; what fails later is told in the stream. The scope's end cancels the provider's call. */
    readonly stream: (call: LlmCall) => Effect.Effect<LlmStream, LlmFailure, Scope.Scope>
    /** OpenAI's embeddings, as they are: `body` in, `body` out. */
    readonly embed: (body: JsonObject) => Effect.Effect<LlmHead & { readonly body: JsonObject }, LlmFailure>
    /** Anthropic's `count_tokens`, as it is. */
    readonly countTokens: (
      body: JsonObject,
      headers: Readonly<Record<string, string>>
    ) => Effect.Effect<LlmHead & { readonly body: JsonObject }, LlmFailure>
    /** Groups and models that the tenant may name. */
    readonly models: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly ownedBy: string }>>
  }
>()("agent-army/services/TenantLlm") {
  /** Without a provider: every call is refused, and there is no model to name. */
  static readonly unconfigured = TenantLlm.of({
    complete: () => Effect.fail(new ProviderNotConfigured({})),
    stream: () => Effect.fail(new ProviderNotConfigured({})),
    embed: () => Effect.fail(new ProviderNotConfigured({})),
    countTokens: () => Effect.fail(new ProviderNotConfigured({})),
    models: Effect.succeed([])
  })
}
