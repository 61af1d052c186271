/**
 * What each surgery method makes of a parent, expressed by properties. The file is long because it has a section for
 * each method.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  softmaxRouter,
  type ActivationKind,
  type DecoderSpec,
  type RouterSpec,
} from "../../../src/model/decoder/types.js";
import { at, entryOf } from "../../../src/base/at.js";
import { evaluateExpr } from "../../../src/surgery/planning/evaluate.js";
import { expectedPreservation } from "../../../src/surgery/planning/expectation.js";
import { explainPlan } from "../../../src/surgery/planning/explain.js";
import { printExpr, sizeOf, sourceKeys, type Expr } from "../../../src/surgery/planning/expr.js";
import { expertOrigins, originValues } from "../../../src/surgery/planning/lineage.js";
import { planUpcycle, type SurgeryPlan } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe, type RecipeOptions } from "../../../src/surgery/planning/recipe.js";
import { contextOf, denseSpec, draftError, evaluatePlan, ffnError, randomTensors, evaluateRows } from "./fixtures.js";

const equal = 1e-14;
const rounded = 1e-6;

/** A decoder whose FFN is of any kind. */
function withFfn(gated: boolean, activation: ActivationKind, bias: boolean, ffnDim = 48): DecoderSpec {
  const source = denseSpec("llama", { layerCount: 1 });
  return {
    ...source,
    layers: source.layers.map((layer) => ({ ...layer, ffn: { kind: "dense", ffnDim, bias, activation, gated } })),
  };
}

const sigmoid: RouterSpec = { ...softmaxRouter("softmax-topk"), score: "sigmoid" };
const normalisedSigmoid: RouterSpec = { ...sigmoid, renormalise: { plus: 1e-20, atLeast: 0 }, scaling: 2.5 };

describe("exact scaling", () => {
  const kinds: [boolean, ActivationKind][] = [
    [true, "silu"],
    [true, "geluTanh"],
    [false, "gelu"],
    [false, "relu"],
    [false, "relu2"],
    [false, "geluTanh"],
  ];

  it.each(kinds)("keeps FFNs with biases (gated %s, %s), renormalised or constant", async (gated, activation) => {
    const source = withFfn(gated, activation, true);
    for (const name of ["E8G1T2", "E4G4T8", "E8G8T8"]) {
      expect(
        await draftError(source, upcycleRecipe(name, { routerStd: 1 }), softmaxRouter("topk-softmax")),
      ).toBeLessThan(equal);
      expect(
        await draftError(source, upcycleRecipe(name, { routerStd: 0 }), softmaxRouter("softmax-topk")),
      ).toBeLessThan(equal);
      expect(await draftError(source, upcycleRecipe(name, { routerStd: 0 }), sigmoid)).toBeLessThan(equal);
      expect(await draftError(source, upcycleRecipe(name, { routerStd: 1 }), normalisedSigmoid)).toBeLessThan(rounded);
    }
  });

  it("keeps FFNs with biases behind SparseMixer, whose weights are 1 and 1", async () => {
    const router: RouterSpec = { ...softmaxRouter("softmax-topk"), score: "sparsemixer" };
    expect(await draftError(withFfn(true, "silu", true), upcycleRecipe("E8G1T2"), router)).toBeLessThan(equal);
  });

  it("would be far off with the down bias scaled like the weights", async () => {
    const source = withFfn(false, "gelu", true);
    const wrong = { ...softmaxRouter("topk-softmax"), scaling: 1.5 };
    // The factors are of a router without the factor 1.5: outputs are 1.5 times too large.
    expect(await draftError(source, upcycleRecipe("E8G8T8"), wrong)).toBeLessThan(rounded);
    expect(await draftError(source, upcycleRecipe("E8G8T8", { scaling: "none" }), wrong)).toBeGreaterThan(0.5);
  });
});

