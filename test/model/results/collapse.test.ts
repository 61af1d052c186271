import { describe, expect, it } from "vitest";
import { deadExperts, isCollapsed, unseenCollapse, unseenWords } from "../../../src/model/results/collapse.js";

/** Two of eight experts have all choices of a layer. */
const collapsed = (first: number): number[] =>
  Array.from({ length: 8 }, (_, expert) => (expert === first || expert === first + 1 ? 0.5 : 0));
const even = Array<number>(8).fill(1 / 8);
const topK = [2, 2, 2, 2];
const apart = [0, 2, 4, 6].map(collapsed);

describe("routers that have collapsed", () => {
  it("are those of layers more than half of whose experts have less than a hundredth of an equal share", () => {
    expect(deadExperts([0.5, 0.4976, 0.0024, 0])).toEqual([2, 3]);
    expect(deadExperts([0.5, 0.4974, 0.0026, 0])).toEqual([3]);
    expect([4, 5].map((dead) => isCollapsed(dead, 8))).toEqual([false, true]);
  });

  it("are unseen where layers use other experts each, so that their loss together is that of balance", () => {
    expect(unseenCollapse(apart, 2, topK)).toEqual({ layers: [0, 1, 2, 3], balanceLoss: 2, balanced: 2 });
    expect(unseenCollapse([even, collapsed(0), even, even], 2.19, topK)?.layers).toEqual([1]);
  });

  it("are not unseen where the loss is above its balanced value, and not there where no layer has collapsed", () => {
    expect(unseenCollapse([0, 0, 0, 0].map(collapsed), 8, topK)).toBeNull();
    expect(unseenCollapse(apart, 2.21, topK)).toBeNull();
    expect(unseenCollapse([even, even, even, even], 2, topK)).toBeNull();
    expect(unseenCollapse([], 2, [])).toBeNull();
  });

  it("are told of with what to do", () => {
    const words = "get hardly any token, while the load-balancing loss over all layers together is 2.004, near 2.00";
    expect(unseenWords({ layers: [0, 1, 3], balanceLoss: 2.004, balanced: 2 })).toBe(
      `more than half of the experts of MoE layers 0, 1 and 3 ${words}, where it is balanced: balance: model does not ` +
        "see layers apart; balance: layer does",
    );
    expect(unseenWords({ layers: [3], balanceLoss: 2.004, balanced: 2 })).toContain(`of MoE layer 3 ${words}`);
  });
});
