// Two instances, and Redis and Postgres between them. What one is told holds on the other within a second.
import { assert, layer } from "@effect/vitest"
import { Clock, Duration, Effect } from "effect"
import { eventually } from "../support/Eventually.ts"
import { onRealClock, startServer, TestApp } from "../support/Platform.ts"
import { credentialsOf, send } from "../support/RawHttp.ts"
import type { Call } from "../support/RawHttp.ts"
import { operator, provisionTenant } from "../support/Tenants.ts"

const WITHIN = Duration.seconds(1)

const read: Call = { method: "GET", path: "/api/v1/records/notes" }

layer(TestApp, onRealClock)("On another instance", (it) => {
  it.effect("a suspension, and its end, hold within a second, for every credential", () =>
    Effect.gen(function* () {
      const second = yield* startServer()
      const tenant = yield* provisionTenant("skyvera")
      const bystander = yield* provisionTenant("jigtree")
      const control = yield* operator
      const params = { tenant: tenant.slug }

      for (const [credential, headers] of Object.entries(credentialsOf(tenant))) {
        const ask = send({ ...read, headers }, second.url)
        /** How long after the operator's answer it takes until the other instance answers so, and goes on to. */
        const timeUntil = Effect.fnUntraced(function* (status: number) {
          const told = yield* Clock.currentTimeMillis
          yield* eventually(
            `${credential} is answered with ${status}`,
            ask,
            (answer) => answer.status === status
          )
          const took = (yield* Clock.currentTimeMillis) - told
          for (let again = 0; again < 5; again++) assert.strictEqual((yield* ask).status, status, credential)
          return took
        })

        // The other instance knows the tenant, and believes what it knows.
        assert.strictEqual((yield* ask).status, 200, credential)
        yield* control.tenants.suspend({ params })
        assert.isBelow(yield* timeUntil(403), Duration.toMillis(WITHIN), credential)
        assert.include((yield* ask).text, `"code":"TenantSuspended"`)
        yield* control.tenants.activate({ params })
        assert.isBelow(yield* timeUntil(200), Duration.toMillis(WITHIN), credential)
      }
      const answer = yield* send(
        { ...read, headers: credentialsOf(bystander)["access token"] ?? {} },
        second.url
      )
      assert.strictEqual(answer.status, 200)
    })
  )

  it.effect("a suspended tenant's people can't sign in, and are told so only if they know the password", () =>
    Effect.gen(function* () {
      const second = yield* startServer()
      const tenant = yield* provisionTenant("skyvera")
      const control = yield* operator
      const signIn = (password: string) =>
        send(
          {
            method: "POST",
            path: "/api/v1/auth/login",
            headers: { "x-tenant-id": tenant.slug },
            body: { email: tenant.email, password }
          },
          second.url
        )
      assert.strictEqual((yield* signIn(tenant.password)).status, 200)
      yield* control.tenants.suspend({ params: { tenant: tenant.id } })
      const refused = yield* eventually(
        "the other instance knows",
        signIn(tenant.password),
        ({ status }) => status === 403,
        WITHIN
      )
      assert.include(refused.text, `"code":"TenantSuspended"`)
      const wrong = yield* signIn("not the password at all")
      assert.strictEqual(wrong.status, 401)
      assert.include(wrong.text, `"code":"InvalidCredentials"`)
    })
  )
})
