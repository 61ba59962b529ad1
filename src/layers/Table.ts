import { CliOutput } from "effect/cli"

/** What a text has to fit: the columns of a terminal, none where it goes to a file or a pipe, and whether it may be styled. */
export interface Sheet {
  readonly width: number | undefined
  readonly color: boolean
}

/** One column of a table. Where the table is too wide, those that are elastic give way first, and those that wrap. */
export interface Column<Row> {
  readonly header: string
  readonly value: (row: Row) => string
  /** May be cut off. */
  readonly elastic?: boolean
  /** Goes on in the next line. */
  readonly wraps?: boolean
}

const GAP = "  "
/** The least that is left of a column: of an elastic one first, then of all. */
const ELASTIC_LEAST = 8
const LEAST = 4

const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" })

/** Names come from tenants' admins: what would steer the terminal is shown as a replacement character. */
export const plain = (text: string): string =>
  text.replaceAll(/\p{Control}|[\u2028\u2029]|\p{Bidi_Control}/gu, "\u{FFFD}")

const clip = (text: string, width: number): string => {
  if (CliOutput.displayWidth(text) <= width) return text
  let kept = ""
  for (const { segment } of graphemes.segment(text)) {
    if (CliOutput.displayWidth(kept + segment) > width - 1) break
    kept += segment
  }
  return `${kept}…`
}

/** Breaks at spaces, and inside of a word only where that alone is too long. */
const wrap = (text: string, width: number): ReadonlyArray<string> => {
  const lines: Array<string> = []
  let line = ""
  for (const word of text.split(" ")) {
    const longer = line === "" ? word : `${line} ${word}`
    if (CliOutput.displayWidth(longer) <= width) {
      line = longer
      continue
    }
    if (line !== "") lines.push(line)
    line = ""
    for (const { segment } of graphemes.segment(word)) {
      if (CliOutput.displayWidth(line + segment) > width) {
        lines.push(line)
        line = ""
      }
      line += segment
    }
  }
  return [...lines, line]
}

const pad = (text: string, width: number): string =>
  text + " ".repeat(Math.max(0, width - CliOutput.displayWidth(text)))

/** Takes from the widest until all fit, from the elastic ones as long as these have something to give. */
const fit = (
  natural: ReadonlyArray<number>,
  elastic: ReadonlyArray<boolean>,
  available: number
): ReadonlyArray<number> => {
  const widths = [...natural]
  const narrow = (mayGive: (index: number) => boolean, least: number) => {
    while (widths.reduce((sum, width) => sum + width, 0) > available) {
      let widest = -1
      for (const [index, width] of widths.entries()) {
        if (mayGive(index) && width > least && (widest === -1 || width > (widths[widest] ?? 0)))
          widest = index
      }
      if (widest === -1) return
      widths[widest] = (widths[widest] ?? 0) - 1
    }
  }
  narrow((index) => elastic[index] === true, ELASTIC_LEAST)
  narrow(() => true, LEAST)
  return widths
}

const bold = (text: string, sheet: Sheet): string => (sheet.color ? `\u001b[1m${text}\u001b[0m` : text)

/** Rows under bold headers, no wider than the sheet; what is cut off ends in `…`. */
export const table = <Row>(
  rows: ReadonlyArray<Row>,
  columns: ReadonlyArray<Column<Row>>,
  sheet: Sheet
): string => {
  const cells = rows.map((row) => columns.map((column) => plain(column.value(row))))
  const natural = columns.map((column, index) =>
    Math.max(column.header.length, ...cells.map((row) => CliOutput.displayWidth(row[index] ?? "")))
  )
  const widths =
    sheet.width === undefined
      ? natural
      : fit(
          natural,
          columns.map((column) => column.elastic === true || column.wraps === true),
          sheet.width - GAP.length * (columns.length - 1)
        )
  // A sheet too narrow for the least of all columns: the last ones are not to be seen.
  const within = (line: string) => (sheet.width === undefined ? line : clip(line, sheet.width))
  const lines = (texts: ReadonlyArray<string>): ReadonlyArray<string> => {
    const parts = texts.map((text, index) => {
      const width = widths[index] ?? 0
      return columns[index]?.wraps === true ? wrap(text, width) : [clip(text, width)]
    })
    const height = Math.max(...parts.map((part) => part.length))
    return Array.from({ length: height }, (_, row) =>
      within(
        parts
          .map((part, index) => pad(part[row] ?? "", widths[index] ?? 0))
          .join(GAP)
          .trimEnd()
      )
    )
  }
  const headers = lines(columns.map((column) => column.header)).map((line) => bold(line, sheet))
  return [...headers, ...cells.flatMap(lines)].join("\n")
}

/** Names and values, one a line. */
export const details = (entries: ReadonlyArray<readonly [string, string]>, sheet: Sheet): string => {
  const width = Math.max(...entries.map(([name]) => name.length))
  return entries.map(([name, value]) => `${bold(pad(name, width), sheet)}${GAP}${plain(value)}`).join("\n")
}
