import { availableParallelism } from "node:os";
import { defineConfig } from "vitest/config";
import { scratch } from "./test/scratch.js";

/**
 * Tests of code without effects, most of the files: they leave nothing behind in the process, so one runs after another
 * in it and what they import is loaded once. Every other file has a process of its own.
 */
const pure = [
  "base",
  "cluster/{logs,plan}",
  "engine/{optimizer,routing}",
  "evals/tasks",
  "experts/measures",
  "files/{formats,numeric}",
  "graph",
  "laws",
  "model",
  "report/{page,study}",
  "surgery/planning",
  "text/tokens",
].map((folder) => `test/${folder}/**/*.test.ts`);

/** What both kinds of tests have in common. */
const shared = {
  // Nothing is written into the home of who runs the tests; child processes and threads inherit it. Under
  // compute-sanitizer compiled kernels are kept for those who test beside it (bench/gpu-sanitize.mjs).
  env: { UPCYCLE_CACHE: process.env["UPCYCLE_TEST_CACHE"] ?? "off", ...scratch },
  setupFiles: ["./test/open-files.ts", "./test/equality.ts"],
  testTimeout: 120_000,
  hookTimeout: 120_000,
  pool: "forks" as const,
};

export default defineConfig({
  test: {
    globalSetup: ["./test/global-setup.ts"],
    // Engines in tests have one or two threads, and many tests wait: for children, for a server that is silent. More at
    // once than one beyond the cores fill the memory.
    maxWorkers: Math.min(4, availableParallelism() + 1),
    reporters: ["default", "./test/closing-line.ts"],
    projects: [
      { test: { ...shared, name: "effects", include: ["test/**/*.test.ts"], exclude: pure } },
      { test: { ...shared, name: "pure", include: pure, isolate: false } },
    ],
  },
});