describe("the paper's scaling", () => {
  it.each([
    [true, "relu"],
    [false, "relu"],
    [false, "relu2"],
  ] as [boolean, ActivationKind][])(
    "is exact where the activation is homogeneous (gated %s, %s), biases included",
    async (gated, activation) => {
      const recipe = upcycleRecipe("E8G8T8", { scaling: "paper", routerStd: 1 });
      expect(await draftError(withFfn(gated, activation, !gated), recipe, softmaxRouter("topk-softmax"))).toBeLessThan(
        rounded,
      );
      const plan = { ...recipe, order: "softmax-topk", routerStd: 0 } as const;
      expect(await draftError(withFfn(gated, activation, false), plan, softmaxRouter("softmax-topk"))).toBeLessThan(
        rounded,
      );
    },
  );

  it("leaves the bias behind down as it is, as Megatron-Core does, and says what that does", async () => {
    const source = withFfn(false, "relu2", true);
    const recipe = { ...upcycleRecipe("E8G8T8", { scaling: "paper", order: "softmax-topk", routerStd: 0 }) };
    const expected = expectedPreservation(recipe, source, softmaxRouter("softmax-topk"));
    expect(expected.kind).toBe("approximate");
    expect(expected.why).toBe(
      "the bias behind down stays as it is, as in Megatron-Core, but the selected weights sum to 0.125; exact " +
        "scaling takes this into account",
    );
    expect(await draftError(source, recipe, softmaxRouter("softmax-topk"))).toBeGreaterThan(0.1);
    const renormalised = { ...recipe, order: "topk-softmax" } as const;
    expect(expectedPreservation(renormalised, source, softmaxRouter("topk-softmax")).kind).toBe("exact");
  });

  // Double-precision figure of the literature notes for GELU E8G8T8 at unit pre-activations: 17.7 %.
  it("changes GELU by about 18 %", async () => {
    const source = { ...withFfn(false, "gelu", false, 256), hidden: 25 };
    const error = await draftError(
      source,
      upcycleRecipe("E8G8T8", { scaling: "paper" }),
      softmaxRouter("topk-softmax"),
    );
    expect(error).toBeGreaterThan(0.1);
    expect(error).toBeLessThan(0.25);
  });
});

async function errorOf(
  name: string,
  options: RecipeOptions,
  source = denseSpec("llama", { layerCount: 1 }),
): Promise<number> {
  const plan = planUpcycle(source, upcycleRecipe(name, options));
  const tensors = randomTensors(source, 0.2);
  return ffnError(plan, tensors, await evaluatePlan(plan, tensors));
}

describe("a shared expert with a part of the FFN", () => {
  it.each(["E8G1T2", "E4G4T8", "E2G8T8"])("keeps the function, behind a sigmoid gate: %s", async (name) => {
    expect(await errorOf(name, { shared: 16, routerStd: 1 }, denseSpec("qwen2", { layerCount: 1 }))).toBeLessThan(
      equal,
    );
  });

  it("keeps the function without a gate too", async () => {
    const recipe = upcycleRecipe("E4G4T8", { shared: 16, routerStd: 1 });
    expect(
      await draftError(denseSpec("llama", { layerCount: 1 }), recipe, normalisedSigmoid, {
        gated: false,
        required: false,
      }),
    ).toBeLessThan(rounded);
  });

  it("has its size in the spec, and routed experts come from the units behind it", async () => {
    const source = denseSpec("qwen2");
    const plan = planUpcycle(source, upcycleRecipe("E4G4T8", { shared: 16 }));
    expect(at(plan.target.layers, 0).ffn).toMatchObject({ ffnDim: 8, shared: { ffnDim: 16, gated: true } });
    expect(plan.unused).toEqual([]);
    expect(
      expertOrigins(source, plan.target).find(({ expert, part }) => expert === 5 && part === "up")!.from,
    ).toMatchObject({ rowStart: 24, rowCount: 8 });
    expect(explainPlan(plan).filter((line) => line.startsWith("shared"))).toMatchInlineSnapshot(`
      [
        "sharedGate (2 tensors): rows 0..15 of the parent's gate",
        "sharedUp (2 tensors): rows 0..15 of the parent's up",
        "sharedDown (2 tensors): columns 0..15 of the parent's down, times 2",
        "sharedRouter (2 tensors): filled with 0",
      ]
    `);
  });
});

