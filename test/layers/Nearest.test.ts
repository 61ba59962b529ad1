import { assert, describe, it } from "@effect/vitest"
import { Option, Schema } from "effect"
import { nearest } from "../../src/layers/Nearest.ts"

const flags = ["--json", "--help", "--slug", "--admin-email", "--admin-password-stdin", "--dry-run"]

describe("nearest", () => {
  it("finds what was meant by a slip of the fingers, or by a beginning", () => {
    const meant = {
      "--josn": "--json",
      "--jsonn": "--json",
      "--hlep": "--help",
      "-slug": "--slug",
      "--admin-emial": "--admin-email",
      "--admin-p": "--admin-password-stdin",
      "--dryrun": "--dry-run"
    }
    for (const [typed, name] of Object.entries(meant))
      assert.deepStrictEqual(nearest(typed, flags), Option.some(name), typed)
  })

  it("guesses at nothing that is far from all", () => {
    for (const typed of ["-j", "--x", "--colour", "--verbose", "--"])
      assert.isTrue(Option.isNone(nearest(typed, flags)), typed)
    assert.isTrue(Option.isNone(nearest("anything", [])))
  })

  it.prop("counts two that changed places as one slip", [Schema.NonEmptyString], ([text]) => {
    const name = `ab${text.replaceAll("-", "")}`
    assert.deepStrictEqual(nearest(`ba${name.slice(2)}`, [name]), Option.some(name))
  })
})
