import { Array as Arr, Context, Effect, Layer, Option, Redacted, Result, Semaphore } from "effect"
import type { Duration, Schema, Scope, Stream } from "effect"
import type { Dialect, GuardVerdict, ModelRef, Provider, ProviderRefused } from "../domain/Llm.ts"
import { isAllowed, modelGroups, resolveModel } from "../domain/ModelGroups.ts"
import { costOf } from "../domain/Prices.ts"
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
import { actOf, PromptGuard } from "./PromptGuard.ts"
import { TenantContext } from "./TenantContext.ts"
import { TenantDb } from "./TenantDb.ts"
import { TenantSecrets } from "./TenantSecrets.ts"
import { noUsage } from "./llm/Attempt.ts"
import type { AttemptRecord } from "./llm/Attempt.ts"
import type { Answer, Conversation, JsonObject, Summary, WireEvent } from "./llm/Codec.ts"
import { codecOf } from "./llm/Codecs.ts"
import { countOf, isObject, listOf, objectOf, textOf } from "./llm/Json.ts"
import { LlmGateway } from "./llm/LlmGateway.ts"
import type { GatewayCall, Target } from "./llm/LlmGateway.ts"
import { ProviderKeys } from "./llm/ProviderKeys.ts"
import { wireFor } from "./llm/Providers.ts"

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
    /** Groups and models that the tenant may name. */
    readonly models: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly ownedBy: string }>>
  }
>()("agent-army/services/TenantLlm") {
  /** For a request, which makes all of its tenant's services in one layer (`TenantServices`). */
  static readonly make: Effect.Effect<
    TenantLlm["Service"],
    never,
    TenantContext | TenantDb | TenantSecrets | LlmGateway | PromptGuard | ProviderKeys | AuditLog
  > = Effect.gen(function* () {
    const parts: Parts = {
      tenant: yield* TenantContext,
      db: yield* TenantDb,
      secrets: yield* TenantSecrets,
      gateway: yield* LlmGateway,
      guard: yield* PromptGuard,
      platform: yield* ProviderKeys,
      audit: yield* AuditLog
    }
    return TenantLlm.of({
      complete: (call) => complete(parts, call),
      stream: (call) => stream(parts, call),
      embed: (body) => pass(parts, "openai-embeddings", body, {}),
      countTokens: (body, headers) => pass(parts, "anthropic-count-tokens", body, headers),
      models: models(parts)
    })
  })
  static readonly layer = Layer.effect(TenantLlm, this.make)
}

/** What a request's service consists of. Its methods are functions of it, since to make them anew costs each request. */
interface Parts {
  readonly tenant: TenantContext["Service"]
  readonly db: TenantDb["Service"]
  readonly secrets: TenantSecrets["Service"]
  readonly gateway: LlmGateway["Service"]
  readonly guard: PromptGuard["Service"]
  readonly platform: ProviderKeys["Service"]
  readonly audit: AuditLog["Service"]
}

/** Where a tenant keeps its own key of a vendor. */
const secretOf: Readonly<Record<Provider, SecretName>> = {
  anthropic: SecretName.make("anthropic_api_key"),
  openai: SecretName.make("openai_api_key")
}

const DEFAULT_GROUP = "reasoning"

const askedOf = (body: JsonObject, otherwise: string): string => textOf(body["model"]) ?? otherwise

/** What a text in a vendor's name costs in that vendor's own cache of prompts may not tell another tenant a thing. */
const marked = ({ tenant }: Parts, body: JsonObject, dialect: Dialect | "openai-embeddings"): JsonObject => {
  const id = tenant.tenantId
  if (dialect === "anthropic-messages") {
    return { ...body, metadata: { ...objectOf(body["metadata"]), user_id: id } }
  }
  if (dialect === "openai-embeddings") return { ...body, user: id }
  const key = textOf(body["prompt_cache_key"])
  return {
    ...body,
    safety_identifier: id,
    prompt_cache_key: key === undefined ? id : `${id}:${key}`
  }
}

/** The tenant's own key of a vendor, else the platform's. A key of its own that does not open is never passed over. */
const keyOf = Effect.fnUntraced(function* ({ platform, secrets }: Parts, provider: Provider) {
  const own = yield* secrets.open(secretOf[provider])
  const key = Option.isSome(own) ? own : platform[provider]
  // It goes into a header, and came by somebody's clipboard.
  return Option.map(key, (given) => Redacted.make(Redacted.value(given).trim()))
})

