// The README's tour, every line of it, as a newcomer would type it.
import { NodeServices } from "@effect/platform-node"
import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { onRealClock } from "../support/Platform.ts"
import { startProcess } from "../support/Serve.ts"

/** Replaces a line of the tour that a reader fills in; fails where the README has it no more. */
const fillIn = (script: string, line: RegExp, by: string): string => {
  assert.match(script, line)
  return script.replace(line, by)
}

layer(NodeServices.layer, onRealClock)("the README", (it) => {
  it.effect("its tour does what it says", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-readme-" })
      const dataDir = `${folder}/data`
      const server = yield* startProcess(dataDir)
      const url = yield* server.url
      const operatorKey = yield* server.operatorKey

      const readme = yield* fs.readFileString("README.md")
      const blocks = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] ?? "")
      assert.strictEqual(blocks.length, 2)
      const tour = fillIn(
        fillIn(blocks.join("\n"), /^API=.*$/m, `API=${url}`),
        /^OPERATOR_KEY=.*$/m,
        `OPERATOR_KEY=${operatorKey}`
      )
      const bash = yield* ChildProcess.make("bash", ["--norc", "-euo", "pipefail", "-c", tour], {
        env: { DATA_DIR: dataDir },
        extendEnv: true
      })
      const said = yield* Stream.merge(bash.stdout, bash.stderr).pipe(Stream.decodeText(), Stream.mkString)
      assert.strictEqual(yield* bash.exitCode, 0, said)

      const lines = said.trim().split("\n")
      const expected = [
        /"slug":"skyvera".*"schema_name":"tenant_skyvera".*"status":"active"/,
        /"slug":"jigtree".*"schema_name":"tenant_jigtree"/,
        /"email":"admin@skyvera.example".*"tenant_slug":"skyvera"/,
        /"data":\{"text":"ours alone"\}/,
        /"code":"NotFound"/,
        /^\{"items":\[\],"next_cursor":null\}$/,
        /"code":"NotFound"/,
        /"code":"CrossTenantAccess"/,
        /^permission denied for schema tenant_skyvera$/,
        /^permission denied for schema tenant_skyvera$/,
        /^\[\]$/,
        /^\[\]$/,
        /^t:\{[0-9a-f-]{36}\}:state:mood$/
      ]
      assert.strictEqual(lines.length, expected.length, said)
      expected.forEach((pattern, index) => assert.match(lines[index] ?? "", pattern))

      yield* server.signal("SIGINT")
      assert.strictEqual(yield* server.exitCode, 0)
    }).pipe(Effect.scoped)
  )
})
