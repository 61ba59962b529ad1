import { ManagedRuntime, Record as Records, Stream } from "effect"
import type { Brand, Effect } from "effect"
import { FetchHttpClient } from "effect/http"
import type { HttpClientResponse } from "effect/http"
import { makeClient } from "./Client.ts"
import type { Client, ClientOptions } from "./Client.ts"

/** Where the contract has a branded text, any text may stand: it is checked when the call is made. */
type Plain<A> = A extends Brand.Brand<string> ? string : A

type Fields<A> = A extends object ? { readonly [Field in keyof A]: Plain<A[Field]> } : A

/** A request as people write it. */
type Request<A> = { readonly [Part in keyof A as Exclude<Part, "responseMode">]: Fields<A[Part]> }

/** What a call answers, out of what it would answer in each of its modes. Streams can be read with `for await`. */
type Answer<A> = A extends readonly [infer Success, HttpClientResponse.HttpClientResponse]
  ? Success extends Stream.Stream<infer Item, infer _E, infer _R>
    ? AsyncIterable<Item>
    : Success
  : never

export interface CallOptions {
  /** Aborts the call, or the reading of its stream. */
  readonly signal?: AbortSignal | undefined
}

type Call<Method> = Method extends (request: infer Q) => Effect.Effect<infer A, infer _E, infer _R>
  ? (request: Request<Q>, options?: CallOptions) => Promise<Answer<A>>
  : never

/** Every call of the contract, as a function that gives a promise. It rejects with the problem's own class. */
export type PromiseClient = {
  readonly [Group in keyof Client]: {
    readonly [Name in keyof Client[Group]]: Call<Client[Group][Name]>
  }
}

type AnyMethod = (request: unknown) => Effect.Effect<unknown, unknown>

/** A group of the client is an object of methods; the contract's types say which. */
const isMethod = (value: unknown): value is AnyMethod => typeof value === "function"

/** A stream of an answer needs nothing: what it reads from is open. */
const isStream = (value: unknown): value is Stream.Stream<unknown, unknown> => Stream.isStream(value)

/** The types are made from the same contract as the calls: there is nothing more to check them by. */
const isPromiseClient = (calls: object): calls is PromiseClient => calls !== null

/**
 * The typed client for programs that don't use Effect, over the platform's `fetch`. Tries a call again twice unless
 * `retries` says otherwise.
 */
export const makePromiseClient = async (options: ClientOptions): Promise<PromiseClient> => {
  const runtime = ManagedRuntime.make(FetchHttpClient.layer)
  const client = await runtime.runPromise(makeClient({ retries: 2, ...options }))
  const call =
    (method: AnyMethod) =>
    async (request: unknown, { signal }: CallOptions = {}) => {
      // The promise rejects with whatever it is: its caller is who knows the call's errors.
      // @effect-diagnostics-next-line anyUnknownInErrorContext:off
      const answer = await runtime.runPromise(method(request), { signal })
      return isStream(answer) ? Stream.toAsyncIterable(answer) : answer
    }
  const calls = Records.map(client, (group: object) =>
    Object.fromEntries(
      Object.entries(group).flatMap(([name, method]) => (isMethod(method) ? [[name, call(method)]] : []))
    )
  )
  if (!isPromiseClient(calls)) throw new Error("Unreachable")
  return calls
}
