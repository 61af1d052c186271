/** Which of several proposals is taken. */
import { describe, expect, it } from "vitest";
import { worthChoosing } from "../../../src/engine/cuda/tuning.js";

describe("the choice among timed products", () => {
  it("stays with the first unless another is clearly faster", () => {
    expect(worthChoosing([10, 9.8, 11])).toBe(0);
    expect(worthChoosing([10, 9.6, 9.5])).toBe(2);
    expect(worthChoosing([10, Infinity])).toBe(0);
    expect(worthChoosing([10])).toBe(0);
  });
});
