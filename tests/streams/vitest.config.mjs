import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["conformance.mjs"], reporters: ["./reporter.mjs"], watch: false, testTimeout: 20_000 },
});
