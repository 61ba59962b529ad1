import type { Schema } from "effect"
import type { TokenUsage } from "../../src/domain/Llm.ts"
import { isObject, list, nameOf, promptTokens } from "./FakeProviderWire.ts"
import type { Answer, Asked, Wire } from "./FakeProviderWire.ts"

/** Of the prompt's tokens those that `-cached` reads from the cache, and those that it writes to it. */
export const cachedTokens = 5
export const cacheWrittenTokens = 3
/** The tokens that `-reasoning` thinks before the first one of the text. */
export const reasoningTokens = 7

export const refusalText = "I cannot help with that."

export interface Behaviour {
  readonly fault: string | undefined
  readonly delayMillis: number
  readonly intervalMillis: number
  readonly tokens: number
  /** Whether each token ends its line. */
  readonly lines: boolean
  readonly cached: boolean
  readonly reasoning: boolean
  readonly refusal: boolean
  readonly pause: boolean
  /** Whether the model says what it was sent, system prompt and all. */
  readonly echo: boolean
}

const options = "(?:-(?:lines|cached|reasoning|refusal|pause|echo|[din]\\d+))*"
const named = new RegExp(`^(?:mock|fault-(.+?)|.*?)(${options})$`, "s")

/** What the name of a model stands for. */
export const behaviourOf = (model: string): Behaviour => {
  const [, fault, chosen = ""] = named.exec(nameOf(model)) ?? []
  const option = (letter: string, otherwise: number) => {
    const [, value] = new RegExp(`-${letter}(\\d+)`).exec(chosen) ?? []
    return value === undefined ? otherwise : Number(value)
  }
  return {
    fault,
    delayMillis: option("d", 0),
    intervalMillis: option("i", 0),
    tokens: option("n", 50),
    lines: chosen.includes("-lines"),
    cached: chosen.includes("-cached"),
    reasoning: chosen.includes("-reasoning"),
    refusal: chosen.includes("-refusal"),
    pause: chosen.includes("-pause"),
    echo: chosen.includes("-echo")
  }
}

const textOf = (tokens: number) =>
  Array.from({ length: tokens }, (_, index) => `tok${String(index + 1).padStart(2, "0")}`).join(" ")

const wordsOf = (text: string): ReadonlyArray<string> => text.match(/ ?[^ ]+/g) ?? []

/** JSON in pieces of a few characters, as a model's tokens are. */
const slicesOf = (json: string): ReadonlyArray<string> => json.match(/.{1,6}/gsu) ?? []

/** The pieces of what comes before the first stop sequence, and that sequence. */
const stopped = (pieces: ReadonlyArray<string>, stop: ReadonlyArray<string>) => {
  const text = pieces.join("")
  const [first] = stop
    .flatMap((sequence) => {
      const at = text.indexOf(sequence)
      return at === -1 ? [] : [{ at, sequence }]
    })
    .toSorted((one, other) => one.at - other.at)
  if (first === undefined) return { pieces, sequence: null }
  const kept: Array<string> = []
  let left = first.at
  for (const piece of pieces) {
    if (left <= 0) break
    kept.push(piece.slice(0, left))
    left -= piece.length
  }
  return { pieces: kept, sequence: first.sequence }
}

export interface Planned extends Answer {
  /** The tokens that came in an earlier answer, which this one goes on after. */
  readonly before: number
}

/** All that a model would say, were it neither cut nor paused, from its beginning. */
const wholeOf = (asked: Asked, behaviour: Behaviour, sent: Schema.Json) => {
  const schema = asked.tool?.schema ?? asked.schema
  if (behaviour.refusal) return { text: refusalText, split: wordsOf, finish: "refusal" as const }
  if (schema !== undefined) {
    const finish = asked.tool === undefined ? ("stop" as const) : ("tool" as const)
    return { text: JSON.stringify(dummy(schema)), split: slicesOf, finish }
  }
  const spaced = behaviour.echo ? JSON.stringify(sent) : textOf(behaviour.tokens)
  const text = behaviour.lines ? spaced.replaceAll(" ", "\n ") : spaced
  return { text, split: wordsOf, finish: "stop" as const }
}

