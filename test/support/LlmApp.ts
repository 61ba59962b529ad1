import { NodeHttpClient } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { eventually } from "./Eventually.ts"
import { startFakeProvider } from "./FakeProvider.ts"
import type { FakeProvider as Fake } from "./FakeProvider.ts"
import { startServer, TestPlatform, TestServer } from "./Platform.ts"
import { operator, provisionTenant } from "./Tenants.ts"
import type { TestTenant } from "./Tenants.ts"

/** Both vendors behind the server, in one. */
export class FakeProvider extends Context.Service<FakeProvider, Fake>()("test/FakeProvider") {
  static readonly layer = Layer.effect(FakeProvider, startFakeProvider)
}

/** The text of a model that says so many tokens. */
export const words = (tokens: number) =>
  Array.from({ length: tokens }, (_, index) => `tok${String(index + 1).padStart(2, "0")}`).join(" ")

/** What came for a model, in order. */
export const attemptsOf = (fake: Fake, model: string) =>
  Effect.map(fake.attempts, (all) => all.filter((attempt) => attempt.model === model))

export const openCalls = (fake: Fake) => fake.open

/** How many calls were closed before their answer's end. */
export const cancelled = (fake: Fake) =>
  Effect.map(fake.attempts, (all) => all.filter(({ outcome }) => outcome === "aborted").length)

export const lastBody = (fake: Fake) => Effect.map(fake.attempts, (all) => all.at(-1)?.body)

/** A server on a real socket, with a provider behind it that speaks both vendors' wire. It waits for nothing longer than 3 s. */
export const TestLlmApp = Layer.effect(
  TestServer,
  Effect.flatMap(FakeProvider, ({ url }) =>
    startServer({
      ANTHROPIC_API_KEY: "sk-ant-of-the-tests",
      ANTHROPIC_BASE_URL: url,
      OPENAI_API_KEY: "sk-of-the-tests",
      OPENAI_BASE_URL: `${url}/v1`,
      LLM_TIMEOUT: "3",
      LLM_FIRST_TOKEN_TIMEOUT: "3",
      LLM_CHUNK_TIMEOUT: "3"
    })
  )
).pipe(
  Layer.provideMerge(FakeProvider.layer),
  Layer.provideMerge(TestPlatform),
  Layer.provideMerge(NodeHttpClient.layerUndici)
)

/** Gives a tenant groups of its own, and waits until they are in force. */
export const groupsFor = Effect.fnUntraced(function* (
  tenant: TestTenant,
  groups: Readonly<Record<string, ReadonlyArray<string>>>
) {
  yield* (yield* operator).tenants.update({
    params: { tenant: tenant.id },
    payload: { settings: { "llm.groups": groups } }
  })
  const names = Object.keys(groups).map((name) => `"${name}"`)
  yield* eventually("the groups are in force", tenant.asService.openai.models(), (models) =>
    names.every((name) => JSON.stringify(models).includes(name))
  )
})

/** A tenant with a group `g-<model>`: that model of OpenAI's, and a sound one behind it. */
export const tenantWith = Effect.fnUntraced(function* (model: string) {
  const tenant = yield* provisionTenant("llm")
  yield* groupsFor(tenant, { [`g-${model}`]: [`openai/${model}`, "openai/mock"] })
  return tenant
})
