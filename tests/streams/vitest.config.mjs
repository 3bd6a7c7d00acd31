import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["conformance.mjs"], reporters: ["./reporter.mjs"], watch: false, testTimeout: 120_000, hookTimeout: 120_000 },
});
