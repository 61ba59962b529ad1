import type { Array as Arr } from "effect"
import { Provider } from "./Llm.ts"
import type { Dialect, ModelRef } from "./Llm.ts"
import type { TenantSettings } from "./TenantSettings.ts"

/** How long before a model's end the gauge `llm_model_ends_in_days` and a warning in the log begin. */
export const WARNING_DAYS = 60

const DAY_MILLIS = 86_400_000

/** Whoever names no model on our own endpoint gets this group. */
export const DEFAULT_GROUP = "reasoning"

/**
 * What a name of the platform's stands for: the models to be asked, the first one first. The names are those of
 * `@anthropic-ai/sdk` 1.12 (`resources/messages`) and `openai` 7.57 (`resources/shared`).
 */
export const modelGroups = {
  reasoning: ["anthropic/claude-sonnet-5-5", "openai/gpt-5.4"],
  fast: ["anthropic/claude-haiku-5-5", "openai/gpt-5.4-mini"],
  embedding: ["openai/text-embedding-3-small"],
  voice: ["openai/gpt-realtime-2.1"]
} as const satisfies Readonly<Record<string, Arr.NonEmptyReadonlyArray<string>>>

interface Known {
  /** The vendor's announced end, a date in UTC. */
  readonly endsOn?: string
}

/**
 * The models we know by a vendor's own name. The ends are those of the SDKs' deprecation notes, and of the models that
 * their lists still name.
 */
const known: Readonly<Record<string, Known>> = {
  "anthropic/claude-opus-5-5": {},
  "anthropic/claude-sonnet-5-5": {},
  "anthropic/claude-haiku-5-5": {},
  "anthropic/claude-fable-5-2": {},
  "anthropic/claude-opus-5": {},
  "anthropic/claude-sonnet-5": {},
  "anthropic/claude-opus-4-8": {},
  "anthropic/claude-opus-4-7": {},
  "anthropic/claude-opus-4-6": {},
  "anthropic/claude-sonnet-4-6": {},
  "anthropic/claude-opus-4-5": {},
  "anthropic/claude-haiku-4-5": {},
  "anthropic/claude-haiku-4-5-20251001": {},
  "anthropic/claude-sonnet-4-5": { endsOn: "2026-11-30" },
  "anthropic/claude-sonnet-4-5-20250929": { endsOn: "2026-11-30" },
  "openai/gpt-5.6-sol": {},
  "openai/gpt-5.6-terra": {},
  "openai/gpt-5.6-luna": {},
  "openai/gpt-5.5": {},
  "openai/gpt-5.4": {},
  "openai/gpt-5.4-mini": {},
  "openai/gpt-5.4-nano": { endsOn: "2027-04-01" },
  "openai/gpt-5.2": {},
  "openai/gpt-5.1": { endsOn: "2027-04-01" },
  "openai/gpt-5": { endsOn: "2026-12-11" },
  "openai/gpt-5-mini": { endsOn: "2026-12-11" },
  "openai/gpt-5-nano": { endsOn: "2026-12-11" },
  "openai/o3": { endsOn: "2026-12-11" },
  "openai/gpt-4.1": { endsOn: "2027-01-14" },
  "openai/gpt-4.1-mini": { endsOn: "2027-01-14" },
  "openai/text-embedding-3-small": {},
  "openai/text-embedding-3-large": {},
  "openai/gpt-realtime-2.1": {},
  "openai/gpt-realtime-2": {},
  "openai/gpt-realtime": { endsOn: "2027-01-20" },
  "openai/gpt-realtime-mini": { endsOn: "2027-01-20" }
}

