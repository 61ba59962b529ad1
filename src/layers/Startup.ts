import { Duration, Effect, Layer, Schedule, Schema } from "effect"
import { isHosted } from "../domain/Environment.ts"
import { checkAppLogin } from "../services/AppLogin.ts"
import { migrateAll, REGISTRY } from "../services/MigrateAll.ts"
import { latestVersions, Migrations } from "../services/Migrations.ts"
import { PlatformKeys } from "../services/PlatformKeys.ts"
import { Announcer } from "./Installation.ts"
import { Settings } from "./Settings.ts"

/** The database is not at the version that this build needs. */
export class RegistryOutdated extends Schema.TaggedError<RegistryOutdated>()("RegistryOutdated", {
  message: Schema.String
}) {}

/** While Postgres is away at the start: how often it is asked again. */
const ASK_AGAIN = Duration.seconds(1)

/**
 * What must hold before the first request: the schema is there, and the login can get around no wall. Development
 * migrates by itself; a hosted installation is migrated by a job of its own, since several instances start at once.
 */
const prepare = Effect.gen(function* () {
  const { environment } = yield* Settings
  const announce = yield* Announcer
  const migrations = yield* Migrations
  // First of all: what follows reads and writes with it.
  yield* checkAppLogin
  // Before the rest, since the registry is read under a claim.
  const keys = yield* PlatformKeys
  yield* keys.refresh
  if (isHosted(environment)) {
    const version = yield* migrations.sharedVersion
    if (version < latestVersions.shared) {
      return yield* new RegistryOutdated({
        message: `The registry is at version ${version}, this build needs ${latestVersions.shared}: run "npm run migrate"`
      })
    }
  } else {
    const report = yield* migrateAll({})
    for (const { from, slug, to } of report.migrated) {
      yield* announce(`Migrated ${slug === REGISTRY ? "the registry" : slug} from version ${from} to ${to}`)
    }
    // One tenant that can't be migrated must not take the others with it.
    for (const { error, slug } of report.failed) yield* announce(`Could not migrate ${slug}: ${error}`)
  }
  return keys
})

/** Waits for Postgres as long as it takes: a process that ends and is started again would find it no sooner. */
export const StartupLayer = Layer.effectDiscard(
  prepare.pipe(
    Effect.tapErrorTag("DependencyUnavailable", () => Effect.logWarning("Waiting for Postgres")),
    Effect.retry({
      while: (error) => error._tag === "DependencyUnavailable",
      schedule: Schedule.spaced(ASK_AGAIN)
    }),
    Effect.flatMap((keys) => Effect.forkScoped(keys.poll))
  )
)
