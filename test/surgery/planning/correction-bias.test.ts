import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { configFromSpec, specFromConfig } from "../../../src/model/decoder/config.js";
import type { MoeFfn, RouterOrder } from "../../../src/model/decoder/types.js";
import { fill } from "../../../src/surgery/planning/expr.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { surveyRecipe } from "../../../src/surgery/planning/survey.js";
import { golden } from "../../support/golden.js";

const orders: readonly RouterOrder[] = ["topk-softmax", "softmax-topk"];

describe("a correction bias that a recipe asks for", () => {
  it.each(["llama", "qwen2", "qwen3", "gemma2", "granite", "olmo2", "stablelm"])(
    "%s: every family that takes the model has it, zero, and says so in its config",
    (name) => {
      const source = specFromConfig(JSON.parse(readFileSync(golden(`dense/${name}`, "config.json"), "utf8")), name);
      for (const order of orders) {
        const recipe = upcycleRecipe("E4G1T2", { order, correctionBias: true });
        const families = surveyRecipe(source, recipe).flatMap(({ family, obstacle }) =>
          obstacle === null ? [family] : [],
        );
        // Our own format holds everything.
        expect(families).toContain("upcycle");
        expect(families).not.toContain("mixtral");
        for (const target of families) {
          const plan = planUpcycle(source, { ...recipe, target });
          const router = (at(plan.target.layers, 0).ffn as MoeFfn).router;
          expect(router.correctionBias, target).toBe(true);
          expect(
            specFromConfig(JSON.parse(JSON.stringify(configFromSpec(plan.target, { dtype: "float32" }))), target)
              .layers,
          ).toEqual(plan.target.layers);
          const biases = plan.outputs.filter(({ slot }) => slot.at.part === "routerCorrection");
          expect(biases.length, target).toBe(source.layers.length);
          for (const { value } of biases) expect(value).toEqual(fill(0));
        }
        expect(planUpcycle(source, recipe).target.family).toBe(families[0]);
      }
    },
  );

  it("is refused for a target that holds none, naming those that do", () => {
    const source = specFromConfig(JSON.parse(readFileSync(golden("dense/llama", "config.json"), "utf8")), "llama");
    expect(() => planUpcycle(source, upcycleRecipe("E8G1T2", { target: "mixtral", correctionBias: true }))).toThrow(
      "mixtral cannot hold this llama model: a mixtral model cannot have a router other than",
    );
  });
});
