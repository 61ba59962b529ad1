import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // `npm run test:faults` has these; what they prove of the gateway is in test/services/llm too, with less waiting.
    exclude: ["test/faults/**", "**/node_modules/**"],
    globalSetup: ["test/support/Servers.ts"],
    // They wait more than they work, also on two cores.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 90_000
  }
})
