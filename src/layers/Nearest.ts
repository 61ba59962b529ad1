import { Array, Option, Order } from "effect"

/** The slips of the fingers that are forgiven: a letter left out, added or mistaken, or two that changed places. */
const MAX_SLIPS = 2
/** What begins a name is taken for it from this length on. */
const LEAST_PREFIX = 3

/** How many slips make one of the other: the optimal string alignment distance. */
const slips = (one: string, other: string): number => {
  let beforeLast: ReadonlyArray<number> = []
  let last: ReadonlyArray<number> = Array.makeBy(other.length + 1, (index) => index)
  for (let i = 1; i <= one.length; i++) {
    const current = [i]
    for (let j = 1; j <= other.length; j++) {
      const mistaken = (last[j - 1] ?? 0) + (one[i - 1] === other[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]
      const swapped = isSwap ? (beforeLast[j - 2] ?? 0) + 1 : mistaken
      current.push(Math.min((last[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, mistaken, swapped))
    }
    beforeLast = last
    last = current
  }
  return last[other.length] ?? 0
}

const bare = (name: string): string => name.replace(/^-+/, "")

/** The name that was probably meant; none where too much of it would have to change. */
export const nearest = (given: string, names: ReadonlyArray<string>): Option.Option<string> => {
  const typed = bare(given)
  const candidates = names.map((name) => ({
    name,
    distance: typed.length >= LEAST_PREFIX && bare(name).startsWith(typed) ? 0 : slips(typed, bare(name))
  }))
  const byDistance = Order.mapInput(Order.Number, ({ distance }: (typeof candidates)[number]) => distance)
  return Array.head(Array.sort(candidates, byDistance)).pipe(
    Option.filter(({ distance }) => distance <= Math.min(MAX_SLIPS, Math.ceil(typed.length / 3))),
    Option.map(({ name }) => name)
  )
}
