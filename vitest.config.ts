import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Nothing is written into the home of who runs the tests; child processes and threads inherit it.
    env: { UPCYCLE_CACHE: "off" },
    globalSetup: ["./test/global-setup.ts"],
    setupFiles: ["./test/open-files.ts", "./test/equality.ts"],
    // Engines in tests have one or two threads, and many tests wait for child processes; more at once fill the memory.
    maxWorkers: Math.min(4, availableParallelism()),
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: "forks",
    reporters: ["default", "./test/closing-line.ts"],
  },
});
