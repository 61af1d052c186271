/** Which experts are copied more often than others. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countParams } from "../../../src/model/cost/params.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import {
  duplicatesOf,
  mostDuplicates,
  planMultiply,
  type MultiplyRecipe,
} from "../../../src/surgery/planning/multiply.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { lineOf } from "../../support/line.js";
import { denseSpec } from "./fixtures.js";

describe("duplicatesOf", () => {
  it("gives what the authors' greedy selection gives", () => {
    // ExpertSelector.greedy of amazon-science/expert-upcycling, at most 3 duplicates each.
    expect(duplicatesOf([0.1, 0.7, 0.3, 0.5], 4)).toEqual([1, 1, 1, 3]);
    expect(duplicatesOf([0.1, 0.7, 0.3, 0.5], 12)).toEqual([1, 1, 1, 3, 3, 3, 2, 2, 2, 0, 0, 0]);
    expect(duplicatesOf([2, 1], 8)).toEqual([0, 0, 0, 1, 1, 1, 0, 0]);
    expect(duplicatesOf([1, 1, 1], 3)).toEqual([0, 0, 0]);
  });

  it("never copies an expert of less utility before one of more, nor any too often", () => {
    const worth = fc.array(fc.nat(50), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(worth, fc.nat(40), (utility, count) => {
        const times = utility.map(() => 0);
        const chosen = duplicatesOf(utility, count);
        for (const [i, expert] of chosen.entries()) {
          const round = Math.floor(i / (mostDuplicates * utility.length));
          const free = utility.filter((_, other) => times[other]! < mostDuplicates * (round + 1));
          expect(utility[expert]).toBe(Math.max(...free));
          times[expert]! += 1;
        }
        expect(chosen).toHaveLength(count);
        expect(Math.max(...times) - Math.min(...times)).toBeLessThanOrEqual(mostDuplicates);
      }),
    );
  });
});

describe("planMultiply by utility", () => {
  const source = planUpcycle(denseSpec("llama"), upcycleRecipe("E4G1T2")).target;
  const values = [
    [3, 9, 1, 2],
    [0, 0, 5, 6],
  ];
  const recipe = (changes: Partial<MultiplyRecipe> = {}): MultiplyRecipe => ({
    copies: 2,
    topK: null,
    routerStd: 0,
    seed: 0,
    utility: { by: "load", values, text: null, noise: 0.01 },
    ...changes,
  });

  it("keeps top k, puts copies behind the model's own experts, and all parameters add up", () => {
    const { target, origins, outputs, how, warnings } = planMultiply(source, recipe());
    expect(origins).toEqual([
      [0, 1, 2, 3, 1, 1, 1, 0],
      [0, 1, 2, 3, 3, 3, 3, 2],
    ]);
    expect(how).toContain("4 experts to 8, 2 per token to 2, each 1 to 4 times by its load");
    expect(warnings).toEqual([]);
    const written = outputs.reduce((sum, { slot }) => sum + slot.shape.reduce((a, b) => a * b, 1), 0);
    const [before, after] = [countParams(source), countParams(target)];
    expect(written).toBe(after.total);
    expect(slotsOf(target).reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(after.total);
    // Eight more experts of 3 x 48 x 16, and as many router rows of 16; a token pays for the rows alone.
    expect(after.total - before.total).toBe(8 * (3 * 48 * 16 + 16));
    expect(after.active - before.active).toBe(8 * 16);
  });

  it("says what is kept of the function", () => {
    expect(planMultiply(source, recipe()).expected).toMatchObject({ kind: "approximate" });
    const quiet = { by: "load", values, text: null, noise: 0 } as const;
    expect(planMultiply(source, recipe({ utility: quiet })).expected.why).toContain("experts are there 1 to 4 times");
    const one = planUpcycle(denseSpec("llama"), upcycleRecipe("E4G1T1")).target;
    expect(planMultiply(one, recipe({ utility: quiet })).expected).toMatchObject({ kind: "exact" });
    expect(planMultiply(one, recipe({ utility: quiet })).warnings.join()).toContain("equal router rows");
  });

  it("refuses a utility that is missing or of another model", () => {
    const utility = { by: "load", values: null, text: null, noise: 0 } as const;
    const planned = (of: MultiplyRecipe["utility"]): string =>
      lineOf(() => planMultiply(source, recipe({ utility: of })));
    expect(planned(utility)).toContain("what the experts are worth (load) has not been measured");
    expect(planned({ ...utility, values: [[1, 2, 3, 4]] })).toContain("the load of layer 1 does not fit its 4 experts");
    expect(planned({ ...utility, values, noise: -1 })).toContain("the noise on copies' router rows is -1");
  });
});
