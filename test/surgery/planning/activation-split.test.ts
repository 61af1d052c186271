/** Splits by activation, beside numpy and scipy (test/external/make_clusters.py). */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { countParams } from "../../../src/model/cost/params.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { Activity, mostActive, splitByActivity } from "../../../src/surgery/planning/activation-split.js";
import { planUpcycle } from "../../../src/surgery/planning/plan.js";
import { upcycleRecipe, type RecipeOptions } from "../../../src/surgery/planning/recipe.js";
import { randomStream } from "../../../src/base/random.js";
import { lineOf } from "../../support/line.js";
import { denseSpec, evaluatePlan, randomTensors } from "./fixtures.js";

interface SplitCase {
  readonly units: number;
  readonly shared: number;
  readonly clusters: number;
  readonly activations: readonly number[];
  readonly sharedUnits: readonly number[];
  readonly centres: readonly number[];
  readonly sum: number;
}
const { split } = JSON.parse(readFileSync(new URL("golden/clusters.json", import.meta.url), "utf8")) as {
  readonly split: readonly SplitCase[];
};

/** For each unit whether it is among the largest of each token, by sorting. */
function markersOf({ units, activations }: SplitCase): boolean[][] {
  const tokens = activations.length / units;
  const markers = Array.from({ length: units }, () => new Array<boolean>(tokens).fill(false));
  for (let token = 0; token < tokens; token++) {
    const own = activations.slice(token * units, (token + 1) * units);
    const order = [...own.keys()].sort((a, b) => Math.abs(own[b]!) - Math.abs(own[a]!));
    for (const unit of order.slice(0, mostActive)) markers[unit]![token] = true;
  }
  return markers;
}
const distance = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0);

describe("splitByActivity", () => {
  it.each(split)("splits as CMoE does ($units units, $shared shared, $clusters clusters)", (golden) => {
    const { units, shared, clusters, activations } = golden;
    const tokens = activations.length / units;
    const activity = new Activity(units, tokens);
    for (let token = 0; token < tokens; token++)
      activity.add(Float32Array.from(activations.slice(token * units, (token + 1) * units)));
    const { order, representatives, sharedRate, routedRate } = splitByActivity(activity, shared, clusters);
    expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
    expect([...order.subarray(0, shared)]).toEqual(golden.sharedUnits);
    const markers = markersOf(golden).map((marks) => marks.map(Number));
    const size = (units - shared) / clusters;
    const groups = golden.centres.map((_, i) => [...order.subarray(shared + i * size, shared + (i + 1) * size)]);
    const sum = groups.flatMap((group, i) =>
      group.map((unit) => distance(markers[unit]!, markers[golden.centres[i]!]!)),
    );
    expect(sum.reduce((a, b) => a + b, 0)).toBe(golden.sum);
    for (const [i, group] of groups.entries()) {
      const mean = Array.from({ length: tokens }, (_, t) => group.reduce((a, u) => a + markers[u]![t]!, 0) / size);
      const distances = group.map((unit) => distance(markers[unit]!, mean));
      expect(distances[group.indexOf(representatives[i]!)]).toBeCloseTo(Math.min(...distances), 9);
    }
    const rates = [...order].map((unit) => markers[unit]!.reduce((a, b) => a + b, 0) / tokens);
    const mean = (list: readonly number[]): number =>
      list.length === 0 ? 0 : list.reduce((a, b) => a + b, 0) / list.length;
    expect(sharedRate).toBeCloseTo(mean(rates.slice(0, shared)), 12);
    expect(routedRate).toBeCloseTo(mean(rates.slice(shared)), 12);
  });
});

