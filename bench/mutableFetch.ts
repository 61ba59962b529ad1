// Loaded before Portkey's gateway, which changes headers of a streamed answer that newer versions of Node let nobody change:
// without it, each of its streams is a 500.
//
// @effect-diagnostics globalFetch:off -- it is what that gateway calls.
const own = globalThis.fetch
globalThis.fetch = async (...given) => {
  const { body, headers, status } = await own(...given)
  return new Response(body, { status, headers: new Headers(headers) })
}
