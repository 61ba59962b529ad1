import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { clientAddress, parseAddress } from "../../src/domain/ClientAddress.ts"
import { RateLimits } from "../../src/services/RateLimits.ts"
import type { Policy } from "../../src/services/RateLimits.ts"
import { Redis } from "../../src/services/Redis.ts"

const policy = (key: string, limit: number): Policy => ({
  name: key,
  key: `p:${key}`,
  limit,
  windowSeconds: 60
})
const alone = RateLimits.layer.pipe(Layer.provide(Redis.layerAbsent))

describe("limits without Redis", () => {
  it.effect("refuse what is beyond them until the window has passed", () =>
    Effect.gen(function* () {
      const limits = yield* RateLimits
      const three = policy("three", 3)
      for (const remaining of [2, 1, 0]) {
        const { allowed, quotas } = yield* limits.charge([three])
        assert.isTrue(allowed)
        assert.strictEqual(quotas[0]?.remaining, remaining)
      }
      const refused = yield* limits.charge([three])
      assert.deepStrictEqual([refused.allowed, refused.retryAfterSeconds], [false, 60])
      assert.isDefined(yield* limits.refused(three))
      yield* TestClock.adjust("59 seconds")
      assert.isFalse((yield* limits.charge([three])).allowed)
      yield* TestClock.adjust("1 seconds")
      assert.isTrue((yield* limits.charge([three])).allowed)
    }).pipe(Effect.provide(alone))
  )

  it.effect("charge all policies or none, and give back", () =>
    Effect.gen(function* () {
      const limits = yield* RateLimits
      const [one, ten] = [policy("one", 1), policy("ten", 10)]
      yield* limits.charge([one, ten])
      for (let index = 0; index < 5; index++) assert.isFalse((yield* limits.charge([one, ten])).allowed)
      const left = (yield* limits.charge([ten])).quotas[0]?.remaining
      assert.strictEqual(left, 8)
      yield* limits.refund([ten])
      yield* limits.refund([ten])
      assert.strictEqual((yield* limits.charge([ten])).quotas[0]?.remaining, 9)
      yield* limits.reset(one)
      assert.isTrue((yield* limits.charge([one])).allowed)
    }).pipe(Effect.provide(alone))
  )

  it.effect("follow a limit that is changed", () =>
    Effect.gen(function* () {
      const limits = yield* RateLimits
      yield* limits.charge([policy("k", 1)])
      assert.isFalse((yield* limits.charge([policy("k", 1)])).allowed)
      assert.isTrue((yield* limits.charge([policy("k", 2)])).allowed)
    }).pipe(Effect.provide(alone))
  )
})

describe("a client's address", () => {
  it("is the peer's, whatever the header says, but for the platform's own last word", () => {
    assert.deepStrictEqual(clientAddress("203.0.113.7", "198.51.100.1", false), {
      address: "203.0.113.7",
      shared: false
    })
    assert.deepStrictEqual(clientAddress("169.254.1.1", "198.51.100.1, 203.0.113.7", true), {
      address: "203.0.113.7",
      shared: false
    })
    assert.deepStrictEqual(clientAddress("169.254.1.1", undefined, true), {
      address: "169.254.1.1",
      shared: true
    })
  })

  it("is a network of IPv6, and IPv4 behind an IPv6 socket", () => {
    assert.strictEqual(parseAddress("2001:db8:1:2:3:4:5:6").address, parseAddress("2001:0db8:1:2::9").address)
    assert.notStrictEqual(parseAddress("2001:db8:1:2::1").address, parseAddress("2001:db8:1:3::1").address)
    assert.deepStrictEqual(parseAddress("::ffff:203.0.113.7"), { address: "203.0.113.7", shared: false })
    for (const own of [
      "127.0.0.1",
      "::1",
      "10.1.2.3",
      "172.31.0.1",
      "192.168.0.1",
      "fd00::1",
      "fe80::1%eth0",
      "x"
    ]) {
      assert.isTrue(parseAddress(own).shared, own)
    }
  })
})
