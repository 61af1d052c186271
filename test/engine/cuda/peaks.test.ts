/** Peaks of GPUs by the names that drivers give. */
import { describe, expect, it } from "vitest";
import { peakFlops } from "../../../src/engine/cuda/peaks.js";

describe("the peak of a GPU", () => {
  it.each([
    ["NVIDIA H200", 989.4e12],
    ["NVIDIA H100 80GB HBM3", 989.4e12],
    ["NVIDIA A100-SXM4-80GB", 312e12],
    ["NVIDIA L40S", 362.05e12],
    ["NVIDIA GeForce RTX 4090", 165.2e12],
    ["NVIDIA B200", 2250e12],
  ])("%s is that of its data sheet", (name, flops) => {
    expect(peakFlops(name)).toBe(flops);
  });

  it.each(["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA GeForce RTX 4090 D", "an emulated GPU"])(
    "%s is not known",
    (name) => {
      expect(peakFlops(name)).toBeNull();
    },
  );
});
