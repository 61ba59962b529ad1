import { Context, Effect } from "effect"

/**
 * Headers that a handler wants on its answer, which its value has no place for. The face makes an empty one for
 * each request and reads it when the answer is made: filled in place, because what a handler provides to itself
 * is gone by then, and effect's handlers before the response would hide the headers from the face.
 */
export const AnswerHeaders = Context.Reference<{ value: Readonly<Record<string, string>> | undefined }>(
  "agent-army/http/AnswerHeaders",
  { defaultValue: () => ({ value: undefined }) }
)

/** Adds headers, in lower case, to the answer of the current request, if it succeeds. */
export const answerWith = (headers: Readonly<Record<string, string>>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const slot = fiber.getRef(AnswerHeaders)
    slot.value = { ...slot.value, ...headers }
    return Effect.void
  })
