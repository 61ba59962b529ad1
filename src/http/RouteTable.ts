import { FindMyWay, HttpMethod, HttpRouter } from "effect/http"

/** The routes of a router, by method and path. The router itself does not tell which methods a path has. */
export interface RouteTable<A> {
  readonly add: (method: string, path: HttpRouter.PathInput) => void
  /** What a request is going to match: a GET route answers HEAD too (RFC 9110, 9.3.2). */
  readonly find: (method: string, url: string) => A | undefined
  /** The methods a path can be called with, for `Allow` (RFC 9110, 10.2.1); empty for an unknown path. */
  readonly methods: (url: string) => ReadonlyArray<string>
}

/** A table with the matching rules of the router beside it. `describe` makes an entry, once per route. */
export const make = <A>(
  config: Partial<FindMyWay.RouterConfig>,
  describe: (method: string, template: string) => A
): RouteTable<A> => {
  const routes = FindMyWay.make<A>(config)
  return {
    add: (method, path) => {
      const entry = describe(method, path)
      const on = (path: HttpRouter.PathInput) =>
        method === "*" ? routes.all(path, entry) : routes.on(method, path, entry)
      on(path)
      // The router answers `/files` by the route `/files/*` as well.
      if (path.endsWith("/*") && path !== "/*") {
        on(`/${path.slice(1, -2)}`)
      }
    },
    find: (method, url) =>
      (routes.find(method, url) ?? (method === "HEAD" ? routes.find("GET", url) : undefined))?.handler,
    methods: (url) => {
      const found = new Set<string>()
      for (const method of HttpMethod.all) {
        if (routes.find(method, url) !== undefined) found.add(method)
      }
      if (found.size === 0) return []
      if (found.has("GET")) found.add("HEAD")
      return [...found.add("OPTIONS")].toSorted()
    }
  }
}

/** The same router, writing every route that is added to it into the table. */
export const recording = <A>(
  router: HttpRouter.HttpRouter,
  table: RouteTable<A>,
  prefix = ""
): HttpRouter.HttpRouter => {
  const record = (method: string, path: HttpRouter.PathInput) => {
    const full = prefix === "" ? path : HttpRouter.prefixPath(path, prefix)
    table.add(method, full === "*" ? full : `/${full.replace(/^\//, "")}`)
  }
  return HttpRouter.HttpRouter.of({
    ...router,
    add: (method, path, handler, options) => {
      record(method, path)
      return router.add(method, path, handler, options)
    },
    addAll: (routes) => {
      for (const route of routes) record(route.method, route.path)
      return router.addAll(routes)
    },
    prefixed: (next) =>
      recording(router.prefixed(next), table, prefix === "" ? next : HttpRouter.prefixPath(next, prefix))
  })
}
