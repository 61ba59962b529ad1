import { decodedRuns, fold, reversed, rot13, signsOf } from "./Disguises.ts"
import type { Signs } from "./Disguises.ts"
import type { GuardVerdict } from "./Llm.ts"
import { delimiters, injectionLexicon, injectionPatterns } from "./promptInjectionPatterns.ts"
import type { InjectionCategory } from "./promptInjectionPatterns.ts"
import type { TenantSettings } from "./TenantSettings.ts"
import { compile, STRETCH } from "./WordPatterns.ts"

export type GuardLevel = NonNullable<TenantSettings["guard.level"]>

/** From this score on an input is flagged. */
export const thresholds: Readonly<Record<GuardLevel, number>> = { quiet: 0.8, balanced: 0.5, strict: 0.3 }

/** All there are, for whoever counts by them. */
export const injectionCategories: ReadonlyArray<InjectionCategory> = [
  "instruction_override",
  "prompt_exfiltration",
  "role_hijacking",
  "control_characters",
  "delimiter_smuggling",
  "indirect_instruction",
  "data_exfiltration",
  "obfuscation"
]

/** A piece is looked at in one go: some milliseconds. */
const PIECE_LENGTH = 65_536
/** What two pieces have in common, so that no attack is cut in two. The longest pattern is far shorter. */
const OVERLAP = 1_024
/** Joined emoji and Indic scripts have one or two in a row; hidden messages are written in long runs of them. */
const LONGEST_ZERO_WIDTH_RUN = 8
/** Fewer tag characters say nothing. */
const SHORTEST_TAGGED = 4
/** What a disguise adds to what it hides. By itself it is none: many a text is encoded. */
const OBFUSCATION = 0.5
/** What is only told of counts so much, except at `strict`. */
const MENTIONED = 0.4

export interface Piece {
  readonly text: string
  /** Spelled by something else. */
  readonly isDecoded: boolean
}

/** How sure each category is, from 0 to 1. */
type Scores = ReadonlyMap<InjectionCategory, number>

/** The worst of a text, and the work that was done: characters, words and comparisons. */
export interface Findings {
  /** What is said in the place where most is said. */
  readonly said: Scores
  /** The same with what is quoted or told of counted in full. */
  readonly mentioned: Scores
  /** How sure the worst is that is quoted or told of. */
  readonly worstMention: number
  readonly steps: number
}

export const nothingFound: Findings = { said: new Map(), mentioned: new Map(), worstMention: 0, steps: 0 }

/** Two signs of one thing, as if they were independent. */
const either = (a: number, b: number): number => 1 - (1 - a) * (1 - b)

const together = (scores: Scores): number => Array.from(scores.values()).reduce(either, 0)

const worse = (one: Scores, other: Scores): Scores => (together(other) > together(one) ? other : one)

/** The worse of both: a long text is no worse than its worst place. */
export const merge = (one: Findings, other: Findings): Findings => ({
  said: worse(one.said, other.said),
  mentioned: worse(one.mentioned, other.mentioned),
  worstMention: Math.max(one.worstMention, other.worstMention),
  steps: one.steps + other.steps
})

const matched = compile(injectionLexicon, injectionPatterns)

/** Words that say that a text is to be read otherwise. Only then is it read so, since that costs as much again. */
const backwards = [
  "backward",
  "reverse",
  "rückwärts",
  "à l'envers",
  "al revés",
  "al contrario",
  "задом наперёд"
]
const rotated = ["rot13", "rot-13", "caesar"]

/**
 * The texts to look at for one text: itself, and what its encoded runs spell (once; not what those encode again), in
 * pieces. Together no more than three times its length.
 */
export const piecesOf = (text: string): { readonly pieces: ReadonlyArray<Piece>; readonly steps: number } => {
  const lower = text.length > PIECE_LENGTH ? text.slice(0, PIECE_LENGTH).toLowerCase() : text.toLowerCase()
  const { found, steps } = decodedRuns(text)
  const other = backwards.some((word) => lower.includes(word))
    ? reversed(text)
    : rotated.some((word) => lower.includes(word))
      ? rot13(text)
      : undefined
  const pieces = [
    ...piecesIn(text, false),
    // Small ones are looked at together; the blank line keeps them apart.
    ...piecesIn(found.join("\n\n"), true),
    ...(other === undefined ? [] : piecesIn(other, true))
  ]
  return { pieces, steps }
}

