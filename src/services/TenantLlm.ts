import { Array as Arr, Context, Effect, Layer, Option, Result } from "effect"
import type { Duration, Scope, Stream } from "effect"
import { hash } from "node:crypto"
import type { Dialect, GuardVerdict, ModelRef, Provider, ProviderRefused, TokenUsage } from "../domain/Llm.ts"
import {
  DEFAULT_GROUP,
  isAllowed,
  knownModels,
  modelGroups,
  modelName,
  resolveModel
} from "../domain/ModelGroups.ts"
import { costOf, priceOf } from "../domain/Prices.ts"
import { Forbidden, InvalidRequest, ProviderNotConfigured } from "../domain/Problems.ts"
import type {
  BudgetExceeded,
  DependencyUnavailable,
  PromptInjectionBlocked,
  ProviderUnavailable,
  RateLimited
} from "../domain/Problems.ts"
import { SecretName } from "../domain/Secret.ts"
import { tenantSettingDefaults } from "../domain/TenantSettings.ts"
import { AuditLog } from "./AuditLog.ts"
import type { AttemptRecord } from "./llm/Attempt.ts"
import type { Answer, JsonObject, Summary, WireEvent } from "./llm/Codec.ts"
import { codecOf } from "./llm/Codecs.ts"
import { countOf, objectOf, textOf } from "./llm/Json.ts"
import { asksForUsage, LlmGateway } from "./llm/LlmGateway.ts"
import type { Candidate, GatewayCall, PlainCall } from "./llm/LlmGateway.ts"
import { LlmUsage } from "./llm/LlmUsage.ts"
import type { RealtimeGrant } from "./llm/Realtime.ts"
import { Providers } from "./llm/Providers.ts"
import type { ProviderClient } from "./llm/Providers.ts"
import { actOf, PromptGuard } from "./PromptGuard.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantSecrets } from "./TenantSecrets.ts"

/** What our own record keeps of a call's `metadata`. */
const MOST_METADATA = 4096

/** A call as it came in. */
export interface LlmCall {
  readonly dialect: Dialect
  readonly body: JsonObject
  /** The caller's headers that a provider of the same dialect understands, such as `anthropic-beta`. */
  readonly headers: Readonly<Record<string, string>>
  /** How long the caller waits (`X-Stainless-Timeout`). */
  readonly deadline: Duration.Duration | undefined
  /** Whether another provider may go on with a stream that died midway. */
  readonly resume: boolean
}

export type LlmFailure =
  | ProviderUnavailable
  | ProviderNotConfigured
  | ProviderRefused
  | PromptInjectionBlocked
  | BudgetExceeded
  | RateLimited
  | InvalidRequest
  | Forbidden
  | DependencyUnavailable

/** Who answered, known with the head of the answer. */
export interface LlmHead {
  readonly answeredBy: ModelRef
  /** The provider's headers that go on to the caller: rate limits and the like, never cookies. */
  readonly headers: Readonly<Record<string, string>>
  readonly guard: GuardVerdict
}

export interface LlmAnswer extends LlmHead {
  /** In the caller's dialect; the provider's own words where it speaks the same. */
  readonly body: JsonObject
  readonly answer: Answer
  readonly summary: Summary
}

export interface LlmStream extends LlmHead {
  /** In the caller's dialect. Ends with an end mark or, where no provider could finish it, with an error event. */
  readonly events: Stream.Stream<WireEvent>
}

/**
 * The tenant's way to the models: its groups, keys and policies over the `LlmGateway`, which knows no tenant. Each
 * attempt leaves one row in the tenant's `llm_usage`.
 *
 * @effect-leakable-service
 */
export class TenantLlm extends Context.Service<
  TenantLlm,
  {
    readonly complete: (call: LlmCall) => Effect.Effect<LlmAnswer, LlmFailure>
    /** Fails until the first token; what fails later is told in the stream. The scope's end cancels the provider's call. */
    readonly stream: (call: LlmCall) => Effect.Effect<LlmStream, LlmFailure, Scope.Scope>
    /** OpenAI's embeddings, as they are: `body` in, `body` out. */
    readonly embed: (body: JsonObject) => Effect.Effect<LlmHead & { readonly body: JsonObject }, LlmFailure>
    /** Anthropic's `count_tokens`, as it is. */
    readonly countTokens: (
      body: JsonObject,
      headers: Readonly<Record<string, string>>
    ) => Effect.Effect<LlmHead & { readonly body: JsonObject }, LlmFailure>
    /** Who may be asked for realtime voice under a name, and what a session may do. Asks nobody yet. */
    readonly realtime: (model: string) => Effect.Effect<RealtimeGrant, LlmFailure, Scope.Scope>
    /** Groups and models that the tenant may name. */
    readonly models: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly ownedBy: string }>>
  }
