import { assert, layer } from "@effect/vitest"
import { Effect, FileSystem, Layer, Path, Redacted, Schema, Stream } from "effect"
import { NodeServices } from "@effect/platform-node"
import { CliOutput } from "effect/cli"
import { SecureRandom } from "effect/crypto"
import { ChildProcess } from "effect/process"
import { Tenant } from "../../src/domain/Tenant.ts"
import { ProvisionedTenant } from "../../src/http/TenantsApi.ts"
import { Passwords } from "../../src/services/Passwords.ts"
import { onRealClock } from "../support/Platform.ts"
import { document, freshSlug, Programs, runProgram, scopedTenant } from "../support/Programs.ts"

const tenants = (...args: ReadonlyArray<string>) => runProgram("tenants", args)

const asTenant = document(Tenant)
const asProvisioned = document(ProvisionedTenant)
const asList = document(Schema.Struct({ items: Schema.Array(Tenant) }))
const asJson = document(Schema.JsonObject)

/** Whether the first admin of a tenant signs in with a password. */
const opens = Effect.fnUntraced(function* (slug: string, password: string) {
  const { superuser: sql } = yield* Programs
  const [row] = yield* sql<{ hashed_password: string }>`
    SELECT hashed_password FROM ${sql(`tenant_${slug.replaceAll("-", "_")}.users`)}`
  const passwords = yield* Passwords
  return yield* passwords.verify(Redacted.make(password), row?.hashed_password ?? "")
})

/** As bash itself does at the tab key: `$0` is the line so far. */
const COMPLETE = `eval "$SCRIPT"
COMP_LINE="$0" COMP_POINT=\${#COMP_LINE}
read -ra COMP_WORDS <<< "$COMP_LINE"
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_tenants tenants "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD - 1]}"
echo "\${COMPREPLY[*]}"`

const lines = (text: string) => text.trimEnd().split("\n").length

const Lab = Layer.mergeAll(
  Programs.layer,
  Passwords.layer.pipe(Layer.provide(SecureRandom.layerWebCrypto)),
  NodeServices.layer
)