describe("a split by activation", () => {
  const source = denseSpec("llama");
  const recipe = (name: string, options: RecipeOptions = {}) =>
    upcycleRecipe(name, { split: { text: null }, ...options });
  /** Any order of 48 units, and any rows of the router. */
  const orders = [0, 1].map((seed) => {
    const order = new Int32Array(48);
    randomStream(seed, "order").permutation(order);
    return order;
  });
  const rows = (parts: number): Float32Array[] => [0, 1].map((layer) => new Float32Array(parts * 16).fill(layer + 1));

  it.each([
    ["E1G4T2", { shared: 16 }, "qwen2_moe"],
    ["E1G7T2", { shared: 6, order: "topk-softmax", target: "glm4_moe" }, "glm4_moe"],
    ["E1G6T2", {}, null],
  ] as const)("gives each unit to one expert, and parameters add up (%s, %o)", async (name, options, family) => {
    const wanted = recipe(name, options);
    const { granularity, topK } = wanted;
    const shared = wanted.shared ?? 0;
    const size = (48 - shared) / granularity;
    const plan = planUpcycle(source, wanted, rows(granularity), orders);
    const { target, outputs } = plan;
    if (family !== null) expect(target.family).toBe(family);
    const tensors = randomTensors(source, 0.5);
    const made = await evaluatePlan(plan, tensors);
    const up = tensors.get("layers.1.up")!;
    const row = (matrix: Float32Array, unit: number): number[] => [...matrix.subarray(unit * 16, (unit + 1) * 16)];
    for (let expert = 0; expert < granularity; expert++) {
      const own = made.get(`layers.1.experts.${expert}.up`)!;
      for (let unit = 0; unit < size; unit++)
        expect(row(own, unit)).toEqual(row(up, orders[1]![shared + expert * size + unit]!));
    }
    if (shared > 0) expect(row(made.get("layers.1.sharedUp")!, 3)).toEqual(row(up, orders[1]![3]!));
    const elements = (list: readonly { readonly shape: readonly number[] }[]): number =>
      list.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    const [before, after] = [countParams(source), countParams(target)];
    expect(elements(outputs.map(({ slot }) => slot))).toBe(after.total);
    expect(elements(slotsOf(target))).toBe(after.total);
    // The FFN's own, a router, what else the family has; the units of the other parts are not paid for.
    const gates = slotsOf(target).filter(({ at: { part } }) => /^(router\w*|sharedRouter)$/.test(part));
    const idle = shared === 0 ? slotsOf(target).filter(({ at: { part } }) => part.startsWith("shared")) : [];
    expect(after.total - before.total).toBe(elements(gates) + elements(idle.filter((slot) => !gates.includes(slot))));
    if (idle.length === 0)
      expect(before.active + elements(gates) - after.active).toBe(2 * (granularity - topK) * size * 3 * 16);
  });

  it("is said not to keep the function", () => {
    const { expected, warnings } = planUpcycle(source, recipe("E1G4T2", { shared: 16 }), rows(4), orders);
    expect(expected).toEqual({
      kind: "approximate",
      exactAtStart: false,
      why: "a token gets 2 of the 4 parts of the FFN and the 16 units that are active most",
    });
    expect(warnings.join()).not.toContain("untrained router");
  });

  it("refuses what it contradicts, and orders that do not fit", () => {
    const refused = (name: string, options: RecipeOptions = {}): string => lineOf(() => recipe(name, options));
    expect(refused("E2G4T4")).toContain("has one copy of the FFN, of whose parts a token gets some");
    expect(refused("E1G4T4")).toContain("use E1 and a T smaller than G");
    expect(refused("E1G4T2", { routerInit: { kind: "uniform_random" } })).toContain("makes the router itself");
    expect(refused("E1G4T2", { experts: "random" })).toContain("needs the FFN's own units");
    expect(refused("E1G4T2", { pad: true })).toContain("none of them filled");
    const parents = [{ source: 0, noise: 0, scale: 1 }];
    expect(refused("E1G4T2", { parents })).toContain("cuts the FFN of one parent");
    const wrong = orders.map((order) => order.slice(1));
    expect(lineOf(() => planUpcycle(source, recipe("E1G4T2"), rows(4), wrong))).toContain(
      "the order of layer 0's hidden units names 47 of 48",
    );
    const target = { shared: 16, target: "mixtral" } as const;
    expect(lineOf(() => planUpcycle(source, recipe("E1G4T2", target), rows(4), orders))).toContain(
      "it has no shared expert",
    );
  });
});
