import { fold, undisguised } from "./Disguises.ts"

/**
 * Patterns over the words of a text, matched in one pass. There is no backtracking: a pattern remembers of each of
 * its slots where it was met last, which is all that a later slot has to know, since gaps have an upper bound only.
 */

/** Lists of words by name, `|` between them. `word*` is any word that begins so; several words are a phrase. */
export type Lexicon = Readonly<Record<string, string>>

/**
 * One pattern: words and `@lists` in their order. `_n` allows up to n other words before the next; `!@list` at the end
 * means that none of it may follow.
 */
export interface WordPattern<Category extends string> {
  readonly category: Category
  readonly weight: number
  readonly pattern: string
}

/** Where a pattern was found, and in what company. */
export interface Hit<Category extends string> {
  readonly pattern: WordPattern<Category>
  /** Which stretch of the text it stands in, `STRETCH` characters each: what is far apart has nothing to do with another. */
  readonly stretch: number
  /** Some of its words were disguised. */
  readonly disguised: boolean
  /** It is spoken of rather than said: quoted or told beside a word of the lexicon's `reporting`, or negated. */
  readonly mentioned: boolean
}

export interface Matched<Category extends string> {
  /** Of each pattern and stretch the first hit, and the first that is not a mere mention. */
  readonly hits: ReadonlyArray<Hit<Category>>
  /** Work done: characters, words and comparisons. */
  readonly steps: number
}

/** Characters within which signs add up: a paragraph or two. */
export const STRETCH = 2_048
/** What is counted as so many words between two sentences, so that no gap spans them. */
const SENTENCE = 1_000
/** How far a word that tells of attacks reaches, in words: within a sentence, and to what is in quotation marks. */
const REPORTED_WITHIN = 12
const QUOTED_WITHIN = 60
/** How far before a pattern a negation stands. */
const NEGATED_WITHIN = 2
/** Fewer letters with a space after each are initials, or a list. */
const FEWEST_SPACED = 6
/** Words glued together without a space are longer than this, and shorter than encoded data. */
const GLUED_FROM = 16
const GLUED_TO = 200
/** Words are told apart by this many letters before they are compared. */
const KEY = 3
const LONGEST_WORD = 64

const OTHER = 0
const LETTER = 1
const IDEOGRAPH = 2

const classOf = (character: string): number =>
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\u30fc]/u.test(character)
    ? IDEOGRAPH
    : /[\p{L}\p{M}\p{N}]/u.test(character)
      ? LETTER
      : OTHER
const classes = Uint8Array.from({ length: 0x10000 }, (_, code) =>
  code < 0xd800 || code > 0xdfff ? classOf(String.fromCharCode(code)) : OTHER
)
const classAt = (text: string, index: number): number => classes[text.charCodeAt(index)] ?? OTHER

interface Node {
  readonly next: Map<number, Node>
  /** Lists that hold the phrase which ends here. */
  readonly lists: Array<number>
}
interface Slot {
  readonly list: number
  readonly gap: number
}
interface Compiled<Category extends string> {
  readonly source: WordPattern<Category>
  readonly slots: ReadonlyArray<Slot>
  readonly unless: number | undefined
  /** Where its slots begin in the memory of a match. */
  readonly offset: number
}
interface Entry {
  readonly word: string
  readonly id: number
  readonly isStem: boolean
}

/** The words of a text that any pattern knows; all others only count. */
interface Words {
  readonly ids: Array<ReadonlyArray<number>>
  /** Its place, sentences apart. */
  readonly at: Array<number>
  /** Its place among all words. */
  readonly word: Array<number>
  readonly quoted: Array<boolean>
  readonly disguised: Array<boolean>
  /** Its stretch of the text. */
  readonly stretch: Array<number>
  steps: number
}

const wordsOf = (phrase: string): ReadonlyArray<string> => {
  const found: Array<string> = []
  let word = ""
  for (const letter of fold(phrase)) {
    const kind = classOf(letter)
    if (letter === "*" || kind === LETTER) word += letter
    else {
      if (word !== "") found.push(word)
      word = ""
      if (kind === IDEOGRAPH) found.push(letter)
    }
  }
  return word === "" ? found : [...found, word]
}

