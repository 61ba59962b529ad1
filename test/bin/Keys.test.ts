import { assert, layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { OperatorKey } from "../../src/domain/OperatorKey.ts"
import { RotatedKey } from "../../src/domain/PlatformKey.ts"
import { onRealClock } from "../support/Platform.ts"
import { document, Programs, runProgram } from "../support/Programs.ts"

const keys = (...args: ReadonlyArray<string>) => runProgram("keys", args)

const asMade = document(Schema.Struct({ ...OperatorKey.fields, key: Schema.String }))
const asList = document(Schema.Struct({ items: Schema.Array(OperatorKey) }))
const asRotated = document(RotatedKey)

layer(Programs.layer, onRealClock)("bin/keys", (it) => {
  it.effect("makes an operator key, shows it once, lists it without, and revokes it", () =>
    Effect.gen(function* () {
      const { superuser: sql } = yield* Programs
      const outcome = yield* keys("operator", "create", "--name", "maria", "--json")
      assert.strictEqual(outcome.stderr, "")
      const made = yield* asMade(outcome)
      assert.match(made.key, /^aa_op_[0-9a-f]{32}_[A-Za-z0-9]{43}$/)
      const taken = yield* keys("operator", "create", "--name", "maria")
      assert.deepStrictEqual([taken.code, taken.stdout], [1, ""])
      assert.match(taken.stderr, /^Conflict: /)

      const listed = yield* keys("operator", "list", "--json")
      assert.notInclude(listed.stdout, made.key.slice(-43))
      assert.deepStrictEqual(
        (yield* asList(listed)).items.map(({ id, name }) => ({ id, name })),
        [{ id: made.id, name: "maria" }]
      )
      assert.strictEqual((yield* keys("operator", "revoke", "maria")).code, 0)
      const gone = yield* keys("operator", "revoke", "maria")
      assert.match(gone.stderr, /^NotFound: /)
      const acts = yield* sql<{ action: string; actor: string }>`
        SELECT action, actor ->> 'name' AS actor FROM shared.audit_log ORDER BY seq`
      assert.deepStrictEqual(acts, [
        { action: "operator_key.created", actor: "command line" },
        { action: "operator_key.revoked", actor: "command line" }
      ])
    })
  )

  it.effect("rotates signing and claim keys, and says what is wrong with a wrong call", () =>
    Effect.gen(function* () {
      for (const kind of ["signing", "claim"]) {
        const rotated = yield* asRotated(yield* keys("rotate", kind, "--json"))
        assert.strictEqual(rotated.rotated, kind)
        assert.notStrictEqual(rotated.kid, rotated.previous_kid)
      }
      const wrong = yield* keys("rotate", "singing")
      assert.deepStrictEqual([wrong.code, wrong.stdout], [2, ""])
      assert.include(wrong.stderr, "Did you mean signing")
    })
  )
})
