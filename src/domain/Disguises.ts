import { Result } from "effect"
import { Base64Url, Hex } from "effect/encoding"

/**
 * How text is made legible for looking at it. Nothing here is ever sent anywhere: what a person wrote stays as it is.
 * Every function reads each character a fixed number of times; the regular expressions are single character classes.
 */

/** Letters that only look like Latin ones (Unicode TR39's confusables, the common ones), lower case. */
const lookalikes = new Map(
  Object.entries({
    а: "a",
    в: "b",
    е: "e",
    к: "k",
    м: "m",
    н: "h",
    о: "o",
    р: "p",
    с: "c",
    т: "t",
    у: "y",
    х: "x",
    і: "i",
    ј: "j",
    ѕ: "s",
    ԁ: "d",
    ԛ: "q",
    ԝ: "w",
    һ: "h",
    ӏ: "l",
    ь: "b",
    г: "r",
    п: "n",
    α: "a",
    β: "b",
    ε: "e",
    η: "n",
    ι: "i",
    κ: "k",
    ν: "v",
    ο: "o",
    ρ: "p",
    τ: "t",
    υ: "u",
    χ: "x",
    ω: "w",
    γ: "y",
    ɑ: "a",
    ɡ: "g",
    ɩ: "i",
    ı: "i",
    ո: "n",
    օ: "o",
    ս: "u",
    ց: "g",
    հ: "h"
  })
)

const digits = new Map(
  Object.entries({
    0: "o",
    1: "i",
    3: "e",
    4: "a",
    5: "s",
    7: "t",
    8: "b",
    9: "g",
    "@": "a",
    $: "s",
    "!": "i",
    "|": "l"
  })
)

const foldedLetters = new Map(
  Object.entries({ ß: "ss", ł: "l", ø: "o", đ: "d", ı: "i", æ: "ae", œ: "oe", ك: "ک" })
)

/** What shows nothing, and controls but whitespace. */
const invisible = /\p{Default_Ignorable_Code_Point}|[^\P{Cc}\t-\r\x85]/gu
const marks = /[\u0300-\u036f\u064b-\u065f\u0670\u0640]/gu
const special = /[ßłøđıæœك]/gu
const beyondAscii = /[^\t-\r\x20-\x7e]/u

/** NFKD expands one character to up to 18; text folded to more than this many times its length is cut there. */
const LONGEST_EXPANSION = 4

/**
 * Lower case without compatibility forms (Unicode UAX 15, NFKC), accents, and characters that can't be seen. What is
 * looked for goes through it too, so that both meet.
 */
export const fold = (text: string): string =>
  beyondAscii.test(text)
    ? text
        .normalize("NFKD")
        .slice(0, 64 + text.length * LONGEST_EXPANSION)
        .replace(invisible, "")
        .replace(marks, "")
        .normalize("NFC")
        .toLowerCase()
        .replace(special, (letter) => foldedLetters.get(letter) ?? letter)
    : text.toLowerCase()

const substituted = (word: string, one: string): string => {
  let result = ""
  for (const letter of word) {
    result += letter === "1" ? one : (lookalikes.get(letter) ?? digits.get(letter) ?? letter)
  }
  return result
}

const mayBeDisguised = /[0-9@$!|\u0250-\u058f]/u

/** What a folded word may stand for: lookalike letters, and digits for letters. Nothing for a plain word. */
export const undisguised = (word: string): ReadonlyArray<string> => {
  if (!mayBeDisguised.test(word)) return []
  const first = substituted(word, "i")
  return word.includes("1") ? [first, substituted(word, "l")] : [first]
}

/** Signs that do not belong into text, and what tag characters spell (U+E0020 to U+E007E, invisible ASCII). */
export interface Signs {
  /**
   * C0 controls but whitespace and the escapes of terminals and ISO 2022. Not C1: they are what Windows-1252's quotation
   * marks become when old mails are read as Latin-1.
   */
  readonly controls: number
  /** Overrides of the writing direction (U+202D, U+202E). */
  readonly overrides: number
  /** The longest run of zero-width characters. */
  readonly zeroWidthRun: number
  /** Whether a character that can't be seen stands between two ASCII letters. */
  readonly splitWords: boolean
  readonly tagged: string
  /** Characters read. */
  readonly steps: number
}

const isZeroWidth = (code: number) =>
  (code >= 0x200b && code <= 0x200d) || (code >= 0x2060 && code <= 0x2064) || code === 0xfeff
const isAsciiLetter = (code: number) => (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a)
const TAG_LEAD = 0xdb40
const BLACK_FLAG_TRAIL = 0xdff4
/** What a terminal's or ISO 2022's escape goes on with: `[`, `(`, `)`, `$`, `]`. */
const escapes = new Set([0x5b, 0x28, 0x29, 0x24, 0x5d])

