import type { JsonObject, WireProblem } from "./Codec.ts"

const typeOf = (status: number): string => {
  if (status === 401) return "authentication_error"
  if (status === 402) return "insufficient_quota"
  if (status === 403) return "permission_error"
  if (status === 429) return "rate_limit_error"
  return status >= 500 ? "server_error" : "invalid_request_error"
}

/** The `error` member of OpenAI's envelope. Its clients choose the class by the HTTP status, people read `type` and `code`. */
export const openAiError = (problem: WireProblem): JsonObject => ({
  message: problem.message,
  type: problem.type ?? typeOf(problem.status),
  param: problem.param,
  code: problem.code
})