describe("splitting without replication", () => {
  it("keeps the function where every part is selected", async () => {
    expect(await errorOf("E1G8T8", { routerStd: 1 })).toBeLessThan(equal);
  });

  it("gives every part a router row of its own, and a token the parts that it selects", async () => {
    const plan = planUpcycle(denseSpec("llama"), upcycleRecipe("E1G8T4"));
    expect(plan.outputs.find(({ slot }) => slot.at.part === "router")!.value).toMatchObject({
      op: "normal",
      repeat: 1,
    });
    expect(plan.expected).toMatchObject({ kind: "approximate", why: "a token gets 4 of the 8 parts of the FFN" });
    expect(at(plan.factors, 0)?.down).toBe(4);
    expect(plan.warnings).toEqual([
      "E1G8T4: a token gets 4 of 8 parts, chosen by an untrained router; expect a high loss at the start",
    ]);
  });
});

describe("chosen layers", () => {
  it("get experts, the others stay as they are", async () => {
    const source = denseSpec("qwen3", { layerCount: 4 });
    const plan = planUpcycle(source, upcycleRecipe("E4G2T4", { layers: "1,3" }));
    expect(plan.target.layers.map(({ ffn }) => ffn.kind)).toEqual(["dense", "moe", "dense", "moe"]);
    expect(plan.factors.map((factors) => factors?.output ?? null)).toEqual([null, 2, null, 2]);
    expect(plan.unused).toEqual([]);
    expect(plan.outputs.find(({ slot }) => slot.key === "layers.2.up")!.value).toEqual({
      op: "read",
      key: "layers.2.up",
    });
    expect(explainPlan(plan)[0]).toBe(
      "E4G2T4: qwen3 to qwen3_moe, 8 experts of size 24 in place of one FFN of 48 in 2 of 4 layers, 4 per " +
        "token, topk-softmax router",
    );
  });

  it("rule out targets that need experts in every layer", () => {
    const target = (layers: string): string =>
      planUpcycle(denseSpec("llama", { layerCount: 3 }), upcycleRecipe("E4G1T2", { layers })).target.family;
    expect([target("all"), target("1-"), target("even")]).toEqual(["mixtral", "qwen2_moe", "qwen2_moe"]);
  });
});

describe("padding", () => {
  it.each(["silu", "gelu", "geluTanh", "relu", "relu2"] as const)(
    "with zero units keeps FFNs of any activation, gated or not: %s",
    async (activation) => {
      const recipe = upcycleRecipe("E4G4T8", { pad: true, routerStd: 1 });
      for (const gated of [true, false]) {
        expect(
          await draftError(withFfn(gated, activation, true, 46), recipe, softmaxRouter("topk-softmax")),
        ).toBeLessThan(equal);
      }
    },
  );

  it("happens only if asked for, and fills the experts' origins alike", async () => {
    const source = denseSpec("llama", { ffnDim: 46, layerCount: 1 });
    expect(() => planUpcycle(source, upcycleRecipe("E4G4T8"))).toThrow("not divisible by G = 4");
    const plan = planUpcycle(source, upcycleRecipe("E4G4T8", { pad: true }));
    expect(at(plan.target.layers, 0).ffn.ffnDim).toBe(12);
    const parent = randomTensors(source, 1);
    const child = await evaluatePlan(plan, parent);
    for (const origin of expertOrigins(source, plan.target)) {
      const factor = origin.part === "down" ? 4 : 1;
      expect(originValues(entryOf(parent, origin.from.key), origin).map((value) => value * factor)).toEqual(
        child.get(origin.key),
      );
    }
  });
});

describe("permutation", () => {
  it("gives every expert an order of its own, and keeps the function", async () => {
    const source = denseSpec("llama", { layerCount: 1 });
    const plan = planUpcycle(source, upcycleRecipe("E4G2T4", { permute: true, routerStd: 1 }));
    expect(plan.expected.kind).toBe("exact");
    const parent = randomTensors(source, 0.2);
    const child = await evaluatePlan(plan, parent);
    expect(ffnError(plan, parent, child)).toBeLessThan(equal);
    const [first, third] = [entryOf(child, "layers.0.experts.0.up"), entryOf(child, "layers.0.experts.2.up")];
    expect([...first].sort()).toEqual([...third].sort());
    expect(first).not.toEqual(third);
  });
});