/** Reads `text` as it was given, once. */
export const signsOf = (text: string): Signs => {
  let controls = 0
  let overrides = 0
  let run = 0
  let zeroWidthRun = 0
  let splitWords = false
  let hiddenAfterLetter = false
  let inFlag = false
  let tagged = ""
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code >= 0x20 && code < 0x7f) {
      const letter = isAsciiLetter(code)
      if (letter && hiddenAfterLetter && !isAsciiLetter(text.charCodeAt(index - 1))) splitWords = true
      hiddenAfterLetter = letter
      run = 0
      inFlag = false
      continue
    }
    if (code < 0x20 || code === 0x7f) {
      const isSpace = code >= 0x09 && code <= 0x0d
      if (isSpace) hiddenAfterLetter = false
      else if (code !== 0x1b || !escapes.has(text.charCodeAt(index + 1))) controls++
      run = 0
    } else if (isZeroWidth(code)) zeroWidthRun = Math.max(zeroWidthRun, ++run)
    else if (code === 0x202d || code === 0x202e) overrides++
    else if (code === TAG_LEAD) {
      const tag = text.charCodeAt(++index) - 0xdc00
      // The flags of Scotland and others are a black flag, tags and a cancel tag (UTS 51).
      if (!inFlag && tag >= 0x20 && tag < 0x7f) tagged += String.fromCharCode(tag)
    } else {
      run = 0
      if (code !== 0xad && !(code >= 0x200e && code <= 0x206f) && !(code >= 0xfe00 && code <= 0xfe0f)) {
        hiddenAfterLetter = false
      }
      inFlag = code === BLACK_FLAG_TRAIL && text.charCodeAt(index - 1) === 0xd83c
    }
  }
  return { controls, overrides, zeroWidthRun, splitWords, tagged, steps: text.length }
}

/** Shorter runs are words and identifiers. */
const SHORTEST_BASE64 = 24
const SHORTEST_HEX = 32
const SHORTEST_PERCENT = 8
/** The head of a run, that tells text from bytes before the whole is decoded. A multiple of 4. */
const PROBE = 64

const utf8 = new TextDecoder("utf-8")
const unprintable = /[^\P{Cc}\t-\r]|\ufffd/gu

/** Bytes as text, if nearly all of them are: the end of a run that was cut may be half a character. */
const textOf = (bytes: Uint8Array): string | undefined => {
  const text = utf8.decode(bytes)
  return (text.match(unprintable)?.length ?? 0) * 20 <= text.length ? text : undefined
}

const bytesOf = (run: string): Uint8Array | undefined => {
  const isHex = run.length >= SHORTEST_HEX && /^[0-9a-fA-F]*$/.test(run)
  if (isHex) return Result.getOrUndefined(Hex.decode(run.slice(0, run.length - (run.length % 2))))
  const url = run.replaceAll("+", "-").replaceAll("/", "_")
  return Result.getOrUndefined(Base64Url.decode(url.slice(0, url.length - (url.length % 4 === 1 ? 1 : 0))))
}

const decodedRun = (run: string): string | undefined => {
  const head = bytesOf(run.slice(0, PROBE))
  if (head === undefined || textOf(head) === undefined) return undefined
  const whole = run.length <= PROBE ? head : bytesOf(run)
  return whole === undefined ? undefined : textOf(whole)
}

const isBase64 = (code: number) =>
  isAsciiLetter(code) ||
  (code >= 0x30 && code <= 0x39) ||
  code === 0x2b ||
  code === 0x2f ||
  code === 0x2d ||
  code === 0x5f
const hexValue = (code: number) =>
  code >= 0x30 && code <= 0x39
    ? code - 0x30
    : (code | 0x20) >= 0x61 && (code | 0x20) <= 0x66
      ? (code | 0x20) - 0x57
      : -1

/**
 * What long runs of base64 (RFC 4648, either alphabet, wrapped in lines or not), hex and percent-encoding spell, as far
 * as it is text. Decoded once: what is encoded twice stays hidden.
 */
export const decodedRuns = (
  text: string
): { readonly found: ReadonlyArray<string>; readonly steps: number } => {
  const found: Array<string> = []
  let steps = 0
  let index = 0
  while (index < text.length) {
    const first = index
    const code = text.charCodeAt(index)
    if (isBase64(code)) {
      let run = ""
      let start = index
      while (true) {
        while (index < text.length && isBase64(text.charCodeAt(index))) index++
        run += text.slice(start, index)
        // Lines of one encoded text: MIME wraps at 76 characters, PEM at 64.
        const wrap = text.startsWith("\r\n", index) ? 2 : text.startsWith("\n", index) ? 1 : 0
        if (wrap === 0 || index - start < 60 || !isBase64(text.charCodeAt(index + wrap))) break
        index += wrap
        start = index
      }
      if (run.length >= SHORTEST_BASE64) {
        const decoded = decodedRun(run)
        if (decoded !== undefined) found.push(decoded)
      }
    } else if (code === 0x25) {
      const bytes: Array<number> = []
      const start = index
      let encoded = 0
      // Letters that need no encoding may stand between the others.
      while (index < text.length) {
        steps++
        const at = text.charCodeAt(index)
        const high = at === 0x25 ? hexValue(text.charCodeAt(index + 1)) : -1
        const low = high < 0 ? -1 : hexValue(text.charCodeAt(index + 2))
        if (low >= 0) {
          bytes.push(high * 16 + low)
          encoded++
          index += 3
        } else if (isBase64(at) || at === 0x2e || at === 0x7e) {
          bytes.push(at)
          index++
        } else break
      }
      // Too few for a text: at most these few are read again, for what else may begin between them.
      if (encoded < SHORTEST_PERCENT) index = start + 1
      else {
        const decoded = textOf(Uint8Array.from(bytes))
        if (decoded !== undefined) found.push(decoded)
      }
    } else index++
    steps += Math.max(1, index - first)
  }
  return { found, steps }
}

/** Read from its end to its beginning. */
export const reversed = (text: string): string => Array.from(text).toReversed().join("")

/** Each Latin letter 13 places on. */
export const rot13 = (text: string): string =>
  text.replace(/[a-z]/gi, (letter) => {
    const code = letter.charCodeAt(0)
    return String.fromCharCode((code & 0x60) + (((code & 0x1f) + 12) % 26) + 1)
  })
