import { defineConfig } from "vitest/config";

// Some tests of the suite have clocks of their own, of half a second and more, which a busy machine does not meet: those are tried
// again, and the reporter says which. What is wrong is wrong each time.
export default defineConfig({
  test: { include: ["conformance.mjs"], reporters: ["./reporter.mjs"], watch: false, retry: 3, testTimeout: 120_000, hookTimeout: 120_000 },
});
