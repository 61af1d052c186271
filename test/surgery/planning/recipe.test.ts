import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { softmaxRouter, type RouterSpec } from "../../../src/model/decoder/types.js";
import { expectedPreservation, recipeWarnings } from "../../../src/surgery/planning/expectation.js";
import { chosenLayers } from "../../../src/surgery/planning/layers.js";
import {
  parseRecipeName,
  recipeDefaults,
  recipeName,
  upcycleRecipe,
  type RecipeOptions,
  type UpcycleRecipe,
} from "../../../src/surgery/planning/recipe.js";
import { scaleFactors, selectedWeight, type Factors } from "../../../src/surgery/planning/scaling.js";
import { denseSpec } from "./fixtures.js";
import { lineOf } from "../../support/line.js";

const swiglu = { gated: true, activation: "silu" } as const;
const factorsOf = (recipe: UpcycleRecipe): Factors => scaleFactors(recipe, softmaxRouter(recipe.order), swiglu);
const warningsOf = (recipe: UpcycleRecipe): string[] => recipeWarnings(recipe, softmaxRouter(recipe.order));

describe("recipe names", () => {
  it("are printed as they were parsed", () => {
    const size = fc.integer({ min: 1, max: 999_999 });
    fc.assert(
      fc.property(size, size, size, (expansion, granularity, topK) => {
        const shape = { expansion, granularity, topK };
        expect(parseRecipeName(recipeName(shape))).toEqual(shape);
      }),
    );
  });

  it("are read in lower case and with surrounding blanks", () => {
    expect(parseRecipeName(" e8g2t4 ")).toEqual({ expansion: 8, granularity: 2, topK: 4 });
  });

  it.each(["", "E8", "E8G1", "E8G1T", "E0G1T1", "E08G1T1", "E-8G1T1", "E8.5G1T1", "8x7B", "E8G1T2x"])(
    "refuses %j",
    (text) => {
      expect(lineOf(() => parseRecipeName(text))).toBe(
        `"${text}" is not a recipe name; write E<copies>G<parts>T<experts per token>, for example E8G1T2`,
      );
    },
  );
});

describe("recipe options", () => {
  it("take defaults if they are left out or undefined", () => {
    const defaults = { expansion: 8, granularity: 1, topK: 2, target: null, order: "topk-softmax", scaling: "exact" };
    const recipe = upcycleRecipe("E8G1T2", { target: undefined, seed: 3, routerStd: 0 });
    expect(recipe).toEqual({ ...recipeDefaults, ...defaults, routerStd: 0, seed: 3 });
  });
});

