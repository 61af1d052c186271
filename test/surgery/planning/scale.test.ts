/**
 * Recipes and configs beyond all measure are refused before anything is listed; large ones are planned without a list
 * for each family.
 */
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { mostTensors } from "../../../src/model/decoder/bounds.js";
import { configFromSpec, specFromConfig } from "../../../src/model/decoder/config.js";
import { tryTargets } from "../../../src/surgery/planning/choose.js";
import { draftOf } from "../../../src/surgery/planning/draft.js";
import { upcycleFfns } from "../../../src/surgery/planning/experts.js";
import { planMultiply } from "../../../src/surgery/planning/multiply.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { denseSpec } from "./fixtures.js";

function refusal(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError && error.kind === "input") return error.line;
    throw error;
  }
  throw new Error("nothing was refused");
}

const llama = denseSpec("llama");

describe("too many experts or tensors", () => {
  it.each([
    [
      "E100000G1T2",
      "recipe E100000G1T2: E*G is 100000 experts in each layer, the limit is 65536; use a smaller E or G",
    ],
    [
      "E999999G999999T1",
      "recipe E999999G999999T1: E*G is 999998000001 experts in each layer, the limit is 65536; use a smaller E or G",
    ],
  ])("of the recipe %s are refused whatever the model", (name, line) => {
    expect(refusal(() => upcycleRecipe(name))).toBe(line);
  });

  it("of a recipe in many layers are refused, counted over the chosen layers", () => {
    const deep = denseSpec("llama", { layerCount: 100 });
    expect(refusal(() => planUpcycle(deep, upcycleRecipe("E2000G1T2")))).toBe(
      `recipe E2000G1T2: 2000 experts in each of 100 layers are 600000 tensors, the limit is ${mostTensors}; ` +
        "use a smaller E or G, or fewer layers",
    );
    expect(planUpcycle(deep, upcycleRecipe("E2000G1T2", { layers: "0,50" })).outputs.length).toBeLessThan(20_000);
  });

  it("of a config are refused before a tensor is named", () => {
    const { target } = planUpcycle(
      denseSpec("llama", { layerCount: 2 }),
      upcycleRecipe("E2G1T1", { order: "softmax-topk" }),
    );
    const config = {
      ...configFromSpec(target, { dtype: "float32" }),
      num_hidden_layers: 1000,
      layer_types: undefined,
      num_experts: 65_536,
    };
    expect(refusal(() => specFromConfig(config, "config.json"))).toBe(
      `config.json: 1000 layers of experts are 196608000 tensors, the limit is ${mostTensors}; are the numbers ` +
        "of layers and experts right?",
    );
  });

  it("of multiplied experts are refused", () => {
    const { target } = planUpcycle(
      denseSpec("llama", { layerCount: 40 }),
      upcycleRecipe("E2G1T1", { order: "softmax-topk" }),
    );
    const multiply = (copies: number) => () => planMultiply(target, { copies, topK: null, routerStd: 0, seed: 0 });
    expect(refusal(multiply(40_000))).toBe(
      "40000 copies of each expert are 80000 experts in a layer, the limit is 65536; make fewer copies",
    );
    expect(refusal(multiply(10_000))).toBe(
      `10000 copies of each expert are 2400000 tensors, the limit is ${mostTensors}; make fewer copies`,
    );
  });
});

describe("choosing among families", () => {
  const trials = (name: string) => {
    const recipe = upcycleRecipe(name);
    return tryTargets(llama, recipe, (target, options) => upcycleFfns(draftOf(llama), recipe, target, options));
  };

  it("handles as many tensors for 4,000 experts as for 8, and comes to the same verdicts", () => {
    const facts = (name: string) =>
      trials(name).map(({ family, obstacle, draft }) => ({ family, obstacle, tensors: draft?.values.size }));
    expect(facts("E4000G1T2")).toEqual(facts("E8G1T2"));
  });

  it("keeps the number of experts in the spec, and plans all of their tensors for the family chosen", () => {
    const plan = planUpcycle(llama, upcycleRecipe("E500G1T2"));
    expect(plan.target.layers.map(({ ffn }) => ffn.kind === "moe" && ffn.experts)).toEqual([500, 500]);
    expect(plan.outputs.filter(({ slot }) => slot.at.expert !== undefined)).toHaveLength(2 * 3 * 500);
    expect(plan.outputs.every(({ value }) => value !== undefined)).toBe(true);
  });
});
