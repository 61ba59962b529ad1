import type { TokenUsage } from "../../domain/Llm.ts"
import { noUsage } from "./Attempt.ts"

// OpenAI's realtime events (GA), as far as a relay has to understand them. Frames go on as they came: what is read here
// is read beside them. Nothing fails on a member that is missing or of another kind.

/** The largest frame: OpenAI takes 15 MiB of audio in one event, which is base64 already. */
export const MAX_FRAME_BYTES = 16 * 1024 * 1024

type Members = Readonly<Record<string, unknown>>

const isMembers = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const membersOf = (value: unknown): Members => (isMembers(value) ? value : {})

const textOf = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined)

const countOf = (value: unknown): number =>
  typeof value === "number" && Number.isFinite(value) ? Math.max(0, Math.trunc(value)) : 0

/** As for bodies: far beyond what people write. */
const MOST_DEPTH = 100
/** Commas, colons and brackets: 16 MiB of them would keep everybody waiting for seconds while they are parsed. */
const MOST_MARKS = 100_000

const QUOTE = 34
const BACKSLASH = 92

/** Where a string ends that begins before `from`: after its closing quote, or at the end of the text. */
const endOfString = (text: string, from: number): number => {
  for (let end = text.indexOf('"', from); end !== -1; end = text.indexOf('"', end + 1)) {
    let slashes = 0
    while (end - slashes > from && text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++
    if (slashes % 2 === 0) return end + 1
  }
  return text.length
}

/** Whether a text may be parsed: its strings may be long, and nothing else of it. Looks at the text alone. */
const isModest = (text: string): boolean => {
  let depth = 0
  let marks = 0
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index)
    if (character === QUOTE) {
      index = endOfString(text, index + 1) - 1
      continue
    }
    // [ and {, ] and }: each pair differs by one bit from the other. , and : are marks too.
    const bracket = character & ~32
    if (bracket === 91) {
      depth++
      marks++
    } else if (bracket === 93) depth--
    else if (character === 44 || character === 58) marks++
    if (depth > MOST_DEPTH || marks > MOST_MARKS) return false
  }
  return true
}

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** An `error` event, as OpenAI's clients read it. */
export interface RealtimeError {
  readonly type: string
  readonly code: string
  readonly message: string
  readonly param: string | null
  /** The client's event that it answers. */
  readonly eventId: string | null
}

export const errorEvent = (id: string, { code, eventId, message, param, type }: RealtimeError): string =>
  JSON.stringify({ type: "error", event_id: id, error: { type, code, message, param, event_id: eventId } })

/** Which models a session may name. */
export interface ModelRules {
  /** The provider's name of the model that the session is pinned to. */
  readonly model: string
  /** What else the caller may call it: a group, or `provider/model`. */
  readonly names: ReadonlyArray<string>
  readonly mayTranscribeWith: (model: string) => boolean
}

export type ClientVerdict =
  /** `type` is the event's; binary frames have none. */
  | { readonly _tag: "Pass"; readonly type: string | undefined; readonly eventId: string | null }
  /** A name of ours in the place of the provider's, which knows its own alone. */
  | {
      readonly _tag: "Renamed"
      readonly text: string
      readonly type: string | undefined
      readonly eventId: string | null
    }
  | { readonly _tag: "Refused"; readonly error: RealtimeError }

const pass: ClientVerdict = { _tag: "Pass", type: undefined, eventId: null }

const refused = (
  message: string,
  code: string,
  param: string | null,
  eventId: string | null
): ClientVerdict => ({
  _tag: "Refused",
  error: { type: "invalid_request_error", code, message, param, eventId }
})

/** Whatever a `session` of the GA protocol, or of the beta before it, transcribes with. */
const transcribersOf = (session: Members): ReadonlyArray<readonly [param: string, model: unknown]> => [
  [
    "session.audio.input.transcription.model",
    membersOf(membersOf(membersOf(session["audio"])["input"])["transcription"])["model"]
  ],
  ["session.input_audio_transcription.model", membersOf(session["input_audio_transcription"])["model"]]
]