layer(Lab, onRealClock)("bin/tenants", (it) => {
  it.effect("provisions a tenant with a first admin, whose password is made and told", () =>
    Effect.gen(function* () {
      const slug = freshSlug("made")
      const outcome = yield* tenants(
        "provision",
        "--slug",
        slug,
        "--name",
        "Made",
        "--admin-email",
        "a@b.example",
        "--json"
      )
      assert.strictEqual(outcome.stderr, "")
      assert.strictEqual(outcome.code, 0)
      const json = yield* asJson(outcome)
      assert.deepStrictEqual(Object.keys(json), [
        "id",
        "slug",
        "name",
        "schema_name",
        "status",
        "is_active",
        "placement",
        "settings",
        "created_at",
        "updated_at",
        "admin"
      ])
      const { admin, ...tenant } = yield* asProvisioned(outcome)
      assert.strictEqual(tenant.schema_name, `tenant_${slug.replaceAll("-", "_")}`)
      assert.strictEqual(tenant.status, "active")
      assert.strictEqual(admin?.email, "a@b.example")
      assert.isTrue(yield* opens(slug, admin?.password ?? ""))
    })
  )

  it.effect("takes a password from standard input, and shows it nowhere", () =>
    Effect.gen(function* () {
      const password = "correct horse battery"
      const provision = (slug: string, stdin: string, ...more: ReadonlyArray<string>) =>
        runProgram(
          "tenants",
          [
            "provision",
            "--slug",
            slug,
            "--name",
            "P",
            "--admin-email",
            "a@b.example",
            "--admin-password-stdin",
            ...more
          ],
          { stdin }
        )
      const slug = freshSlug("stdin")
      const [asText, asJsonText, tooShort] = yield* Effect.all(
        [
          provision(slug, `${password}\n`),
          provision(freshSlug("stdin"), password, "--json"),
          provision("short", "hunter2\n")
        ],
        { concurrency: "unbounded" }
      )
      for (const { code, stderr, stdout } of [asText, asJsonText]) {
        assert.strictEqual(code, 0, stderr)
        assert.notInclude(stdout + stderr, password)
      }
      assert.isTrue(yield* opens(slug, password))
      assert.deepStrictEqual((yield* asProvisioned(asJsonText)).admin, { email: "a@b.example" })
      assert.strictEqual(tooShort.code, 2)
      assert.include(tooShort.stderr, "--admin-password-stdin")
      assert.notInclude(tooShort.stdout + tooShort.stderr, "hunter2")
    })
  )

  it.effect("refuses a slug that is taken, in one line with the stable code", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("taken")
      const outcome = yield* tenants("provision", "--slug", slug, "--name", "Again", "--json")
      assert.deepStrictEqual(outcome, { code: 1, stdout: "", stderr: "Conflict: This slug is taken\n" })
    })
  )

  it.effect("gives a slug to exactly one of two processes that ask at once", () =>
    Effect.gen(function* () {
      const slug = freshSlug("race")
      const args = ["provision", "--slug", slug, "--name", "Race"]
      const outcomes = yield* Effect.all([tenants(...args), tenants(...args)], { concurrency: 2 })
      assert.deepStrictEqual(outcomes.map(({ code }) => code).toSorted(), [0, 1])
      assert.deepStrictEqual(outcomes.map(({ stderr }) => stderr).toSorted(), [
        "",
        "Conflict: This slug is taken\n"
      ])
      const { superuser: sql } = yield* Programs
      assert.lengthOf(yield* sql`SELECT FROM shared.tenants WHERE slug = ${slug}`, 1)
    })
  )

  it.effect("answers a wrong usage on standard error in two lines, and exits 2", () =>
    Effect.gen(function* () {
      const wrong: ReadonlyArray<readonly [ReadonlyArray<string>, string]> = [
        [["provision", "--slug", "No_Slug", "--name", "N"], "--slug"],
        [["provision", "--name", "N"], "--slug"],
        [
          ["provision", "--slug", "abc", "--name", "N", "--admin-password", "long enough to do"],
          "--admin-email"
        ],
        [["provison"], "Did you mean provision?"],
        [["list", "--josn"], "Did you mean --json?"],
        [["list", "--colour"], "no flag --colour\n"],
        [["show"], "slug"],
        [["settings", "abc", "--set", "guard.level=strict"], `'guard.level="text"'`]
      ]
      const outcomes = yield* Effect.forEach(wrong, ([args]) => tenants(...args), { concurrency: 3 })
      for (const [index, { code, stderr, stdout }] of outcomes.entries()) {
        const [args, named] = wrong[index] ?? [[], ""]
        assert.strictEqual(code, 2, args.join(" "))
        assert.strictEqual(stdout, "")
        assert.strictEqual(lines(stderr), 2, stderr)
        assert.include(stderr, named)
        assert.notInclude(stderr, "long enough")
      }
    })
  )

  it.effect("fits a terminal, in no color where none is wanted", () =>
    Effect.gen(function* () {
      const slug = freshSlug("a-slug-that-is-longer-than-most")
      yield* Effect.acquireUseRelease(
        tenants("provision", "--slug", slug, "--name", "株式会社スカイベラ ".repeat(5)),
        () =>
          Effect.gen(function* () {
            const list = (env: Readonly<Record<string, string>>) =>
              runProgram("tenants", ["list"], { env, terminal: { columns: 50 } })
            const [plain, styled] = yield* Effect.all([list({ NO_COLOR: "1" }), list({})], { concurrency: 2 })
            assert.deepStrictEqual([plain.code, styled.code], [0, 0], plain.stdout)
            assert.notInclude(plain.stdout, "\u001b")
            assert.include(styled.stdout, "\u001b[1mSLUG")
            for (const line of plain.stdout.split("\r\n"))
              assert.isAtMost(CliOutput.displayWidth(line), 50, line)
            assert.match(plain.stdout, /^a-slug\S*… +株/m)
          }),
        () =>
          Effect.gen(function* () {
            const { superuser: sql } = yield* Programs
            yield* sql`DROP SCHEMA ${sql(`tenant_${slug.replaceAll("-", "_")}`)} CASCADE`
            yield* sql`DELETE FROM shared.tenants WHERE slug = ${slug}`
          }).pipe(Effect.orDie)
      )
    })
  )

  it.effect("asks at a terminal only, not where a machine reads, and ends with 130 on Ctrl-C", () =>
    Effect.gen(function* () {
      const terminal = { columns: 80, prompt: "Slug", typed: "No_Slug\r\u0003" }
      const [asked, forMachines] = yield* Effect.all(
        [
          runProgram("tenants", ["provision"], { terminal }),
          runProgram("tenants", ["provision", "--json"], { terminal })
        ],
        { concurrency: 2 }
      )
      assert.strictEqual(asked.code, 130, asked.stdout)
      // A wrong answer is asked for again.
      assert.include(asked.stdout, "Expected 3 to 50")
      assert.deepStrictEqual([forMachines.code, forMachines.stdout], [2, ""])
    })
  )

  it.effect("teaches bash, zsh and fish its commands and all flags", () =>
    Effect.gen(function* () {
      const script = (shell: string) => tenants("--completions", shell)
      const [bash, zsh, fish] = yield* Effect.all([script("bash"), script("zsh"), script("fish")], {
        concurrency: 3
      })
      for (const { code, stdout } of [bash, zsh, fish]) {
        assert.strictEqual(code, 0)
        for (const word of ["provision", "admin-password-stdin", "json", "help"]) assert.include(stdout, word)
      }
      assert.match(zsh.stdout, /^#compdef tenants\n/)
      assert.match(fish.stdout, /^complete -c tenants /m)
      // Of the three, only bash is on every machine: what it makes of the script is seen.
      const completed = Effect.fnUntraced(function* (line: string) {
        const { stdout } = yield* ChildProcess.make("bash", ["-c", COMPLETE, line], {
          env: { SCRIPT: bash.stdout },
          extendEnv: true
        })
        return yield* stdout.pipe(Stream.decodeText(), Stream.mkString)
      }, Effect.scoped)
      const answers = yield* Effect.forEach(
        ["tenants su", "tenants list --j", "tenants provision --admin-p", "tenants --completions f"],
        completed
      )
      assert.deepStrictEqual(answers, [
        "suspend\n",
        "--json\n",
        "--admin-password --admin-password-stdin\n",
        "fish\n"
      ])
    })
  )

  it.effect("starts no server to give help or its version, nor on a wrong usage", () =>
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { folder } = yield* Programs
      const dataDir = path.join(folder, "untouched")
      const run = (...args: ReadonlyArray<string>) =>
        runProgram("tenants", args, { env: { DATA_DIR: dataDir } })
      const [help, version, bare] = yield* Effect.all([run("provision", "--help"), run("--version"), run()], {
        concurrency: 3
      })
      assert.strictEqual(help.code, 0)
      assert.include(help.stdout, "tenants provision --slug skyvera --name Skyvera")
      assert.strictEqual(version.code, 0)
      assert.match(version.stdout, /\d+\.\d+\.\d+/)
      // Not asked for: it must not get in the way of what a machine reads.
      assert.deepStrictEqual([bare.code, bare.stdout], [2, ""])
      assert.include(bare.stderr, "provision")
      assert.isFalse(yield* fs.exists(dataDir))
    })
  )

  it.effect("shows, suspends and activates a tenant", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("state")
      const shown = yield* Effect.flatMap(tenants("show", slug, "--json"), asTenant)
      assert.strictEqual(shown.slug, slug)
      const suspended = yield* Effect.flatMap(tenants("suspend", slug, "--json"), asTenant)
      assert.deepStrictEqual([suspended.status, suspended.is_active], ["suspended", false])
      const text = yield* tenants("show", shown.id)
      assert.match(text.stdout, /^status +suspended$/m)
      const activated = yield* Effect.flatMap(tenants("activate", slug, "--json"), asTenant)
      assert.deepStrictEqual([activated.status, activated.is_active], ["active", true])

      const missing = yield* tenants("suspend", "no-such-tenant")
      assert.deepStrictEqual(missing, { code: 1, stdout: "", stderr: "NotFound: No such tenant\n" })
    })
  )

  it.effect("changes settings one by one, removes with null, and names what is wrong with one", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("settings")
      const set = (...changes: ReadonlyArray<string>) =>
        tenants("settings", slug, "--json", ...changes.flatMap((change) => ["--set", change]))
      const both = yield* Effect.flatMap(
        set(`guard.level="strict"`, "rate.requests_per_minute=600"),
        asTenant
      )
      assert.deepStrictEqual(both.settings, { "guard.level": "strict", "rate.requests_per_minute": 600 })
      const one = yield* Effect.flatMap(set("guard.level=null"), asTenant)
      assert.deepStrictEqual(one.settings, { "rate.requests_per_minute": 600 })
      const wrong = yield* set("rate.requests_per_minute=0", "no.such=1")
      assert.strictEqual(wrong.code, 1)
      assert.match(wrong.stderr, /^InvalidRequest: .*\n$/)
      for (const name of ["rate.requests_per_minute", "no.such"]) assert.include(wrong.stderr, name)
      const text = yield* tenants("settings", slug)
      assert.match(text.stdout, /^rate\.requests_per_minute +600 +tenant$/m)
      assert.match(text.stdout, /^guard\.policy +"flag" +default$/m)
    })
  )

  it.effect("lists all tenants, however many pages they are", () =>
    Effect.gen(function* () {
      const slug = yield* scopedTenant("listed")
      const { superuser: sql } = yield* Programs
      const prefix = freshSlug("many")
      yield* Effect.acquireRelease(
        sql`INSERT INTO shared.tenants (id, slug, name, schema_name, status)
          SELECT gen_random_uuid(), s, 'Many', 'tenant_' || replace(s, '-', '_'), 'active'
          FROM (SELECT ${prefix} || '-' || n AS s FROM generate_series(1, 450) n) slugs`,
        () => Effect.orDie(sql`DELETE FROM shared.tenants WHERE slug LIKE ${`${prefix}-%`}`)
      )
      const [json, text] = yield* Effect.all([tenants("list", "--json"), tenants("list")], { concurrency: 2 })
      const { items } = yield* asList(json)
      const many = items.filter((tenant) => tenant.slug.startsWith(prefix))
      assert.strictEqual(new Set(many.map((tenant) => tenant.id)).size, 450)
      assert.isTrue(items.some((tenant) => tenant.slug === slug))
      assert.deepStrictEqual(Object.keys(yield* asJson(json)), ["items"])
      assert.strictEqual(lines(text.stdout), 1 + items.length)
      // No terminal: no styles, and nothing cut off.
      assert.notInclude(text.stdout, "\u001b")
      assert.include(text.stdout, slug)
    })
  )
})
