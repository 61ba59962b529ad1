import { Context, Effect, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { OpenApi } from "effect/http-api"
import type { HttpApi, HttpApiGroup } from "effect/http-api"
import { createHash } from "node:crypto"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import { encodedETag } from "./ETag.ts"
import { preferredEncoding } from "./Negotiation.ts"

/**
 * Scripts and data from this server alone, and no inline script. Styles are inline: the page's library writes
 * its own, without a nonce.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join("; ")

/** A year: the address of a script changes with its content. */
const IMMUTABLE = "public, max-age=31536000, immutable"

/** May be kept, and is asked for again each time by its ETag. */
const REVALIDATE = "no-cache"

/** Starts the page. Everything in the library that would call its makers is turned off. */
const START = `Scalar.createApiReference("#reference", {
  url: "/openapi.json",
  theme: "default",
  withDefaultFonts: false,
  telemetry: false,
  hideClientButton: true,
  showDeveloperTools: "never"
})
`

/** Why the page cannot be shown; the library is part of effect, under a path that is not public. */
class LibraryMissing extends Schema.TaggedError<LibraryMissing>()("LibraryMissing", {
  cause: Schema.Defect()
}) {}

/** Effect ships the library as a module with one string. Its own page inlines it, which a strict policy forbids. */
const loadLibrary = Effect.tryPromise({
  try: async (): Promise<string> => {
    const page = import.meta.resolve("effect/http-api/HttpApiScalar")
    const { javascript } = await import(new URL("./internal/httpApiScalar.js", page).href)
    return (
      String(javascript)
        // The map it names lies with its publisher.
        .replace(/\n\/\/# sourceMappingURL=.*$/, "\n")
        // A validator in it asks whether it may evaluate strings, which the policy answers with a report.
        .replace(`try{return new Function(""),!0}catch(e){return!1}`, "return!1")
    )
  },
  catch: (cause) => new LibraryMissing({ cause })
})

const compress = promisify(gzip)

interface Asset {
  readonly plain: Uint8Array
  readonly gzipped: Uint8Array
  readonly etag: string
  readonly contentType: string
}

/** A body made once, in both encodings. */
const makeAsset = (text: string, contentType: string): Effect.Effect<Asset> =>
  Effect.promise(async () => {
    const plain = new TextEncoder().encode(text)
    return {
      plain,
      gzipped: await compress(plain),
      etag: createHash("sha256").update(plain).digest("base64url").slice(0, 22),
      contentType
    }
  })

/** Answers with the asset; the face has the 304 for whoever has it already. */
const serve = (asset: Asset, cacheControl: string, headers?: Record<string, string>) =>
  Effect.map(HttpServerRequest.HttpServerRequest, (request) => {
    const zipped = preferredEncoding(request.headers["accept-encoding"], ["gzip"]) !== undefined
    const etag = `"${asset.etag}"`
    const common = { vary: "Accept-Encoding", "cache-control": cacheControl, ...headers }
    return HttpServerResponse.uint8Array(zipped ? asset.gzipped : asset.plain, {
      contentType: asset.contentType,
      headers: zipped
        ? { ...common, etag: encodedETag(etag, "gzip"), "content-encoding": "gzip" }
        : { ...common, etag }
    })
  })

const escape = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

const page = (title: string, library: string, start: string) => `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>${escape(title)}</title>
    <link rel="icon" href="data:," />
  </head>
  <body>
    <div id="reference"></div>
    <script src="/docs/scalar.js?v=${library}"></script>
    <script src="/docs/start.js?v=${start}"></script>
  </body>
</html>
`

/**
 * `GET /openapi.json`, the OpenAPI 3.1 document of the Api, and `GET /docs`, a page that renders it and loads
 * nothing from anywhere else. Both are made on the first request and kept.
 */
export const layer = <Id extends string, Groups extends HttpApiGroup.Constraint>(
  api: HttpApi.HttpApi<Id, Groups>
) =>
  HttpRouter.use(
    Effect.fn(function* (router) {
      const specification = yield* Effect.cached(
        Effect.suspend(() => makeAsset(JSON.stringify(OpenApi.fromApi(api)), "application/json"))
      )
      const library = yield* Effect.cached(
        Effect.flatMap(loadLibrary, (text) => makeAsset(text, "text/javascript; charset=utf-8"))
      )
      const start = yield* Effect.cached(makeAsset(START, "text/javascript; charset=utf-8"))
      const html = yield* Effect.cached(
        Effect.gen(function* () {
          const title = Context.getOrElse(api.annotations, OpenApi.Title, () => api.identifier)
          const text = page(title, (yield* library).etag, (yield* start).etag)
          return yield* makeAsset(text, "text/html; charset=utf-8")
        })
      )

      const get = (path: HttpRouter.PathInput, handler: ReturnType<typeof serve>) =>
        router.add("GET", path, handler)

      yield* get(
        "/openapi.json",
        Effect.flatMap(specification, (asset) => serve(asset, REVALIDATE))
      )
      yield* get(
        "/docs",
        Effect.flatMap(Effect.orDie(html), (asset) =>
          serve(asset, REVALIDATE, { "content-security-policy": POLICY })
        )
      )
      yield* get(
        "/docs/scalar.js",
        Effect.flatMap(Effect.orDie(library), (asset) => serve(asset, IMMUTABLE))
      )
      yield* get(
        "/docs/start.js",
        Effect.flatMap(start, (asset) => serve(asset, IMMUTABLE))
      )
    })
  )