/** Looks at the models that a `session` names: what is wrong with them, if anything. */
const wrongTranscriber = (session: Members, rules: ModelRules): string | undefined =>
  transcribersOf(session).find(
    ([, model]) =>
      model !== undefined && model !== null && !(typeof model === "string" && rules.mayTranscribeWith(model))
  )?.[0]

const FIRST_OF_OBJECT = /^[\s\uFEFF]*\{/

/**
 * Whether a client's frame may go on: it may name no model but the session's own, and transcribe with none that the tenant
 * may not use. What is no JSON can't be looked into, and is refused; binary frames that are none pass.
 */
export const examineClient = (data: Buffer, isBinary: boolean, rules: ModelRules): ClientVerdict => {
  const text = data.toString("utf8")
  const event = isModest(text) ? parse(text) : undefined
  if (!isMembers(event)) {
    // A reader that is less strict than ours could find an event in it.
    return isBinary && !FIRST_OF_OBJECT.test(data.toString("latin1", 0, 64))
      ? pass
      : refused("The event is no JSON object, or too complex a one", "invalid_json", null, null)
  }
  const eventId = textOf(event["event_id"]) ?? null
  let renamed: Members | undefined
  for (const name of ["session", "response"]) {
    const part = event[name]
    if (!isMembers(part)) continue
    const { model } = part
    if (model !== undefined && model !== null && model !== rules.model) {
      if (typeof model !== "string" || !rules.names.includes(model)) {
        return refused(
          `The session's model is ${rules.model}, and can't be changed`,
          "Forbidden",
          `${name}.model`,
          eventId
        )
      }
      renamed = { ...(renamed ?? event), [name]: { ...part, model: rules.model } }
    }
    const wrong = wrongTranscriber(part, rules)
    if (wrong !== undefined) {
      return refused("The tenant may not use this model for transcription", "Forbidden", wrong, eventId)
    }
  }
  const type = textOf(event["type"])
  return renamed === undefined
    ? { _tag: "Pass", type, eventId }
    : { _tag: "Renamed", text: JSON.stringify(renamed), type, eventId }
}

/** The `session` that a client secret pins, as the first event of a session opened with it. */
export const sessionUpdate = (session: Readonly<Record<string, unknown>>): string => {
  // The model is the session's from its beginning, and nothing that an update may change.
  const { model: _, ...rest } = session
  return JSON.stringify({ type: "session.update", session: { type: "realtime", ...rest } })
}

/** What a session of a client secret names that the tenant may not use: where it stands. */
export const wrongIn = (
  session: Readonly<Record<string, unknown>>,
  rules: Pick<ModelRules, "mayTranscribeWith">
) => wrongTranscriber(session, { model: "", names: [], ...rules })

export type ServerEvent =
  /** `session.created` and `.updated`. */
  | { readonly _tag: "Session"; readonly transcriber: string | undefined }
  | { readonly _tag: "Started"; readonly id: string }
  /** `response.done`, in whatever way: what was cancelled, failed or incomplete is billed too. */
  | {
      readonly _tag: "Done"
      readonly id: string
      readonly status: string
      /** Why it is not `completed`: `max_output_tokens`, `client_cancelled`, … */
      readonly reason: string | null
      readonly usage: TokenUsage | undefined
    }
  /** A transcription, which is another model's work: by tokens or by seconds of audio. */
  | { readonly _tag: "Transcribed"; readonly id: string; readonly usage: TokenUsage | undefined }
  /** An `error`, which may answer an event of the client's. */
  | { readonly _tag: "Refused"; readonly eventId: string | null }
  /** A piece of an answer, which is not looked into. */
  | { readonly _tag: "Piece"; readonly audio: boolean }

/** Input tokens by kind: each counted once, text and images together. */
const inputOf = (usage: Members) => {
  const details = membersOf(usage["input_token_details"] ?? usage["input_tokens_details"])
  const cachedDetails = membersOf(details["cached_tokens_details"])
  const total = countOf(usage["input_tokens"])
  const audio = Math.min(total, countOf(details["audio_tokens"]))
  const other = total - audio
  const cached = countOf(details["cached_tokens"])
  // Where the cached ones are not told apart, text goes first: it costs less to have it wrong.
  const audioCached = Math.min(
    audio,
    "audio_tokens" in cachedDetails ? countOf(cachedDetails["audio_tokens"]) : Math.max(0, cached - other)
  )
  const otherCached = Math.min(other, Math.max(0, cached - audioCached))
  return {
    input: other - otherCached,
    cachedRead: otherCached,
    audioInput: audio - audioCached,
    audioCachedRead: audioCached
  }
}

const usageOf = (usage: unknown): TokenUsage | undefined => {
  if (!isMembers(usage) || !("input_tokens" in usage || "output_tokens" in usage)) return undefined
  const details = membersOf(usage["output_token_details"] ?? usage["output_tokens_details"])
  const total = countOf(usage["output_tokens"])
  const audioOutput = Math.min(total, countOf(details["audio_tokens"]))
  return {
    ...inputOf(usage),
    cachedWrite: 0,
    output: total - audioOutput,
    reasoning: Math.min(total - audioOutput, countOf(details["reasoning_tokens"])),
    audioOutput
  }
}

const doneOf = (event: Members): ServerEvent => {
  const response = membersOf(event["response"])
  const details = membersOf(response["status_details"])
  return {
    _tag: "Done",
    id: textOf(response["id"]) ?? "",
    status: textOf(response["status"]) ?? "completed",
    reason: textOf(details["reason"]) ?? textOf(membersOf(details["error"])["code"]) ?? null,
    usage: usageOf(response["usage"])
  }
}

const transcribedOf = (event: Members): ServerEvent => {
  const usage = membersOf(event["usage"])
  const { seconds } = usage
  return {
    _tag: "Transcribed",
    id: `${textOf(event["item_id"]) ?? ""}/${countOf(event["content_index"])}`,
    usage:
      typeof seconds === "number" && Number.isFinite(seconds)
        ? { ...noUsage, audioSeconds: Math.max(0, seconds) }
        : usageOf(usage)
  }
}

/** `"type"` stands near the beginning of what OpenAI sends; a piece of audio is then never parsed. */
const PIECE = /^\{[^{}]{0,200}?"type"\s*:\s*"response\.([a-z_]+)\.delta"/

const HEAD_BYTES = 256
const METERED = [
  "response.done",
  "response.created",
  "transcription.completed",
  "session.",
  '"error"'
] as const

/** What a provider's frame tells of what is to be metered; `undefined` for all else. */
export const readServer = (data: Buffer): ServerEvent | undefined => {
  const piece = PIECE.exec(data.toString("latin1", 0, HEAD_BYTES))
  if (piece !== null) return { _tag: "Piece", audio: piece[1] === "output_audio" }
  if (!METERED.some((name) => data.includes(name))) return undefined
  const event = parse(data.toString("utf8"))
  if (!isMembers(event)) return undefined
  switch (event["type"]) {
    case "session.created":
    case "session.updated":
      return {
        _tag: "Session",
        transcriber: transcribersOf(membersOf(event["session"]))
          .map(([, model]) => textOf(model))
          .find((model) => model !== undefined)
      }
    case "response.created":
      return { _tag: "Started", id: textOf(membersOf(event["response"])["id"]) ?? "" }
    case "response.done":
      return doneOf(event)
    case "conversation.item.input_audio_transcription.completed":
      return transcribedOf(event)
    case "error":
      return { _tag: "Refused", eventId: textOf(membersOf(event["error"])["event_id"]) ?? null }
    default:
      return undefined
  }
}