describe("a router without groups", () => {
  it("has a row for every part, where one with groups repeats a row for all parts of a copy", async () => {
    const source = denseSpec("llama", { layerCount: 1 });
    const parent = randomTensors(source, 0.2);
    const rowsOf = async (routerGroups: boolean): Promise<number> => {
      const plan = planUpcycle(source, upcycleRecipe("E4G2T4", { routerGroups, routerStd: 1 }));
      const router = entryOf(await evaluatePlan(plan, parent), "layers.0.router");
      const rows = Array.from({ length: 8 }, (_, i) => router.slice(i * source.hidden, (i + 1) * source.hidden).join());
      return new Set(rows).size;
    };
    expect([await rowsOf(true), await rowsOf(false)]).toEqual([4, 8]);
  });

  it("loses the function, says so, and keeps it where all logits are equal", async () => {
    const source = denseSpec("llama", { layerCount: 1 });
    const parent = randomTensors(source, 0.2);
    const drawn = planUpcycle(source, upcycleRecipe("E4G2T4", { routerGroups: false, routerStd: 1 }));
    expect(ffnError(drawn, parent, await evaluatePlan(drawn, parent))).toBeGreaterThan(0.05);
    expect(drawn.expected).toMatchObject({ kind: "approximate", exactAtStart: false });
    expect(drawn.warnings.join()).toContain("without groups the router chooses parts");
    const constant = planUpcycle(source, upcycleRecipe("E4G2T4", { routerGroups: false, routerStd: 0 }));
    expect(ffnError(constant, parent, await evaluatePlan(constant, parent))).toBeLessThan(equal);
    expect(constant.expected.exactAtStart).toBe(true);
  });

  it.each([
    ["E8G1T2", {}, "whole copies have no parts: G is 1"],
    ["E1G8T2", {}, "the parts of one copy have rows of their own in any case"],
    [
      "E2G2T2",
      {
        routerInit: { kind: "hidden", prompts: [1, 2].map((n) => ({ positive: [`text ${n}`], negative: [] })) },
      } as const,
      "prompts tell copies apart, not parts",
    ],
  ])("is refused for %s with %j", (name, options, why) => {
    expect(() => upcycleRecipe(name, { ...options, routerGroups: false })).toThrow(why);
  });
});

/** A wide FFN, so that statistics mean something. */
const wide = denseSpec("llama", { layerCount: 1, ffnDim: 512, hidden: 64 });

describe("Drop-Upcycling", () => {
  const offset = 0.05;
  const parent = new Map(
    [...randomTensors(wide, 0.1)].map(([key, values]) => [
      key,
      values.map((value, i) => value * (1 + (i % 7)) + offset),
    ]),
  );
  const plan = planUpcycle(wide, upcycleRecipe("E4G1T2", { drop: 0.25, seed: 5 }));

  it("draws the same hidden units of gate, up and down afresh, others for each expert, and keeps the rest", async () => {
    const child = await evaluatePlan(plan, parent);
    const unitsOf = (expert: number, part: "gate" | "up" | "down"): number[] => {
      const [own, dense] = [entryOf(child, `layers.0.experts.${expert}.${part}`), entryOf(parent, `layers.0.${part}`)];
      const changed = new Set<number>();
      own.forEach((value, i) => value !== dense[i] && changed.add(part === "down" ? i % 512 : Math.floor(i / 64)));
      return [...changed].sort((a, b) => a - b);
    };
    for (let expert = 0; expert < 4; expert++) {
      expect(unitsOf(expert, "gate")).toHaveLength(128);
      expect(unitsOf(expert, "up")).toEqual(unitsOf(expert, "gate"));
      expect(unitsOf(expert, "down")).toEqual(unitsOf(expert, "gate"));
    }
    expect(unitsOf(1, "gate")).not.toEqual(unitsOf(0, "gate"));
  });

  it("draws them from a normal with the mean and std of what was dropped", async () => {
    const child = await evaluatePlan(plan, parent);
    for (const part of ["gate", "up", "down"] as const) {
      const [own, dense] = [entryOf(child, `layers.0.experts.2.${part}`), entryOf(parent, `layers.0.${part}`)];
      const dropped = [...own.keys()].filter((i) => own[i] !== dense[i]);
      const before = moments(dropped.map((i) => at(dense, i)));
      const after = moments(dropped.map((i) => at(own, i)));
      // 8192 values: the mean's standard error is std / 90, the std's about std / 128.
      expect(Math.abs(after.mean - before.mean)).toBeLessThan((4 * before.std) / 90);
      expect(Math.abs(after.std / before.std - 1)).toBeLessThan(4 / 128);
      expect(after.kurtosis).toBeGreaterThan(2.7);
      expect(after.kurtosis).toBeLessThan(3.3);
    }
  });

  it("drops 29 of 100 units with ratio 0.29, whose product is a last place below 29", () => {
    const hundred = denseSpec("llama", { layerCount: 1, ffnDim: 100, hidden: 64 });
    const values = planUpcycle(hundred, upcycleRecipe("E4G1T2", { drop: 0.29 })).outputs.map(({ value }) => value);
    const counts = values.flatMap((value) => (value.op === "redraw" ? [value.count] : []));
    expect(new Set(counts)).toEqual(new Set([29]));
  });

  it("copies all units with ratio 0, and keeps none with ratio 1", async () => {
    expect(
      planUpcycle(wide, upcycleRecipe("E4G1T2", { drop: 0 })).outputs.every(
        ({ value }) => !printExpr(value).includes("redraw"),
      ),
    ).toBe(true);
    const child = await evaluatePlan(planUpcycle(wide, upcycleRecipe("E4G1T2", { drop: 1 })), parent);
    const own = entryOf(child, "layers.0.experts.0.up");
    expect(own.every((value, i) => value !== entryOf(parent, "layers.0.up")[i])).toBe(true);
  });
});

