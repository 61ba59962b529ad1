import { Context } from "effect"
import type { Option, Redacted } from "effect"
import type { Provider } from "../../domain/Llm.ts"

/** The platform's own keys of the vendors, for tenants that have none of their own. */
export class ProviderKeys extends Context.Service<
  ProviderKeys,
  Readonly<Record<Provider, Option.Option<Redacted.Redacted<string>>>>
>()("agent-army/services/llm/ProviderKeys") {}
