/** Where a request comes from, as far as it can be told. */
export interface ClientAddress {
  /** An IPv4 address, or the /64 that an IPv6 address belongs to: who has one address of it has them all. */
  readonly address: string
  /** Many clients may stand behind it: a private peer is most likely a proxy of the operator's own. */
  readonly shared: boolean
}

const ipv4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/

/** Loopback, private (RFC 1918), link-local (RFC 3927) and shared (RFC 6598) addresses. */
const isPrivateIpv4 = (first: number, second: number): boolean =>
  first === 127 ||
  first === 10 ||
  (first === 172 && second >= 16 && second <= 31) ||
  (first === 192 && second === 168) ||
  (first === 169 && second === 254) ||
  (first === 100 && second >= 64 && second <= 127)

/** The first four groups of an IPv6 address, with `::` written out. */
const network64 = (address: string): string => {
  const [head = "", tail] = address.split("::")
  const groups = head === "" ? [] : head.split(":")
  if (tail !== undefined) {
    const rest = tail === "" ? [] : tail.split(":")
    while (groups.length + rest.length < 8) groups.push("0")
    groups.push(...rest)
  }
  return groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")
}

/** A peer's address, as a socket tells it. */
export const parseAddress = (text: string): ClientAddress => {
  // The zone of a link-local address, and IPv4 as IPv6 sockets see it (RFC 4291, 2.5.5.2).
  const address = text
    .toLowerCase()
    .replace(/%.*$/, "")
    .replace(/^::ffff:(?=\d+\.)/, "")
  const parts = ipv4.exec(address)
  if (parts !== null) return { address, shared: isPrivateIpv4(Number(parts[1]), Number(parts[2])) }
  if (!/^[0-9a-f:]+$/.test(address)) return { address: "unknown", shared: true }
  // Loopback, unique local (RFC 4193) and link-local.
  const shared = address === "::1" || /^f[cd]/.test(address) || /^fe[89ab]/.test(address)
  return { address: `${network64(address)}::/64`, shared }
}

/**
 * The client's address: the socket's peer. `X-Forwarded-For` is anybody's to write, so that believing it would give each
 * guess an address of its own. Only where the platform itself appends the last element (Cloud Run does, and no
 * request reaches the process by another way) that last one is believed; never one before it.
 */
export const clientAddress = (
  peer: string | undefined,
  forwardedFor: string | undefined,
  platformForwards: boolean
): ClientAddress => {
  const last = platformForwards ? forwardedFor?.split(",").at(-1)?.trim() : undefined
  return parseAddress(last === undefined || last === "" ? (peer ?? "unknown") : last)
}