describe("a recipe is refused", () => {
  it("for numbers and router orders that make no sense for any model", () => {
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

  it("for a source that is MoE already or that G does not divide", () => {
    const llama = denseSpec("llama");
    const moe = planUpcycle(llama, upcycleRecipe("E4G1T2")).target;
    const lines = [
      () => planUpcycle(llama, upcycleRecipe("E4G5T5")),
      () => planUpcycle(moe, upcycleRecipe("E4G1T2")),
    ].map(lineOf);
    expect(lines).toMatchInlineSnapshot(`
      [
        "recipe E4G5T5: the FFN size 48 (layer 0) is not divisible by G = 5; use a G that divides it: 1, 2, 3, 4, 6, 8, 12, 16, 24, 48; or fill it with zero units (--pad, in files pad: true)",
        "recipe E4G1T2: layer 0 of the source is already a mixture of 4 experts; upcycling starts from a dense model",
      ]
    `);
  });

  it("for methods that contradict each other or make no sense", () => {
    const lines = [
      () => upcycleRecipe("E8G1T2", { drop: 1.5 }),
      () => upcycleRecipe("E8G1T2", { noise: { std: -1, relative: false, fraction: 1 } }),
      () => upcycleRecipe("E8G1T2", { noise: { std: 1, relative: false, fraction: 2 } }),
      () => upcycleRecipe("E8G1T2", { experts: "random", permute: true }),
      () => upcycleRecipe("E8G1T2", { shared: 0 }),
      () => upcycleRecipe("E8G1T2", { auxLossCoef: -1 }),
      () => upcycleRecipe("E8G1T2", { layers: "4-2" }),
      () => upcycleRecipe("E8G1T2", { layers: "first" }),
      () => planUpcycle(denseSpec("llama"), upcycleRecipe("E8G1T2", { layers: "1-5" })),
      () => planUpcycle(denseSpec("llama"), upcycleRecipe("E8G1T2", { layers: "2-" })),
      () => planUpcycle(denseSpec("llama", { layerCount: 1 }), upcycleRecipe("E8G1T2", { layers: "odd" })),
      () => planUpcycle(denseSpec("qwen2"), upcycleRecipe("E8G8T8", { shared: 44 })),
      () => planUpcycle(denseSpec("qwen2"), upcycleRecipe("E4G4T4", { shared: 6 })),
      () => planUpcycle(denseSpec("llama"), upcycleRecipe("E4G32T32", { pad: true })),
    ].map(lineOf);
    expect(lines).toMatchInlineSnapshot(`
      [
        "recipe E8G1T2: the drop ratio is 1.5, expected a number from 0 to 1",
        "recipe E8G1T2: the noise's std is -1, expected a number of at least 0",
        "recipe E8G1T2: the noise's fraction is 2, expected a number from 0 to 1",
        "recipe E8G1T2: random experts have nothing of the dense FFN that noise, drop or permutation could act on; leave those out, or start from copies",
        "recipe E8G1T2: the shared expert's size is 0, expected a whole number of at least 1",
        "recipe E8G1T2: the coefficient of the auxiliary loss is -1, expected a number of at least 0",
        "layers: "4-2" names no layers; write all, even, odd, or numbers and ranges from 0, for example 0,4-7,12-",
        "layers: "first" names no layers; write all, even, odd, or numbers and ranges from 0, for example 0,4-7,12-",
        "layers 1-5: there is no layer 5: the model has layers 0 to 1",
        "layers 2-: there is no layer 2: the model has layers 0 to 1",
        "layers: none of 1 layer is odd",
        "recipe E8G8T8: a shared expert of 44 leaves 4 of the FFN's 48 units (layer 0) for G = 8 parts",
        "recipe E4G4T4: the FFN size 48 less the shared 6 (layer 0) is not divisible by G = 4; use a G that divides it: 1, 2, 3, 6, 7, 14, 21, 42; or fill it with zero units (--pad, in files pad: true)",
        "recipe E4G32T32: with padding, 48 units (layer 0) fill fewer than G = 32 parts; use a smaller G",
      ]
    `);
  });

  it("for a target without what the recipe asks for", () => {
    const line = (family: "llama" | "qwen3", options: RecipeOptions): string =>
      lineOf(() => planUpcycle(denseSpec(family), upcycleRecipe("E8G1T2", options)));
    expect(line("llama", { layers: "even", target: "mixtral" })).toContain(
      "a mixtral model cannot have dense layers beside mixture-of-experts layers; these can: qwen2_moe",
    );
    expect(line("qwen3", { shared: 8, target: "qwen3_moe" })).toContain(
      "qwen3_moe cannot hold this qwen3 model: it has no shared expert; these can: ",
    );
  });

  it("for a T that G does not divide, unless the caller insists; then with a warning", () => {
    const recipe = upcycleRecipe("E8G8T4", { allowUnevenTopK: true });
    expect(warningsOf(recipe)).toHaveLength(1);
    expect(expectedPreservation(recipe, denseSpec("llama"), softmaxRouter(recipe.order)).kind).toBe("approximate");
  });
});

describe("factors and expectations", () => {
  const llama = denseSpec("llama", { hidden: 2048 });

  it("follow equation 2 of He et al.", () => {
    expect(factorsOf(upcycleRecipe("E8G8T8")).output).toBe(8);
    expect(factorsOf(upcycleRecipe("E8G8T8", { order: "softmax-topk" })).output).toBe(64);
    expect(factorsOf(upcycleRecipe("E8G1T2", { order: "softmax-topk" })).down).toBe(4);
    expect(factorsOf(upcycleRecipe("E8G8T8", { order: "softmax-topk", scaling: "paper" })).gate).toBeCloseTo(4, 12);
    expect(factorsOf(upcycleRecipe("E8G1T2"))).toEqual({ output: 1, gate: 1, up: 1, down: 1, downBias: 1 });
  });

  it("of paper scaling are float32 numbers: cube roots if gated or squared ReLU, else square roots", () => {
    const recipe = upcycleRecipe("E8G3T3", { scaling: "paper" });
    const of = (gated: boolean, activation: "silu" | "gelu" | "relu" | "relu2"): Factors =>
      scaleFactors(recipe, softmaxRouter("topk-softmax"), { gated, activation });
    const [third, half] = [Math.fround(3 ** (1 / 3)), Math.fround(Math.sqrt(3))];
    expect(of(true, "silu")).toEqual({ output: 3, gate: third, up: third, down: third, downBias: 1 });
    expect(of(true, "gelu").up).toBe(third);
    expect(of(false, "relu2").down).toBe(third);
    expect([of(false, "gelu").up, of(false, "gelu").down, of(false, "relu").up]).toEqual([half, half, half]);
  });

  const sigmoid: RouterSpec = { ...softmaxRouter("softmax-topk"), score: "sigmoid" };

  it("follow the weight that a router gives each selected expert", () => {
    const weights = [
      softmaxRouter("topk-softmax"),
      softmaxRouter("softmax-topk"),
      sigmoid,
      { ...sigmoid, renormalise: { plus: 1e-20, atLeast: 0 }, scaling: 2.5 },
      { ...softmaxRouter("softmax-topk"), score: "sparsemixer" } as const,
      { ...softmaxRouter("topk-softmax"), renormalise: { plus: 0, atLeast: 1 } },
    ].map((router) => selectedWeight(router, 64, 8));
    expect(weights).toEqual([1 / 8, 1 / 64, 1 / 2, 2.5 / 8, 1, 1 / 64]);
    expect(scaleFactors(upcycleRecipe("E8G8T8"), sigmoid, swiglu)).toEqual({
      output: 2,
      gate: 1,
      up: 1,
      down: 2,
      downBias: 1 / 4,
    });
    expect(factorsOf(upcycleRecipe("E8G8T8", { order: "softmax-topk" })).downBias).toBe(8);
    expect(factorsOf(upcycleRecipe("E8G8T8", { order: "softmax-topk", scaling: "none" })).downBias).toBe(1);
  });

  it("give an expectation that depends on the router", () => {
    const sentence = (name: string, router: RouterSpec, options = {}): string => {
      const { kind, exactAtStart, why } = expectedPreservation(upcycleRecipe(name, options), llama, router);
      return `${kind}, ${exactAtStart}: ${why}`;
    };
    const sparsemixer = { ...softmaxRouter("softmax-topk"), score: "sparsemixer" } as const;
    expect([
      sentence("E8G2T4", { ...sigmoid, renormalise: { plus: 1e-20, atLeast: 0 }, scaling: 2.5 }),
      sentence("E8G2T4", sigmoid),
      sentence("E8G2T16", sigmoid, { routerStd: 0 }),
      sentence("E8G1T2", sparsemixer),
      sentence("E8G1T2", { ...sparsemixer, jitter: 0.01 }),
      sentence("E8G2T2", sparsemixer),
      sentence("E8G1T2", sparsemixer, { routerStd: 0 }),
      sentence("E8G1T2", { ...softmaxRouter("topk-softmax"), renormalise: { plus: 0, atLeast: 1 } }),
      sentence("E8G1T2", softmaxRouter("topk-softmax"), { drop: 0.5 }),
      sentence("E8G1T2", softmaxRouter("topk-softmax"), { noise: { std: 0.1, relative: true, fraction: 1 } }),
      sentence("E8G1T2", softmaxRouter("topk-softmax"), { experts: "random" }),
      sentence("E1G8T4", softmaxRouter("topk-softmax")),
      sentence("E8G1T2", softmaxRouter("topk-softmax"), { permute: true }),
      sentence("E8G1T4", sigmoid, { scaling: "none" }),
    ]).toMatchInlineSnapshot(`
      [
        "exact, true: the selected weights sum to 2.5 and cover 2 whole copies of the FFN, for any router",
        "constant-router, false: the selected weights sum to 4/2 only for zero logits; router std 0.02 at hidden size 2048 gives logits of std 0.91",
        "constant-router, true: all router logits are equal, so the selected weights sum to 16/2; training moves them",
        "exact, true: sparsemixer without jitter gives both selected experts the weight 1, for any router without ties",
        "approximate, false: sparsemixer with jitter 0.01 shares each weight among logits that are close to the largest",
        "approximate, false: sparsemixer shares a weight among equal logits, which the parts of one copy have",
        "approximate, false: sparsemixer shares a weight among equal logits, which a router of zeros has",
        "constant-router, false: the selected weights sum to 2/8 only for equal logits; router std 0.02 at hidden size 2048 gives logits of std 0.91",
        "approximate, false: 50 % of each expert's hidden units are drawn afresh",
        "approximate, false: the experts are copies with noise",
        "approximate, false: the experts are drawn afresh and know nothing of the FFN",
        "approximate, false: a token gets 4 of the 8 parts of the FFN",
        "exact, true: the selected weights sum to 1 and cover 2 whole copies of the FFN, for any router",
        "approximate, false: unscaled experts give about 2 times the dense FFN's output",
      ]
    `);
  });

  it("are stated in words for every recipe", () => {
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
      const { kind, exactAtStart, why } = expectedPreservation(recipe, llama, softmaxRouter(recipe.order));
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

  it("come with warnings of top 1 after a top-k softmax, and of a router of zeros", () => {
    expect(warningsOf(upcycleRecipe("E8G1T1", { routerStd: 0 }))).toMatchInlineSnapshot(`
      [
        "the softmax over one expert is always 1: the router gets no gradient from the language-modelling loss; use softmax-topk for top 1",
        "router std 0: all logits tie, so every token goes to the same experts until training moves the router",
      ]
    `);
    expect(warningsOf(upcycleRecipe("E8G1T1", { order: "softmax-topk" }))).toEqual([]);
  });
});

describe("chosen layers", () => {
  const numbers = (layers: string, count: number): number[] =>
    chosenLayers({ layers }, count).flatMap((chosen, layer) => (chosen ? [layer] : []));

  it("are named by words, numbers and ranges", () => {
    expect(["all", "even", "odd", "1", "0, 2-3", "3-", "1 - 2,1"].map((text) => numbers(text, 5).join(" "))).toEqual([
      "0 1 2 3 4",
      "0 2 4",
      "1 3",
      "1",
      "0 2 3",
      "3 4",
      "1 2",
    ]);
  });
});
