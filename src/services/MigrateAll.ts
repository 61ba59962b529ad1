import { Cause, Clock, Effect } from "effect"
import { SqlError } from "effect/sql"
import { NotFound } from "../domain/Problems.ts"
import { latestVersions, Migrations } from "./Migrations.ts"
import type { MigrationFailed, TenantVersion } from "./Migrations.ts"
import { sqlMessageOf } from "./DbErrors.ts"
import type { DbError } from "./DbErrors.ts"

/** Tenants migrated at one time. */
export const DEFAULT_JOBS = 4

/** The registry's name among the migrated: no tenant's, since this slug is reserved. */
export const REGISTRY = "shared"

export interface MigrateAllOptions {
  /** Only this one; all of them by default. */
  readonly tenant?: string | undefined
  /** Tells what would be done, and changes nothing. */
  readonly dryRun?: boolean | undefined
  readonly jobs?: number | undefined
  /** Called whenever one has been dealt with. */
  readonly onProgress?: (progress: { readonly done: number; readonly total: number }) => Effect.Effect<void>
}

/** What a run did; the registry is in `migrated`, as `shared`, where it was not up to date. */
export interface MigrateAllReport {
  readonly migrated: ReadonlyArray<{
    readonly slug: string
    readonly from: number
    readonly to: number
    readonly ms: number
  }>
  /** Tenants that there was nothing to do for. */
  readonly up_to_date: number
  readonly failed: ReadonlyArray<{ readonly slug: string; readonly error: string }>
  readonly ms: number
}

const describe = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  if (SqlError.isSqlError(error)) return sqlMessageOf(error)
  return error instanceof Error ? error.message : String(error)
}

/**
 * Brings the registry up to date, and then the tenants, some at a time. Who is behind is found by one query, so
 * that a run with nothing to do visits nobody. A tenant that fails stays as it was and does not stop the others; a
 * registry that fails stops the run.
 */
export const migrateAll: (
  options: MigrateAllOptions
) => Effect.Effect<MigrateAllReport, MigrationFailed | NotFound | DbError, Migrations> = Effect.fn(
  "migrateAll"
)(function* (options) {
  const { dryRun = false, jobs = DEFAULT_JOBS, onProgress = () => Effect.void } = options
  const migrations = yield* Migrations
  const started = yield* Clock.currentTimeMillis

  const timed = Effect.fnUntraced(function* <E>(
    slug: string,
    migrate: Effect.Effect<{ readonly from: number; readonly to: number }, E>
  ) {
    const before = yield* Clock.currentTimeMillis
    const { from, to } = yield* migrate
    return { slug, from, to, ms: (yield* Clock.currentTimeMillis) - before }
  })

  const registry = yield* timed(
    REGISTRY,
    dryRun
      ? Effect.map(migrations.sharedVersion, (from) => ({ from, to: Math.max(from, latestVersions.shared) }))
      : migrations.shared
  )
  const hasTenants = !dryRun || registry.from > 0
  const known = hasTenants ? yield* migrations.versions : []
  const asked = options.tenant === undefined ? known : known.filter(({ slug }) => slug === options.tenant)
  if (options.tenant !== undefined && asked.length === 0) {
    return yield* new NotFound({ detail: `No such tenant: ${options.tenant}` })
  }
  const behind = asked.filter(({ version }) => version < latestVersions.tenant)

  let done = 0
  const visit = (tenant: TenantVersion) =>
    timed(
      tenant.slug,
      dryRun ? Effect.succeed({ from: tenant.version, to: latestVersions.tenant }) : migrations.tenant(tenant)
    ).pipe(
      Effect.map((migrated) => ({ migrated })),
      // Defects too: a migration that dies is one tenant's trouble. Only to be interrupted ends the run.
      Effect.catchCause((cause) =>
        Cause.hasInterrupts(cause)
          ? Effect.interrupt
          : Effect.succeed({ failed: { slug: tenant.slug, error: describe(cause) } })
      ),
      Effect.tap(() => onProgress({ done: ++done, total: behind.length }))
    )
  const visited = yield* Effect.forEach(behind, visit, { concurrency: jobs })

  const migrated = visited.flatMap((result) => ("migrated" in result ? [result.migrated] : []))
  // Another run may have been there first: what it did is not ours.
  const moved = [registry, ...migrated].filter(({ from, to }) => to > from)
  return {
    migrated: moved,
    up_to_date: asked.length - behind.length + migrated.filter(({ from, to }) => to === from).length,
    failed: visited.flatMap((result) => ("failed" in result ? [result.failed] : [])),
    ms: (yield* Clock.currentTimeMillis) - started
  }
})
