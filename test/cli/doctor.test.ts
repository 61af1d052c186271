import { describe, expect, it } from "vitest";
import { start } from "./upcycle.js";

/** A machine whose GPU, if it has one, is hidden, so that the words are the same everywhere. */
const hidden = { CUDA_VISIBLE_DEVICES: "", UPCYCLE_CUDA: "" };

describe("doctor", () => {
  it("says on a machine without a GPU that everything runs on the CPU, and is content", async () => {
    const { code, stdout, stderr } = await start(["doctor"], undefined, { env: hidden }).outcome;
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^koffi +3\./m);
    expect(stdout).toMatch(/^GPU +none that CUDA shows; everything runs on the CPU$/m);
    expect(stdout).toMatch(/^auto +--device auto takes cpu$/m);
  });

  it("gives the same as JSON, with a line that installs each thing that is missing", async () => {
    const { code, stdout } = await start(["doctor", "--json"], undefined, { env: hidden }).outcome;
    const found = JSON.parse(stdout) as { gpus: unknown[]; auto: string; healthy: boolean; missing: object[] };
    expect(code).toBe(0);
    expect(found).toMatchObject({ gpus: [], auto: "cpu", healthy: true });
    for (const missing of found.missing) expect(missing).toMatchObject({ install: expect.stringMatching(/./) });
  });
});

describe("--device", () => {
  it.each<[string[], RegExp]>([
    [["--device", "gpu"], /^--device: "gpu" is no device; write auto, cpu, cuda or cuda:N/],
    [["--device", "cpu", "--precision", "bf16"], /^--precision: the CPU computes in float32, not in bf16/],
    [["--precision", "fp8"], /^--precision: "fp8" is not one of float32, tf32, bf16/],
  ])("refuses %j in one line", async (flags, line) => {
    const { code, stderr } = await start(["quickstart", "--out", "/nowhere/run", ...flags], undefined, { env: hidden })
      .outcome;
    expect(code).toBe(2);
    expect(stderr.replace(/^upcycle: /, "")).toMatch(line);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  });
});
