import { Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { print, run } from "../src/layers/CommandLine.ts"
import { diagnose } from "../src/layers/Doctor.ts"
import type { Diagnosis } from "../src/layers/Doctor.ts"
import { details, table } from "../src/layers/Table.ts"
import type { Sheet } from "../src/layers/Table.ts"

class Unhealthy extends Schema.TaggedError<Unhealthy>()("Unhealthy", { message: Schema.String }) {}

const text = ({ checks, urls }: Diagnosis, sheet: Sheet) => {
  const lines = table(
    checks,
    [
      { header: "STATUS", value: ({ status }) => status },
      { header: "CHECK", value: ({ name }) => name },
      { header: "DETAIL", value: ({ detail }) => detail, wraps: true }
    ],
    sheet
  )
  if (urls === undefined) return lines
  // Never cut or broken: they are there to be copied.
  const copied = Object.entries(urls).map(([name, url]) => [name, url ?? "none"] as const)
  return `${lines}\n\n${details(copied, sheet)}`
}

run(
  Command.make(
    "doctor",
    {
      showUrls: Flag.Boolean("show-urls").pipe(
        Flag.withDescription("Add the embedded servers' URLs, with passwords; in development only"),
        Flag.withoutNegation,
        Flag.withDefault(false)
      )
    },
    Effect.fnUntraced(function* ({ showUrls }) {
      const diagnosis: Diagnosis = yield* diagnose({ showUrls })
      yield* print(diagnosis, (sheet) => text(diagnosis, sheet))
      const failed = diagnosis.checks.filter(({ status }) => status === "failed").map(({ name }) => name)
      if (!diagnosis.ok) {
        return yield* new Unhealthy({ message: `not in order: ${failed.join(", ")}` })
      }
    })
  ).pipe(
    Command.withDescription(
      "Look at all that the platform stands on, and say what is missing and what to do"
    ),
    Command.withExamples([
      { command: "doctor" },
      {
        command: "doctor --json | jq '.checks[] | select(.status == \"failed\")'",
        description: "For a script"
      },
      {
        command: 'psql "$(doctor --show-urls --json | jq -r .urls.superuser)"',
        description: "Into the embedded Postgres, while the platform runs"
      }
    ])
  )
)
