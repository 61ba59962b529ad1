import { Effect, Layer, Option } from "effect"
import { Providers } from "../services/llm/Providers.ts"
import { LlmSimulator } from "./LlmSimulator.ts"
import { Settings } from "./Settings.ts"

/** The vendors, as the settings have them; in development without any key the simulator in their place. */
export const ProvidersLayer = Layer.unwrap(
  Effect.map(Settings, (settings) => {
    const access = {
      anthropic: {
        baseUrl: Option.getOrUndefined(settings.anthropicBaseUrl),
        key: settings.anthropicApiKey
      },
      openai: { baseUrl: Option.getOrUndefined(settings.openaiBaseUrl), key: settings.openaiApiKey }
    }
    const hasKey = Option.isSome(settings.anthropicApiKey) || Option.isSome(settings.openaiApiKey)
    if (settings.environment !== "development" || hasKey) {
      return Providers.layer({ access, simulator: Option.none() })
    }
    // A tenant's own key goes to its vendor all the same.
    return Layer.unwrap(
      Effect.map(LlmSimulator, ({ urls }) => Providers.layer({ access, simulator: Option.some({ urls }) }))
    ).pipe(Layer.provide(LlmSimulator.layer))
  })
)
