import { Schema } from "effect"

const Positive = Schema.Int.check(Schema.isGreaterThan(0))

/** Dollars as a decimal string, so that no sum is ever rounded: `"12.50"`. */
const DecimalUsd = Schema.String.check(
  Schema.isPattern(/^(0|[1-9][0-9]{0,8})(\.[0-9]{1,10})?$/, { message: 'Expected a decimal like "12.50"' })
)

/** `provider/model`, as the tables of the gateway name a model. */
const ModelName = Schema.String.check(
  Schema.isPattern(/^[a-z][a-z0-9-]*\/[A-Za-z0-9._:-]{1,100}$/, { message: 'Expected "provider/model"' })
)

const ModelPattern = Schema.String.check(
  Schema.isPattern(/^[a-z][a-z0-9-]*\/[A-Za-z0-9._:-]{0,100}\*?$/, {
    message: 'Expected "provider/model", with * at the end at most'
  })
)

const GroupName = Schema.String.check(Schema.isPattern(/^[a-z][a-z0-9-]{0,39}$/))

/** USD per million tokens, by kind of token; `audio_minute` is USD per minute of audio, for what is not billed by tokens. */
export const Price = Schema.Struct({
  input: DecimalUsd,
  output: DecimalUsd,
  cached_input: Schema.optionalKey(DecimalUsd),
  cache_write: Schema.optionalKey(DecimalUsd),
  reasoning: Schema.optionalKey(DecimalUsd),
  audio_input: Schema.optionalKey(DecimalUsd),
  audio_cached_input: Schema.optionalKey(DecimalUsd),
  audio_output: Schema.optionalKey(DecimalUsd),
  audio_minute: Schema.optionalKey(DecimalUsd)
})

const fields = {
  "llm.groups": Schema.Record(
    GroupName,
    Schema.Array(ModelName).check(Schema.isMinLength(1), Schema.isMaxLength(10))
  ),
  "llm.allowed_models": Schema.Array(ModelPattern).check(Schema.isMaxLength(200)),
  "llm.monthly_budget_usd": DecimalUsd,
  "llm.requests_per_minute": Positive,
  "llm.tokens_per_minute": Positive,
  "llm.prices": Schema.Record(ModelName, Price),
  "guard.policy": Schema.Literals(["off", "shadow", "flag", "wrap", "block"]),
  "guard.level": Schema.Literals(["quiet", "balanced", "strict"]),
  "rate.requests_per_minute": Positive,
  "events.max_length": Positive.check(Schema.isLessThanOrEqualTo(1_000_000)),
  "records.max_bytes": Positive.check(Schema.isLessThanOrEqualTo(1_048_576))
}

/** What an API key may have of its own, within what its tenant has: the smaller of both counts. */
export const KeyLimits = Schema.Struct({
  "llm.requests_per_minute": Schema.optionalKey(fields["llm.requests_per_minute"]),
  "llm.tokens_per_minute": Schema.optionalKey(fields["llm.tokens_per_minute"])
})
export type KeyLimits = typeof KeyLimits.Type

/** What an operator may set for one tenant. What is not set follows `tenantSettingDefaults`. */
export const TenantSettings = Schema.Struct({
  "llm.groups": Schema.optionalKey(fields["llm.groups"]),
  "llm.allowed_models": Schema.optionalKey(fields["llm.allowed_models"]),
  "llm.monthly_budget_usd": Schema.optionalKey(fields["llm.monthly_budget_usd"]),
  "llm.requests_per_minute": Schema.optionalKey(fields["llm.requests_per_minute"]),
  "llm.tokens_per_minute": Schema.optionalKey(fields["llm.tokens_per_minute"]),
  "llm.prices": Schema.optionalKey(fields["llm.prices"]),
  "guard.policy": Schema.optionalKey(fields["guard.policy"]),
  "guard.level": Schema.optionalKey(fields["guard.level"]),
  "rate.requests_per_minute": Schema.optionalKey(fields["rate.requests_per_minute"]),
  "events.max_length": Schema.optionalKey(fields["events.max_length"]),
  "records.max_bytes": Schema.optionalKey(fields["records.max_bytes"])
})
export type TenantSettings = typeof TenantSettings.Type

/** A change of settings, merged as RFC 7396 (JSON Merge Patch) has it: `null` removes. Unknown names fail. */
export const TenantSettingsPatch = Schema.Record(Schema.String, Schema.Unknown)
export type TenantSettingsPatch = typeof TenantSettingsPatch.Type

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** RFC 7396, section 2: objects merge member by member, `null` removes, all else replaces. */
export const mergePatch = (target: unknown, patch: unknown): unknown => {
  if (!isObject(patch)) return patch
  const merged = new Map<string, unknown>(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name)
    else merged.set(name, mergePatch(merged.get(name), value))
  }
  return Object.fromEntries(merged)
}

export const decodeTenantSettings = Schema.decodeUnknownEffect(TenantSettings, {
  onExcessProperty: "error",
  errors: "all"
})

/** What holds for a tenant that has not set a thing. `undefined` in the table means: no limit. */
export const tenantSettingDefaults = {
  "guard.policy": "flag",
  "guard.level": "balanced",
  "rate.requests_per_minute": 6_000,
  "events.max_length": 10_000,
  "records.max_bytes": 1_048_576
} as const satisfies TenantSettings
