import { Schema } from "effect"

/** Where the platform runs. Credentials carry it, and are worthless in any other. */
export const Environment = Schema.Literals(["development", "testing", "staging", "production"])
export type Environment = typeof Environment.Type

/** In these nothing embedded starts, nothing is generated, and every secret must be given. */
export const isHosted = (environment: Environment): boolean =>
  environment === "staging" || environment === "production"
