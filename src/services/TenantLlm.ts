import { Array as Arr, Clock, Context, Effect, Layer, Option, Result } from "effect"
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
import { costBound, inputBound, LARGEST_CONTEXT, UNBOUNDED_OUTPUT } from "../domain/CostBound.ts"
import { moneyOf } from "../domain/Money.ts"
import { costOf, isPriced, priceOf } from "../domain/Prices.ts"
import {
  Forbidden,
  InvalidRequest,
  PromptInjectionBlocked,
  ProviderNotConfigured
} from "../domain/Problems.ts"
import type {
  BudgetExceeded,
  DependencyUnavailable,
  ProviderUnavailable,
  RateLimited
} from "../domain/Problems.ts"
import { SecretName } from "../domain/Secret.ts"
import { tenantSettingDefaults } from "../domain/TenantSettings.ts"
import type { KeyLimits } from "../domain/TenantSettings.ts"
import { AuditLog } from "./AuditLog.ts"
import { tenantPrefix } from "./TenantCache.ts"
import { estimateInput } from "./llm/Attempt.ts"
import type { AttemptOpening, AttemptRecord } from "./llm/Attempt.ts"
import type { Answer, Conversation, JsonObject, Summary, WireEvent } from "./llm/Codec.ts"
import { codecOf } from "./llm/Codecs.ts"
import { countAt, numberAt, objectAt, stringAt } from "./llm/JsonAt.ts"
import { refersToKept } from "./llm/KeptByProvider.ts"
import { asksForUsage, dialectOf, LlmGateway } from "./llm/LlmGateway.ts"
import type { Candidate, GatewayCall, PlainCall } from "./llm/LlmGateway.ts"
import { LlmBudgets, monthOf } from "./llm/LlmBudgets.ts"
import { LlmLimits } from "./llm/LlmLimits.ts"
import type { Admission, MinuteLimits } from "./llm/LlmLimits.ts"
import { LlmUsage } from "./llm/LlmUsage.ts"
import type { RealtimeGrant } from "./llm/Realtime.ts"
import { Providers } from "./llm/Providers.ts"
import type { ProviderClient } from "./llm/Providers.ts"
import { canaryLine, leakWatcher } from "./Canary.ts"
import type { Canary } from "./Canary.ts"
import { actOf, leakActOf, PromptGuard } from "./PromptGuard.ts"
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
    | TenantContext
    | TenantDb
    | TenantSecrets
    | LlmGateway
    | Providers
    | PromptGuard
    | LlmUsage
    | LlmBudgets
    | LlmLimits
    | AuditLog
  > = Effect.gen(function* () {
    const parts: Parts = {
      tenant: yield* TenantContext,
      db: yield* TenantDb,
      secrets: yield* TenantSecrets,
      gateway: yield* LlmGateway,
      providers: yield* Providers,
      guard: yield* PromptGuard,
      usage: yield* LlmUsage,
      budgets: yield* LlmBudgets,
      limits: yield* LlmLimits,
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
  readonly budgets: LlmBudgets["Service"]
  readonly limits: LlmLimits["Service"]
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
  able: { readonly can: (ref: ModelRef) => boolean; readonly otherwise: InvalidRequest }
): Result.Result<ReadonlyArray<ModelRef>, Forbidden | InvalidRequest> => {
  const { models } = resolveModel(asked, dialect, settings["llm.groups"])
  const fit = models.filter(able.can)
  if (fit.length === 0) return Result.fail(able.otherwise)
  const allowed = fit.filter((ref) => isAllowed(ref, settings["llm.allowed_models"]))
  if (allowed.length === 0) return Result.fail(new Forbidden({ detail: "The tenant may not use this model" }))
  if (settings["llm.monthly_budget_usd"] === undefined) return Result.succeed(allowed)
  const priced = allowed.filter((ref) => isPriced(ref, settings["llm.prices"]))
  return priced.length > 0
    ? Result.succeed(priced)
    : Result.fail(invalid("model", "A model without a price can't be held to the tenant's budget"))
}

/** Any model, unless the request has what only its own dialect can say: to leave that out unsaid would be another request. */
const speakersOf = ({ untranslatable }: Conversation, dialect: Dialect) => ({
  can: (ref: ModelRef) => untranslatable === undefined || dialectOf(ref, dialect) === dialect,
  otherwise: new InvalidRequest({
    detail: "No model of it understands the whole request",
    errors: untranslatable ?? []
  })
})

/** The models of one vendor, whose endpoint it is. */
const only = (provider: Provider) => ({
  can: (ref: ModelRef) => ref.provider === provider,
  otherwise: invalid("model", "No model of it can do this")
})

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

const candidatesFor = Effect.fnUntraced(function* (
  parts: Parts,
  models: ReadonlyArray<ModelRef>,
  may: (client: ProviderClient) => boolean
) {
  const clients = new Map<Provider, Option.Option<ProviderClient>>()
  const candidates: Array<Candidate> = []
  for (const ref of models) {
    const client = clients.get(ref.provider) ?? (yield* clientOf(parts, ref.provider))
    clients.set(ref.provider, client)
    if (Option.isSome(client)) candidates.push({ ref, client: client.value })
  }
  const allowed = candidates.filter(({ client }) => may(client))
  if (candidates.length > 0 && allowed.length === 0) {
    return yield* new InvalidRequest({
      detail: "What a provider keeps by id can be named by tenants with a provider key of their own only"
    })
  }
  return Arr.isArrayNonEmpty(allowed)
    ? allowed
    : yield* new ProviderNotConfigured({ detail: "No provider of this model has a key" })
})

/** The same for a tenant's same name, and nobody else's: a provider's caches and abuse reports keep tenants apart by it. */
const pseudonym = (tenantId: string, given: string): string =>
  `aa_${hash("sha256", `${tenantId}:${given}`, "hex").slice(0, 40)}`

/** Says who is asking without saying it. What the caller itself set stays apart from its others. */
const identifyIn =
  ({ tenant: { tenantId } }: Parts): GatewayCall["identify"] =>
  (body, dialect, client) => {
    const known = (...path: ReadonlyArray<string>) => pseudonym(tenantId, stringAt(body, ...path) ?? "")
    if (dialect === "anthropic-messages") {
      return { ...body, metadata: { ...objectAt(body, "metadata"), user_id: known("metadata", "user_id") } }
    }
    return {
      ...body,
      // What OpenAI keeps under the platform's key, it keeps for all tenants alike.
      ...(!client.own && (dialect === "openai-responses" || body["store"] === true)
        ? { store: false }
        : undefined),
      safety_identifier: known("safety_identifier" in body ? "safety_identifier" : "user"),
      prompt_cache_key: known("prompt_cache_key"),
      ...("user" in body ? { user: known("user") } : undefined)
    }
  }

const metadataOf = (body: JsonObject): JsonObject => {
  const metadata = objectAt(body, "metadata")
  // Postgres has no NUL in text.
  const text = JSON.stringify(metadata)
  return text.length <= MOST_METADATA && !text.includes("\\u0000") ? metadata : {}
}

/** What the tenant, and the key that asks, may have in a minute. */
const minuteLimitsOf = ({
  tenant: { principal, settings, tenantId }
}: Parts): ReadonlyArray<MinuteLimits> => {
  const ofTenant = `${tenantPrefix(tenantId)}rate:llm`
  const limits = (key: string, of: KeyLimits): MinuteLimits => ({
    key,
    requests: of["llm.requests_per_minute"],
    tokens: of["llm.tokens_per_minute"]
  })
  return principal._tag === "ApiKey"
    ? [limits(ofTenant, settings), limits(`${ofTenant}:key:${principal.keyId}`, principal.limits)]
    : [limits(ofTenant, settings)]
}

/** The most tokens that a call may come to: the smallest limit's. */
const tokensPerMinute = (limits: ReadonlyArray<MinuteLimits>): number | undefined => {
  const tokens = limits.flatMap(({ tokens }) => tokens ?? [])
  return tokens.length === 0 ? undefined : Math.min(...tokens)
}

/** A call is let in for the most tokens that it may come to; the end of its scope settles what it did come to. */
const admit = (parts: Parts, tokens: () => number) => {
  const limits = minuteLimitsOf(parts)
  return Effect.acquireRelease(
    parts.limits.admit(limits, tokensPerMinute(limits) === undefined ? 0 : tokens()),
    ({ settle }) => settle
  )
}

const allTokens = (usage: TokenUsage): number =>
  usage.input +
  usage.cachedRead +
  usage.cachedWrite +
  usage.output +
  (usage.audioInput ?? 0) +
  (usage.audioCachedRead ?? 0) +
  (usage.audioOutput ?? 0)

/**
 * An attempt in the tenant's books, and held against its budget: at the most that it can cost.
 */
const openIn = (parts: Parts, admission: Admission, body: JsonObject, maxOutput: number) => {
  const input = Effect.cached(
    Effect.sync(() => inputBound(body) + (refersToKept(body) ? LARGEST_CONTEXT : 0))
  )
  return Effect.fnUntraced(function* ({ ref, ...known }: AttemptOpening) {
    const { principal, requestId, schema, settings, tenantId } = parts.tenant
    const tenant = { id: tenantId, schema }
    const limit = settings["llm.monthly_budget_usd"]
    const now = yield* Clock.currentTimeMillis
    const price = priceOf(ref, settings["llm.prices"], now)
    const reservation =
      // To have tokens counted costs nothing.
      limit === undefined || price === undefined || known.operation === "count_tokens"
        ? undefined
        : yield* parts.budgets.reserve(
            tenant,
            monthOf(now),
            moneyOf(limit),
            costBound(price, yield* yield* input, maxOutput)
          )
    const { close, reach } = yield* parts.usage.open(
      {
        ...known,
        provider: ref.provider,
        model: ref.model,
        tenant,
        requestId: requestId === "" ? null : requestId,
        keyId: principal._tag === "ApiKey" ? principal.keyId : null,
        metadata: metadataOf(body),
        price: price ?? null,
        ...(reservation === undefined ? undefined : { lease: parts.budgets.instance })
      },
      reservation
    )
    return {
      reach,
      close: (record: AttemptRecord) => {
        admission.use(allTokens(record.usage))
        return close(record)
      }
    }
  })
}

/** How many answers are asked for, which only chat completions can. */
const choicesOf = ({ body, dialect }: Pick<LlmCall, "body" | "dialect">): number =>
  dialect === "openai-chat" ? Math.ceil(Math.max(1, numberAt(body, "n") ?? 1)) : 1

const limitNames: Readonly<Record<Dialect, string>> = {
  native: "max_tokens",
  "openai-chat": "max_completion_tokens",
  "openai-responses": "max_output_tokens",
  "anthropic-messages": "max_tokens"
}

/**
 * Budgets and limits of tokens are held against the most that an answer can be. A caller who set no limit gets one: of what a minute
 * allows beside the prompt, where that is less.
 */
const withOutputLimit = (
  parts: Parts,
  { body, dialect }: Pick<LlmCall, "body" | "dialect">,
  said: Conversation
): JsonObject => {
  const perMinute = tokensPerMinute(minuteLimitsOf(parts))
  const isHeld = perMinute !== undefined || parts.tenant.settings["llm.monthly_budget_usd"] !== undefined
  // As its own dialect says it, and has checked it: a name of another one's is no limit to anybody.
  if (!isHeld || said.maxTokens !== undefined) return body
  const rest =
    perMinute === undefined
      ? UNBOUNDED_OUTPUT
      : Math.floor((perMinute - estimateInput(said)) / choicesOf({ body, dialect }))
  return { ...body, [limitNames[dialect]]: Math.max(1, Math.min(UNBOUNDED_OUTPUT, rest)) }
}

/** What the verdict of an answer says that held its tenant's canary. */
const LEAK = "leak_detected"
const LEAK_TOLD = "The answer held the system prompt, which must not go out (leak_detected)"

const withLeak = (verdict: GuardVerdict): GuardVerdict => ({
  flagged: true,
  score: 1,
  categories: [...verdict.categories, LEAK]
})

/** The tenant's canary after the system prompt, in the conversation and in the caller's own body alike. */
const markedWith = (
  canary: Option.Option<Canary>,
  { body, conversation, dialect }: Pick<GatewayCall, "body" | "conversation" | "dialect">
): Pick<GatewayCall, "body" | "conversation"> => {
  if (Option.isNone(canary)) return { body, conversation }
  const line = canaryLine(canary.value)
  return {
    body: body === undefined ? undefined : codecOf[dialect].addSystem(body, line),
    conversation: { ...conversation, system: [...conversation.system, line] }
  }
}

/** From the caller's words to the gateway's: who is asked, with which keys, and whether it may be. */
const prepare = Effect.fnUntraced(function* (parts: Parts, call: LlmCall) {
  const { audit, db, guard, tenant } = parts
  const { dialect } = call
  const { settings } = tenant
  const asked = yield* Effect.fromResult(askedFor(call.body, dialect))
  const decode = codecOf[dialect].decodeRequest
  const said = yield* Effect.fromResult(decode(call.body))
  const body = withOutputLimit(parts, call, said)
  const conversation = body === call.body ? said : yield* Effect.fromResult(decode(body))
  const models = yield* Effect.fromResult(modelsFor(parts, asked, dialect, speakersOf(conversation, dialect)))

  const policy = settings["guard.policy"] ?? tenantSettingDefaults["guard.policy"]
  const level = settings["guard.level"] ?? tenantSettingDefaults["guard.level"]
  const examined = yield* guard.examine(conversation, { policy, level })
  const act = actOf(policy, examined.seen)
  if (Option.isSome(act)) yield* Effect.provideService(audit.record(act.value), TenantDb, db)
  if (examined.refusal !== undefined) return yield* examined.refusal

  const canary = guard
    .canaryOf(tenant.tenantId, policy)
    .pipe(Option.filter(() => conversation.system.length > 0))
  const { untranslatable } = conversation
  if (untranslatable !== undefined && examined.conversation !== conversation) {
    return yield* new InvalidRequest({
      detail: "The tenant's policy marks what tools return, which can't be done in this request",
      errors: untranslatable
    })
  }
  const keptByProvider = untranslatable !== undefined && refersToKept(body)
  const candidates = yield* candidatesFor(parts, models, ({ own }) => own || !keptByProvider)
  const maxOutput = (conversation.maxTokens ?? 0) * choicesOf(call)
  const now = yield* Clock.currentTimeMillis
  const admission = yield* admit(parts, () => estimateInput(conversation) + maxOutput)
  const gatewayCall: GatewayCall = {
    asked,
    candidates,
    dialect,
    ...markedWith(canary, {
      conversation: examined.conversation,
      body: examined.conversation === conversation ? body : undefined,
      dialect
    }),
    watch: Option.match(canary, {
      onNone: () => undefined,
      onSome: (canary) => ({
        watcher: () => leakWatcher(canary),
        onLeak: Effect.andThen(
          guard.countLeak(policy),
          Effect.ignore(Effect.provideService(audit.record(leakActOf(policy)), TenantDb, db), {
            log: "Error"
          })
        ),
        problem:
          policy === "block"
            ? { status: 422, code: "PromptInjectionBlocked", type: null, param: null, message: LEAK_TOLD }
            : undefined
      })
    }),
    usageAsked: asksForUsage(dialect, body),
    headers: call.headers,
    deadline: call.deadline,
    circuit: tenant.tenantId,
    resume: call.resume,
    requestId: tenant.requestId,
    identify: identifyIn(parts),
    open: openIn(parts, admission, body, maxOutput),
    costOf: (ref, usage) => costOf(usage, priceOf(ref, settings["llm.prices"], now)),
    summary: ({ leaked, ...known }) => ({
      ...known,
      tenantId: tenant.tenantId,
      requestId: tenant.requestId,
      guard: leaked ? withLeak(examined.verdict) : examined.verdict
    })
  }
  return { gatewayCall, verdict: examined.verdict, policy }
})

const complete = Effect.fn("TenantLlm.complete")(function* (parts: Parts, call: LlmCall) {
  const { gatewayCall, policy, verdict } = yield* prepare(parts, call)
  const { leaked, ...answer } = yield* parts.gateway.complete(gatewayCall)
  if (leaked && policy === "block") return yield* new PromptInjectionBlocked({ categories: [LEAK] })
  return { ...answer, guard: leaked ? withLeak(verdict) : verdict }
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
  const models = yield* Effect.fromResult(modelsFor(parts, asked, call.dialect, only(provider)))
  const estimatedInput = Math.ceil(JSON.stringify(call.body["input"] ?? "").length / 3)
  const candidates = yield* candidatesFor(parts, models, () => true)
  const admission = yield* admit(parts, () => (call.operation === "count_tokens" ? 0 : estimatedInput))
  const answer = yield* parts.gateway.plain({
    ...call,
    asked,
    candidates,
    deadline: undefined,
    circuit: parts.tenant.tenantId,
    open: openIn(parts, admission, call.body, 0),
    estimatedInput
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
    identify: (body) => ({ ...body, user: pseudonym(tenantId, stringAt(body, "user") ?? "") }),
    usageOf: (answer) => {
      const tokens: TokenUsage = {
        input: countAt(answer, "usage", "prompt_tokens"),
        cachedRead: 0,
        cachedWrite: 0,
        output: 0,
        reasoning: 0
      }
      return numberAt(answer, "usage", "prompt_tokens") === undefined ? undefined : tokens
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
  const models = yield* Effect.fromResult(modelsFor(parts, asked, "openai-chat", only("openai")))
  const candidates = yield* candidatesFor(parts, models, () => true)
  // A session is one request; its tokens are known response by response, and held against the budget only.
  yield* admit(parts, () => 0)
  const grant: RealtimeGrant = {
    asked,
    candidates,
    mayTranscribeWith: (model) => {
      const found = modelsFor(parts, `openai/${model}`, "openai-chat", only("openai"))
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
