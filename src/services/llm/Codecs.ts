import type { Dialect } from "../../domain/Llm.ts"
import { AnthropicMessages } from "./AnthropicMessages.ts"
import type { Codec } from "./Codec.ts"
import { OpenAiChat } from "./OpenAiChat.ts"

/** The codec of each dialect. The responses and our own endpoint's words are chat completions until they have codecs. */
export const codecOf: Readonly<Record<Dialect, Codec>> = {
  native: OpenAiChat,
  "openai-chat": OpenAiChat,
  "openai-responses": OpenAiChat,
  "anthropic-messages": AnthropicMessages
}
