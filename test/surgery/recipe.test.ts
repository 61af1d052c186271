import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../src/base/errors.js";
import { planUpcycle } from "../../src/surgery/plan.js";
import { parseRecipeName, recipeName, upcycleRecipe } from "../../src/surgery/recipe.js";
import { expectedPreservation, recipeWarnings, scaleFactors } from "../../src/surgery/scaling.js";
import { denseSpec } from "./fixtures.js";

function lineOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof UpcycleError) return error.line;
    throw error;
  }
  return "no error";
}

describe("recipe names", () => {
  it("parse and print are inverse", () => {
    const size = fc.integer({ min: 1, max: 999_999 });
    fc.assert(
      fc.property(size, size, size, (expansion, granularity, topK) => {
        const shape = { expansion, granularity, topK };
        expect(parseRecipeName(recipeName(shape))).toEqual(shape);
      }),
    );
  });

  it("reads lower case and surrounding blanks", () => {
    expect(parseRecipeName(" e8g2t4 ")).toEqual({ expansion: 8, granularity: 2, topK: 4 });
  });

  it.each(["", "E8", "E8G1", "E8G1T", "E0G1T1", "E08G1T1", "E-8G1T1", "E8.5G1T1", "8x7B", "E8G1T2x"])("refuses %j", (text) => {
    expect(lineOf(() => parseRecipeName(text))).toBe(
      `"${text}" is not a recipe name; write E<copies>G<parts>T<experts per token>, for example E8G1T2`,
    );
  });
});

describe("recipe options", () => {
  it("take defaults where left out or undefined", () => {
    const defaults = { expansion: 8, granularity: 1, topK: 2, target: null, order: "topk-softmax", scaling: "exact" };
    const recipe = upcycleRecipe("E8G1T2", { target: undefined, seed: 3, routerStd: 0 });
    expect(recipe).toEqual({ ...defaults, routerStd: 0, seed: 3, allowUnevenTopK: false });
  });
});

describe("refusals", () => {
  it("of recipes", () => {
    const lines = [
      () => upcycleRecipe("E8G8T4"),
      () => upcycleRecipe("E8G8T12"),
      () => upcycleRecipe("E4G1T5"),
      () => upcycleRecipe("E1G1T1"),
      () => upcycleRecipe("E8G1T2", { routerStd: -1 }),
      () => upcycleRecipe("E8G1T2", { routerStd: Number.NaN }),
      () => upcycleRecipe("E8G1T2", { seed: 0.5 }),
    ].map(lineOf);
    expect(lines).toMatchInlineSnapshot(`
      [
        "recipe E8G8T4: T = 4 is not a multiple of G = 8, so tokens would get incomplete copies of the FFN; use T8, or insist (--allow-uneven-topk, in a study allowUnevenTopK: true) and expect to start far from the parent",
        "recipe E8G8T12: T = 12 is not a multiple of G = 8, so tokens would get incomplete copies of the FFN; use T8 or T16, or insist (--allow-uneven-topk, in a study allowUnevenTopK: true) and expect to start far from the parent",
        "recipe E4G1T5: T is 5 but there are only E*G = 4 experts; use T of at most 4",
        "recipe E1G1T1: E*G is 1: one expert is the dense model again; use E or G of at least 2",
        "recipe E8G1T2: router std is -1, expected a number of at least 0",
        "recipe E8G1T2: router std is NaN, expected a number of at least 0",
        "recipe E8G1T2: seed is 0.5, expected a whole number of at least 0",
      ]
    `);
  });

  it("of sources", () => {
    const llama = denseSpec("llama");
    const moe = planUpcycle(llama, upcycleRecipe("E4G1T2")).target;
    const lines = [
      () => planUpcycle(llama, upcycleRecipe("E4G5T5")),
      () => planUpcycle(moe, upcycleRecipe("E4G1T2")),
    ].map(lineOf);
    expect(lines).toMatchInlineSnapshot(`
      [
        "recipe E4G5T5: the FFN size 48 (layer 0) is not divisible by G = 5; use a G that divides it: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48",
        "recipe E4G1T2: layer 0 of the source is already a mixture of 4 experts; upcycling starts from a dense model",
      ]
    `);
  });

  it("uneven top-k passes when insisted on, with a warning", () => {
    const recipe = upcycleRecipe("E8G8T4", { allowUnevenTopK: true });
    expect(recipeWarnings(recipe)).toHaveLength(1);
    expect(expectedPreservation(recipe, denseSpec("llama")).kind).toBe("approximate");
  });
});

