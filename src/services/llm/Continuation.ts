/** How a text that was cut off goes on. */
export interface Continuation {
  /** What the next provider is given as the assistant's turn so far. */
  readonly sent: string
  /** The next provider's words, piece by piece, as they are to follow the text. Stateful: one for each continuation. */
  readonly join: (piece: string) => string
}

/**
 * The text so far is sent without its trailing white space, which the caller has already seen. A provider may begin by
 * writing that white space again, or may leave it out. So of what comes, that much is dropped as repeats the white space
 * held back, character by character: `"one "` and `" two"` make `"one two"`, and so do `"one "` and `"two"`; an
 * indentation deeper than the part already told keeps the rest of its depth.
 */
export const makeContinuation = (text: string): Continuation => {
  const sent = text.trimEnd()
  let held = text.slice(sent.length)
  return {
    sent,
    join: (piece) => {
      let at = 0
      while (at < piece.length && at < held.length && piece[at] === held[at]) at++
      held = at === piece.length ? held.slice(at) : ""
      return piece.slice(at)
    }
  }
}

/** What a provider is asked for that can't just go on with an assistant's turn. */
export const GO_ON =
  "Your answer above was cut off in transmission. Go on with it exactly where it stops: begin with the very next character, " +
  "repeat nothing of it, and say nothing about the interruption."

/** The last Claude models that go on with an assistant's last turn are those of 4.5; later ones refuse it (400). */
const TAKES_PREFILL =
  /^claude-(?:instant|2|3|(?:opus|sonnet|haiku)-(?:3|4)(?:-[0-5])?(?:-(?:\d{8}|latest)|@\d{8})?$)/

/** Whether a model goes on with the assistant's last turn ("prefill") as if it had written it itself. */
export const takesPrefill = (model: string): boolean => TAKES_PREFILL.test(model)
