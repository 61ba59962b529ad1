import { Effect, Layer, Option } from "effect"
import { Providers } from "../services/llm/Providers.ts"
import { Settings } from "./Settings.ts"

/** The vendors, as the settings have them. */
export const ProvidersLayer = Layer.unwrap(
  Effect.map(Settings, (settings) =>
    Providers.layer({
      access: {
        anthropic: {
          baseUrl: Option.getOrUndefined(settings.anthropicBaseUrl),
          key: settings.anthropicApiKey
        },
        openai: { baseUrl: Option.getOrUndefined(settings.openaiBaseUrl), key: settings.openaiApiKey }
      },
      simulator: Option.none()
    })
  )
)
