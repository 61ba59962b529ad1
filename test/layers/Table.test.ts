import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { CliOutput } from "effect/cli"
import { table } from "../../src/layers/Table.ts"
import type { Column } from "../../src/layers/Table.ts"

interface Row {
  readonly slug: string
  readonly name: string
  readonly detail: string
}

const columns: ReadonlyArray<Column<Row>> = [
  { header: "SLUG", value: ({ slug }) => slug },
  { header: "NAME", value: ({ name }) => name, elastic: true },
  { header: "DETAIL", value: ({ detail }) => detail, wraps: true }
]
const rows: ReadonlyArray<Row> = [
  {
    slug: "skyvera",
    name: "株式会社スカイベラ 東京本社 開発部",
    detail: "one two three four five six seven eight nine ten"
  },
  { slug: "jigtree", name: "Jigtree", detail: "z".repeat(90) }
]

describe("table", () => {
  it("fits every width that has room for its columns, and loses nothing of what wraps", () => {
    for (let width = 24; width <= 200; width++) {
      const text = table(rows, columns, { width, color: false })
      for (const line of text.split("\n")) assert.isAtMost(CliOutput.displayWidth(line), width, line)
      assert.strictEqual(text.split("z").length - 1, 90)
    }
  })

  it.prop(
    "has no line that is wider than the sheet, whatever the values and the width",
    [
      Schema.Array(Schema.Struct({ slug: Schema.String, name: Schema.String, detail: Schema.String })),
      Schema.Int.check(Schema.isBetween({ minimum: 2, maximum: 60 }))
    ],
    ([values, width]) => {
      for (const line of table(values, columns, { width, color: false }).split("\n"))
        assert.isAtMost(CliOutput.displayWidth(line), width, line)
    }
  )

  it("cuts nothing off where there is no terminal", () => {
    const text = table(rows, columns, { width: undefined, color: false })
    assert.strictEqual(text.split("\n").length, 3)
    for (const row of rows) for (const value of Object.values(row)) assert.include(text, value)
  })

  it("lets no value steer the terminal", () => {
    const [row] = table([{ slug: "a", name: "\u001b[31m\u202ered\r\n", detail: "" }], columns, {
      width: 80,
      color: false
    })
      .split("\n")
      .slice(1)
    assert.strictEqual(row, "a     \uFFFD[31m\uFFFDred\uFFFD\uFFFD")
  })

  it("styles nothing unless the sheet has colors", () => {
    assert.notInclude(table(rows, columns, { width: 80, color: false }), "\u001b")
    assert.include(table(rows, columns, { width: 80, color: true }), "\u001b[1m")
  })
})