/** Whom to ask, in order, each with a key. */
const targetsOf = Effect.fnUntraced(function* (
  parts: Parts,
  asked: string,
  dialect: Dialect,
  only?: Provider
) {
  const { settings } = parts.tenant
  const named = resolveModel(asked, dialect, settings["llm.groups"]).filter(
    ({ provider }) => only === undefined || provider === only
  )
  if (named.length === 0) {
    return yield* new InvalidRequest({
      detail: `${asked} has no model for this endpoint`,
      errors: [{ path: ["model"], message: `Expected a model of ${only ?? "a provider"}` }]
    })
  }
  const allowed = named.filter((ref) => isAllowed(ref, settings["llm.allowed_models"]))
  if (allowed.length === 0) {
    return yield* new Forbidden({ detail: `The tenant's settings do not allow ${asked}` })
  }
  const keys = new Map<Provider, Option.Option<Redacted.Redacted<string>>>()
  for (const { provider } of allowed) {
    if (!keys.has(provider)) keys.set(provider, yield* keyOf(parts, provider))
  }
  const targets = allowed.flatMap((ref): ReadonlyArray<Target> => {
    const key = keys.get(ref.provider)
    return key !== undefined && Option.isSome(key) ? [{ ...ref, key: key.value }] : []
  })
  if (!Arr.isReadonlyArrayNonEmpty(targets)) {
    return yield* new ProviderNotConfigured({
      detail: `There is no key for ${[...keys.keys()].join(" or ")}: neither the tenant's nor the platform's`
    })
  }
  return targets
})

/** Every text in a body that no codec can read whole: for the guard, which has to see what a model will. */
const textsIn = (json: Schema.Json | undefined): ReadonlyArray<string> => {
  if (typeof json === "string") return [json]
  if (Array.isArray(json)) return listOf(json).flatMap(textsIn)
  if (!isObject(json) || json["role"] === "system" || json["role"] === "developer") return []
  if (json["role"] === "assistant") return []
  return Object.values(json).flatMap(textsIn)
}

const unread = (body: JsonObject): Conversation => ({
  system: [],
  turns: [
    {
      role: "user",
      parts: [...textsIn(body["messages"]), ...textsIn(body["input"])].map((text) => ({ _tag: "Text", text }))
    }
  ],
  tools: [],
  toolChoice: undefined,
  parallelToolCalls: undefined,
  maxTokens: undefined,
  temperature: undefined,
  topP: undefined,
  stop: [],
  format: undefined,
  reasoningEffort: undefined
})

/** Lets the guard look. Its act is written first: who is refused has been seen. */
const guarded = Effect.fnUntraced(function* (parts: Parts, conversation: Conversation) {
  const { audit, db, guard, tenant } = parts
  const policy = tenant.settings["guard.policy"] ?? tenantSettingDefaults["guard.policy"]
  const level = tenant.settings["guard.level"] ?? tenantSettingDefaults["guard.level"]
  const examined = yield* guard.examine(conversation, { policy, level })
  const act = actOf(policy, examined.seen)
  if (Option.isSome(act)) {
    yield* audit.record(act.value).pipe(Effect.provideService(TenantDb, db))
  }
  if (examined.refusal !== undefined) return yield* examined.refusal
  return examined
})

/** When many callers leave at once, their rows don't stand in the way of those who stay. */
const leaversRows = Semaphore.makeUnsafe(2)

/** One row for each attempt. What can't be written is logged whole, since a call that was answered is not undone. */
const written = (parts: Parts, metadata: JsonObject | undefined) => (record: AttemptRecord) => {
  const { db, tenant } = parts
  const { target, usage } = record
  const keyId = tenant.principal._tag === "ApiKey" ? tenant.principal.keyId : null
  const write = db
    .query(
      (sql, table) => sql`INSERT INTO ${table("llm_usage")}
        (request_id, key_id, asked, provider, model, status, http_status, streamed, resumed,
         input_tokens, cached_read_tokens, cached_write_tokens, output_tokens, reasoning_tokens,
         estimated, cost_usd, latency_ms, first_token_ms, provider_request_id, metadata)
        VALUES (${tenant.requestId === "" ? null : tenant.requestId}::uuid, ${keyId}::uuid, ${record.asked},
          ${target.provider}, ${target.model}, ${record.status}, ${record.httpStatus}::integer,
          ${record.streamed}, ${record.resumed}, ${usage.input}, ${usage.cachedRead}, ${usage.cachedWrite},
          ${usage.output}, ${usage.reasoning}, ${record.estimated},
          ${costOf(target, usage, tenant.settings["llm.prices"])}::numeric, ${Math.round(record.latency)},
          ${record.timeToFirstToken === null ? null : Math.round(record.timeToFirstToken)}::integer,
          ${record.providerRequestId}::text, ${metadata === undefined ? null : JSON.stringify(metadata)}::jsonb)`
    )
    .pipe(
      Effect.catchCause((cause) =>
        Effect.logError("A row of llm_usage could not be written", cause).pipe(
          Effect.annotateLogs({ provider: target.provider, model: target.model, ...usage })
        )
      ),
      Effect.asVoid
    )
  return record.status === "cancelled" ? leaversRows.withPermit(write) : write
}

