/** What compute-sanitizer is given: parts that select tests by their names, which change. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { cudaMachine } from "../../support/cuda.js";

const bench = fileURLToPath(new URL("../../../bench/gpu-sanitize.mjs", import.meta.url));

/** In an environment without what this run of vitest says to its own processes. */
function run(...options: readonly string[]): { readonly status: number | null; readonly said: string } {
  const own = Object.entries(process.env).filter(([name]) => !/^(VITEST|TEST$|NODE_ENV$|UPCYCLE_)/.test(name));
  const { status, stdout, stderr } = spawnSync(process.execPath, [bench, ...options], {
    env: Object.fromEntries(own),
    encoding: "utf8",
  });
  return { status, said: `${stdout}${stderr}` };
}

it.skipIf(cudaMachine === "no machine")("every test of the GPU is in one part, and every part has tests", () => {
  const { status, said } = run("--list");
  expect(said).toMatch(/^backends-steps: [1-9]/m);
  expect(said).not.toContain("WRONG");
  expect(status).toBe(0);
});

it("a part that is not there is refused", () => {
  const { status, said } = run("--only", "decoding-cash");
  expect(said).toContain("--only decoding-cash is no part of the suite under memcheck or racecheck");
  expect(status).toBe(1);
});

it("a part none of whose tests ran on a GPU is no clean part", () => {
  // What runs the tests here finds nothing, but neither does it run one of them.
  const { status, said } = run("--only", "memcheck:evaluation", "--sanitizer", "true");
  expect(said).toContain("NOT CLEAN memcheck evaluation: 0 passed, 0 failed, no summary");
  expect(said).toContain("NO TEST RAN ON A GPU");
  expect(status).toBe(1);
});
