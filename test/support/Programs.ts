import { NodeServices } from "@effect/platform-node"
import { Context, Deferred, Effect, FileSystem, Layer, Option, Path, Schema, Stream } from "effect"
import { ChildProcess } from "effect/process"
import type { SqlClient } from "effect/sql"
import { randomBytes } from "node:crypto"
import { fileURLToPath } from "node:url"
import { superuserClient } from "../../src/layers/DatabaseRoles.ts"
import { acquire } from "../../src/layers/Embedded.ts"
import { Announcer, Installation } from "../../src/layers/Installation.ts"
import { Settings } from "../../src/layers/Settings.ts"

/** What a program has left behind. */
export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

interface RunOptions {
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
  /**
   * In a terminal, so many columns wide; what a person types there goes in once the prompt is seen. Standard output is
   * what the terminal shows, without standard error.
   */
  readonly terminal?: { readonly columns: number; readonly prompt?: string; readonly typed?: string }
}

const quoted = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`

/** To compile the same modules anew is most of what a program's process has to do. */
const compileCache = fileURLToPath(new URL("../../node_modules/.cache/programs", import.meta.url))

/** The programs of `bin/`, run as processes of their own on a data directory of the file's own, whose servers run. */
export class Programs extends Context.Service<
  Programs,
  {
    readonly run: (
      program: string,
      args: ReadonlyArray<string>,
      options?: RunOptions
    ) => Effect.Effect<Outcome>
    /** The folder that they run in: no settings lie there. */
    readonly folder: string
    /** A superuser's session in the embedded database. For looking, and for breaking things on purpose. */
    readonly superuser: SqlClient.SqlClient
  }
>()("test/Programs") {
  static readonly layer = Layer.effect(
    Programs,
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const folder = yield* fs.makeTempDirectoryScoped({ prefix: "agent-army-programs-" })
      // Open to be passed through: under root the servers run as another user.
      yield* fs.chmod(folder, 0o711)
      const dataDir = path.join(folder, "data")
      // Held from here on, so that the programs join the servers instead of starting them.
      yield* acquire({ dataDir, durable: false, announce: () => Effect.void })
      const installed = yield* Layer.build(
        Installation.layer.pipe(
          Layer.provide(Settings.layerFrom({ DATA_DIR: dataDir })),
          Layer.provide(Layer.succeed(Announcer, () => Effect.void))
        )
      )
      const url = yield* Effect.fromOption(Context.get(installed, Installation).superuserUrl)
      const superuser = yield* superuserClient(url)
      const context = yield* Effect.context<ChildProcessServices>()

      const run = Effect.fnUntraced(
        function* (
          program: string,
          args: ReadonlyArray<string>,
          { env = {}, stdin, terminal }: RunOptions = {}
        ) {
          const file = fileURLToPath(new URL(`../../bin/${program}.ts`, import.meta.url))
          const words = [process.execPath, file, ...args]
          const prompted = yield* Deferred.make<void>()
          // The stream stays open as a terminal does: its end would be typed as one.
          const typed = Stream.concat(
            Stream.fromEffect(
              Effect.as(Deferred.await(prompted), new TextEncoder().encode(terminal?.typed ?? ""))
            ),
            Stream.never
          )
          const inTerminal = `stty cols ${terminal?.columns} && exec ${words.map(quoted).join(" ")} 2>/dev/null`
          const [command = "", ...rest] =
            terminal === undefined ? words : ["script", "-qec", inTerminal, "/dev/null"]
          const handle = yield* ChildProcess.make(command, rest, {
            cwd: folder,
            env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: compileCache, DATA_DIR: dataDir, ...env },
            extendEnv: false,
            stdin:
              terminal !== undefined
                ? typed
                : stdin === undefined
                  ? "ignore"
                  : Stream.make(new TextEncoder().encode(stdin))
          })
          const [stdout, stderr, code] = yield* Effect.all(
            [
              handle.stdout.pipe(
                Stream.decodeText(),
                Stream.tap((text) =>
                  terminal?.prompt !== undefined && text.includes(terminal.prompt)
                    ? Deferred.succeed(prompted, undefined)
                    : Effect.void
                ),
                Stream.mkString
              ),
              handle.stderr.pipe(Stream.decodeText(), Stream.mkString),
              handle.exitCode
            ],
            { concurrency: "unbounded" }
          )
          return { code: Number(code), stdout, stderr }
        },
        Effect.scoped,
        Effect.orDie,
        Effect.provideContext(context)
      )
      return Programs.of({ run, folder, superuser })
    })
  ).pipe(Layer.provide(NodeServices.layer))
}
type ChildProcessServices = Layer.Success<typeof NodeServices.layer>

export const runProgram = (...args: Parameters<typeof Programs.Service.run>) =>
  Programs.use((programs) => programs.run(...args))

/** Standard output as the one JSON document that it has to be. */
export const document =
  <S extends Schema.ConstraintDecoder<unknown>>(schema: S) =>
  (outcome: Outcome) =>
    Schema.decodeEffect(Schema.fromJsonString(schema))(outcome.stdout)

export const freshSlug = (name: string): string => `${name}-${randomBytes(4).toString("hex")}`

/** The version of a tenant's schema, as the registry has it. */
export const versionOf = Effect.fnUntraced(function* (slug: string) {
  const { superuser: sql } = yield* Programs
  const [row] = yield* sql<{ version: number }>`
    SELECT coalesce(max(m.id), 0) AS version
    FROM shared.tenants t LEFT JOIN shared.tenant_migrations m ON m.tenant_id = t.id WHERE t.slug = ${slug}`
  return Option.getOrElse(Option.fromNullishOr(row?.version), () => -1)
})

/** A tenant by the program, gone at the end of the scope, so that no other test meets it. */
export const scopedTenant = (name: string) =>
  Effect.acquireRelease(
    Effect.gen(function* () {
      const slug = freshSlug(name)
      const { code, stderr } = yield* runProgram("tenants", ["provision", "--slug", slug, "--name", name])
      if (code !== 0) return yield* Effect.die(new Error(stderr))
      return slug
    }),
    (slug) =>
      Effect.gen(function* () {
        const { superuser: sql } = yield* Programs
        yield* sql`DROP SCHEMA ${sql(`tenant_${slug.replaceAll("-", "_")}`)} CASCADE`
        yield* sql`DELETE FROM shared.tenants WHERE slug = ${slug}`
      }).pipe(Effect.orDie)
  )

/** Puts a tenant back to before its first migration. `sound: false` leaves its tables in the way. */
export const setBack = Effect.fnUntraced(function* (slug: string, { sound }: { readonly sound: boolean }) {
  const { superuser: sql } = yield* Programs
  const schema = sql(`tenant_${slug.replaceAll("-", "_")}`)
  if (sound) {
    yield* sql`DROP SCHEMA ${schema} CASCADE`
    yield* sql`CREATE SCHEMA ${schema} AUTHORIZATION aa_owner`
  }
  yield* sql`DELETE FROM shared.tenant_migrations m USING shared.tenants t
    WHERE t.id = m.tenant_id AND t.slug = ${slug}`
})
