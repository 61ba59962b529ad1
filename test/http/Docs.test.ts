// The documentation, as bytes; a browser is not needed to see what it may load.
import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { serveLab } from "./fixtures/Lab.ts"
import { json, Wire } from "./fixtures/Wire.ts"

const text = (response: Response) => Effect.promise(() => response.text())

layer(Wire.layer.pipe(Layer.provideMerge(serveLab())), { excludeTestServices: true })("Docs", (it) => {
  it.effect("serves the Api's document as OpenAPI 3.1, with the problems every endpoint can answer", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const response = yield* wire.fetch("/openapi.json")
      assert.strictEqual(response.headers.get("content-type"), "application/json")
      const document = yield* json(response)
      assert.match(document.openapi, /^3\.1\./)
      const { responses } = document.paths["/things"].post
      assert.includeMembers(Object.keys(responses), ["201", "400", "408", "413", "415", "500", "503"])
      assert.property(responses["400"].content, "application/problem+json")
    })
  )

  it.effect("answers 304 to whoever has it", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const etag = (yield* wire.fetch("/openapi.json")).headers.get("etag") ?? ""
      const again = yield* wire.fetch("/openapi.json", { headers: { "if-none-match": `"other", ${etag}` } })
      assert.strictEqual(again.status, 304)
      assert.strictEqual(yield* text(again), "")
      assert.strictEqual(again.headers.get("etag"), etag)
    })
  )

  it.effect("serves a page that loads nothing from elsewhere and has no inline script", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const response = yield* wire.fetch("/docs")
      const policy = response.headers.get("content-security-policy") ?? ""
      assert.match(policy, /^default-src 'none'; script-src 'self';/)
      assert.notMatch(policy, /script-src[^;]*unsafe/)
      assert.notMatch(policy, /https?:|\*/)
      assert.match(policy, /frame-ancestors 'none'/)
      const html = yield* text(response)
      assert.notMatch(html, /(?:src|href)="(?:https?:)?\/\//)
      assert.notMatch(html, /<script(?![^>]* src="\/docs\/)/)
      assert.notMatch(html, /\son[a-z]+=/)
    })
  )

  it.effect("serves its scripts compressed, to be kept for good under an address of their own", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const html = yield* text(yield* wire.fetch("/docs"))
      const paths = [...html.matchAll(/src="([^"]+)"/g)].map(([, path]) => path ?? "")
      assert.strictEqual(paths.length, 2)
      for (const path of paths) {
        const plain = yield* wire.fetch(path, { headers: { "accept-encoding": "identity" } })
        assert.isNull(plain.headers.get("content-encoding"))
        assert.match(plain.headers.get("content-type") ?? "", /^text\/javascript/)
        assert.strictEqual(plain.headers.get("cache-control"), "public, max-age=31536000, immutable")
        const script = yield* text(plain)
        const zipped = yield* wire.raw([
          `GET ${path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: br;q=1.0, gzip;q=0.8\r\nConnection: close\r\n\r\n`
        ])
        assert.match(zipped.text, /content-encoding: gzip/i)
        assert.notInclude(script, "sourceMappingURL")
        assert.notInclude(script, "new Function(")
        const refused = yield* wire.fetch(path, { headers: { "accept-encoding": "gzip;q=0, identity" } })
        assert.isNull(refused.headers.get("content-encoding"))
        const unzipped = yield* wire.fetch(path, { headers: { "accept-encoding": "gzip" } })
        assert.strictEqual(yield* text(unzipped), script)
      }
    })
  )

  it.effect("starts the page without fonts, telemetry or a proxy of anyone else", () =>
    Effect.gen(function* () {
      const wire = yield* Wire
      const start = yield* text(yield* wire.fetch("/docs/start.js"))
      assert.include(start, "telemetry: false")
      assert.include(start, "withDefaultFonts: false")
      assert.notMatch(start, /https?:/)
    })
  )
})