>()("agent-army/services/TenantLlm") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<
    TenantLlm["Service"],
    never,
    TenantContext | TenantDb | TenantSecrets | LlmGateway | Providers | PromptGuard | LlmUsage | AuditLog
  > = Effect.gen(function* () {
    const parts: Parts = {
      tenant: yield* TenantContext,
      db: yield* TenantDb,
      secrets: yield* TenantSecrets,
      gateway: yield* LlmGateway,
      providers: yield* Providers,
      guard: yield* PromptGuard,
      usage: yield* LlmUsage,
      audit: yield* AuditLog
    }
    return TenantLlm.of({
      complete: (call) => complete(parts, call),
      stream: (call) => stream(parts, call),
      embed: (body) => embed(parts, body),
      countTokens: (body, headers) => countTokens(parts, body, headers),
      realtime: (model) => realtime(parts, model),
      models: Effect.sync(() => modelsOf(parts))
    })
  })
  static readonly layer = Layer.effect(TenantLlm, this.make)
}

/** What a request's service consists of. Its methods are functions of it: a request that asks no model pays for none. */
interface Parts {
  readonly tenant: TenantContext["Service"]
  readonly db: TenantDb["Service"]
  readonly secrets: TenantSecrets["Service"]
  readonly gateway: LlmGateway["Service"]
  readonly providers: Providers["Service"]
  readonly guard: PromptGuard["Service"]
  readonly usage: LlmUsage["Service"]
  readonly audit: AuditLog["Service"]
}

const unflagged: GuardVerdict = { flagged: false, score: 0, categories: [] }

const invalid = (path: string, message: string) =>
  new InvalidRequest({ detail: "The body is invalid", errors: [{ path: [path], message }] })

/** What a request asks for. Whatever else it is, it is a name and no text. */
const askedFor = (body: JsonObject, dialect: Dialect): Result.Result<string, InvalidRequest> => {
  const model = body["model"] ?? undefined
  if (model === undefined && dialect === "native") return Result.succeed(DEFAULT_GROUP)
  return typeof model === "string" && /^[\x21-\x7e]{1,200}$/.test(model)
    ? Result.succeed(model)
    : Result.fail(invalid("model", "Expected a group, provider/model, or a model's name"))
}

/** Who is asked for, out of what the tenant may have. */
const modelsFor = (
  { tenant: { settings } }: Parts,
  asked: string,
  dialect: Dialect,
  provider: Provider | undefined
): Result.Result<ReadonlyArray<ModelRef>, Forbidden | InvalidRequest> => {
  const { group, models } = resolveModel(asked, dialect, settings["llm.groups"])
  const able = models.filter((ref) => provider === undefined || ref.provider === provider)
  if (able.length === 0) return Result.fail(invalid("model", "No model of it can do this"))
  const allowed = able.filter((ref) => isAllowed(ref, settings["llm.allowed_models"]))
  if (allowed.length === 0) return Result.fail(new Forbidden({ detail: "The tenant may not use this model" }))
  const unpriced = allowed.find((ref) => priceOf(ref, settings["llm.prices"]) === undefined)
  if (!group && unpriced !== undefined && settings["llm.monthly_budget_usd"] !== undefined) {
    return Result.fail(invalid("model", "A model without a price can't be held to the tenant's budget"))
  }
  return Result.succeed(allowed)
}

const ownKeys: Readonly<Record<Provider, SecretName>> = {
  anthropic: SecretName.make("anthropic_api_key"),
  openai: SecretName.make("openai_api_key")
}

/** The tenant's own key before the platform's. */
const clientOf = Effect.fnUntraced(function* ({ providers, secrets }: Parts, provider: Provider) {
  const own = yield* secrets.open(ownKeys[provider])
  return Option.isSome(own)
    ? Option.some(yield* providers.own(provider, own.value))
    : providers.platform(provider)
})