describe("factors and expectations", () => {
  const llama = denseSpec("llama", { hidden: 2048 });

  it("follow equation 2 of the paper", () => {
    expect(scaleFactors(upcycleRecipe("E8G8T8")).output).toBe(8);
    expect(scaleFactors(upcycleRecipe("E8G8T8", { order: "softmax-topk" })).output).toBe(64);
    expect(scaleFactors(upcycleRecipe("E8G1T2", { order: "softmax-topk" })).down).toBe(4);
    expect(scaleFactors(upcycleRecipe("E8G8T8", { order: "softmax-topk", scaling: "paper" })).gate).toBeCloseTo(4, 12);
    expect(scaleFactors(upcycleRecipe("E8G1T2"))).toEqual({ output: 1, gate: 1, up: 1, down: 1 });
  });

  it("are stated in words", () => {
    const statements = [
      upcycleRecipe("E8G1T2"),
      upcycleRecipe("E8G8T8"),
      upcycleRecipe("E8G1T2", { order: "softmax-topk" }),
      upcycleRecipe("E8G1T2", { order: "softmax-topk", routerStd: 0 }),
      upcycleRecipe("E2G2T4", { order: "softmax-topk" }),
      upcycleRecipe("E8G8T8", { scaling: "paper" }),
      upcycleRecipe("E8G8T8", { scaling: "none" }),
      upcycleRecipe("E8G8T4", { allowUnevenTopK: true }),
    ].map((recipe) => {
      const { kind, exactAtStart, why } = expectedPreservation(recipe, llama);
      return `${recipeName(recipe)} ${recipe.order} ${recipe.scaling}: ${kind}, ${exactAtStart}: ${why}`;
    });
    expect(statements).toMatchInlineSnapshot(`
      [
        "E8G1T2 topk-softmax exact: exact, true: the selected weights sum to 1 and cover 2 whole copies of the FFN, for any router",
        "E8G8T8 topk-softmax exact: exact, true: the selected weights sum to 1 and cover 1 whole copy of the FFN, for any router",
        "E8G1T2 softmax-topk exact: constant-router, false: the selected weights sum to 2/8 only for equal logits; router std 0.02 at hidden size 2048 gives logits of std 0.91",
        "E8G1T2 softmax-topk exact: constant-router, true: all router logits are equal, so the selected weights sum to 2/8; training moves them",
        "E2G2T4 softmax-topk exact: exact, true: every expert is selected, so the weights sum to 1 for any router",
        "E8G8T8 topk-softmax paper: approximate, false: a factor of 2 on gate does not pass through silu; exact scaling puts it on down",
        "E8G8T8 topk-softmax none: approximate, false: unscaled experts give about 1/8 of the dense FFN's output",
        "E8G8T4 topk-softmax exact: approximate, false: top 4 does not hold whole groups of 8 parts, so parts of the FFN are missing or doubled",
      ]
    `);
  });

  it("warns of top 1 after a top-k softmax, and of a router of zeros", () => {
    expect(recipeWarnings(upcycleRecipe("E8G1T1", { routerStd: 0 }))).toMatchInlineSnapshot(`
      [
        "the softmax over one expert is always 1: the router gets no gradient from the language-modelling loss; use softmax-topk for top 1",
        "router std 0: all logits tie, so every token goes to the same experts until training moves the router",
      ]
    `);
    expect(recipeWarnings(upcycleRecipe("E8G1T1", { order: "softmax-topk" }))).toEqual([]);
  });
});
