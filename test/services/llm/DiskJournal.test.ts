import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Layer, Schema, Scope } from "effect"
import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { inject } from "vitest"
import { noUsage } from "../../../src/services/llm/Attempt.ts"
import { DiskJournal } from "../../../src/services/llm/DiskJournal.ts"
import { UsageJournal } from "../../../src/services/llm/UsageJournal.ts"
import type { Closing, Opening } from "../../../src/services/llm/UsageEntry.ts"

const opening = (id: string, members: Partial<Opening> = {}): Opening => ({
  id,
  tenant: { id: "0190c9a0-1111-7aaa-8bbb-123456789abc", schema: "tenant_acme" },
  openedAt: 1_700_000_000_000,
  operation: "chat",
  asked: "reasoning",
  provider: "openai",
  model: "mock",
  requestId: null,
  keyId: null,
  retry: 0,
  streamed: true,
  resumed: false,
  ownKey: false,
  metadata: {},
  estimatedInput: 12,
  reached: 256,
  price: { input: "1", output: "2" },
  ...members
})

const closing = (output: number): Closing => ({
  status: "ok",
  fault: null,
  httpStatus: 200,
  usage: { ...noUsage, input: 10, output },
  estimated: false,
  cost: "0.1",
  latencyMillis: 5,
  firstTokenMillis: 2,
  providerRequestId: "req_1"
})

const folderFor = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(inject("servers").folder, "journal-"))),
  (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
)

/** A journal in a scope of the caller's own. */
const journalAt = (root: string) =>
  Effect.map(Layer.build(DiskJournal(root)), (context) => Context.get(context, UsageJournal))

const foldersIn = (root: string) =>
  readdirSync(root).filter((name) => statSync(join(root, name)).isDirectory())

/** A process id that nobody has. */
const NOBODY = 2_147_483_000

/** What is left of an instance that dies at this moment: a copy of its folder, under the name of another process. */
const killed = (root: string) => {
  const after = `${root}-after`
  rmSync(after, { recursive: true, force: true })
  cpSync(root, after, { recursive: true })
  for (const name of foldersIn(after)) renameSync(join(after, name), join(after, `${NOBODY}-${name}`))
  return after
}

const found = Effect.fnUntraced(function* (root: string) {
  const journal = yield* journalAt(root)
  return yield* journal.adopt
})

const Act = Schema.Struct({
  act: Schema.Literals(["open", "reach", "close", "settle"]),
  who: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 7 })),
  tokens: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 5_000 }))
})

describe("what an instance leaves that dies", () => {
  it.live.prop(
    "is one row for each attempt, whatever had happened to it",
    { acts: Schema.Array(Act), torn: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 })) },
    ({ acts, torn }) =>
      Effect.gen(function* () {
        const root = yield* folderFor
        const journal = yield* journalAt(root)
        const states = new Map<number, { state: "open" | "closed" | "settled"; output: number }>()
        for (const { act, tokens, who } of acts) {
          const attempt = states.get(who)
          const id = String(who)
          if (act === "open" && attempt === undefined) {
            yield* journal.open(opening(id))
            states.set(who, { state: "open", output: 256 })
          }
          if (attempt === undefined) continue
          if (act === "reach" && attempt.state === "open") {
            journal.reach(id, tokens)
            attempt.output = Math.max(attempt.output, tokens)
          }
          if (act === "close" && attempt.state === "open") {
            yield* journal.close(id, closing(tokens))
            Object.assign(attempt, { state: "closed", output: tokens })
          }
          if (act === "settle" && attempt.state === "closed") {
            yield* journal.settle([id])
            attempt.state = "settled"
          }
        }
        const after = killed(root)
        // The disk has the last line in part only.
        for (const name of foldersIn(after)) {
          for (const file of readdirSync(join(after, name)).filter((file) => file.endsWith(".ndjson"))) {
            appendFileSync(join(after, name, file), `{"opened":{"id":"torn","tenant":{}}`.slice(0, torn))
          }
        }
        const rows = yield* found(after)
        rmSync(after, { recursive: true, force: true })
        assert.strictEqual(new Set(rows.map(({ id }) => id)).size, rows.length)
        for (const [who, { output, state }] of states) {
          const row = rows.find(({ id }) => id === String(who))
          // What is settled is in the database already: a second time changes nothing.
          if (state === "settled") continue
          assert.strictEqual(row?.status, state === "open" ? "crashed" : "ok")
          assert.strictEqual(row?.estimated, state === "open")
          assert.strictEqual(row?.usage.output, output)
          if (state === "open")
            assert.deepInclude(row, { cost: costOf(12, output), fault: "The process ended" })
        }
      }).pipe(Effect.scoped)
  )

  const costOf = (input: number, output: number) => String((input + 2 * output) / 1_000_000)

  it.live("is given to one of those who look for it, and to the next where that one dies too", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const journal = yield* journalAt(root)
      for (const id of ["a", "b", "c"]) yield* journal.open(opening(id))
      yield* journal.close("b", closing(7))
      const after = killed(root)
      const rows = yield* Effect.all(
        Array.from({ length: 5 }, () => found(after)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(rows.map(({ length }) => length).toSorted(), [0, 0, 0, 0, 3])
      // None was settled: who took them over dies as well.
      const later = killed(after)
      assert.lengthOf(yield* found(later), 3)
      rmSync(later, { recursive: true, force: true })
      rmSync(after, { recursive: true, force: true })
    }).pipe(Effect.scoped)
  )

  it.live("is forgotten once it is settled", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const journal = yield* journalAt(root)
      yield* journal.open(opening("a"))
      yield* journal.open(opening("b"))
      const after = killed(root)
      const scope = yield* Scope.make()
      const heir = yield* Scope.provide(journalAt(after), scope)
      assert.lengthOf(yield* heir.adopt, 2)
      yield* heir.settle(["a"])
      assert.lengthOf(foldersIn(after), 2)
      yield* heir.settle(["b"])
      yield* Scope.close(scope, Exit.void)
      assert.lengthOf(foldersIn(after), 0)
      rmSync(after, { recursive: true, force: true })
    }).pipe(Effect.scoped)
  )
})

