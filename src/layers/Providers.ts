import { Effect, Layer, Option } from "effect"
import { LlmGateway } from "../services/llm/LlmGateway.ts"
import { ProviderKeys } from "../services/llm/ProviderKeys.ts"
import { Providers } from "../services/llm/Providers.ts"
import { Settings } from "./Settings.ts"

/** The vendors of language models, as the settings name them. */
export const ProvidersLayer = Layer.unwrap(
  Effect.map(Settings, ({ llmTimes, providerKeys, providerUrls }) =>
    Layer.mergeAll(
      LlmGateway.layer(llmTimes).pipe(
        Layer.provide(
          Providers.layer({
            baseUrls: {
              anthropic: Option.getOrUndefined(providerUrls.anthropic),
              openai: Option.getOrUndefined(providerUrls.openai)
            }
          })
        )
      ),
      Layer.succeed(ProviderKeys, providerKeys)
    )
  )
)
