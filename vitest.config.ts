import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // `npm run test:faults` and `npm run test:soak` have these; what they prove is in the suite too, with less waiting.
    exclude: ["test/faults/**", "test/soak/**", "**/node_modules/**"],
    globalSetup: ["test/support/Servers.ts"],
    // They wait more than they work, also on two cores.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 90_000
  }
})
