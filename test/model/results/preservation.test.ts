import { describe, expect, it } from "vitest";
import { judgePreservation, worstLayer } from "../../../src/model/results/preservation.js";

describe("judgePreservation", () => {
  const f32 = { parent: "F32", child: "F32" } as const;
  it("calls what rounding explains the same function, by the coarser of the two precisions", () => {
    const kinds = (
      relative: number,
      ...pairs: ["F64" | "F32" | "F16" | "BF16", "F64" | "F32" | "F16" | "BF16"][]
    ): string[] => pairs.map(([parent, child]) => judgePreservation(relative, { parent, child }).kind);
    expect(kinds(0, ["F32", "F32"], ["BF16", "BF16"])).toEqual(["identical", "identical"]);
    expect(kinds(1e-5, ["F32", "F32"], ["BF16", "BF16"])).toEqual(["same", "same"]);
    expect(kinds(1.01e-5, ["F32", "F32"], ["F64", "F64"], ["F32", "F16"], ["F16", "F32"], ["BF16", "BF16"])).toEqual([
      "different",
      "different",
      "rounded",
      "rounded",
      "rounded",
    ]);
    expect(kinds(0.01, ["F16", "F16"], ["F32", "BF16"], ["BF16", "F16"])).toEqual(["different", "rounded", "rounded"]);
    expect(kinds(0.021, ["BF16", "BF16"])).toEqual(["different"]);
  });

  it("says in words how far the two models differ", () => {
    expect(judgePreservation(0.0123456, f32)).toEqual({
      kind: "different",
      tolerance: 1e-5,
      words: "The two models do not compute the same function: logits differ by up to 1.23 % of the largest.",
    });
    expect(judgePreservation(0.001, { parent: "F32", child: "BF16" }).words).toBe(
      "The two models compute the same function, up to what rounding weights to bfloat16 explains.",
    );
    for (const difference of [NaN, Infinity]) expect(judgePreservation(difference, f32).kind).toBe("damaged");
  });
});

it("the worst layer is the one with the largest error; a NaN is worse than any", () => {
  const layer = (index: number, relative: number) => ({ layer: index, relative, largest: 0 });
  expect(worstLayer(null)).toBeNull();
  expect(worstLayer([])).toBeNull();
  expect(worstLayer([layer(0, 1), layer(1, 3), layer(2, 2)])).toMatchObject({ layer: 1 });
  expect(worstLayer([layer(0, 1), layer(1, NaN), layer(2, 2)])).toMatchObject({ layer: 1 });
  expect(worstLayer([layer(0, NaN), layer(1, 1)])).toMatchObject({ layer: 0 });
});
