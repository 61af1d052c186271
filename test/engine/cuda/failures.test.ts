/** What a user sees where a GPU is missing, old, full or lost: one line, and the right exit code. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { start } from "../../cli/upcycle.js";
import { emulation } from "../../support/cuda.js";
import { golden } from "../../support/golden.js";

const emulated = emulation();
const folder = mkdtempSync(join(tmpdir(), "upcycle-cuda-failures-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Logits of a golden model on an emulated GPU that is as `env` says. */
async function forward(env: Readonly<Record<string, string>>, device = "cuda") {
  const output = join(folder, "out.safetensors");
  const input = golden("dense/llama", "expected.safetensors");
  const args = ["forward", golden("dense/llama"), "--input-ids", input, "--output", output, "--device", device];
  return start(args, undefined, { env: { ...emulated, ...env } }).outcome;
}

describe.skipIf(emulated === null)("a GPU that", () => {
  it("works computes what was asked for", async () => {
    const { code, stdout, stderr } = await forward({});
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("[2, 24, 96]");
  });

  it.each<[string, Record<string, string>, string, number, RegExp]>([
    [
      "has an old driver is refused",
      { UPCYCLE_EMULATOR_DRIVER: "11040" },
      "cuda",
      2,
      /the driver speaks CUDA 11\.4, 12\.0 is needed; update NVIDIA's driver/,
    ],
    ["is not there is refused", {}, "cuda:3", 2, /cuda:3: there is no GPU 3, the driver shows 1; upcycle doctor/],
    [
      "is full stops the run",
      { UPCYCLE_EMULATOR_MEMORY: "1000000" },
      "cuda",
      1,
      /the GPU's memory is full \(CUDA_ERROR_OUT_OF_MEMORY: out of memory\); lower batch/,
    ],
    [
      "is lost stops the run",
      { UPCYCLE_EMULATOR_FAIL: "cuGraphLaunch:719:0" },
      "cuda",
      1,
      /cuGraphLaunch: the GPU failed \(CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure\); the last checkpoint/,
    ],
  ])("%s in one line", async (_, env, device, exitCode, line) => {
    const { code, stdout, stderr } = await forward(env, device);
    expect([code, stdout]).toEqual([exitCode, ""]);
    expect(stderr).toMatch(line);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});
