import { describe, expect, it } from "vitest";
import type { CudaReport } from "../../src/engine/cuda/doctor.js";
import { emulation } from "../support/cuda.js";
import { start } from "./upcycle.js";

const emulated = emulation();

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

describe.skipIf(emulated === null)("doctor, of a GPU", () => {
  const of = async (env: Readonly<Record<string, string>>) => {
    const { code, stdout } = await start(["doctor", "--json"], undefined, { env: { ...emulated, ...env } }).outcome;
    return { code, found: JSON.parse(stdout) as CudaReport };
  };

  it("that works says what it is and how near its self-test came", async () => {
    const { code, found } = await of({});
    expect(code).toBe(0);
    expect(found).toMatchObject({ auto: "cuda:0", healthy: true, missing: [] });
    expect(found.libraries.map(({ name, version }) => [name, version === null])).toEqual([
      ["driver", false],
      ["nvrtc", false],
      ["cublasLt", false],
    ]);
    expect(found.gpus).toMatchObject([{ ordinal: 0, problem: null, selfTest: { agrees: true } }]);
  });

  it("with an old driver asks for a newer one alone: it decides which libraries are needed", async () => {
    const { code, found } = await of({ UPCYCLE_EMULATOR_DRIVER: "11040" });
    expect(code).toBe(1);
    expect(found).toMatchObject({ auto: "cpu", healthy: false });
    expect(found.missing.map(({ what }) => what)).toEqual(["a newer driver, for CUDA 12.0 at least"]);
    expect(found.gpus[0]?.problem).toBe("missing: a newer driver, for CUDA 12.0 at least");
  });

  it("whose memory is taken says so", async () => {
    const { code, found } = await of({ UPCYCLE_EMULATOR_MEMORY: "1000" });
    expect(code).toBe(1);
    expect(found.gpus[0]?.problem).toMatch(/the GPU's memory is full/);
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