describe("noise", () => {
  const parent = randomTensors(wide, 0.3);
  const added = async (noise: { std: number; relative: boolean; fraction: number }): Promise<number[]> => {
    const child = await evaluatePlan(planUpcycle(wide, upcycleRecipe("E4G1T2", { noise })), parent);
    return [...entryOf(child, "layers.0.experts.1.down")].map(
      (value, i) => value - at(entryOf(parent, "layers.0.down"), i),
    );
  };

  it("is normal, with the std that was asked for", async () => {
    const { mean, std, kurtosis } = moments(await added({ std: 0.01, relative: false, fraction: 1 }));
    expect(Math.abs(mean)).toBeLessThan((4 * 0.01) / 181);
    expect(std).toBeCloseTo(0.01, 3);
    expect(kurtosis).toBeCloseTo(3, 0);
  });

  it("may be relative to each tensor's own std", async () => {
    expect(moments(await added({ std: 0.1, relative: true, fraction: 1 })).std).toBeCloseTo(0.03, 3);
  });

  it("may be put on a share of the elements", async () => {
    const values = await added({ std: 0.01, relative: false, fraction: 0.25 });
    const changed = values.filter((value) => value !== 0);
    // 32768 elements: the share's standard error is 0.0024.
    expect(changed.length / values.length).toBeCloseTo(0.25, 1);
    expect(Math.abs(changed.length / values.length - 0.25)).toBeLessThan(0.01);
    expect(moments(changed).std).toBeCloseTo(0.01, 3);
  });

  it("differs between experts and leaves router and attention alone", async () => {
    const plan = planUpcycle(wide, upcycleRecipe("E4G1T2", { noise: { std: 0.01, relative: false, fraction: 1 } }));
    const child = await evaluatePlan(plan, parent);
    expect(child.get("layers.0.experts.0.up")).not.toEqual(child.get("layers.0.experts.1.up"));
    expect(child.get("layers.0.q")).toEqual(parent.get("layers.0.q"));
  });
});

describe("random experts", () => {
  it("have nothing of the parent's FFN", async () => {
    const plan = planUpcycle(wide, upcycleRecipe("E4G1T2", { experts: "random" }));
    expect(plan.unused).toEqual(["layers.0.gate", "layers.0.up", "layers.0.down"]);
    const { mean, std } = moments([
      ...entryOf(await evaluatePlan(plan, randomTensors(wide, 1)), "layers.0.experts.3.gate"),
    ]);
    expect(Math.abs(mean)).toBeLessThan(0.0005);
    expect(std).toBeCloseTo(wide.initStd, 3);
  });
});

