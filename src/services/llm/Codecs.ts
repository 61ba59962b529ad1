import type { Dialect } from "../../domain/Llm.ts"
import { AnthropicMessages } from "./AnthropicMessages.ts"
import type { Codec } from "./Codec.ts"
import { Native } from "./Native.ts"
import { OpenAiChat } from "./OpenAiChat.ts"
import { OpenAiResponses } from "./OpenAiResponses.ts"

/** The codec of each dialect. */
export const codecOf: Readonly<Record<Dialect, Codec>> = {
  native: Native,
  "openai-chat": OpenAiChat,
  "openai-responses": OpenAiResponses,
  "anthropic-messages": AnthropicMessages
}
