// The documentation in a real Chromium: Debian's (`apt-get install chromium`), or the one that CHROMIUM names.
import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { chromium } from "playwright-core"
import { member, send } from "../support/Http.ts"
import { onRealClock, TestApp, TestServer } from "../support/Platform.ts"

/** A browser for the test. Without its own sandbox, which cannot be had as root; it opens nothing but our pages. */
const browser = Effect.acquireRelease(
  Effect.promise(() =>
    chromium.launch({
      executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-dev-shm-usage"]
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)

layer(TestApp, onRealClock)("/docs in a browser", (it) => {
  it.effect("shows every endpoint, breaks no policy and asks nobody else", () =>
    Effect.gen(function* () {
      const { url } = yield* TestServer
      const { json } = yield* send("/openapi.json")
      const page = yield* Effect.flatMap(browser, (browser) => Effect.promise(() => browser.newPage()))
      const asked: Array<string> = []
      const complaints: Array<string> = []
      page.on("request", (request) => asked.push(request.url()))
      page.on("pageerror", (error) => complaints.push(String(error)))
      page.on("console", (message) => {
        if (message.type() === "error" || message.text().includes("Content Security Policy")) {
          complaints.push(message.text())
        }
      })
      yield* Effect.promise(() =>
        page.addInitScript(`document.addEventListener("securitypolicyviolation", (event) =>
          console.error("Violated: " + event.violatedDirective + " " + event.blockedURI))`)
      )
      yield* Effect.promise(() => page.goto(`${url}/docs`))
      yield* Effect.promise(async () => page.setDefaultTimeout(10_000))

      // Every operation stands beside the page, once the group it is in is open.
      const openGroup = page.getByRole("button", { name: "Open Group" })
      yield* Effect.promise(() => openGroup.first().waitFor())
      yield* Effect.promise(async () => {
        while ((await openGroup.count()) > 0) await openGroup.first().click()
      })
      for (const item of Object.values(Object(member(json, "paths")))) {
        for (const operation of Object.values(Object(item))) {
          const { summary } = Object(operation)
          yield* Effect.promise(() => page.getByText(summary).first().waitFor({ state: "attached" }))
        }
      }

      assert.deepStrictEqual(complaints, [])
      assert.isNotEmpty(asked)
      for (const address of asked) {
        assert.isTrue(address.startsWith(`${url}/`) || address.startsWith("data:"), address)
      }
    })
  )
})
