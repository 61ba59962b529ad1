import type { Dialect, ModelRef, Provider } from "./Llm.ts"

/** The platform's groups, each in the order of fallback. A tenant's setting `llm.groups` replaces or adds to them. */
export const modelGroups: Readonly<Record<string, ReadonlyArray<string>>> = {
  reasoning: ["anthropic/claude-sonnet-5-5", "openai/gpt-5.4"],
  fast: ["anthropic/claude-haiku-5-5", "openai/gpt-5.4-mini"],
  embedding: ["openai/text-embedding-3-small"],
  voice: ["openai/gpt-realtime-2.1"]
}

/** Names of models that have ended, or will: who still asks for one gets its successor. */
const aliases: Readonly<Record<string, string>> = {
  "claude-sonnet-4-20250514": "claude-sonnet-5-5",
  "claude-sonnet-4-0": "claude-sonnet-5-5",
  "claude-sonnet-4-5": "claude-sonnet-5-5",
  "claude-3-5-haiku-20241022": "claude-haiku-5-5",
  "gpt-4o": "gpt-5.4",
  "gpt-4o-mini": "gpt-5.4-mini"
}

/** When a vendor has announced that a model ends, as a day in UTC. Two months ahead it shows as a metric. */
export const announcedEnds: Readonly<Record<string, string>> = {
  "anthropic/claude-sonnet-4-5": "2026-11-30",
  "openai/gpt-4o": "2027-01-14",
  "openai/gpt-realtime": "2027-01-20"
}

/** Models that a metric may name. Everything else counts as `other`, so that a caller can't make labels. */
export const knownModels: ReadonlySet<string> = new Set([
  ...Object.values(modelGroups).flat(),
  ...Object.values(aliases).map((model) =>
    model.startsWith("claude") ? `anthropic/${model}` : `openai/${model}`
  )
])

const WITH_PROVIDER = /^(anthropic|openai)\/(.+)$/

const providerNamed = (name: string): Provider => (name === "anthropic" ? "anthropic" : "openai")

const refOf = (name: string): ModelRef | undefined => {
  const match = WITH_PROVIDER.exec(name)
  return match?.[1] === undefined || match[2] === undefined
    ? undefined
    : { provider: providerNamed(match[1]), model: aliases[match[2]] ?? match[2] }
}

/** Whose a model is by its name; a name in no table goes to the vendor whose dialect the caller speaks. */
const vendorOf = (model: string, dialect: Dialect): Provider => {
  if (model.startsWith("claude-")) return "anthropic"
  if (/^(gpt-|o[0-9]|text-embedding-|chatgpt-)/.test(model)) return "openai"
  return dialect === "anthropic-messages" ? "anthropic" : "openai"
}

/**
 * What to ask, in order, for a name that a caller gave: a group (the tenant's before the platform's), `provider/model`, or
 * a vendor's own name of a model.
 */
export const resolveModel = (
  asked: string,
  dialect: Dialect,
  groups: Readonly<Record<string, ReadonlyArray<string>>> = {}
): ReadonlyArray<ModelRef> => {
  const group = Object.hasOwn(groups, asked)
    ? groups[asked]
    : Object.hasOwn(modelGroups, asked)
      ? modelGroups[asked]
      : undefined
  if (group !== undefined) return group.flatMap((name) => refOf(name) ?? [])
  const named = refOf(asked)
  if (named !== undefined) return [named]
  const model = aliases[asked] ?? asked
  return [{ provider: vendorOf(model, dialect), model }]
}

/** Whether a list of `provider/model`, with `*` at the end of some, names a model. No list allows all. */
export const isAllowed = (
  { model, provider }: ModelRef,
  allowed: ReadonlyArray<string> | undefined
): boolean => {
  if (allowed === undefined) return true
  const name = `${provider}/${model}`
  return allowed.some((pattern) =>
    pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern
  )
}
