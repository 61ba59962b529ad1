import type { Part, Turn } from "./Codec.ts"

/** The same conversation with adjacent turns of one role as one: the vendors want calls of one turn and results of one turn together. */
export const mergedTurns = (turns: ReadonlyArray<Turn>): ReadonlyArray<Turn> => {
  const merged: Array<{ readonly role: Turn["role"]; readonly parts: Array<Part> }> = []
  for (const turn of turns) {
    const last = merged.at(-1)
    if (last?.role === turn.role) last.parts.push(...turn.parts)
    else merged.push({ role: turn.role, parts: [...turn.parts] })
  }
  return merged
}
