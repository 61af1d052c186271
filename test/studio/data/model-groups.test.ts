import { describe, expect, it } from "vitest";
import { modelGroups } from "../../../src/studio/data/model-groups.js";
import type { ModelRow, PreservationRow } from "../../../src/studio/data/model-types.js";

const measured = (relative: number, verdict = "same"): PreservationRow => ({
  verdict,
  words: "",
  tokens: 256,
  parentLoss: 3,
  childLoss: 3,
  relative,
  klDivergence: 0,
  topAgreement: 1,
  layers: [],
});
const model = (name: string, preservation: PreservationRow | null, change: Partial<ModelRow> = {}): ModelRow => ({
  name,
  recipe: "E8G1T2",
  parent: "dense",
  expected: "exact",
  preservation,
  ...change,
});
const names = (models: readonly ModelRow[]): string[][] =>
  modelGroups(models).map((group) => group.map((one) => one.name));

describe("models of which the same is to be said", () => {
  it("are one group, with the one that differs most from its parent in front", () => {
    const models = [model("s/a-0", measured(1e-7)), model("s/a-1", measured(3e-7)), model("s/a-2", measured(2e-7))];
    expect(names(models)).toEqual([["s/a-1", "s/a-0", "s/a-2"]]);
  });

  it("are not those of another verdict, recipe, parent or folder, or that were not measured", () => {
    const models = [
      model("s/a-0", measured(1e-7)),
      model("s/a-1", measured(0.3, "different")),
      model("s/b-0", measured(1e-7), { recipe: "E8G8T8" }),
      model("s/c-0", measured(1e-7), { parent: "other" }),
      model("t/a-0", measured(1e-7)),
      model("s/a-2", null),
      model("s/a-3", measured(1e-7)),
    ];
    expect(names(models)).toEqual([["s/a-0", "s/a-3"], ["s/a-1"], ["s/b-0"], ["s/c-0"], ["t/a-0"], ["s/a-2"]]);
  });
});
