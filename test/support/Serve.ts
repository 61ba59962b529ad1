import { Deferred, Effect, Ref, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"

const serve = fileURLToPath(new URL("../../bin/serve.ts", import.meta.url))

/** The process that `npm start` runs, on a free port and a data directory of its own, with no setting but these. */
export const startProcess = Effect.fnUntraced(function* (dataDir: string, env: Record<string, string> = {}) {
  const lines = yield* Ref.make<ReadonlyArray<string>>([])
  const ready = yield* Deferred.make<string, string>()
  const key = yield* Deferred.make<string>()
  const handle = yield* ChildProcess.make(process.execPath, [serve], {
    env: { ENVIRONMENT: "development", DATA_DIR: dataDir, PORT: "0", LOG_LEVEL: "error", ...env },
    extendEnv: true
  })
  yield* Stream.merge(handle.stdout, handle.stderr).pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) =>
      Effect.gen(function* () {
        yield* Ref.update(lines, (said) => [...said, line])
        const match = /^Ready on (http:\S+)$/.exec(line)
        if (match?.[1] !== undefined) yield* Deferred.succeed(ready, match[1])
        const operatorKey = /^Operator key: (\S+)$/.exec(line)
        if (operatorKey?.[1] !== undefined) yield* Deferred.succeed(key, operatorKey[1])
      })
    ),
    Effect.ensuring(
      Effect.flatMap(Ref.get(lines), (said) => Deferred.fail(ready, `The server ended: ${said.join("\n")}`))
    ),
    Effect.forkScoped
  )
  const said = Ref.get(lines)
  return {
    url: Deferred.await(ready),
    said,
    operatorKey: Deferred.await(key),
    signal: (signal: "SIGINT" | "SIGTERM" | "SIGKILL") => Effect.sync(() => process.kill(handle.pid, signal)),
    exitCode: handle.exitCode
  }
})