const piecesIn = (text: string, isDecoded: boolean): ReadonlyArray<Piece> => {
  const pieces: Array<Piece> = []
  for (let start = 0; start < text.length; start += PIECE_LENGTH - OVERLAP) {
    pieces.push({ text: text.slice(start, start + PIECE_LENGTH), isDecoded })
    if (start + PIECE_LENGTH >= text.length) break
  }
  return pieces
}

interface Place {
  readonly said: Map<InjectionCategory, number>
  readonly mentioned: Map<InjectionCategory, number>
  worstMention: number
}

const add = (scores: Map<InjectionCategory, number>, category: InjectionCategory, weight: number) =>
  scores.set(category, either(weight, scores.get(category) ?? 0))

/** Where any of the marks stands. */
const stretchesOf = (text: string, marks: ReadonlyArray<string>): ReadonlySet<number> => {
  const stretches = new Set<number>()
  for (const mark of marks) {
    let index = text.indexOf(mark)
    while (index >= 0) {
      const stretch = Math.floor(index / STRETCH)
      stretches.add(stretch)
      index = text.indexOf(mark, (stretch + 1) * STRETCH)
    }
  }
  return stretches
}

const signWeight = ({ controls, overrides, tagged, zeroWidthRun }: Signs): number =>
  tagged.length > 0 ? 0.8 : controls > 0 || overrides > 0 || zeroWidthRun >= LONGEST_ZERO_WIDTH_RUN ? 0.6 : 0

/** Looks at one piece. Its work is proportional to its length. */
export const inspectPiece = ({ isDecoded, text }: Piece): Findings => {
  const signs = signsOf(text)
  const folded = fold(text)
  const { hits, steps } = matched(folded)
  const places = new Map<number, Place>()
  const placeOf = (stretch: number): Place => {
    const place = places.get(stretch) ?? { said: new Map(), mentioned: new Map(), worstMention: 0 }
    places.set(stretch, place)
    return place
  }

  for (const { disguised, mentioned, pattern, stretch } of hits) {
    const place = placeOf(stretch)
    const isMentioned = mentioned && !isDecoded
    add(place.mentioned, pattern.category, pattern.weight)
    if (isMentioned) place.worstMention = Math.max(place.worstMention, pattern.weight)
    else add(place.said, pattern.category, pattern.weight)
    if (disguised || isDecoded || signs.splitWords) {
      place.mentioned.set("obfuscation", OBFUSCATION)
      place.said.set("obfuscation", OBFUSCATION)
    }
  }
  for (const { marks, weight } of delimiters) {
    for (const stretch of stretchesOf(folded, marks)) {
      const place = placeOf(stretch)
      add(place.said, "delimiter_smuggling", weight)
      add(place.mentioned, "delimiter_smuggling", weight)
    }
  }
  const weight = signWeight(signs)
  const controls: Scores = weight === 0 ? new Map() : new Map([["control_characters", weight]])
  let worst: Findings = {
    said: controls,
    mentioned: controls,
    worstMention: 0,
    steps: signs.steps + folded.length * delimiters.length + steps
  }
  for (const place of places.values()) worst = merge(worst, { ...place, steps: 0 })
  return signs.tagged.length < SHORTEST_TAGGED
    ? worst
    : merge(worst, inspectPiece({ text: signs.tagged, isDecoded: true }))
}

/**
 * Looks for attempts to take over a model: pure, and in time proportional to the length of `text` (0.1 to 0.5 µs a
 * character). What it looks for is in `promptInjectionPatterns.ts`. It is one wall among others: words that are new to it pass.
 */
export const inspect = (text: string): Findings => {
  const { pieces, steps } = piecesOf(text)
  return pieces.reduce((all, piece) => merge(all, inspectPiece(piece)), { ...nothingFound, steps })
}

/**
 * What findings mean at a level. `categories`, the likeliest first, are those that count there; none where nothing is
 * flagged. At `strict` it does not matter whether something is said or told of.
 */
export const verdictOf = ({ mentioned, said, worstMention }: Findings, level: GuardLevel): GuardVerdict => {
  const scores = level === "strict" ? mentioned : said
  const told = level === "strict" ? 0 : MENTIONED * worstMention
  const score = Math.round(Math.max(together(scores), told) * 100) / 100
  if (score < thresholds[level]) return { flagged: false, score, categories: [] }
  const order = (category: InjectionCategory) => scores.get(category) ?? 0
  const categories = injectionCategories.filter((category) => scores.has(category))
  return { flagged: true, score, categories: categories.toSorted((a, b) => order(b) - order(a)) }
}