export const compile = <Category extends string>(
  lexicon: Lexicon,
  patterns: ReadonlyArray<WordPattern<Category>>
): ((folded: string) => Matched<Category>) => {
  const exact = new Map<string, number>()
  const stems = new Map<string, number>()
  const buckets = new Map<string, Array<Entry>>()
  const root: Node = { next: new Map(), lists: [] }
  const lists = new Map<string, number>()
  let idCount = 0

  const idOf = (source: string): number => {
    const isStem = source.endsWith("*")
    const word = isStem ? source.slice(0, -1) : source
    const known = (isStem ? stems : exact).get(word)
    if (known !== undefined) return known
    const id = idCount++
    ;(isStem ? stems : exact).set(word, id)
    const bucket = buckets.get(word.slice(0, KEY)) ?? []
    bucket.push({ word, id, isStem })
    buckets.set(word.slice(0, KEY), bucket)
    return id
  }

  const listOf = (name: string, content: string): number => {
    const known = lists.get(name)
    if (known !== undefined) return known
    const list = lists.size
    lists.set(name, list)
    for (const phrase of content.split("|")) {
      let node = root
      for (const word of wordsOf(phrase)) {
        const id = idOf(word)
        const next = node.next.get(id) ?? { next: new Map(), lists: [] }
        node.next.set(id, next)
        node = next
      }
      if (node !== root) node.lists.push(list)
    }
    return list
  }
  const listNamed = (name: string): number =>
    name.startsWith("@") ? listOf(name, lexicon[name.slice(1)] ?? "") : listOf(name, name)

  let slotCount = 0
  const compiled = patterns.map((source): Compiled<Category> => {
    const slots: Array<Slot> = []
    let gap = 0
    let unless: number | undefined
    for (const item of source.pattern.split(" ")) {
      if (item.startsWith("_")) gap = Number(item.slice(1))
      else if (item.startsWith("!")) unless = listNamed(item.slice(1))
      else {
        slots.push({ list: listNamed(item), gap })
        gap = 0
      }
    }
    const offset = slotCount
    slotCount += slots.length
    return { source, slots, unless, offset }
  })
  const reporting = listNamed("@reporting")
  const negations = listNamed("@negation")
  /** Which slots a list may fill; of one pattern the later ones first, so that one word fills one slot only. */
  const fills = Array.from({ length: lists.size }, (_, list) =>
    compiled.flatMap((pattern, index) =>
      pattern.slots
        .map((slot, at) => ({ pattern: index, at, slot }))
        .filter(({ slot }) => slot.list === list)
        .toReversed()
    )
  )

  const none: ReadonlyArray<number> = []
  const resolve = (word: string): ReadonlyArray<number> => {
    const id = exact.get(word)
    const bucket = word.length < KEY ? undefined : buckets.get(word.slice(0, KEY))
    const shortStem = word.length >= 2 ? stems.get(word.slice(0, 2)) : undefined
    if (bucket === undefined) {
      return id === undefined
        ? shortStem === undefined
          ? none
          : [shortStem]
        : shortStem === undefined
          ? [id]
          : [id, shortStem]
    }
    const ids = bucket.filter((entry) => entry.isStem && word.startsWith(entry.word)).map((entry) => entry.id)
    if (shortStem !== undefined) ids.push(shortStem)
    if (id !== undefined) ids.push(id)
    return ids
  }

  const read = (text: string): Words => {
    const words: Words = {
      ids: [],
      at: [],
      word: [],
      quoted: [],
      disguised: [],
      stretch: [],
      steps: text.length
    }
    let index = 0
    let at = 0
    let count = 0
    let fenced = false
    let quote = ""
    let spaced: Array<string> = []
    let spacedEnd = -1

    const add = (ids: ReadonlyArray<number>, disguised: boolean) => {
      words.steps++
      at++
      count++
      if (ids.length === 0) return
      words.ids.push(ids)
      words.at.push(at)
      words.word.push(count)
      words.quoted.push(quote !== "" || fenced)
      words.disguised.push(disguised)
      words.stretch.push(Math.floor(index / STRETCH))
    }
    /** Finds known words in letters that have no spaces between them. */
    const split = (letters: string) => {
      let unknown = false
      let place = 0
      while (place < letters.length) {
        words.steps++
        let best: Entry | undefined
        for (const entry of buckets.get(letters.slice(place, place + KEY)) ?? []) {
          words.steps++
          if (letters.startsWith(entry.word, place) && entry.word.length > (best?.word.length ?? 0))
            best = entry
        }
        if (best === undefined) {
          unknown = true
          place++
          continue
        }
        if (unknown) add(none, true)
        unknown = false
        add([best.id], true)
        place += best.word.length
      }
    }
    /** Single letters wait for the next: in a long row they spell words, and else are words themselves. */
    const endSpaced = () => {
      if (spaced.length === 0) return
      const letters = spaced.join("")
      spaced = []
      for (const word of letters.split(" ")) {
        if (letters.length < FEWEST_SPACED) {
          for (const letter of word) add(resolve(letter), false)
          continue
        }
        const ids = resolve(word)
        if (ids.length > 0) add(ids, true)
        else split(undisguised(word)[0] ?? word)
      }
    }
    const addWord = (word: string) => {
      const ids = resolve(word)
      if (ids.length > 0) return add(ids, false)
      for (const other of undisguised(word)) {
        words.steps++
        const found = resolve(other)
        if (found.length > 0) return add(found, true)
      }
      if (word.length < GLUED_FROM || word.length > GLUED_TO) return add(none, false)
      split(word)
    }

    while (index < text.length) {
      const kind = classAt(text, index)
      if (kind === IDEOGRAPH) {
        endSpaced()
        add(resolve(text.charAt(index)), false)
        index++
        continue
      }
      const sign = text.charAt(index)
      const beginsWord =
        kind === LETTER ||
        ((sign === "@" || sign === "$" || sign === "!" || sign === "|") &&
          classAt(text, index + 1) === LETTER)
      if (beginsWord) {
        const start = index
        let word = ""
        let from = index++
        while (index < text.length) {
          const next = classAt(text, index)
          if (next === LETTER) index++
          else {
            const between = text.charAt(index)
            if (next === IDEOGRAPH || classAt(text, index + 1) !== LETTER) break
            if (between === "'" || between === "’") {
              word += text.slice(from, index)
              from = ++index
            } else if (between === "@" || between === "$" || between === "!" || between === "|") index++
            else break
          }
        }
        const length = index - start
        if (length === 1) {
          // One character between two letters; where there are more, a word ends.
          const distance = start - spacedEnd
          if (distance > 4) endSpaced()
          else if (spaced.length > 0 && distance > 1) spaced.push(" ")
          spaced.push(sign)
          spacedEnd = index
        } else {
          endSpaced()
          if (length <= LONGEST_WORD) word += text.slice(from, index)
          else word = text.slice(start, Math.min(index, start + GLUED_TO + 1))
          addWord(sign === "!" && resolve(word.slice(1)).length > 0 ? word.slice(1) : word)
        }
        continue
      }
      if (sign === "`" && text.startsWith("```", index)) {
        fenced = !fenced
        index += 3
        continue
      }
      if (sign === quote) quote = ""
      else if (quote === "") {
        if (sign === '"' || sign === "`") quote = sign
        else if (sign === "“" || sign === "„") quote = sign === "“" ? "”" : "“"
        else if (sign === "«") quote = "»"
        else if (sign === "「") quote = "」"
        else if (sign === "‘") quote = "’"
        else if (sign === "'" && classAt(text, index + 1) === LETTER && classAt(text, index - 1) === OTHER)
          quote = "'"
      }
      if (sign === "\n" && text.charAt(index + 1) === "\n") {
        // A quotation mark that nobody closed ends with its paragraph.
        quote = ""
        endSpaced()
        at += SENTENCE
      } else if (sign === "。" || sign === "！" || sign === "？") at += SENTENCE
      else if (sign === "." || sign === "!" || sign === "?") {
        const next = text.charAt(index + 1)
        if ((next === " " || next === "\n" || next === "") && classAt(text, index + 2) !== OTHER) {
          if (spaced.length < FEWEST_SPACED) endSpaced()
          if (spaced.length === 0) at += SENTENCE
        }
      }
      index++
    }
    endSpaced()
    return words
  }

  /** All phrases of lists that begin at a word, by the index of their last word. */
  const phrasesAt = (words: Words, index: number, each: (list: number, last: number) => void) => {
    let nodes: ReadonlyArray<Node> = [root]
    for (let last = index; nodes.length > 0 && last < words.ids.length; last++) {
      if (last > index && (words.at[last] ?? 0) !== (words.at[last - 1] ?? 0) + 1) return
      const reached: Array<Node> = []
      for (const node of nodes) {
        for (const id of words.ids[last] ?? none) {
          words.steps++
          const next = node.next.get(id)
          if (next === undefined) continue
          for (const list of next.lists) each(list, last)
          if (next.next.size > 0) reached.push(next)
        }
      }
      nodes = reached
    }
  }

  return (folded) => {
    const words = read(folded)
    const size = words.ids.length
    const ends = new Int32Array(slotCount).fill(-1)
    const starts = new Int32Array(slotCount)
    const reports: Array<number> = Array.from({ length: size }, () => Number.POSITIVE_INFINITY)
    const reported = new Uint8Array(size)
    const negated = new Uint8Array(size)
    const disguised = new Int32Array(size + 1)
    for (let index = 0; index < size; index++) {
      disguised[index + 1] = (disguised[index] ?? 0) + (words.disguised[index] === true ? 1 : 0)
      phrasesAt(words, index, (list, last) => {
        if (list === reporting) reported[last] = 1
        else if (list === negations) negated[last] = 1
      })
    }
    let next = Number.POSITIVE_INFINITY
    for (let index = size - 1; index >= 0; index--) {
      reports[index] = next
      if (reported[index] === 1) next = words.word[index] ?? next
    }
    const hits: Array<Hit<Category>> = []
    /** The last stretch in which a pattern was met, as said and as mentioned. */
    const said = new Int32Array(compiled.length).fill(-1)
    const told = new Int32Array(compiled.length).fill(-1)
    let reportedAt = Number.NEGATIVE_INFINITY
    let reportedWord = Number.NEGATIVE_INFINITY
    /** Where reports and negations stood before each word. */
    const beforeAt: Array<number> = []
    const beforeWord: Array<number> = []
    const beforeNegation: Array<number> = []
    let negatedAt = Number.NEGATIVE_INFINITY
    for (let index = 0; index < size; index++) {
      beforeAt.push(reportedAt)
      beforeWord.push(reportedWord)
      beforeNegation.push(negatedAt)
      if (reported[index] === 1) {
        reportedAt = words.at[index] ?? 0
        reportedWord = words.word[index] ?? 0
      }
      if (negated[index] === 1) negatedAt = words.at[index] ?? 0
    }

    const isMentioned = (first: number, last: number): boolean => {
      const at = words.at[first] ?? 0
      const word = words.word[first] ?? 0
      if (at - (beforeNegation[first] ?? 0) <= NEGATED_WITHIN) return true
      if (at - (beforeAt[first] ?? 0) <= REPORTED_WITHIN) return true
      if (words.quoted[first] !== true) return false
      return (
        word - (beforeWord[first] ?? 0) <= QUOTED_WITHIN ||
        (reports[last] ?? Number.POSITIVE_INFINITY) - (words.word[last] ?? 0) <= QUOTED_WITHIN
      )
    }
    const isFollowedBy = (unless: number, last: number): boolean => {
      if ((words.at[last + 1] ?? 0) !== (words.at[last] ?? 0) + 1) return false
      let follows = false
      phrasesAt(words, last + 1, (list) => {
        if (list === unless) follows = true
      })
      return follows
    }

    for (let index = 0; index < size; index++) {
      phrasesAt(words, index, (list, last) => {
        for (const { at, pattern: which, slot } of fills[list] ?? []) {
          words.steps++
          const pattern = compiled[which]
          if (pattern === undefined) continue
          let first = index
          if (at > 0) {
            const before = ends[pattern.offset + at - 1] ?? -1
            if (before < 0 || before >= index) continue
            if ((words.at[index] ?? 0) - (words.at[before] ?? 0) - 1 > slot.gap) continue
            first = starts[pattern.offset + at - 1] ?? index
          }
          ends[pattern.offset + at] = last
          starts[pattern.offset + at] = first
          if (at < pattern.slots.length - 1) continue
          if (pattern.unless !== undefined && isFollowedBy(pattern.unless, last)) continue
          const isDisguised = (disguised[last + 1] ?? 0) > (disguised[first] ?? 0)
          const mentioned = !isDisguised && isMentioned(first, last)
          const stretch = words.stretch[last] ?? 0
          if (said[which] === stretch || (mentioned && told[which] === stretch)) continue
          ;(mentioned ? told : said)[which] = stretch
          hits.push({ pattern: pattern.source, stretch, disguised: isDisguised, mentioned })
        }
      })
    }
    return { hits, steps: words.steps }
  }
}
