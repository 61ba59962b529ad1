import { assert, describe, it } from "@effect/vitest"
import { Option, Redacted, Schema } from "effect"
import { formatApiKey, parseApiKey, prefixOf } from "../../src/domain/ApiKey.ts"
import { Environment } from "../../src/domain/Environment.ts"
import { allows, ApiKeyId, Scope } from "../../src/domain/Principal.ts"
import { StorableJson } from "../../src/domain/StorableJson.ts"
import { roleNameOf, schemaNameOf, TenantId, TenantSlug } from "../../src/domain/Tenant.ts"
import { mergePatch } from "../../src/domain/TenantSettings.ts"

const isSlug = Schema.is(TenantSlug)
const isStorable = Schema.is(StorableJson)
/** Everything that a quoted or unquoted identifier of Postgres may be without any quoting. */
const plainIdentifier = /^[a-z_][a-z0-9_]{0,62}$/

describe("slugs", () => {
  it.prop("become identifiers that need no quoting, one to one", [TenantSlug, TenantSlug], ([a, b]) => {
    assert.match(schemaNameOf(a), plainIdentifier)
    assert.strictEqual(schemaNameOf(a) === schemaNameOf(b), a === b)
  })

  it.prop("are nothing but a-z, 0-9 and inner hyphens, whatever is given", [Schema.String], ([text]) => {
    assert.strictEqual(isSlug(text) && !/^[a-z0-9][a-z0-9-]{1,48}[a-z0-9]$/.test(text), false)
  })

  it.prop("never look like an id", [TenantId], ([id]) => {
    assert.isFalse(isSlug(id.toLowerCase()))
  })
})

describe("ids", () => {
  it.prop("become role names that need no quoting, whatever their case", [TenantId], ([id]) => {
    assert.match(roleNameOf(id), /^aa_t_[0-9a-f]{32}$/)
    assert.strictEqual(roleNameOf(id), roleNameOf(TenantId.make(id.toUpperCase())))
  })
})

const Secret = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9]{43}$/))

describe("API keys", () => {
  it.prop(
    "are taken apart as they were put together",
    [Environment, ApiKeyId, TenantId, Secret],
    ([environment, id, tenant, secret]) => {
      const keyId = ApiKeyId.make(id.toLowerCase())
      const tenantId = TenantId.make(tenant.toLowerCase())
      const key = formatApiKey(environment, keyId, tenantId, Redacted.make(secret))
      assert.isTrue(Redacted.value(key).startsWith(prefixOf(environment, keyId)))
      const parsed = Option.getOrThrow(parseApiKey(key))
      assert.deepStrictEqual(
        [parsed.environment, parsed.keyId, parsed.tenantId, Redacted.value(parsed.secret)],
        [environment, keyId, tenantId, secret]
      )
    }
  )

  it.prop("are nothing else", [Schema.String], ([text]) => {
    assert.isTrue(Option.isNone(parseApiKey(Redacted.make(text))))
  })
})

describe("scopes", () => {
  it.prop(
    "allow themselves, and what the wildcard of their group covers",
    [Scope, Scope],
    ([granted, required]) => {
      const group = (scope: string) => scope.slice(0, scope.indexOf(":"))
      const expected = granted === required || (granted.endsWith(":*") && group(granted) === group(required))
      assert.strictEqual(allows([granted], required), expected)
    }
  )
})

const isObject = Schema.is(Schema.Record(Schema.String, Schema.Json))

/** The definition in RFC 7396, section 2, line by line. */
const referencePatch = (target: Schema.Json | undefined, patch: Schema.Json): Schema.Json => {
  if (!isObject(patch)) return patch
  const result = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) result.delete(name)
    else result.set(name, referencePatch(result.get(name), value))
  }
  return Object.fromEntries(result)
}

describe("JSON Merge Patch", () => {
  it("answers the examples of RFC 7396, appendix A", () => {
    const examples: ReadonlyArray<readonly [unknown, unknown, unknown]> = [
      [{ a: "b" }, { a: "c" }, { a: "c" }],
      [{ a: "b" }, { b: "c" }, { a: "b", b: "c" }],
      [{ a: "b" }, { a: null }, {}],
      [{ a: "b", b: "c" }, { a: null }, { b: "c" }],
      [{ a: ["b"] }, { a: "c" }, { a: "c" }],
      [{ a: "c" }, { a: ["b"] }, { a: ["b"] }],
      [{ a: { b: "c" } }, { a: { b: "d", c: null } }, { a: { b: "d" } }],
      [{ a: [{ b: "c" }] }, { a: [1] }, { a: [1] }],
      [
        ["a", "b"],
        ["c", "d"],
        ["c", "d"]
      ],
      [{ a: "b" }, ["c"], ["c"]],
      [{ a: "foo" }, null, null],
      [{ a: "foo" }, "bar", "bar"],
      [{ e: null }, { a: 1 }, { e: null, a: 1 }],
      [[1, 2], { a: "b", c: null }, { a: "b" }],
      [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }]
    ]
    for (const [target, patch, result] of examples) assert.deepStrictEqual(mergePatch(target, patch), result)
  })

  it.prop("is what the RFC defines, for any two documents", [Schema.Json, Schema.Json], ([target, patch]) => {
    assert.deepStrictEqual(mergePatch(target, patch), referencePatch(target, patch))
  })
})

describe("storable JSON", () => {
  it("has no NUL and no half of a surrogate pair, escaped backslashes or not", () => {
    for (const refused of [
      "\u0000",
      "a\u0000",
      "\ud800",
      "x\udfff",
      "\\\u0000",
      ["\u0000"],
      { "\u0000": 1 },
      { a: { b: "\ud83d" } }
    ]) {
      assert.isFalse(isStorable(refused), JSON.stringify(refused))
    }
    for (const kept of ["\\u0000", "\\\\u0000", "\\ud800", "🦄", "", "\u0001", null, { "\\u0000": 1 }]) {
      assert.isTrue(isStorable(kept), JSON.stringify(kept))
    }
  })
})
