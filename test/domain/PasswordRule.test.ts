import { assert, describe, it } from "@effect/vitest"
import { Option, Redacted, Schema } from "effect"
import { commonPasswords } from "../../src/domain/commonPasswords.ts"
import { whyRefused } from "../../src/domain/PasswordRule.ts"
import { SessionId } from "../../src/domain/Principal.ts"
import { formatRefreshToken, parseRefreshToken } from "../../src/domain/RefreshToken.ts"
import { TenantId } from "../../src/domain/Tenant.ts"
import { namesOf, NewPassword } from "../../src/domain/User.ts"
import { TenantSlug } from "../../src/domain/Tenant.ts"

const isPassword = Schema.is(NewPassword)

describe("passwords", () => {
  it("that are guessed first are refused, in any case and with digits and signs around them", () => {
    const refused = [
      ...commonPasswords,
      "1QAZ2WSX3EDC",
      "Administrator2024!",
      "password12345!!",
      "Password-Password",
      "P.a.s.s.w.o.r.d.1.2.3",
      "welcome!!!2026",
      "aaaaaaaaaaaaaaaa",
      "abcabcabcabca",
      "12345678901234",
      "0987654321098",
      "abcdefghijklmnop",
      "qwertyuiopas",
      "mnbvcxzlkjhg",
      "................"
    ]
    assert.isAbove(commonPasswords.size, 300)
    for (const password of refused) assert.isFalse(isPassword(password), password)
  })

  it("that need more than 12 and fewer than 1025 characters have them", () => {
    const long = Array.from({ length: 1025 }, (_, index) =>
      String.fromCodePoint(97 + ((index * index) % 23))
    ).join("")
    assert.isTrue(isPassword(`x9${long.slice(0, 1022)}`))
    assert.isFalse(isPassword(long))
    assert.isFalse(isPassword("elevenchars"))
  })

  it("of words that nobody else has put together are taken", () => {
    for (const password of [
      "correct horse battery",
      "staple a purple giraffe",
      "über die blaue Brücke",
      "密码是很长的一句话没有人知道"
    ]) {
      assert.isTrue(isPassword(password), password)
    }
  })

  it("are not made of the names that others know", () => {
    const names = namesOf(TenantSlug.make("sky-vera"), "Ada.Lovelace@skyvera.example")
    for (const password of [
      "Sky-Vera-2026!",
      "skyvera skyvera1",
      "ada.lovelace99",
      "AdaLovelace-SkyVera",
      "ada.lovelace@skyvera.example"
    ]) {
      assert.isDefined(whyRefused(password, names), password)
    }
    assert.isUndefined(whyRefused("correct horse skyvera", names))
    assert.isUndefined(
      whyRefused("bo knows much more than that", namesOf(TenantSlug.make("abc"), "bo@x.example"))
    )
  })
})

const Secret = Schema.String.check(Schema.isPattern(/^[A-Za-z0-9_-]{43}$/))

describe("refresh tokens", () => {
  it.prop(
    "are taken apart as they were put together",
    [SessionId, TenantId, Secret, Secret],
    ([session, tenant, family, secret]) => {
      const token = formatRefreshToken({
        sessionId: session,
        tenantId: tenant,
        family: Redacted.make(family),
        secret: Redacted.make(secret)
      })
      const parsed = Option.getOrThrow(parseRefreshToken(token))
      assert.deepStrictEqual(
        [parsed.sessionId, parsed.tenantId, Redacted.value(parsed.family), Redacted.value(parsed.secret)].map(
          String
        ),
        [session.toLowerCase(), tenant.toLowerCase(), family, secret]
      )
    }
  )

  it.prop("are nothing else", [Schema.String], ([text]) => {
    assert.isTrue(Option.isNone(parseRefreshToken(Redacted.make(text))))
  })
})
