// The first wall is the compiler. That it refuses a program is not enough: it must be for the reason we think.
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"

const fromRoot = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** Compiles one folder of sources; what the compiler says of it. */
const compile = (folder: string) =>
  Effect.callback<string>((resume) => {
    execFile(
      process.execPath,
      [fromRoot("node_modules/typescript/bin/tsc"), "--pretty", "false", "-p", folder],
      { maxBuffer: 10_000_000 },
      (_failed, stdout) => resume(Effect.succeed(stdout))
    )
  })

/** Beside the folder that it copies from, so that its imports hold; with a dot, so that no other compilation sees it. */
const folder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(fromRoot("test/.types-"))),
  (path) => Effect.promise(() => rm(path, { recursive: true }))
)

it.live("a program that forgets the tenant is refused by the compiler, which names what is missing", () =>
  Effect.gen(function* () {
    const source = yield* Effect.promise(() => readFile(fromRoot("test/types/Tenant.ts"), "utf8"))
    const mark = /^\s*\/\/ @ts-expect-error -- (.*)$/
    const kept: Array<string> = []
    const expected: Array<{ readonly line: number; readonly says: string }> = []
    for (const line of source.split("\n")) {
      const says = mark.exec(line)?.[1]
      if (says === undefined) kept.push(line)
      else expected.push({ line: kept.length + 1, says })
    }
    const path = yield* folder
    yield* Effect.promise(() => writeFile(`${path}/Tenant.ts`, kept.join("\n")))
    const config = JSON.stringify({ extends: "../../tsconfig.json", include: ["./Tenant.ts"] })
    yield* Effect.promise(() => writeFile(`${path}/tsconfig.json`, config))

    // An error begins in the first column; what explains it is indented.
    const errors = (yield* compile(path)).split(/\n(?=\S)/)
    const found = errors.map((text) => ({ line: Number(/\((\d+),\d+\): error/.exec(text)?.[1]), text }))
    assert.deepStrictEqual(
      found.map(({ line }) => line),
      expected.map(({ line }) => line)
    )
    assert.isAbove(expected.length, 25)
    for (const [index, { says }] of expected.entries()) assert.include(found[index]?.text, says)
  })
)