describe("values of these methods", () => {
  const source = denseSpec("llama", { layerCount: 1, ffnDim: 46 });
  const all: RecipeOptions = {
    pad: true,
    drop: 0.3,
    permute: true,
    noise: { std: 0.5, relative: true, fraction: 0.5 },
    scaling: "paper",
  };
  const plan: SurgeryPlan = planUpcycle(source, upcycleRecipe("E2G4T4", all));
  const tensors = randomTensors(source, 0.3);

  it("are the same however an output is cut into rectangles", async () => {
    const expertOutputs = plan.outputs.filter(({ slot }) => slot.at.expert !== undefined);
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...expertOutputs), fc.nat(100), fc.nat(100), async ({ slot, value }, a, b) => {
        const context = (): ReturnType<typeof contextOf> => contextOf(source, 3, tensors);
        const rows = at(slot.shape, 0);
        const [from, to] = [a % rows, b % rows].sort((x, y) => x - y) as [number, number];
        const whole = await evaluateExpr(value, slot.shape, "F32", context());
        const part = await evaluateRows(value, slot.shape, from, to - from, "F32", context());
        const width = whole.length / rows;
        expect(Buffer.compare(part, whole.subarray(from * width, to * width))).toBe(0);
      }),
      { numRuns: 60 },
    );
  });

  it("have sizes, sources, a printed form and JSON", () => {
    for (const { slot, value } of plan.outputs) {
      if (slot.at.expert === undefined) continue;
      expect(
        sizeOf(value, new Map([[at(sourceKeys(value), 0), slot.at.part === "down" ? [16, 46] : [46, 16]]])),
      ).toEqual(slot.shape);
    }
    expect(new Set(plan.outputs.map(({ value }) => printExpr(value))).size).toBe(plan.outputs.length);
    expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
    expect(
      printExpr(plan.outputs.find(({ slot }) => slot.key === "layers.0.experts.7.down")!.value),
    ).toMatchInlineSnapshot(
      `"scale(shuffle(noise(redraw(pad(columns(layers.0.down, 36..45), 16 x 12), 3 columns, choice ` +
        "layers.0.experts.7.drop, stream layers.0.experts.7.down.drop), std 0.5 of its own, on 0.5 of the " +
        "elements, stream layers.0.experts.7.down.noise), columns, stream layers.0.experts.7.order), " +
        `1.587401032447815)"`,
    );
    expect(explainPlan(plan).filter((line) => line.startsWith("experts"))).toMatchInlineSnapshot(`
      [
        "experts.gate (8 tensors): rows 0..11 of the parent's gate, 3 of its rows drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, rows in an order of its own, times 1.587; rows 12..23 of the parent's gate, 3 of its rows drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, rows in an order of its own, times 1.587; and so on, 4 parts in turn",
        "experts.up (8 tensors): rows 0..11 of the parent's up, 3 of its rows drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, rows in an order of its own, times 1.587; rows 12..23 of the parent's up, 3 of its rows drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, rows in an order of its own, times 1.587; and so on, 4 parts in turn",
        "experts.down (8 tensors): columns 0..11 of the parent's down, 3 of its columns drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, columns in an order of its own, times 1.587; columns 12..23 of the parent's down, 3 of its columns drawn afresh with their mean and std, plus noise of std 0.5 times their own on 50 % of the elements, columns in an order of its own, times 1.587; and so on, 4 parts in turn",
      ]
    `);
  });

  it("throw a plain error for parts of drawn values", () => {
    const drawn: Expr = { op: "normal", std: 1, stream: "x", repeat: 1 };
    expect(() => sizeOf({ op: "rows", of: drawn, start: 0, count: 1 }, new Map())).toThrow("part of drawn values");
  });
});

function moments(values: readonly number[]): { mean: number; std: number; kurtosis: number } {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const central = (power: number): number =>
    values.reduce((sum, value) => sum + (value - mean) ** power, 0) / values.length;
  return { mean, std: Math.sqrt(central(2)), kurtosis: central(4) / central(2) ** 2 };
}
