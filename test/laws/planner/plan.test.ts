import { describe, expect, it } from "vitest";
import { countParams } from "../../../src/model/cost/params.js";
import { publishedCoefficients } from "../../../src/laws/planner/coefficients.js";
import { makePlan } from "../../../src/laws/planner/plan.js";
import type { PlanRequest } from "../../../src/laws/planner/plan-types.js";
import {
  mixtureOf,
  parseShape,
  presets,
  publishedShape,
  shapeOfSize,
  shapeSpec,
} from "../../../src/laws/planner/shape.js";
import { batchFor, usualPeak } from "../../../src/laws/planner/training.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import { h100, presetSpec, requestFor } from "./request.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

describe("presets", () => {
  // Element counts of the published checkpoints.
  it.each([
    ["tinyllama-1.1b", 1_100_048_384],
    ["llama-3.2-1b", 1_235_814_400],
    ["llama-3.2-3b", 3_212_749_824],
    ["qwen2.5-0.5b", 494_032_768],
    ["qwen2.5-7b", 7_615_616_512],
    ["qwen3-8b", 8_190_735_360],
    ["llama-2-7b", 6_738_415_616],
    ["mistral-7b", 7_241_732_096],
    ["olmo-2-7b", 7_298_617_344],
    ["llama-3.1-8b", 8_030_261_248],
    ["llama-3.1-70b", 70_553_706_496],
  ])("%s has its published number of parameters", (id, total) => {
    expect(countParams(presetSpec(id)).total).toBe(total);
  });

  it("are all counted above, but one that is known to four digits", () => {
    expect((countParams(presetSpec("nemotron-4-15b")).total / 1e9).toFixed(2)).toBe("15.63");
    expect(presets).toHaveLength(12);
  });
});

describe("shapes of published trainings", () => {
  it("have the published parameters, all and those of a token", () => {
    const { total, active } = countParams(publishedShape("deepseek-v3"));
    // 671B and 37B by its README; the counts are those of its config.json, without multi-token prediction.
    expect([total, active]).toEqual([671_026_419_200, 37_552_297_472]);
    expect(countParams(publishedShape("olmoe-1b-7b")).total).toBe(6_919_161_856);
  });
});

describe("shapes", () => {
  it.each([1e7, 1e8, 4e8, 1e9, 3e9, 7e9, 3e10, 7e10, 4e11])(
    "of %d parameters are of about that size and can be laid out",
    (size) => {
      const shape = shapeOfSize(size);
      expect(Math.abs(countParams(shapeSpec(shape)).total / size - 1)).toBeLessThan(0.06);
      expect([shape.heads % shape.kvHeads, shape.layers % 2, shape.ffnDim % 256]).toEqual([0, 0, 0]);
    },
  );

  it("become mixtures with the parameters that the recipe says", () => {
    const dense = presetSpec("mistral-7b");
    expect(countParams(mixtureOf(dense, parseRecipeName("E8G1T2"))).total).toBe(46_702_792_704);
    expect(() => mixtureOf(dense, parseRecipeName("E8G5T5"))).toThrow("not divisible by G = 5");
  });

  it.each([
    ["hidden=8,layers=2", "heads is missing"],
    ["hidden=8,layers=2,heads=3,inner=8,vocab=9", "heads 3 does not divide hidden 8"],
    ["hidden=8,layers=x,heads=2,inner=8,vocab=9", 'layers is "x", expected a whole number'],
    ["width=8", '"width=8" is not NAME=VALUE with a known name'],
    ["hidden=8,layers=2,heads=2,inner=8,vocab=9,tied=yes", 'tied is "yes", expected true or false'],
    ["hidden=8,hidden=9", "hidden is given twice"],
    ["hidden=8,layers=2,heads=4,kv=3,inner=8,vocab=9", "kv 3 does not divide heads 4"],
  ])("%s is refused", (text, line) => {
    expect(() => parseShape(text, "--shape")).toThrow(line);
  });
});

