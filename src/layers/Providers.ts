import { Effect, Layer, Option } from "effect"
import { LlmGateway } from "../services/llm/LlmGateway.ts"
import { ProviderKeys } from "../services/llm/ProviderKeys.ts"
import { Providers } from "../services/llm/Providers.ts"
import { LlmSimulator } from "./LlmSimulator.ts"
import { Settings } from "./Settings.ts"

/** The vendors, and in development without any key the simulator in their place. */
const Vendors = Layer.unwrap(
  Effect.map(Settings, ({ environment, providerKeys, providerUrls }) => {
    const baseUrls = {
      anthropic: Option.getOrUndefined(providerUrls.anthropic),
      openai: Option.getOrUndefined(providerUrls.openai)
    }
    const hasKey = Option.isSome(providerKeys.anthropic) || Option.isSome(providerKeys.openai)
    if (environment !== "development" || hasKey) {
      return Layer.merge(Providers.layer({ baseUrls }), Layer.succeed(ProviderKeys, providerKeys))
    }
    return Layer.unwrap(
      Effect.map(LlmSimulator, (simulator) =>
        Layer.merge(
          // A tenant's own key goes to its vendor all the same.
          Providers.layer({ baseUrls, simulator }),
          Layer.succeed(ProviderKeys, {
            anthropic: Option.some(simulator.key),
            openai: Option.some(simulator.key)
          })
        )
      )
    ).pipe(Layer.provide(LlmSimulator.layer))
  })
)

/** The gateway to the vendors of language models, as the settings name them. */
export const ProvidersLayer = Layer.unwrap(
  Effect.map(Settings, ({ llmTimes }) => LlmGateway.layer(llmTimes).pipe(Layer.provideMerge(Vendors)))
)
