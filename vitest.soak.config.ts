import { defineConfig } from "vitest/config"

/** What takes minutes: many calls, and long outages. */
export default defineConfig({
  test: {
    include: ["test/soak/**/*.test.ts"],
    globalSetup: ["test/support/Servers.ts"],
    maxWorkers: 1,
    testTimeout: 900_000,
    hookTimeout: 90_000
  }
})