describe("a plan", () => {
  const plan = makePlan(requestFor());

  it("predicts with Table 2 and clamps at the parent", () => {
    const [dense, upcycled, scratch] = plan.arms;
    expect(plan.parentLoss).toBeCloseTo(8.83 * 1e11 ** -0.088 + 12.3 * plan.size ** -0.116 + 0.165, 12);
    expect(present(dense).loss).toBeCloseTo(8.83 * 1.5e11 ** -0.088 + 12.3 * plan.size ** -0.116 + 0.165, 12);
    expect(present(scratch).loss).toBeCloseTo(32 * 5e10 ** -0.161 + 7.05 * plan.size ** -0.08 + 0.165, 12);
    const law =
      16.3 * 1e11 ** -0.043 * 5e10 ** (-0.085 + 7.98e-4 * Math.log(1e11)) + 8.53 * plan.size ** -0.112 + 0.165;
    expect(upcycled).toMatchObject({ unclamped: null, otherRecipe: false });
    expect(present(upcycled).loss).toBeCloseTo(law, 12);
    const few = makePlan(requestFor({ budget: { tokens: 5e9, gpuHours: null, money: null, days: null } }));
    expect(at(few.arms, 1).loss).toBe(few.parentLoss);
    expect(at(few.arms, 1).unclamped).toBeGreaterThan(present(few.parentLoss));
    // No verdict from a law that does not hold.
    expect(few.answer).toMatchObject({
      verdict: "open",
      ahead: [],
      clamped: true,
      equalTokens: { basis: "published" },
    });
    expect(few.sensitivity).toEqual([]);
    expect(present(few.notes.find(({ kind }) => kind === "clamped")).text).toContain("worse than the parent itself");
    expect(present(few.best).arm).toBe(0);
  });

  it("has intervals that hold the value", () => {
    for (const arm of plan.arms) {
      const [loss, { low, high }] = [present(arm.loss), present(arm.interval)];
      expect(low < loss && loss < high).toBe(true);
    }
    expect(makePlan(requestFor()).arms).toEqual(plan.arms);
    expect(at(makePlan(requestFor({ seed: 1 })).arms, 0).interval).not.toEqual(at(plan.arms, 0).interval);
    expect(at(makePlan(requestFor({ draws: 0 })).arms, 0).interval).toBeNull();
  });

  it("turns every kind of budget into tokens", () => {
    const of = (budget: object): ReturnType<typeof makePlan> =>
      makePlan(
        requestFor({
          budget: { tokens: null, gpuHours: null, money: null, days: null, ...budget },
          batchTokens: 2 ** 22,
        }),
      );
    const hours = of({ gpuHours: 6400 });
    expect(hours.arms.map(({ gpuHours }) => Math.round(present(gpuHours)))).toEqual([6400, 6400, 6400]);
    const equal = (other: typeof hours): void =>
      other.arms.forEach(({ tokens }, i) =>
        expect(present(tokens) / present(at(hours.arms, i).tokens)).toBeCloseTo(1, 9),
      );
    equal(of({ money: 16000 }));
    equal(of({ days: 100 / 24 }));
    equal(of({ gpuHours: 6400, money: 1e6, tokens: 1e15 }));
    // A mixture costs more a token, so it gets fewer.
    expect(present(at(hours.arms, 1).tokens)).toBeLessThan(present(at(hours.arms, 0).tokens));
    expect(of({ gpuHours: 6400, tokens: 1e9 }).arms.map(({ tokens }) => tokens)).toEqual([1e9, 1e9, 1e9]);
  });

  it("gives times an interval from published trainings, and none where the share of peak was measured", () => {
    const { calibration, arms } = plan;
    expect(calibration.count).toBe(9);
    expect(calibration.speed).toBeCloseTo(0.8, 2);
    for (const { seconds, secondsInterval } of arms) {
      expect(present(secondsInterval).low / present(seconds)).toBeCloseTo(calibration.low, 9);
      expect(present(secondsInterval).high / present(seconds)).toBeCloseTo(calibration.high, 9);
    }
    const measured = makePlan(requestFor({ mfu: { dense: 0.4, moe: 0.3 } }));
    expect(measured.arms.map(({ secondsInterval }) => secondsInterval)).toEqual([null, null, null]);
    expect(measured.notes.some(({ kind }) => kind === "time")).toBe(false);
  });

  it("uses a measured share of peak", () => {
    const withMfu = makePlan(requestFor({ mfu: { dense: 0.4, moe: 0.3 } }));
    for (const [i, mfu] of [
      [0, 0.4],
      [1, 0.3],
    ] as const) {
      const { flops, tokensPerSecond } = present(withMfu.models[i]);
      expect((3 * flops.total * present(tokensPerSecond)) / (64 * 989.4e12)).toBeCloseTo(mfu, 12);
    }
  });

  it("says what is extrapolation, and about which recipe the laws are", () => {
    const far = makePlan(requestFor({ seen: 1e13, recipes: ["E8G1T2", "E8G8T8"].map(parseRecipeName) }));
    expect(far.main).toBe("E8G1T2");
    expect(far.arms.map(({ otherRecipe }) => otherRecipe)).toEqual([false, false, false, true, true]);
    expect(
      far.notes.filter(({ kind }) => kind === "extrapolation").map(({ text }) => text.slice(0, 45)),
    ).toContainEqual(expect.stringContaining("D1 = 10.0T is 27"));
    expect(present(far.notes.find(({ kind }) => kind === "recipe")).text).toContain("E8G8T8 the same curve is shown");
    expect(plan.notes.some(({ kind }) => kind === "recipe")).toBe(false);
  });

  it("flags the second crossing and reports none where the parent is charged", () => {
    expect(at(plan.recipes, 0).sunk.outcome).toBe("at");
    expect(at(plan.recipes, 0).chargedTokens.outcome).toBe("never-ahead");
    expect(present(plan.notes.find(({ kind }) => kind === "second-crossing")).text).toMatch(
      /cross a second time at \d+T tokens.*artefact/,
    );
  });

  it("finds what the answer hangs on", () => {
    // On the edge of D*: halving or doubling the tokens must decide between upcycled and scratch.
    const star = present(at(plan.recipes, 0).sunk.tokens);
    const edge = makePlan(requestFor({ budget: { tokens: star * 0.9, gpuHours: null, money: null, days: null } }));
    expect(at(edge.arms, present(edge.best).arm).id).toBe("dense");
    const small = makePlan(
      requestFor({
        spec: presetSpec("llama-3.2-1b"),
        seen: 1e11,
        gpus: 8,
        budget: { tokens: 4e10, gpuHours: null, money: null, days: null },
      }),
    );
    expect(at(small.arms, present(small.best).arm).id).toBe("upcycled");
    const tokens = present(small.sensitivity.find(({ assumption }) => assumption.startsWith("tokens after")));
    // Upcycled and scratch tie here, so neither of the two is another answer; the dense model would be.
    expect(present(small.answer)).toMatchObject({ verdict: "tie", ahead: ["upcycled", "scratch"] });
    expect([tokens.high.best, tokens.decides]).toEqual(["scratch", false]);
    for (const assumption of ["gains of a dense model on D1", "form of the upcycled law", "errors of the laws"])
      expect(small.sensitivity.map((row) => row.assumption.split(",")[0])).toContain(assumption);
    expect(small.sensitivity.map(({ assumption }) => assumption.split(",")[0])).toContain("what N counts");
  });

  it("answers inside of the fit, with both comparisons of a tie", () => {
    const inside = makePlan(
      requestFor({
        spec: shapeSpec(shapeOfSize(1e9)),
        size: 1e9,
        seen: 7.4e10,
        budget: { tokens: 3.7e10, gpuHours: null, money: null, days: null },
        draws: 500,
        gpus: 8,
      }),
    );
    const { verdict, ahead, equalTokens, equalFlops, scratch, outside } = present(inside.answer);
    expect([verdict, ahead, outside]).toEqual(["tie", ["upcycled", "scratch"], []]);
    expect(equalTokens).toMatchObject({ basis: "law", verdict: "lower" });
    // Reference values of the laws: upcycled 2.1442, dense 2.2183 after 111B, scratch 2.1447.
    expect(equalTokens.difference).toBeCloseTo(2.1442 - 2.2183, 3);
    expect(scratch.difference).toBeCloseTo(2.1442 - 2.1447, 3);
    expect(scratch.verdict).toBe("tie");
    // The dense model gets more tokens for the same FLOPs, so it is nearer.
    expect(equalFlops.difference).toBeGreaterThan(equalTokens.difference);
    expect(equalFlops.other.tokens / equalTokens.other.tokens).toBeCloseTo(at(inside.recipes, 0).ratio, 12);
  });

  it.each([
    ["llama-3.1-8b", 15e12, 2e10, 64, true],
    ["nemotron-4-15b", 8e12, 1e12, 1024, false],
  ] as const)("draws no verdict for %s with D1 = %d and D2 = %d", (id, seen, tokens, gpus, clamped) => {
    const far = makePlan(
      requestFor({
        spec: presetSpec(id),
        seen,
        gpus,
        draws: 500,
        budget: { tokens, gpuHours: null, money: null, days: null },
      }),
    );
    const { verdict, outside, equalTokens, narrowing, ...answer } = present(far.answer);
    expect([verdict, answer.ahead, answer.clamped]).toEqual(["open", [], clamped]);
    expect(outside.map(({ what }) => what)).toContain("D1");
    expect(equalTokens).toMatchObject({ basis: "published", verdict: "open" });
    const { low, high } = present(equalTokens.interval);
    expect(low < 0 && high > low).toBe(true);
    expect(present(narrowing).after).toBeLessThan(present(narrowing).before);
    expect(present(narrowing).tokens).toBeCloseTo(tokens / 10, 0);
  });

  it("lays out and costs a parent that is an MoE, without losses", () => {
    const moe = makePlan(
      requestFor({ spec: mixtureOf(presetSpec("mistral-7b"), parseRecipeName("E8G1T2")), recipes: [] }),
    );
    expect(moe).toMatchObject({ moeParent: true, answer: null, parentLoss: null, recipes: [], backtest: [] });
    expect(moe.models.map(({ name, params }) => [name, params.total])).toEqual([
      ["MoE", 46_702_792_704],
      // Eight experts more of three matrices 4096 x 14336 and their router rows, in each of 32 layers.
      ["experts x2", 46_702_792_704 + 32 * 8 * (3 * 4096 * 14336 + 4096)],
    ]);
    expect(moe.models.map(({ flops }) => flops.experts)).toEqual([
      at(moe.models, 0).flops.experts,
      at(moe.models, 0).flops.experts,
    ]);
    expect(moe.arms.map(({ label, loss, interval }) => [label, loss, interval])).toEqual([
      ["continued MoE", null, null],
      ["experts x2", null, null],
    ]);
    for (const { money, seconds } of moe.arms) expect(present(money) > 0 && present(seconds) > 0).toBe(true);
  });

  it("contains the published GPU hours of DeepSeek-V3 in the interval of its own setting", () => {
    const deepseek = (changes: Partial<PlanRequest>): ReturnType<typeof makePlan> =>
      makePlan(
        requestFor({
          ...{ spec: publishedShape("deepseek-v3"), recipes: [], gpus: 2048, draws: 0, seen: 1e12 },
          ...{ budget: { tokens: 1e12, gpuHours: null, money: null, days: null }, ...changes },
        }),
      );
    const own = deepseek({ gpu: { ...h100, intra: 200e9 }, precision: "fp8", batchTokens: 15360 * 4096 });
    const [{ gpuHours, seconds, secondsInterval }] = [at(own.arms, 0)];
    const published = 2.664e6 / 14.8;
    const { low, high } = present(secondsInterval);
    expect((present(gpuHours) * low) / present(seconds)).toBeLessThan(published);
    expect((present(gpuHours) * high) / present(seconds)).toBeGreaterThan(published);
    expect(own.notes.some(({ text }) => text.includes("--batch"))).toBe(false);
    // 4M tokens are short for that many GPUs, which is said, with the batch that mends it.
    const short = deepseek({});
    const said = present(short.notes.find(({ text }) => text.includes("--batch 16777216"))).text;
    expect(said).toContain("A step of 4.194M tokens is short for 2048 GPUs");
    const time = present(at(short.models, 0).largerBatch).time;
    const longer = deepseek({ batchTokens: 2 ** 24 });
    expect(present(at(longer.arms, 0).seconds) / present(at(short.arms, 0).seconds)).toBeCloseTo(time, 9);
  });

  it("says so where nothing fits, and how many GPUs would do", () => {
    const one = makePlan(requestFor({ gpus: 1, budget: { tokens: null, gpuHours: 100, money: null, days: null } }));
    expect(one.models.map(({ placing, needs }) => [placing.best, needs !== null && needs > 1])).toEqual([
      [null, true],
      [null, true],
    ]);
    expect(one.arms.map(({ tokens }) => tokens)).toEqual([null, null, null]);
    expect(one.best).toBeNull();
    expect(one.notes.filter(({ kind }) => kind === "layout")).toHaveLength(2);
    const inTokens = makePlan(requestFor({ gpus: 1 }));
    expect(inTokens.arms.map(({ loss, money }) => [loss !== null, money])).toEqual([
      [true, null],
      [true, null],
      [true, null],
    ]);
  });

  it("refuses recipes that make no sense", () => {
    expect(() => makePlan(requestFor({ recipes: [{ expansion: 1, granularity: 1, topK: 1 }] }))).toThrow(
      "one expert is the dense model again",
    );
  });

  it("is plain data that survives JSON", () => {
    expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
    expect(publishedCoefficients().published).toBe(true);
  });
});

describe("advice", () => {
  it("takes the usual peaks of the published models", () => {
    expect(usualPeak(7.5e9)).toBeCloseTo(3e-4, 6);
    expect(usualPeak(7e10)).toBeCloseTo(1.5e-4, 6);
    expect(usualPeak(1e7)).toBe(1e-3);
  });

  it("takes 4M tokens a step, or fewer so that there are 2,000 steps", () => {
    expect(batchFor(1e12)).toBe(2 ** 22);
    for (const tokens of [1e8, 1e9, 5e9]) expect(tokens / batchFor(tokens)).toBeGreaterThan(1500);
  });

  it("uses the parent's own peak where it is given", () => {
    expect(makePlan(requestFor({ parentPeak: 4e-4 })).advice[0]).toMatchObject({
      what: "peak learning rate",
      value: "4.0e-4",
    });
  });
});
