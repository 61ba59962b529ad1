import { defineConfig } from "vitest/config"
import base from "./vitest.config.ts"

/** `npm run test:faults`: what providers and clients do to a running server, each fault by itself. */
export default defineConfig({ test: { ...base.test, include: ["test/faults/**/*.test.ts"], exclude: [] } })
