import Anthropic, { APIError as AnthropicApiError } from "@anthropic-ai/sdk"
import { Effect } from "effect"
import OpenAI, { APIError } from "openai"
import type { FakeProvider } from "./FakeProvider.ts"

/** The vendors' own clients of the fake one; they never try again. */
export const openAi = ({ url }: Pick<FakeProvider, "url">) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 0, timeout: 10_000 })

export const anthropic = ({ url }: Pick<FakeProvider, "url">) =>
  new Anthropic({ baseURL: url, apiKey: "sk-test", maxRetries: 0, timeout: 10_000 })

/** What a promise of the vendor's client is rejected with. */
export const rejection = (call: () => Promise<unknown>) =>
  Effect.promise(async (): Promise<unknown> => {
    try {
      await call()
    } catch (error) {
      return error
    }
    throw new Error("The call was not rejected")
  })

/** The status and the words of an error of either client. */
export const refusalOf = (call: () => Promise<unknown>) =>
  Effect.map(rejection(call), (error) =>
    error instanceof APIError || error instanceof AnthropicApiError
      ? {
          status: error.status,
          message: error.message,
          param: error instanceof APIError ? error.param : undefined
        }
      : { status: undefined, message: String(error), param: undefined }
  )

export const collect = async <A>(stream: AsyncIterable<A>): Promise<ReadonlyArray<A>> => {
  const all: Array<A> = []
  for await (const one of stream) all.push(one)
  return all
}

export const user = (content: string) => ({ role: "user" as const, content })
