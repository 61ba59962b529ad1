// By their own paths: the whole package takes a third of a program's start.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import {
  Cause,
  Console,
  Effect,
  Layer,
  Logger,
  Option,
  Predicate,
  References,
  Runtime,
  Schema,
  Stdio,
  Terminal
} from "effect"
import {
  CliConfig,
  CliError,
  CliOutput,
  Command,
  Completions,
  Flag,
  GlobalFlag,
  Prompt,
  TerminalCapabilities
} from "effect/cli"
import type { HelpDoc } from "effect/cli"
import { SqlError } from "effect/sql"
import manifest from "../../package.json" with { type: "json" }
import { CurrentActor } from "../domain/Actor.ts"
import { isHosted } from "../domain/Environment.ts"
import { InvalidRequest } from "../domain/Problems.ts"
import { latestVersions, Migrations } from "../services/Migrations.ts"
import { PlatformKeys } from "../services/PlatformKeys.ts"
import { sqlMessageOf } from "../services/DbErrors.ts"
import { Announcer, Installation } from "./Installation.ts"
import { ControlPlaneLayer, StorageLayer } from "./Platform.ts"
import { Settings } from "./Settings.ts"
import { RegistryOutdated } from "./Startup.ts"
import { nearest } from "./Nearest.ts"
import { plain } from "./Table.ts"
import type { Sheet } from "./Table.ts"

/** `--json`: one JSON document on standard output, and nothing else there. */
export const Json = GlobalFlag.Setting("json")({
  flag: Flag.Boolean("json").pipe(
    Flag.withDescription("Print one JSON document instead of text"),
    Flag.withoutNegation,
    Flag.withDefault(false)
  )
})
export type Json = GlobalFlag.Setting.Identifier<"json">

const shells: ReadonlyArray<Completions.Shell> = ["bash", "zsh", "fish"]

/** What every command takes besides its own. The built-in completions leave these out. */
const globalFlags = (): ReadonlyArray<Completions.FlagDescriptor> =>
  Completions.fromCommand(
    Command.make("all", {
      help: GlobalFlag.Help.flag,
      version: GlobalFlag.Version.flag,
      completions: CompletionsAction.flag,
      json: Json.flag
    })
  ).flags.map((flag) => ({ ...flag, negation: false }))

const withGlobalFlags = (command: Completions.CommandDescriptor): Completions.CommandDescriptor => ({
  ...command,
  flags: [...command.flags, ...globalFlags()],
  subcommands: command.subcommands.map(withGlobalFlags)
})

/** `--completions`: a script that teaches a shell a program's commands and flags. */
const CompletionsAction: GlobalFlag.Action<Option.Option<Completions.Shell>> = GlobalFlag.Action({
  flag: Flag.Literals("completions", shells).pipe(
    Flag.withMetavar("shell"),
    Flag.withDescription("Print a completion script"),
    Flag.optional
  ),
  run: Effect.fnUntraced(function* (shell, { command }) {
    if (Option.isNone(shell)) return
    const described = withGlobalFlags(Completions.fromCommand(command))
    yield* Console.log(Completions.generate(command.name, shell.value, described))
  })
})

/** A program that ends with this code. What there is to say has been said. */
class Ended extends Schema.TaggedError<Ended>()("Ended", { code: Schema.Int }) {
  override readonly [Runtime.errorExitCode] = this.code
}

const FAILED = 1
const WRONG_USAGE = 2

/** What the terminal can show; `undefined` columns where standard output is none. */
const sheet = Effect.gen(function* () {
  const stdio = yield* Stdio.Stdio
  const terminal = yield* Terminal.Terminal
  const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
  const columns = (yield* stdio.stdoutIsTerminal) ? yield* terminal.columns : 0
  return { width: columns > 0 ? columns : undefined, color: canColor } satisfies Sheet
})

/** Prints what a command has to tell: the document for machines, or the text for people. */
export const print = Effect.fnUntraced(function* (document: unknown, text: (sheet: Sheet) => string) {
  yield* Console.log((yield* Json) ? JSON.stringify(document, undefined, 2) : text(yield* sheet))
})

