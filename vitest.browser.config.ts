import { defineConfig } from "vitest/config"
import base from "./vitest.config.ts"

/** `npm run test:browser`: what takes a Chromium, which a fresh machine has not. */
export default defineConfig({ test: { ...base.test, include: ["test/browser/**/*.browser.ts"] } })