/** The caller's call, ready for the gateway. */
const prepared = Effect.fnUntraced(function* (parts: Parts, call: LlmCall) {
  const { tenant } = parts
  const codec = codecOf[call.dialect]
  const asked = askedOf(call.body, DEFAULT_GROUP)
  const decoded = codec.decodeRequest(call.body)
  const targets = yield* targetsOf(parts, asked, call.dialect)
  // What we can't read, a provider of the same dialect may: only translation needs all of it.
  if (
    Result.isFailure(decoded) &&
    targets.some(({ provider }) => wireFor(provider, call.dialect) !== call.dialect)
  ) {
    return yield* decoded.failure
  }
  const given = Result.getOrElse(decoded, () => unread(call.body))
  const examined = yield* guarded(parts, given)
  const { conversation, verdict } = examined
  const isChanged = conversation !== given
  const body = isChanged
    ? {
        ...call.body,
        ...codec.encodeRequest(conversation, asked, call.body["stream"] === true)
      }
    : call.body
  const metadata = call.body["metadata"]
  const gatewayCall: GatewayCall = {
    dialect: call.dialect,
    body,
    conversation: Effect.succeed(conversation),
    headers: call.headers,
    asked,
    targets,
    mark: (wire, dialect) => marked(parts, wire, dialect),
    deadline: call.deadline,
    resume: call.resume,
    onAttempt: written(parts, isObject(metadata) ? metadata : undefined),
    summary: ({ answeredBy, asked: target, resumed, usage }) => ({
      answeredBy,
      usage,
      resumed,
      costUsd: costOf(target, usage, tenant.settings["llm.prices"]),
      tenantId: tenant.tenantId,
      requestId: tenant.requestId,
      guard: verdict
    })
  }
  return { gatewayCall, guard: verdict }
})

const complete = Effect.fn("TenantLlm.complete")(function* (parts: Parts, call: LlmCall) {
  const { gatewayCall, guard } = yield* prepared(parts, call)
  return { ...(yield* parts.gateway.complete(gatewayCall)), guard }
})

const stream = Effect.fn("TenantLlm.stream")(function* (parts: Parts, call: LlmCall) {
  const { gatewayCall, guard } = yield* prepared(parts, call)
  return { ...(yield* parts.gateway.stream(gatewayCall)), guard }
})

const unlooked: GuardVerdict = { flagged: false, score: 0, categories: [] }

/** Requests that one vendor alone understands, and that nothing answers in words. */
const pass = Effect.fn("TenantLlm.pass")(function* (
  parts: Parts,
  route: "openai-embeddings" | "anthropic-count-tokens",
  body: JsonObject,
  headers: Readonly<Record<string, string>>
) {
  const isEmbedding = route === "openai-embeddings"
  const dialect = isEmbedding ? "openai-chat" : "anthropic-messages"
  const asked = askedOf(body, isEmbedding ? "embedding" : DEFAULT_GROUP)
  const targets = yield* targetsOf(parts, asked, dialect, isEmbedding ? "openai" : "anthropic")
  const { tenant } = parts
  const answered = yield* parts.gateway.pass(
    {
      dialect,
      body,
      conversation: Effect.fail(new InvalidRequest({ detail: "This endpoint has no conversation" })),
      headers,
      asked,
      targets,
      mark: (wire) => (isEmbedding ? marked(parts, wire, "openai-embeddings") : wire),
      deadline: undefined,
      resume: false,
      // Counting is free, and no attempt at an answer.
      onAttempt: isEmbedding ? written(parts, undefined) : () => Effect.void,
      summary: ({ answeredBy, asked: target, resumed, usage }) => ({
        answeredBy,
        usage,
        resumed,
        costUsd: costOf(target, usage, tenant.settings["llm.prices"]),
        tenantId: tenant.tenantId,
        requestId: tenant.requestId,
        guard: unlooked
      })
    },
    route,
    (json) => ({ ...noUsage, input: countOf(objectOf(json["usage"])["prompt_tokens"]) })
  )
  return { ...answered, guard: unlooked }
})

/** Groups first, then the models that are in them. */
const models = ({ tenant }: Parts) =>
  Effect.sync(() => {
    const groups = { ...modelGroups, ...tenant.settings["llm.groups"] }
    const allowed = [...new Set(Object.values(groups).flat())].filter((name) => {
      const [ref] = resolveModel(name, "openai-chat")
      return ref !== undefined && isAllowed(ref, tenant.settings["llm.allowed_models"])
    })
    return [
      ...Object.keys(groups).map((id) => ({ id, ownedBy: "agent-army" })),
      ...allowed.map((id) => ({ id, ownedBy: id.slice(0, id.indexOf("/")) }))
    ]
  })
