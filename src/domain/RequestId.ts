import { Context } from "effect"

/** The id of the request being answered; the empty string outside of one. */
export const RequestId = Context.Reference<string>("agent-army/domain/RequestId", { defaultValue: () => "" })