/** Names of models that are gone or going, and who answers in their place. `provider/model` is never replaced. */
export const modelAliases: Readonly<Record<string, string>> = {
  "claude-sonnet-4-20250514": "anthropic/claude-sonnet-5-5",
  "claude-sonnet-4-0": "anthropic/claude-sonnet-5-5",
  "claude-3-7-sonnet-20250219": "anthropic/claude-sonnet-5-5",
  "claude-3-7-sonnet-latest": "anthropic/claude-sonnet-5-5",
  "claude-3-5-sonnet-20241022": "anthropic/claude-sonnet-5-5",
  "claude-3-5-sonnet-latest": "anthropic/claude-sonnet-5-5",
  "claude-opus-4-20250514": "anthropic/claude-opus-5-5",
  "claude-opus-4-0": "anthropic/claude-opus-5-5",
  "claude-3-opus-20240229": "anthropic/claude-opus-5-5",
  "claude-3-5-haiku-20241022": "anthropic/claude-haiku-5-5",
  "claude-3-5-haiku-latest": "anthropic/claude-haiku-5-5",
  "claude-3-haiku-20240307": "anthropic/claude-haiku-5-5",
  "gpt-4o": "openai/gpt-5.4",
  "gpt-4o-2024-11-20": "openai/gpt-5.4",
  "gpt-4o-2024-08-06": "openai/gpt-5.4",
  "gpt-4-turbo": "openai/gpt-5.4",
  "gpt-4": "openai/gpt-5.4",
  "gpt-4o-mini": "openai/gpt-5.4-mini",
  "gpt-4o-mini-2024-07-18": "openai/gpt-5.4-mini",
  "gpt-3.5-turbo": "openai/gpt-5.4-mini",
  "gpt-4o-realtime-preview": "openai/gpt-realtime-2.1",
  "text-embedding-ada-002": "openai/text-embedding-3-small"
}

export const modelName = ({ model, provider }: ModelRef): string => `${provider}/${model}`

const isProvider = (name: string): name is Provider => Provider.literals.some((literal) => literal === name)

/** A `provider/model` whose provider we have. The model may have further slashes. */
export const parseModel = (name: string): ModelRef | undefined => {
  const slash = name.indexOf("/")
  const provider = name.slice(0, Math.max(0, slash))
  const model = name.slice(slash + 1)
  return isProvider(provider) && model !== "" ? { provider, model } : undefined
}

/** Vendors' names of the models we know, without their vendor. */
const byVendorsName = new Map(
  Object.keys(known).flatMap((name) => {
    const ref = parseModel(name)
    return ref === undefined ? [] : [[ref.model, ref] as const]
  })
)

/** Whose models a caller of a dialect means by a name that nobody knows. Our own endpoint follows its first provider. */
const vendorOf: Readonly<Record<Dialect, Provider>> = {
  native: "anthropic",
  "openai-chat": "openai",
  "openai-responses": "openai",
  "anthropic-messages": "anthropic"
}

export interface Resolved {
  /** In the order of fallback. Empty where a group names no provider that we have. */
  readonly models: ReadonlyArray<ModelRef>
  /** A group falls back; a model that was named falls to nobody else. */
  readonly group: boolean
}

const ofNames = (names: ReadonlyArray<string>): Resolved => ({
  models: names.flatMap((name) => parseModel(name) ?? []),
  group: true
})

/**
 * Who is meant by a name: a group of the tenant's, one of ours, `provider/model`, a vendor's own name or an old one; any
 * other goes as it is to the vendor whose dialect the caller speaks.
 */
export const resolveModel = (
  asked: string,
  dialect: Dialect,
  overrides: TenantSettings["llm.groups"] = {}
): Resolved => {
  const own = Object.hasOwn(overrides, asked) ? overrides[asked] : undefined
  if (own !== undefined) return ofNames(own)
  const group = Object.entries(modelGroups).find(([name]) => name === asked)
  if (group !== undefined) return ofNames(group[1])
  const alias = Object.hasOwn(modelAliases, asked) ? modelAliases[asked] : undefined
  const ref = parseModel(alias ?? asked) ?? byVendorsName.get(asked)
  return { models: [ref ?? { provider: vendorOf[dialect], model: asked }], group: false }
}

/** Whether a tenant's `llm.allowed_models` let it have a model: `provider/model`, with `*` at the end at most. */
export const isAllowed = (ref: ModelRef, patterns: TenantSettings["llm.allowed_models"]): boolean => {
  if (patterns === undefined) return true
  const name = modelName(ref)
  return patterns.some((pattern) =>
    pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern
  )
}

export const isKnownModel = (ref: ModelRef): boolean => Object.hasOwn(known, modelName(ref))

/** Every model in the table. */
export const knownModels: ReadonlyArray<ModelRef> = [...byVendorsName.values()]

/** The models whose end is announced and near, or past: whole days until then. */
export const endingModels = (
  nowMillis: number
): ReadonlyArray<{ readonly name: string; readonly days: number }> =>
  Object.entries(known).flatMap(([name, { endsOn }]) => {
    if (endsOn === undefined) return []
    const days = Math.floor((Date.parse(endsOn) - nowMillis) / DAY_MILLIS)
    return days <= WARNING_DAYS ? [{ name, days }] : []
  })
