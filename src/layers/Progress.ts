import { Effect, Stdio } from "effect"
import type { Scope } from "effect"

const BAR_WIDTH = 24
const CLEAR_LINE = "\r\u001b[K"

/** How far something has come. */
export interface Progress {
  readonly done: number
  readonly total: number
}

/** A bar on standard error, gone with the scope; nothing at all where that is no terminal. */
export const progressBar: Effect.Effect<
  (progress: Progress) => Effect.Effect<void>,
  never,
  Stdio.Stdio | Scope.Scope
> = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const isWatched = yield* stdio.stderrIsTerminal
  const write = (text: string) => (isWatched ? Effect.sync(() => process.stderr.write(text)) : Effect.void)
  let isDrawn = false
  yield* Effect.addFinalizer(() => (isDrawn ? write(CLEAR_LINE) : Effect.void))
  return ({ done, total }: Progress) => {
    isDrawn = true
    const filled = Math.round((done / total) * BAR_WIDTH)
    return Effect.asVoid(
      write(`${CLEAR_LINE}${"█".repeat(filled)}${"░".repeat(BAR_WIDTH - filled)} ${done} of ${total}`)
    )
  }
})
