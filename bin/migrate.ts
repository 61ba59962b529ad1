import { Effect, Layer, Option } from "effect"
import { CliError, Command, Flag } from "effect/cli"
import { SecureRandom } from "effect/crypto"
import { InstallationLayer, print, run } from "../src/layers/CommandLine.ts"
import { Installation } from "../src/layers/Installation.ts"
import { PlatformKeysLayer } from "../src/layers/Platform.ts"
import { progressBar } from "../src/layers/Progress.ts"
import { table } from "../src/layers/Table.ts"
import { AdminDb } from "../src/services/AdminDb.ts"
import { AuditLog } from "../src/services/AuditLog.ts"
import { Claims } from "../src/services/Claims.ts"
import { KeyRing } from "../src/services/KeyRing.ts"
import { DEFAULT_JOBS, migrateAll } from "../src/services/MigrateAll.ts"
import { MigrationFailed, Migrations } from "../src/services/Migrations.ts"
import { PlatformDb } from "../src/services/PlatformDb.ts"
import { PlatformKeys } from "../src/services/PlatformKeys.ts"
import { TenantPool } from "../src/services/TenantPool.ts"

/** Each tenant that is being migrated has a connection of the migrator's for itself. */
const MAX_JOBS = 64

/** The registry is read under a claim, whose key may be a rotated one. */
const KnownKeysLayer = Layer.effectDiscard(PlatformKeys.use((keys) => keys.refresh))

/** Only what migrating takes: it works while Redis is away. */
const MigrationsLayer = (connections: number) =>
  Layer.unwrap(
    Effect.map(Installation, ({ databaseAdminUrl, databaseUrl, tenantClaimKey }) =>
      KnownKeysLayer.pipe(
        Layer.provideMerge(Migrations.layer({ claimKey: tenantClaimKey })),
        Layer.provide(PlatformKeysLayer),
        Layer.provide(AuditLog.layer),
        Layer.provide(SecureRandom.layerWebCrypto),
        Layer.provide(PlatformDb.layer),
        Layer.provide(TenantPool.layer({ url: databaseUrl, size: 1 })),
        Layer.provide(AdminDb.layer({ url: databaseAdminUrl, connections })),
        Layer.provide(Claims.layerRotating(tenantClaimKey)),
        Layer.provide(KeyRing.layer)
      )
    )
  ).pipe(Layer.provide(InstallationLayer))

run(
  Command.make(
    "migrate",
    {
      tenant: Flag.String("tenant").pipe(
        Flag.withMetavar("slug"),
        Flag.withDescription("The registry and this tenant only"),
        Flag.optional
      ),
      all: Flag.Boolean("all").pipe(
        Flag.withDescription("The registry and all tenants: the default"),
        Flag.withoutNegation,
        Flag.withDefault(false)
      ),
      dryRun: Flag.Boolean("dry-run").pipe(
        Flag.withDescription("Tell what would be migrated, and change nothing"),
        Flag.withoutNegation,
        Flag.withDefault(false)
      ),
      jobs: Flag.Int("jobs").pipe(
        Flag.withDescription(`Tenants at one time (${DEFAULT_JOBS})`),
        Flag.withDefault(DEFAULT_JOBS),
        Flag.filter(
          (jobs) => jobs >= 1 && jobs <= MAX_JOBS,
          () => `Expected a number from 1 to ${MAX_JOBS}`
        )
      )
    },
    Effect.fnUntraced(function* ({ dryRun, jobs, tenant }) {
      const report = yield* Effect.scoped(
        Effect.flatMap(progressBar, (onProgress) =>
          migrateAll({ tenant: Option.getOrUndefined(tenant), dryRun, jobs, onProgress })
        )
      )
      const { failed, migrated, up_to_date } = report
      yield* print(report, (sheet) => {
        const rows = [
          ...migrated.map(({ from, ms, slug, to }) => ({
            slug,
            versions: `${from} → ${to}`,
            result: dryRun ? "would be migrated" : `migrated in ${ms} ms`
          })),
          ...failed.map(({ error, slug }) => ({ slug, versions: "", result: error }))
        ]
        const columns = [
          { header: "TENANT", value: (row: (typeof rows)[number]) => row.slug },
          { header: "VERSION", value: (row: (typeof rows)[number]) => row.versions },
          { header: "RESULT", value: (row: (typeof rows)[number]) => row.result, wraps: true }
        ]
        const upToDate = `${up_to_date} up to date`
        return rows.length === 0 ? upToDate : `${table(rows, columns, sheet)}\n${upToDate}`
      })
      if (failed.length > 0) {
        const [first] = failed
        return yield* new MigrationFailed({
          message: `${failed.length} not migrated, such as ${first?.slug}: ${first?.error}`
        })
      }
    })
  ).pipe(
    Command.validate(({ all, tenant }) =>
      all && Option.isSome(tenant)
        ? new CliError.ValidationError({ message: "Give one of --tenant and --all" })
        : Effect.void
    ),
    Command.withDescription("Bring the registry and the tenants' schemas up to the version of this build"),
    Command.withExamples([
      {
        command: "migrate",
        description: "The registry, then all tenants; safe to run at any time, and twice"
      },
      { command: "migrate --dry-run", description: "What that would do" },
      { command: "migrate --tenant skyvera", description: "One tenant first, to see how it goes" },
      { command: "migrate --jobs 16 --json", description: "Many at a time, the result for a script" }
    ]),
    Command.provide(({ jobs }) => MigrationsLayer(jobs))
  )
)
