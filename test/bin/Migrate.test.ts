import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { latestVersions } from "../../src/services/Migrations.ts"
import { onRealClock } from "../support/Platform.ts"
import { document, Programs, runProgram, scopedTenant, setBack, versionOf } from "../support/Programs.ts"

const migrate = (...args: ReadonlyArray<string>) => runProgram("migrate", args)

const asReport = document(
  Schema.Struct({
    migrated: Schema.Array(
      Schema.Struct({ slug: Schema.String, from: Schema.Int, to: Schema.Int, ms: Schema.Finite })
    ),
    up_to_date: Schema.Int,
    failed: Schema.Array(Schema.Struct({ slug: Schema.String, error: Schema.String })),
    ms: Schema.Finite
  })
)

const latest = latestVersions.tenant

/** Fresh tenants, provisioned at one time: the programs take most of a test's time. */
const scopedTenants = (...names: ReadonlyArray<string>) =>
  Effect.forEach(names, scopedTenant, { concurrency: "unbounded" })

layer(Programs.layer, onRealClock)("bin/migrate", (it) => {
  it.effect("migrates those that are behind, and does not visit the others", () =>
    Effect.gen(function* () {
      const [one = "", other = "", current = ""] = yield* scopedTenants("one", "other", "current")
      yield* setBack(one, { sound: true })
      yield* setBack(other, { sound: true })
      const { superuser: sql } = yield* Programs
      const outcome = yield* sql.withTransaction(
        Effect.gen(function* () {
          // Who visits a tenant waits for this lock.
          yield* sql`SELECT pg_advisory_xact_lock(hashtext('agent-army tenant'), hashtext(id::text))
            FROM shared.tenants WHERE slug = ${current}`
          return yield* migrate("--json", "--jobs", "2")
        })
      )
      assert.strictEqual(outcome.code, 0, outcome.stderr)
      assert.strictEqual(outcome.stderr, "")
      const { failed, migrated, ms, up_to_date } = yield* asReport(outcome)
      assert.deepStrictEqual(
        migrated.map(({ from, slug, to }) => ({ from, slug, to })),
        [one, other].toSorted().map((slug) => ({ from: 0, slug, to: latest }))
      )
      assert.deepStrictEqual([up_to_date, failed], [1, []])
      assert.isAtLeast(ms, Math.max(...migrated.map((tenant) => tenant.ms)))
      assert.deepStrictEqual(yield* Effect.forEach([one, other], versionOf), [latest, latest])
    })
  )

  it.effect("reports a tenant that fails, leaves it as it was, and goes on with the others", () =>
    Effect.gen(function* () {
      // The broken one is the first in the order of the run.
      const [broken = "", sound = ""] = yield* scopedTenants("aaa-broken", "sound")
      yield* setBack(broken, { sound: false })
      yield* setBack(sound, { sound: true })
      const outcome = yield* migrate("--all", "--jobs", "1", "--json")
      assert.strictEqual(outcome.code, 1)
      assert.match(outcome.stderr, /^MigrationFailed: .*\n$/)
      assert.include(outcome.stderr, broken)
      const { failed, migrated } = yield* asReport(outcome)
      assert.deepStrictEqual(
        migrated.map(({ slug }) => slug),
        [sound]
      )
      assert.deepStrictEqual(
        failed.map(({ slug }) => slug),
        [broken]
      )
      assert.match(failed[0]?.error ?? "", /^Migration 1_\w+: .*already exists/)
      assert.deepStrictEqual(yield* Effect.forEach([broken, sound], versionOf), [0, latest])
    })
  )

  it.effect("changes nothing in a dry run, and tells what it would do", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("dry")
      yield* setBack(slug, { sound: true })
      const [json, text] = yield* Effect.all([migrate("--dry-run", "--json"), migrate("--dry-run")], {
        concurrency: 2
      })
      const { migrated } = yield* asReport(json)
      assert.deepStrictEqual(
        migrated.map(({ from, slug, to }) => ({ from, slug, to })),
        [{ from: 0, slug, to: latest }]
      )
      assert.include(text.stdout, "would be migrated")
      assert.deepStrictEqual([json.code, text.code], [0, 0])
      assert.strictEqual(yield* versionOf(slug), 0)
    })
  )

  it.effect("migrates the one tenant that is named", () =>
    Effect.gen(function* () {
      const [named = "", other = ""] = yield* scopedTenants("named", "other")
      yield* setBack(named, { sound: true })
      yield* setBack(other, { sound: true })
      const { migrated, up_to_date } = yield* Effect.flatMap(migrate("--tenant", named, "--json"), asReport)
      assert.deepStrictEqual(
        migrated.map(({ slug }) => slug),
        [named]
      )
      assert.strictEqual(up_to_date, 0)
      assert.deepStrictEqual(yield* Effect.forEach([named, other], versionOf), [latest, 0])
    })
  )

  it.effect("refuses a tenant that is not there, and a wrong usage", () =>
    Effect.gen(function* () {
      const [missing, both, jobs] = yield* Effect.all(
        [
          migrate("--tenant", "no-such-tenant", "--json"),
          migrate("--tenant", "abc", "--all"),
          migrate("--jobs", "0")
        ],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(missing, {
        code: 1,
        stdout: "",
        stderr: "NotFound: No such tenant: no-such-tenant\n"
      })
      assert.deepStrictEqual([both.code, jobs.code], [2, 2])
      assert.include(jobs.stderr, "from 1 to")
    })
  )
})