const candidatesFor = Effect.fnUntraced(function* (parts: Parts, models: ReadonlyArray<ModelRef>) {
  const clients = new Map<Provider, Option.Option<ProviderClient>>()
  const candidates: Array<Candidate> = []
  for (const ref of models) {
    const client = clients.get(ref.provider) ?? (yield* clientOf(parts, ref.provider))
    clients.set(ref.provider, client)
    if (Option.isSome(client)) candidates.push({ ref, client: client.value })
  }
  return Arr.isArrayNonEmpty(candidates)
    ? candidates
    : yield* new ProviderNotConfigured({ detail: "No provider of this model has a key" })
})

/** The same for a tenant's same name, and nobody else's: a provider's caches and abuse reports keep tenants apart by it. */
const pseudonym = (tenantId: string, given: string): string =>
  `aa_${hash("sha256", `${tenantId}:${given}`, "hex").slice(0, 40)}`

/** Says who is asking without saying it. What the caller itself set stays apart from its others. */
const identifyIn =
  ({ tenant: { tenantId } }: Parts): GatewayCall["identify"] =>
  (body, dialect) => {
    const known = (given: JsonObject[string] | undefined) => pseudonym(tenantId, textOf(given) ?? "")
    if (dialect === "anthropic-messages") {
      const metadata = objectOf(body["metadata"])
      return { ...body, metadata: { ...metadata, user_id: known(metadata["user_id"]) } }
    }
    return {
      ...body,
      safety_identifier: known(body["safety_identifier"] ?? body["user"]),
      prompt_cache_key: known(body["prompt_cache_key"]),
      ...("user" in body ? { user: known(body["user"]) } : undefined)
    }
  }

const metadataOf = (body: JsonObject): JsonObject => {
  const metadata = objectOf(body["metadata"])
  // Postgres has no NUL in text.
  const text = JSON.stringify(metadata)
  return text.length <= MOST_METADATA && !text.includes("\\u0000") ? metadata : {}
}

/** An attempt's row. */
const writeIn = (parts: Parts, body: JsonObject) => (record: AttemptRecord) => {
  const { principal, requestId, schema, settings, tenantId } = parts.tenant
  return parts.usage.write(
    { id: tenantId, schema },
    {
      ...record,
      requestId,
      keyId: principal._tag === "ApiKey" ? principal.keyId : null,
      cost: costOf(record.usage, priceOf(record.ref, settings["llm.prices"])),
      metadata: metadataOf(body)
    }
  )
}

/** From the caller's words to the gateway's: who is asked, with which keys, and whether it may be. */
const prepare = Effect.fnUntraced(function* (parts: Parts, call: LlmCall) {
  const { audit, db, guard, tenant } = parts
  const { body, dialect } = call
  const { settings } = tenant
  const asked = yield* Effect.fromResult(askedFor(body, dialect))
  const models = yield* Effect.fromResult(modelsFor(parts, asked, dialect, undefined))
  const conversation = yield* Effect.fromResult(codecOf[dialect].decodeRequest(body))

  const policy = settings["guard.policy"] ?? tenantSettingDefaults["guard.policy"]
  const level = settings["guard.level"] ?? tenantSettingDefaults["guard.level"]
  const examined = yield* guard.examine(conversation, { policy, level })
  const act = actOf(policy, examined.seen)
  if (Option.isSome(act)) yield* Effect.provideService(audit.record(act.value), TenantDb, db)
  if (examined.refusal !== undefined) return yield* examined.refusal

  const candidates = yield* candidatesFor(parts, models)
  const gatewayCall: GatewayCall = {
    asked,
    candidates,
    dialect,
    conversation: examined.conversation,
    body: examined.conversation === conversation ? body : undefined,
    usageAsked: asksForUsage(dialect, body),
    headers: call.headers,
    deadline: call.deadline,
    circuit: tenant.tenantId,
    resume: call.resume,
    requestId: tenant.requestId,
    identify: identifyIn(parts),
    write: writeIn(parts, body),
    costOf: (ref, usage) => costOf(usage, priceOf(ref, settings["llm.prices"])),
    summary: (known) => ({
      ...known,
      tenantId: tenant.tenantId,
      requestId: tenant.requestId,
      guard: examined.verdict
    })
  }
  return { gatewayCall, verdict: examined.verdict }
})

