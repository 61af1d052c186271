import { describe, expect, it } from "vitest";
import { parseRecipeConfig, recipeConfigSchema } from "../../../src/base/schemas/index.js";
import { recipeDefaults, upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { noiseOf, noiseWords, recipeFromConfig } from "../../../src/surgery/planning/recipe-config.js";
import { lineOf } from "../../support/line.js";

describe("recipe files", () => {
  it("take the defaults of recipes for keys that are left out", () => {
    expect(recipeFromConfig(recipeConfigSchema.parse({ recipe: "E8G1T2" }))).toEqual({
      ...recipeDefaults,
      expansion: 8,
      granularity: 1,
      topK: 2,
    });
  });

  it("can set every part of a recipe", () => {
    const text =
      "recipe: E4G2T4\nrouter: softmax-topk\nscaling: paper\nrouterStd: 0.006\ntarget: qwen2_moe\nnoise: " +
      "1%\nnoiseFraction: 0.5\n" +
      ("routerGroups: false\ndrop: 0.25\npermute: true\nshared: 16\nlayers: 1-\npad: true\nauxLossCoef: 0.001\nseed: " +
        "3\nallowUnevenTopK: true\n");
    expect(recipeFromConfig(parseRecipeConfig(text, "my.yaml"))).toEqual(
      upcycleRecipe("E4G2T4", {
        order: "softmax-topk",
        scaling: "paper",
        routerStd: 0.006,
        target: "qwen2_moe",
        noise: { std: 0.01, relative: true, fraction: 0.5 },
        routerGroups: false,
        drop: 0.25,
        permute: true,
        shared: 16,
        layers: "1-",
        pad: true,
        auxLossCoef: 0.001,
        seed: 3,
        allowUnevenTopK: true,
      }),
    );
  });

  it("are refused in one line for targets, noise and prompts that make no sense", () => {
    expect(lineOf(() => parseRecipeConfig("recipe: E8G1T2\ndropp: 0.5\n", "my.yaml"))).toContain(
      'my.yaml:2 (dropp): unknown key "dropp"; did you mean "drop"?',
    );
    expect(lineOf(() => parseRecipeConfig("recipe: E8G1T2\ndrop: 2\n", "my.yaml"))).toContain("my.yaml:2 (drop): ");
    expect(lineOf(() => recipeFromConfig({ recipe: "E8G1T2", target: "mixtrl" }))).toContain(
      'target: "mixtrl" is not a family that we write; did you mean mixtral?',
    );
    expect(lineOf(() => recipeFromConfig({ recipe: "E8G1T2", noiseFraction: 0.5 }))).toBe(
      "noiseFraction (--noise-fraction): a share of noise without noise has no effect; say how strong the noise is, " +
        "such as noise: 0.1 (--noise 0.1), or leave it out",
    );
    expect(lineOf(() => recipeFromConfig({ recipe: "E8G1T2", noise: "loud" }))).toBe(
      'noise: "loud" is no amount of noise; write a standard deviation such as 0.01, or a share of each ' +
        "tensor's own such as 1%",
    );
  });

  it("give noise back in the words that they were read from", () => {
    for (const said of ["0.01", "1%", "12.5%", "0.001"]) expect(noiseWords(noiseOf(said, 1)!)).toBe(said);
    expect(noiseOf(0, 1)).toBeNull();
    expect(noiseOf("0%", 1)).toBeNull();
  });
});
