import { describe, expect, it } from "vitest";
import { checkPoints } from "../../../src/laws/forms/check.js";
import { fitLaw } from "../../../src/laws/fitting/fit.js";
import { placesOf, predict } from "../../../src/laws/forms/types.js";
import { law, table2, together } from "../data.js";
import { valueAt } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

describe("dense, MoE and upcycled models with one E", () => {
  it("give back Table 2 from noiseless points", () => {
    const points = together(0);
    expect(checkPoints(law("upcycling-shared"), points)).toEqual([]);
    const { params, status } = fitLaw(law("upcycling-shared"), points, { loss: { name: "mse", delta: 0 } });
    expect(status).toBe("converged");
    expect(Object.keys(params)).toHaveLength(15);
    for (const [name, value] of Object.entries(table2))
      expect(Math.abs(valueAt(params, name) / value - 1), name).toBeLessThan(1e-8);
  });

  it("predict as each law does alone", () => {
    const places = placesOf({ N: [1e9], D: [5e10], D1: [NaN], D2: [NaN] }, ["dense"]);
    expect(predict(law("upcycling-shared"), table2, places)[0]).toBeCloseTo(2.2868, 4);
  });

  it("need to know which point is which", () => {
    const points = together(0);
    const { group, ...without } = points;
    expect(() => checkPoints(law("upcycling-shared"), without)).toThrow(
      "needs to know which points are dense, moe, upcycled",
    );
    expect(() =>
      checkPoints(law("upcycling-shared"), {
        ...points,
        group: present(group).map((name, i) => (i === 3 ? "other" : name)),
      }),
    ).toThrow('point 4: group is "other"');
    expect(() =>
      checkPoints(law("upcycling-shared"), {
        ...points,
        group: present(group).map((name) => (name === "moe" ? "dense" : name)),
      }),
    ).toThrow("0 points of group moe");
  });
});
