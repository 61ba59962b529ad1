import type { Dialect } from "../../domain/Llm.ts"
import { anthropicMessages } from "./AnthropicMessages.ts"
import type { Codec } from "./Codec.ts"
import { native } from "./Native.ts"
import { openAiChat } from "./OpenAiChat.ts"
import { openAiResponses } from "./OpenAiResponses.ts"

/** Who reads and writes each dialect. */
export const codecOf: Readonly<Record<Dialect, Codec>> = {
  native,
  "openai-chat": openAiChat,
  "openai-responses": openAiResponses,
  "anthropic-messages": anthropicMessages
}