const complete = Effect.fn("TenantLlm.complete")(function* (parts: Parts, call: LlmCall) {
  const { gatewayCall, verdict } = yield* prepare(parts, call)
  return { ...(yield* parts.gateway.complete(gatewayCall)), guard: verdict }
}, Effect.scoped)

const stream = Effect.fn("TenantLlm.stream")(function* (parts: Parts, call: LlmCall) {
  const { gatewayCall, verdict } = yield* prepare(parts, call)
  return { ...(yield* parts.gateway.stream(gatewayCall)), guard: verdict }
})

/** One vendor's endpoint, as it is. */
const plain = Effect.fnUntraced(function* (
  parts: Parts,
  provider: Provider,
  call: Pick<PlainCall, "operation" | "dialect" | "path" | "body" | "headers" | "identify" | "usageOf">
) {
  const asked = yield* Effect.fromResult(askedFor(call.body, call.dialect))
  const models = yield* Effect.fromResult(modelsFor(parts, asked, call.dialect, provider))
  const answer = yield* parts.gateway.plain({
    ...call,
    asked,
    candidates: yield* candidatesFor(parts, models),
    deadline: undefined,
    circuit: parts.tenant.tenantId,
    write: writeIn(parts, call.body),
    estimateInput: () => Math.ceil(JSON.stringify(call.body["input"] ?? "").length / 3)
  })
  return { ...answer, guard: unflagged }
}, Effect.scoped)

const embed = Effect.fn("TenantLlm.embed")(function* (parts: Parts, body: JsonObject) {
  const { tenantId } = parts.tenant
  return yield* plain(parts, "openai", {
    operation: "embedding",
    dialect: "openai-chat",
    path: "/embeddings",
    body,
    headers: {},
    identify: (body) => ({ ...body, user: pseudonym(tenantId, textOf(body["user"]) ?? "") }),
    usageOf: (answer) => {
      const usage = objectOf(answer["usage"])
      const tokens: TokenUsage = {
        input: countOf(usage["prompt_tokens"]),
        cachedRead: 0,
        cachedWrite: 0,
        output: 0,
        reasoning: 0
      }
      return "prompt_tokens" in usage ? tokens : undefined
    }
  })
})

/** Costs nothing at Anthropic. */
const countTokens = Effect.fn("TenantLlm.countTokens")(function* (
  parts: Parts,
  body: JsonObject,
  headers: Readonly<Record<string, string>>
) {
  return yield* plain(parts, "anthropic", {
    operation: "count_tokens",
    dialect: "anthropic-messages",
    path: "/v1/messages/count_tokens",
    body,
    headers,
    identify: (body) => body,
    usageOf: () => ({ input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 })
  })
})

/** OpenAI's alone have realtime voice; so do the transcribers that a session may name. */
const realtime = Effect.fn("TenantLlm.realtime")(function* (parts: Parts, model: string) {
  const { principal, requestId, schema, settings, tenantId } = parts.tenant
  const asked = yield* Effect.fromResult(askedFor({ model }, "openai-chat"))
  const models = yield* Effect.fromResult(modelsFor(parts, asked, "openai-chat", "openai"))
  const grant: RealtimeGrant = {
    asked,
    candidates: yield* candidatesFor(parts, models),
    mayTranscribeWith: (model) => {
      const found = modelsFor(parts, `openai/${model}`, "openai-chat", "openai")
      return Result.isSuccess(found)
    },
    safetyIdentifier: pseudonym(tenantId, ""),
    tenant: { id: tenantId, schema },
    settings,
    requestId,
    keyId: principal._tag === "ApiKey" ? principal.keyId : null
  }
  return grant
})

const modelsOf = ({ tenant: { settings } }: Parts) => {
  const patterns = settings["llm.allowed_models"]
  const groups = [...new Set([...Object.keys(modelGroups), ...Object.keys(settings["llm.groups"] ?? {})])]
  return [
    ...groups
      .filter((name) =>
        resolveModel(name, "native", settings["llm.groups"]).models.some((ref) => isAllowed(ref, patterns))
      )
      .map((id) => ({ id, ownedBy: "agent-army" })),
    ...knownModels
      .filter((ref) => isAllowed(ref, patterns))
      .map((ref) => ({ id: modelName(ref), ownedBy: ref.provider }))
  ]
}