const noTokens: TokenUsage = { input: 0, cachedRead: 0, cachedWrite: 0, output: 0, reasoning: 0 }

/** What is answered, and what it costs. */
export const plan = (
  wire: Wire,
  asked: Asked,
  id: string,
  behaviour: Behaviour,
  sent: Schema.Json
): Planned => {
  const common = { id, model: asked.model, asked, usageTold: behaviour.fault !== "nousage", sequence: null }
  if (wire.produces !== "text") {
    const input = wire.produces === "vectors" ? promptTokens * asked.inputs : 0
    return {
      ...common,
      before: 0,
      pieces: [],
      tool: undefined,
      finish: "stop",
      usage: { ...noTokens, input }
    }
  }
  const { finish, split, text } = wholeOf(asked, behaviour, sent)
  const called = finish === "tool"
  const soFar = !called && text.startsWith(asked.soFar) ? asked.soFar : ""
  const left = split(text.slice(soFar.length))
  // A model thinks first, and its thoughts count.
  const reasoning = behaviour.reasoning ? Math.min(reasoningTokens, asked.maxTokens) : 0
  const allowed = left.slice(0, asked.maxTokens - reasoning)
  const { pieces, sequence } = called ? { pieces: allowed, sequence: null } : stopped(allowed, asked.stop)
  const paused = behaviour.pause && wire.pauses && finish === "stop" && asked.soFar === ""
  const said = paused ? pieces.slice(0, Math.ceil(pieces.length / 2)) : pieces
  return {
    ...common,
    before: split(text).length - left.length,
    pieces: said,
    tool: called ? asked.tool?.name : undefined,
    sequence: paused ? null : sequence,
    finish: paused
      ? "pause"
      : sequence !== null
        ? "sequence"
        : allowed.length < left.length
          ? "length"
          : finish,
    usage: {
      input: behaviour.cached ? promptTokens - cachedTokens - cacheWrittenTokens : promptTokens,
      cachedRead: behaviour.cached ? cachedTokens : 0,
      cachedWrite: behaviour.cached ? cacheWrittenTokens : 0,
      output: said.length + reasoning,
      reasoning
    }
  }
}

const formats: Readonly<Record<string, string>> = {
  "date-time": "2026-01-01T00:00:00Z",
  date: "2026-01-01",
  time: "00:00:00Z",
  email: "mock@example.com",
  uuid: "00000000-0000-4000-8000-000000000000",
  uri: "https://example.com"
}

/** A value that a JSON schema allows: the simplest one. References are followed within `root`. */
export const dummy = (schema: Schema.Json, root: Schema.Json = schema, depth = 0): Schema.Json => {
  if (!isObject(schema) || depth > 20) return null
  const deeper = (inner: Schema.Json) => dummy(inner, root, depth + 1)
  if (schema["const"] !== undefined) return schema["const"]
  const first = list(schema["enum"])[0]
  if (first !== undefined) return first
  const reference = schema["$ref"]
  if (typeof reference === "string") {
    let target: Schema.Json = root
    for (const name of reference.split("/").slice(1))
      target = isObject(target) ? (target[name] ?? null) : null
    return deeper(target)
  }
  const branch = list(schema["anyOf"])[0] ?? list(schema["oneOf"])[0] ?? list(schema["allOf"])[0]
  if (branch !== undefined) return deeper(branch)
  const properties = schema["properties"]
  const kind = list(schema["type"])[0] ?? schema["type"]
  const least = schema["minimum"]
  const format = schema["format"]
  if (kind === "object" || isObject(properties)) {
    return Object.fromEntries(
      Object.entries(isObject(properties) ? properties : {}).map(([name, of]) => [name, deeper(of)])
    )
  }
  if (kind === "array") {
    const items = schema["minItems"]
    return Array.from({ length: typeof items === "number" ? items : 0 }, () => deeper(schema["items"] ?? {}))
  }
  if (kind === "integer" || kind === "number") return typeof least === "number" ? least : 1
  if (kind === "boolean") return true
  if (kind === "null") return null
  return (typeof format === "string" ? formats[format] : undefined) ?? "mock"
}
