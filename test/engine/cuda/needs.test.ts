/** A run that a GPU cannot hold is refused with its sums. */
import { describe, expect, it } from "vitest";
import { STEP_VALUES, requireMemory } from "../../../src/engine/cuda/needs.js";

const needs = new Map([
  ["weights", 2e9],
  ["gradients", 2e9],
  ["averages", 0],
  [STEP_VALUES, 16e9],
]);
const refusal = (free: number): string => {
  try {
    requireMemory(needs, free, "cuda:1");
  } catch (error) {
    return (error as { line: string }).line;
  }
  return "fits";
};

describe("memory that a run needs", () => {
  it("may be all that is free but for a margin", () => {
    expect(refusal(20.3e9)).toBe("fits");
    expect(refusal(20e9)).not.toBe("fits");
  });

  it("is refused with what it is made of, the largest first, and with the share of the batch that fits", () => {
    expect(refusal(12.2e9)).toBe(
      "cuda:1: this run needs 20.0 GB of the GPU's memory, 12.2 GB are free: values of a step 16.0 GB, weights 2.0 GB, " +
        "gradients 2.0 GB; about 50 % of this batch fits: lower batch and raise accumulate by as much, or set " +
        "recompute: norms, or layer, which needs least",
    );
  });

  it("is refused without a word of batches where the state alone does not fit", () => {
    expect(refusal(4e9)).toContain("without any batch it does not fit");
  });
});
