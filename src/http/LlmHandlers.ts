import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { LlmBudgets } from "../services/llm/LlmBudgets.ts"
import { usageReport } from "../services/llm/UsageReports.ts"
import { Api } from "./Api.ts"
import { makeAnswerCall } from "./LlmAnswer.ts"

export const LlmHandlers = HttpApiBuilder.group(
  Api,
  "llm",
  Effect.fn(function* (handlers) {
    const answerCall = yield* makeAnswerCall
    const budgets = yield* LlmBudgets
    return handlers.handleAll({
      complete: ({ payload: { resume, ...body } }) => answerCall("native", body, { resume, stream: false }),
      stream: ({ payload: { resume, ...body } }) => answerCall("native", body, { resume, stream: true }),
      usage: ({ query: { from, group_by, to } }) => usageReport(budgets, { from, to, groupBy: group_by })
    })
  })
)