describe("what an instance has that lives", () => {
  it.live("is nobody else's, also with the same process id", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const journal = yield* journalAt(root)
      yield* journal.open(opening("a"))
      assert.lengthOf(yield* Effect.scoped(found(root)), 0)
      assert.lengthOf(yield* journal.adopt, 0)
      // Not known to be dead: somebody else's machine, who showed itself just now.
      const elsewhere = join(root, `${NOBODY}-elsewhere`)
      const after = killed(root)
      const [copy = ""] = foldersIn(after)
      renameSync(join(after, copy), elsewhere)
      const alive = join(elsewhere, "alive")
      writeFileSync(alive, JSON.stringify({ pid: NOBODY, namespace: "another machine" }))
      assert.lengthOf(yield* journal.adopt, 0)
      const longAgo = statSync(alive).mtimeMs / 1000 - 61
      utimesSync(alive, longAgo, longAgo)
      assert.lengthOf(yield* journal.adopt, 1)
      rmSync(after, { recursive: true, force: true })
    }).pipe(Effect.scoped)
  )

  it.live("takes no more room than what is not settled, and none after the end", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const scope = yield* Scope.make()
      const journal = yield* Scope.provide(journalAt(root), scope)
      const metadata = { note: "x".repeat(4_000) }
      const [folder = ""] = foldersIn(root)
      const segments = () => readdirSync(join(root, folder)).filter((name) => name.endsWith(".ndjson"))
      yield* journal.open(opening("long"))
      for (let index = 0; index < 5_000; index++) {
        yield* journal.open(opening(String(index), { metadata }))
        yield* journal.close(String(index), closing(1))
        yield* journal.settle([String(index)])
      }
      // 20 MB went through: the first segment is held by the long one, the last is written to.
      assert.lengthOf(segments(), 2)
      yield* journal.close("long", closing(1))
      assert.deepStrictEqual(
        (yield* journal.unsettled).map(({ id }) => id),
        ["long"]
      )
      yield* journal.settle(["long"])
      assert.lengthOf(segments(), 1)
      yield* Scope.close(scope, Exit.void)
      assert.lengthOf(foldersIn(root), 0)
    }).pipe(Effect.scoped)
  )

  it.live("stays where it is not settled at the end", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      yield* Effect.scoped(
        Effect.flatMap(journalAt(root), (journal) =>
          Effect.andThen(journal.open(opening("a")), journal.close("a", closing(3)))
        )
      )
      const rows = yield* found(root)
      assert.deepStrictEqual(
        rows.map(({ id, usage }) => [id, usage.output]),
        [["a", 3]]
      )
    }).pipe(Effect.scoped)
  )

  it.live("can be read by its owner alone", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const journal = yield* journalAt(root)
      yield* journal.open(opening("a"))
      const [folder = ""] = foldersIn(root)
      assert.strictEqual(statSync(join(root, folder)).mode & 0o777, 0o700)
      for (const name of readdirSync(join(root, folder))) {
        assert.strictEqual(statSync(join(root, folder, name)).mode & 0o777, 0o600, name)
      }
    }).pipe(Effect.scoped)
  )

  it.live("fails no call where nothing can be written", () =>
    Effect.gen(function* () {
      const root = yield* folderFor
      const file = join(root, "file")
      writeFileSync(file, "")
      const journal = yield* journalAt(join(file, "journal"))
      yield* journal.open(opening("a"))
      journal.reach("a", 300)
      yield* journal.close("a", closing(3))
      yield* journal.settle(["a"])
      assert.lengthOf(yield* journal.adopt, 0)
    }).pipe(Effect.scoped)
  )
})