/** Runs a prompt. Ctrl-C there ends the program as it does anywhere. */
export const answered = <A>(prompt: Prompt.Prompt<A>) =>
  Prompt.run(prompt).pipe(
    // What is asked stands on a line of its own, also where no answer came.
    Effect.catchTag("QuitError", () => Effect.andThen(Console.log(""), Effect.interrupt))
  )

/** For `Flag.withFallbackPrompt`: asks for a value until one fits the schema. */
export const asked = (message: string, schema: Schema.ConstraintDecoder<unknown>) =>
  answered(
    Prompt.String({
      message,
      validate: (given) =>
        Schema.decodeUnknownEffect(schema)(given).pipe(
          Effect.as(given),
          Effect.mapError((error) => error.message)
        )
    })
  ).pipe(Effect.map(Prompt.succeed))

const didYouMean = (given: string, names: ReadonlyArray<string>): string =>
  Option.match(nearest(given, names), {
    onNone: () => "",
    onSome: (name) => `. Did you mean ${name}?`
  })

/** One line for a wrong invocation. A secret's value is `<redacted>` in these already. */
const usageLine = (error: CliError.NonShowHelpErrors, help: HelpDoc.HelpDoc): string => {
  switch (error._tag) {
    // The suggestions in these errors know nothing of the flags that every command takes.
    case "UnrecognizedOption": {
      const flags = [...help.flags, ...(help.inheritedFlags ?? []), ...(help.globalFlags ?? [])]
      const names = flags.map(({ name }) => (name.startsWith("--") ? name : `--${name}`))
      return `There is no flag ${error.option}${didYouMean(error.option, names)}`
    }
    case "UnknownSubcommand": {
      const names = (help.subcommands ?? []).flatMap(({ commands }) => commands.map(({ name }) => name))
      return `There is no command ${error.subcommand}${didYouMean(error.subcommand, names)}`
    }
    default:
      return error.message.replace("Expected: Schema validation failed: ", "")
  }
}

/**
 * Help that was asked for goes to standard output, all else to standard error: there a wrong invocation gets two
 * lines, instead of the whole help on standard output.
 */
const PresenterLayer = CliOutput.layerPresenter({
  present: (event) => {
    if (event._tag === "InvalidInvocation") {
      const [error] = event.errors
      const line = error === undefined ? "Wrong usage" : usageLine(error, event.helpDoc)
      return Console.error(`${plain(line)}\nSee: ${event.commandPath.join(" ")} --help`)
    }
    return event._tag === "Help" && event.reason === "Implicit"
      ? Console.error(CliOutput.defaultFormatter({ colors: false }).formatHelpDoc(event.helpDoc))
      : CliOutput.defaultPresenter.present(event)
  }
})

/** The one line of a refusal or failure: the stable code, and what was the matter. */
export const failureLine = (error: unknown): string => {
  if (error instanceof InvalidRequest && error.errors !== undefined) {
    const fields = error.errors.map(({ message, path }) => `${path.join(".")}: ${message}`)
    return `${error.code}: ${error.message} (${fields.join("; ")})`
  }
  if (SqlError.isSqlError(error)) return `${error._tag}: ${sqlMessageOf(error)}`
  if (!(error instanceof Error)) return `InternalError: ${String(error)}`
  return `${Predicate.hasProperty(error, "_tag") ? String(error._tag) : "InternalError"}: ${error.message}`
}

const oneLine = (text: string): string => plain(text.trim().replaceAll(/\s*\n\s*/g, " "))

/** Says what a program ended with, and turns it into the exit code. */
const report = (cause: Cause.Cause<unknown>) =>
  Effect.gen(function* () {
    // Nothing to say: who interrupts knows it. The exit code is 130.
    if (Cause.hasInterruptsOnly(cause)) return yield* Effect.interrupt
    const error = Cause.squash(cause)
    if (CliError.isCliError(error) && error._tag === "ShowHelp")
      return yield* new Ended({ code: WRONG_USAGE })
    // A defect is ours to mend: where somebody looks on, with all that is known of it.
    if (Cause.hasDies(cause)) yield* Effect.logError(cause)
    yield* Console.error(oneLine(failureLine(error)))
    return yield* new Ended({ code: FAILED })
  })

