import { DateTime, Duration, Effect, Schema } from "effect"
import { UsageReport } from "../../domain/LlmUsage.ts"
import type { UsageGrouping } from "../../domain/LlmUsage.ts"
import { InvalidRequest } from "../../domain/Problems.ts"
import type { DependencyUnavailable } from "../../domain/Problems.ts"
import { orUnavailable } from "../DbErrors.ts"
import { TenantContext } from "../TenantContext.ts"
import { TenantDb } from "../TenantDb.ts"
import { monthOf } from "./LlmBudgets.ts"
import type { LlmBudgets } from "./LlmBudgets.ts"

/** A report over more would read the whole table. */
const LONGEST = Duration.days(400)

const Row = Schema.Struct({
  isTotal: Schema.Boolean,
  group: Schema.NullOr(Schema.String),
  requests: Schema.FiniteFromString,
  attempts: Schema.FiniteFromString,
  prompt_tokens: Schema.FiniteFromString,
  completion_tokens: Schema.FiniteFromString,
  cached_tokens: Schema.FiniteFromString,
  estimated_tokens: Schema.FiniteFromString,
  cost_usd: Schema.String
})
const decodeRows = Schema.decodeUnknownEffect(Schema.Array(Row))

const noFigures = {
  requests: 0,
  attempts: 0,
  prompt_tokens: 0,
  completion_tokens: 0,
  cached_tokens: 0,
  estimated_tokens: 0,
  cost_usd: "0"
}

export interface UsageQuery {
  /** The month's beginning where none is given. */
  readonly from: DateTime.Utc | undefined
  /** Not included; now where none is given. */
  readonly to: DateTime.Utc | undefined
  readonly groupBy: UsageGrouping | undefined
}

const spanOf = Effect.fnUntraced(function* ({ from, to }: UsageQuery) {
  const now = yield* DateTime.now
  const span = { from: from ?? DateTime.startOf(to ?? now, "month"), to: to ?? now }
  const length = DateTime.distance(span.from, span.to)
  const invalid = (message: string) =>
    new InvalidRequest({ detail: message, errors: [{ path: ["from"], message }] })
  if (Duration.isNegative(length)) return yield* invalid("`from` is after `to`")
  if (Duration.isGreaterThan(length, LONGEST)) return yield* invalid("A report covers 400 days at most")
  return span
})

/**
 * What a tenant's LLM calls used, from its own `llm_usage`. Rows are written some 100 ms after a call.
 */
export const usageReport: (
  budgets: LlmBudgets["Service"],
  query: UsageQuery
) => Effect.Effect<UsageReport, InvalidRequest | DependencyUnavailable, TenantDb | TenantContext> = Effect.fn(
  "usageReport"
)(function* (budgets, query) {
  const { settings } = yield* TenantContext
  const db = yield* TenantDb
  const { from, to } = yield* spanOf(query)
  const [begin, end] = [DateTime.formatIso(from), DateTime.formatIso(to)]
  const found = yield* db
    .query((sql, table) => {
      const groups = {
        model: sql`provider || '/' || model`,
        day: sql`to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')`,
        key: sql`coalesce(key_id::text, 'user')`
      }
      return sql`WITH attempts AS (
        SELECT ${groups[query.groupBy ?? "model"]} AS name, coalesce(request_id, id) AS request,
          input_tokens + cached_read_tokens + cached_write_tokens + audio_input_tokens + audio_cached_tokens AS prompt,
          output_tokens + audio_output_tokens AS completion,
          cached_read_tokens + audio_cached_tokens AS cached, estimated, cost_usd
        FROM ${table("llm_usage")} WHERE created_at >= ${begin}::timestamptz AND created_at < ${end}::timestamptz
      ) SELECT grouping(name) = 1 AS "isTotal", name AS "group", count(DISTINCT request)::text AS requests,
          count(*)::text AS attempts, coalesce(sum(prompt), 0)::text AS prompt_tokens,
          coalesce(sum(completion), 0)::text AS completion_tokens, coalesce(sum(cached), 0)::text AS cached_tokens,
          coalesce(sum(prompt + completion) FILTER (WHERE estimated), 0)::text AS estimated_tokens,
          trim_scale(coalesce(sum(cost_usd), 0))::text AS cost_usd
        FROM attempts GROUP BY GROUPING SETS ((name), ()) ORDER BY name`
    })
    .pipe(orUnavailable)
  const rows = yield* Effect.orDie(decodeRows(found))
  const {
    isTotal: _,
    group: __,
    ...total
  } = rows.find(({ isTotal }) => isTotal) ?? {
    isTotal: true,
    group: null,
    ...noFigures
  }
  const monthly = settings["llm.monthly_budget_usd"]
  const budget = monthly === undefined ? null : { monthly_usd: monthly, ...(yield* standing(budgets)) }
  return new UsageReport({
    from,
    to,
    items: rows.flatMap(({ group, isTotal, ...figures }) =>
      isTotal || group === null ? [] : [{ group, ...figures }]
    ),
    total,
    budget
  })
})

/** How the month's budget stands. */
const standing = Effect.fnUntraced(function* (budgets: LlmBudgets["Service"]) {
  const { schema, tenantId } = yield* TenantContext
  const now = yield* DateTime.now
  const { reserved, spent } = yield* budgets.standing(
    { id: tenantId, schema },
    monthOf(now.epochMilliseconds)
  )
  return { spent_usd: spent, reserved_usd: reserved }
})
