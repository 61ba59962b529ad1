import { Schema } from "effect"

export const DEFAULT_LIMIT = 50
export const MAX_LIMIT = 200

/** One page of a list: what stands behind `after` in the list's order, `limit` items at most. */
export interface PageRequest {
  readonly after: string | undefined
  readonly limit: number
}

export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Where the next page begins; `null` at the end. Stable under inserts, since it names a place, not a count. */
  readonly next_cursor: string | null
}

/** A cursor as clients see it: opaque, base64url (RFC 4648, 5). It holds a place in the order, and no secret. */
export const Cursor = Schema.StringFromBase64Url.check(Schema.isMinLength(1), Schema.isMaxLength(200))

const limit = Schema.optionalKey(
  Schema.NumberFromString.check(
    Schema.isInt(),
    Schema.isGreaterThanOrEqualTo(1),
    Schema.isLessThanOrEqualTo(MAX_LIMIT)
  )
)

/** `?limit=` and `?cursor=` of a list. */
export const pageQuery = { limit, cursor: Schema.optionalKey(Cursor) }

/** The same for a list in the order of its ids. */
export const pageByIdQuery = { limit, cursor: Schema.optionalKey(Cursor.check(Schema.isUUID())) }

export const pageRequest = (query: { readonly limit?: number; readonly cursor?: string }): PageRequest => ({
  after: query.cursor,
  limit: query.limit ?? DEFAULT_LIMIT
})

export const pageSchema = <S extends Schema.Top>(item: S) =>
  Schema.Struct({ items: Schema.Array(item), next_cursor: Schema.NullOr(Schema.String) })

const encodeCursor = Schema.encodeSync(Cursor)

/** Makes a page of `limit + 1` items read: the one too many tells that there is more. */
export const pageOf = <A>(items: ReadonlyArray<A>, limit: number, place: (item: A) => string): Page<A> => {
  const shown = items.slice(0, limit)
  const last = shown.at(-1)
  return {
    items: shown,
    next_cursor: items.length > limit && last !== undefined ? encodeCursor(place(last)) : null
  }
}
