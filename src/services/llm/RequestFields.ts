import { Result, Schema } from "effect"
import { invalidFields } from "../../domain/InvalidFields.ts"
import { InvalidRequest } from "../../domain/Problems.ts"
import type { InvalidField } from "../../domain/Problems.ts"
import type { Conversation } from "./Codec.ts"

type Path = ReadonlyArray<string | number>

/** Reads a request field by field and remembers what was wrong with each, as `InvalidFields` would tell it. */
export interface RequestFields {
  /** Undefined where the schema refuses, which is then told with the path. */
  readonly read: <A>(schema: Schema.Decoder<A>, value: unknown, path: Path) => A | undefined
  readonly refuse: (path: Path, message: string) => void
  /** What is right, and no other dialect can say. */
  readonly untranslatable: (path: Path, what: string) => void
  /** The conversation, unless anything was refused. */
  readonly result: (conversation: Conversation) => Result.Result<Conversation, InvalidRequest>
  /** What was refused, where there was too little to make a conversation of. */
  readonly refused: () => Result.Result<never, InvalidRequest>
}

/** Problems list this many fields at most, as `invalidFields` does. */
const MAX_FIELDS = 50

/** The first of them in one line, for clients that show the message alone. */
const describe = ([first]: ReadonlyArray<typeof InvalidField.Type>): string =>
  `${first?.path.join(".") ?? ""}: ${first?.message ?? ""}`

export const makeRequestFields = (): RequestFields => {
  const errors: Array<typeof InvalidField.Type> = []
  const foreign: Array<typeof InvalidField.Type> = []
  const refused = () =>
    Result.fail(
      new InvalidRequest({
        detail: errors.length === 0 ? "The request cannot be read" : describe(errors),
        errors: errors.slice(0, MAX_FIELDS)
      })
    )
  return {
    read: (schema, value, path) => {
      const decoded = Schema.decodeUnknownResult(schema, { errors: "all" })(value)
      if (Result.isSuccess(decoded)) return decoded.success
      for (const error of invalidFields(decoded.failure))
        errors.push({ ...error, path: [...path, ...error.path] })
      return undefined
    },
    refuse: (path, message) => void errors.push({ path, message }),
    untranslatable: (path, what) =>
      void foreign.push({ path, message: `${what} has no counterpart in other dialects` }),
    result: (conversation) => {
      if (errors.length > 0) return refused()
      return Result.succeed(
        foreign.length === 0 ? conversation : { ...conversation, untranslatable: foreign }
      )
    },
    refused
  }
}
