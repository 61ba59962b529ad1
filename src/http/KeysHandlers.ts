import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Tokens } from "../services/Tokens.ts"
import { answerWith } from "./AnswerHeaders.ts"
import { Api } from "./Api.ts"
import { withDigest } from "./ETag.ts"

/** Public; and no longer than a new key is published before it signs (`PlatformKeys`). */
const CACHE_CONTROL = "public, max-age=5"
