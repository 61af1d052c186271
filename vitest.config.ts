import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Nothing is written into the home of who runs the tests; child processes and threads inherit it.
    env: { UPCYCLE_CACHE: "off" },
    globalSetup: ["./test/global-setup.ts"],
    setupFiles: ["./test/open-files.ts"],
    // Two engines at once would fight over the same cores; files run one after another, fast ones first.
    fileParallelism: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    reporters: ["default", "./test/closing-line.ts"],
  },
});
