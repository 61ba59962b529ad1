import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/Servers.ts"],
    // They wait more than they work, also on two cores.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 90_000
  }
})
