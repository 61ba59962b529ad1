/** One member of `Accept` or `Accept-Encoding`, in lower case, and its weight (RFC 9110, 12.4.2). */
interface Weighted {
  readonly name: string
  readonly weight: number
}

const weightOf = (parameters: ReadonlyArray<string>): number => {
  for (const parameter of parameters) {
    const match = /^\s*q\s*=\s*([\d.]+)\s*$/i.exec(parameter)
    if (match !== null) return Number(match[1])
  }
  return 1
}

const membersOf = (header: string): ReadonlyArray<Weighted> =>
  header.split(",").flatMap((member) => {
    const [name = "", ...parameters] = member.split(";")
    return name.trim() === "" ? [] : [{ name: name.trim().toLowerCase(), weight: weightOf(parameters) }]
  })

/** Content encodings we can answer with, the better one first. */
export type Encoding = "br" | "gzip"
const encodings: ReadonlyArray<Encoding> = ["br", "gzip"]

/** The encoding that `Accept-Encoding` asks for most (RFC 9110, 12.5.3); none where it asks for none of ours. */
export const preferredEncoding = (
  header: string | undefined,
  among: ReadonlyArray<Encoding> = encodings
): Encoding | undefined => {
  if (header === undefined) return undefined
  const members = membersOf(header)
  const weight = (encoding: string) =>
    (members.find(({ name }) => name === encoding) ?? members.find(({ name }) => name === "*"))?.weight ?? 0
  return among
    .filter((encoding) => weight(encoding) > 0)
    .toSorted((a, b) => weight(b) - weight(a))
    .at(0)
}

/** Whether `Accept` lets one of the media types through: for each, the most specific range counts (RFC 9110, 12.5.1). */
export const acceptsAny = (header: string, types: ReadonlyArray<string>): boolean => {
  const members = membersOf(header)
  // A header without a single range says nothing.
  if (members.length === 0) return true
  return types.some((type) => {
    const ranges = [type, `${type.split("/")[0]}/*`, "*/*"]
    const member = ranges.map((range) => members.find(({ name }) => name === range)).find((found) => found)
    return member !== undefined && member.weight > 0
  })
}