/** Announcements, warnings and progress are for a person who looks on: at a terminal, and never on standard output. */
const AnnouncementsLayer = Layer.unwrap(
  Effect.gen(function* () {
    const stdio = yield* Stdio.Stdio
    const isWatched = yield* stdio.stderrIsTerminal
    const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
    return Layer.mergeAll(
      Layer.succeed(Announcer, isWatched ? Console.error : () => Effect.void),
      Logger.layer(isWatched ? [Logger.consolePretty({ colors: canColor })] : []),
      Layer.succeed(Logger.LogToStderr, true),
      Layer.succeed(References.MinimumLogLevel, "Warn")
    )
  })
)

/** As the terminal is, but that nothing is asked where a machine reads the answer. */
const CapabilitiesLayer = Layer.unwrap(
  Effect.gen(function* () {
    const stdio = yield* Stdio.Stdio
    const found = yield* TerminalCapabilities.TerminalCapabilities
    const isForMachines = (yield* stdio.args).some((arg) => arg === "--json" || arg.startsWith("--json="))
    return Layer.succeed(TerminalCapabilities.TerminalCapabilities, {
      ...found,
      canPrompt: found.canPrompt && !isForMachines
    })
  })
)

const ProgramLayer = Layer.mergeAll(
  PresenterLayer,
  AnnouncementsLayer,
  CapabilitiesLayer,
  CliConfig.layer({
    builtIns: [GlobalFlag.Help, GlobalFlag.Version, CompletionsAction]
  })
).pipe(Layer.provideMerge(NodeServices.layer))

/**
 * Ends the process once what was printed is through: an exit cuts off what a pipe has not taken yet. Ends it always,
 * since a timer of a driver's would else keep a program that is done for seconds.
 */
const teardown: Runtime.Teardown = (exit) =>
  Runtime.defaultTeardown(exit, (code) => {
    process.stdout.write("", () => process.exit(code))
  })

/** The platform's settings, and its servers: given, joined or started. */
export const InstallationLayer = Installation.layer.pipe(Layer.provideMerge(Settings.layer))

/** The registry as this build needs it: development makes it by itself, a hosted one is made by `migrate`. */
const RegistryLayer = Layer.effectDiscard(
  Effect.gen(function* () {
    const { environment } = yield* Settings
    const migrations = yield* Migrations
    // First, since the registry is read under a claim.
    yield* PlatformKeys.use((keys) => keys.refresh)
    if (!isHosted(environment)) return yield* migrations.shared
    const version = yield* migrations.sharedVersion
    if (version < latestVersions.shared) {
      return yield* new RegistryOutdated({
        message: `The registry is at version ${version}, this build needs ${latestVersions.shared}: run "npm run migrate"`
      })
    }
  })
)

/**
 * What the control plane's programs stand on. Provided to each command by itself and never to a whole program, so
 * that asking for help, or wrongly, starts no server.
 */
export const PlatformForCommands = RegistryLayer.pipe(
  Layer.provideMerge(ControlPlaneLayer),
  Layer.provideMerge(StorageLayer),
  Layer.provideMerge(InstallationLayer)
)

/**
 * Runs a program of `bin/` to its end: exit code 0 when done, 1 when refused or failed, with one line on standard
 * error that begins with the stable code, 2 for a wrong usage, 130 when interrupted.
 */
export const run = <const Name extends string, Input, ContextInput, E>(
  command: Command.Command<Name, Input, ContextInput, E, Command.Environment | Json | Announcer>
): void =>
  command.pipe(
    Command.withGlobalFlags([Json]),
    Command.run({ version: manifest.version }),
    Effect.catchCause(report),
    // Whoever may run a program here is an operator: the audit log says so.
    Effect.provideService(CurrentActor, { type: "operator", id: null, name: "command line" }),
    // The edge: the programs of `bin/` consist of this call.
    // @effect-diagnostics-next-line strictEffectProvide:off
    Effect.provide(ProgramLayer),
    NodeRuntime.runMain({ disableErrorReporting: true, teardown })
  )
