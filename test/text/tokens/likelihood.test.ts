import { describe, expect, it } from "vitest";
import { likelihood } from "../../../src/text/tokens/likelihood.js";

describe("likelihood", () => {
  it("is the log of the softmax, with the likeliest tokens first and equals by the lower id", () => {
    const logits = [1, 3, 2, 3, -Infinity];
    const total = Math.log(Math.E + 2 * Math.E ** 3 + Math.E ** 2);
    const { logProbability, alternatives } = likelihood(logits, 2, 4);
    expect(logProbability).toBeCloseTo(2 - total, 12);
    expect(alternatives.map(({ id }) => id)).toEqual([1, 3, 2, 0]);
    expect(alternatives[0]!.logProbability).toBeCloseTo(3 - total, 12);
    expect(likelihood(logits, 4, 0)).toEqual({ logProbability: -Infinity, alternatives: [] });
  });

  it("does not overflow, and gives as many as there are", () => {
    const { alternatives } = likelihood([1000, 999], 0, 9);
    expect(alternatives.map(({ id }) => id)).toEqual([0, 1]);
    expect(Math.exp(alternatives[0]!.logProbability)).toBeCloseTo(1 / (1 + Math.exp(-1)), 12);
  });
});
