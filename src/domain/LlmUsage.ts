import { Schema } from "effect"

/** What the rows of a report are put together by. `day` is a day of UTC. */
export const UsageGrouping = Schema.Literals(["model", "day", "key"])
export type UsageGrouping = typeof UsageGrouping.Type

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** Dollars as a decimal string, so that no sum is ever rounded. */
const Usd = Schema.String.check(Schema.isPattern(/^[0-9]+(\.[0-9]+)?$/)).annotate({ examples: ["0.00042"] })

const figures = {
  requests: Count.annotate({ description: "Calls of tenant apps" }),
  attempts: Count.annotate({ description: "Calls of providers: retries and fallbacks each count" }),
  prompt_tokens: Count.annotate({ description: "The cached ones too" }),
  completion_tokens: Count,
  cached_tokens: Count.annotate({
    description: "Of the prompt's, those that a provider read from its cache"
  }),
  estimated_tokens: Count.annotate({
    description:
      "Of all of these, those that no provider told: of calls that broke off. Never below what was delivered"
  }),
  cost_usd: Usd
}

/** What LLM calls used in some time. */
export class UsageReport extends Schema.Class<UsageReport>("UsageReport")({
  from: Schema.DateTimeUtcFromString,
  to: Schema.DateTimeUtcFromString.annotate({ description: "Not included" }),
  items: Schema.Array(
    Schema.Struct({
      group: Schema.String.annotate({
        description:
          "`provider/model`, a day such as `2026-11-24`, or a key's id (`user` for calls without one)"
      }),
      ...figures
    })
  ),
  total: Schema.Struct(figures),
  budget: Schema.NullOr(
    Schema.Struct({
      monthly_usd: Usd,
      spent_usd: Usd.annotate({ description: "Since the month began, in UTC" }),
      reserved_usd: Usd.annotate({ description: "Held for calls that are under way" })
    })
  )
}) {}
