import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at, entryOf } from "../../../src/base/at.js";
import { fromFloat32, toFloat32, type FloatDtype } from "../../../src/files/numeric/dtype.js";
import { cosineSimilarity } from "../../../src/files/numeric/similarity.js";
import { evaluateExpr, evaluateFloat32 } from "../../../src/surgery/planning/evaluate.js";
import type { EvaluationContext } from "../../../src/surgery/planning/evaluation.js";
import { explainPlan } from "../../../src/surgery/planning/explain.js";
import {
  columnsOf,
  fill,
  givesShape,
  normal,
  originOf,
  printExpr,
  read,
  rectangleOf,
  rowsOf,
  scale,
} from "../../../src/surgery/planning/expr.js";
import { expertOrigins, originValues } from "../../../src/surgery/planning/lineage.js";
import { planMultiply } from "../../../src/surgery/planning/multiply.js";
import { planUpcycle, sourceShapes } from "../../../src/surgery/planning/plan.js";
import { plainExperts, softmaxRouter, type DecoderSpec } from "../../../src/model/decoder/types.js";
import { upcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";
import { contextOf, denseSpec, evaluateAll, evaluatePlan, randomTensors, rectanglesOfWhole } from "./fixtures.js";

describe("a plan of an upcycling", () => {
  it("makes every target slot once, in write order, uses every source slot, and survives JSON", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("llama", "mistral", "qwen2", "qwen3"),
        fc.constantFrom("E2G1T1", "E8G1T2", "E4G2T4", "E2G8T8"),
        fc.constantFrom("topk-softmax", "softmax-topk"),
        fc.boolean(),
        (family, name, order, tiedHead) => {
          const plan = planUpcycle(denseSpec(family, { tiedHead }), upcycleRecipe(name, { order }));
          expect(plan.outputs.map(({ slot }) => slot)).toEqual(slotsOf(plan.target));
          expect(plan.unused).toEqual([]);
          expect(JSON.parse(JSON.stringify(plan))).toEqual(plan);
        },
      ),
    );
  });

  it("keeps everything of the parent but family, FFNs and auxiliary loss", () => {
    const source = denseSpec("qwen3", { tiedHead: true });
    const { target } = planUpcycle(source, upcycleRecipe("E8G1T2"));
    expect({ ...target, family: source.family, layers: source.layers, auxLossCoef: 0 }).toEqual(source);
    expect(at(target.layers, 0).ffn).toEqual({
      kind: "moe",
      activation: "silu",
      ffnDim: 48,
      experts: 8,
      topK: 2,
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    });
  });

  it("is explained in a line for each kind of tensor", () => {
    expect(explainPlan(planUpcycle(denseSpec("llama"), upcycleRecipe("E4G2T4")))).toMatchInlineSnapshot(`
      [
        "E4G2T4: llama to mixtral, 8 experts of size 24 in place of one FFN of 48, 4 per token, topk-softmax router",
        "embed: copy of the parent's embed",
        "inputNorm (2 tensors): copy of the parent's inputNorm",
        "q (2 tensors): copy of the parent's q",
        "k (2 tensors): copy of the parent's k",
        "v (2 tensors): copy of the parent's v",
        "o (2 tensors): copy of the parent's o",
        "ffnNorm (2 tensors): copy of the parent's ffnNorm",
        "router (2 tensors): 4 rows drawn from a normal of std 0.02, each 2 times in a row",
        "experts.gate (16 tensors): rows 0..23 of the parent's gate; rows 24..47 of the parent's gate",
        "experts.up (16 tensors): rows 0..23 of the parent's up; rows 24..47 of the parent's up",
        "experts.down (16 tensors): columns 0..23 of the parent's down, times 2; columns 24..47 of the parent's down, times 2",
        "finalNorm: copy of the parent's finalNorm",
        "head: copy of the parent's head",
        "function of the parent: kept exactly (the selected weights sum to 1 and cover 2 whole copies of the FFN, for any router)",
      ]
    `);
    const paper = upcycleRecipe("E4G4T4", { order: "softmax-topk", scaling: "paper" });
    expect(explainPlan(planUpcycle(denseSpec("qwen2", { tiedHead: true }), paper)).slice(-9)).toMatchInlineSnapshot(`
      [
        "experts.gate (32 tensors): rows 0..11 of the parent's gate, times 2.52; rows 12..23 of the parent's gate, times 2.52; and so on, 4 parts in turn",
        "experts.up (32 tensors): rows 0..11 of the parent's up, times 2.52; rows 12..23 of the parent's up, times 2.52; and so on, 4 parts in turn",
        "experts.down (32 tensors): columns 0..11 of the parent's down, times 2.52; columns 12..23 of the parent's down, times 2.52; and so on, 4 parts in turn",
        "sharedGate (2 tensors): rows 0..11 of the parent's gate",
        "sharedUp (2 tensors): rows 0..11 of the parent's up",
        "sharedDown (2 tensors): filled with 0",
        "sharedRouter (2 tensors): 1 row drawn from a normal of std 0.001",
        "finalNorm: copy of the parent's finalNorm",
        "function of the parent: kept approximately (a factor of 2.52 on gate does not pass through silu; exact scaling puts it on down)",
      ]
    `);
  });

  it("warns if llama.cpp reads the router differently", () => {
    const warnings = (family: "qwen2" | "qwen3", order: "topk-softmax" | "softmax-topk"): number =>
      planUpcycle(denseSpec(family), upcycleRecipe("E4G1T2", { order })).warnings.length;
    expect([warnings("qwen2", "topk-softmax"), warnings("qwen2", "softmax-topk")]).toEqual([1, 0]);
    expect([warnings("qwen3", "topk-softmax"), warnings("qwen3", "softmax-topk")]).toEqual([0, 1]);
  });
});

describe("expressions", () => {
  const shapes = new Map([
    ["w", [6, 4]],
    ["b", [6]],
  ]);
  const values = Float32Array.from({ length: 24 }, (_, i) => i);
  const raw = (dtype: FloatDtype, bytes: Uint8Array): EvaluationContext => ({
    shapes,
    seed: 3,
    dtypeOf: () => dtype,
    readRectangle: rectanglesOfWhole(shapes, () => Promise.resolve({ dtype, bytes })),
  });
  const stored = (dtype: FloatDtype, of = values): EvaluationContext => raw(dtype, fromFloat32(dtype, of));
  const context = stored("F32");

  it("copy rectangles of a source, also through scales", async () => {
    const expr = scale(columnsOf(scale(rowsOf(read("w"), 2, 3), 2), 1, 2), 0.5);
    expect(printExpr(expr)).toBe("scale(columns(scale(rows(w, 2..4), 2), 1..2), 0.5)");
    expect(rectangleOf(expr, shapes)).toBeNull();
    expect(originOf(expr, shapes)).toEqual({
      key: "w",
      rowStart: 2,
      rowCount: 3,
      columnStart: 1,
      columnCount: 2,
      stride: 4,
    });
    expect([...(await evaluateFloat32(expr, [3, 2], context))]).toEqual([9, 10, 13, 14, 17, 18]);
  });

  it("know which shapes they give", () => {
    expect(givesShape(rowsOf(read("b"), 0, 2), [2], shapes)).toBe(true);
    expect(givesShape(rowsOf(read("w"), 0, 2), [2, 3], shapes)).toBe(false);
    expect(givesShape(normal(1, "s", 2), [3, 4], shapes)).toBe(false);
    expect(() => givesShape(rowsOf(fill(0), 0, 1), [1, 4], shapes)).toThrow(
      "plan takes a part of drawn values: rows(fill(0), 0..0)",
    );
    expect(() => givesShape(rowsOf(read("w"), 4, 3), [3, 4], shapes)).toThrow("plan takes rows of w 4..6 of 6");
    expect(() => givesShape(read("x"), [3, 4], shapes)).toThrow("plan reads x, which the source does not have");
  });

  it("copy the source's bytes unchanged, NaNs included", async () => {
    const bytes = Uint8Array.from({ length: 48 }, (_, i) => 255 - i);
    for (const dtype of ["BF16", "F16"] as const) {
      const copy = await evaluateExpr(columnsOf(rowsOf(read("w"), 1, 2), 2, 2), [2, 2], dtype, raw(dtype, bytes));
      expect([...copy]).toEqual([243, 242, 241, 240, 235, 234, 233, 232]);
      // Whole rows are a view: nothing is copied.
      expect((await evaluateExpr(rowsOf(read("w"), 0, 3), [3, 4], dtype, raw(dtype, bytes))).buffer).toBe(bytes.buffer);
    }
  });

  it("scaled by a power of two change the exponent alone, in any dtype; other factors round once", async () => {
    for (const dtype of ["BF16", "F16", "F32"] as const) {
      const doubled = await evaluateExpr(scale(read("w"), 8), [6, 4], dtype, stored(dtype));
      expect(toFloat32(dtype, doubled)).toEqual(values.map((x) => 8 * x));
      const third = await evaluateExpr(scale(read("w"), 1 / 3), [6, 4], dtype, stored(dtype));
      expect(third).toEqual(
        fromFloat32(
          dtype,
          values.map((x) => x / 3),
        ),
      );
    }
    // The source is not written into.
    expect(values[1]).toBe(1);
  });

  it("refuse values that float16 cannot hold", async () => {
    const large = values.map((x) => 4000 * x);
    await expect(evaluateExpr(scale(read("w"), 2), [6, 4], "F16", stored("BF16", large))).rejects.toThrow(
      "does not fit into float16",
    );
    await expect(evaluateExpr(read("w"), [6, 4], "F16", stored("BF16", large))).rejects.toThrow(
      "does not fit into float16",
    );
    await expect(evaluateExpr(rowsOf(read("w"), 0, 2), [2, 4], "F16", stored("BF16", large))).resolves.toHaveLength(16);
  });

  it("scale, fill, and repeat drawn rows", async () => {
    expect([...(await evaluateFloat32(scale(fill(2), 3), [2], context))]).toEqual([6, 6]);
    const drawn = await evaluateFloat32(normal(0.5, "s", 3), [6, 4], context);
    expect([...drawn.subarray(0, 4)]).toEqual([...drawn.subarray(8, 12)]);
    expect([...drawn.subarray(0, 4)]).not.toEqual([...drawn.subarray(12, 16)]);
  });
});

describe("seeds", () => {
  it("and the key alone decide drawn values, not the order of drawing", async () => {
    const source = denseSpec("llama");
    const plan = planUpcycle(source, upcycleRecipe("E4G2T4", { seed: 5 }));
    const tensors = randomTensors(source, 0.1);
    const forward = await evaluatePlan(plan, tensors);
    const backward = await evaluatePlan({ ...plan, outputs: plan.outputs.toReversed() }, tensors);
    for (const [key, values] of forward) expect(backward.get(key)).toEqual(values);
    const other = await evaluatePlan(planUpcycle(source, upcycleRecipe("E4G2T4", { seed: 6 })), tensors);
    expect(other.get("layers.0.router")).not.toEqual(forward.get("layers.0.router"));
    expect(forward.get("layers.1.router")).not.toEqual(forward.get("layers.0.router"));
    expect(other.get("layers.0.experts.3.down")).toEqual(forward.get("layers.0.experts.3.down"));
  });

  it("give the router the same numbers as ever (a change here changes every upcycled model)", async () => {
    const source = denseSpec("llama");
    const out = await evaluatePlan(
      planUpcycle(source, upcycleRecipe("E4G2T4", { seed: 5 })),
      randomTensors(source, 0.1),
    );
    expect([...entryOf(out, "layers.0.router").subarray(0, 4)]).toMatchInlineSnapshot(`
      [
        0.0029742089100182056,
        0.010615397244691849,
        0.007895140908658504,
        -0.01804957538843155,
      ]
    `);
  });
});

describe("the origin of experts", () => {
  it.each(["E4G1T2", "E4G2T4", "E2G8T8"])(
    "is what the plan of %s read, found from the two shapes alone",
    async (name) => {
      const source = denseSpec("qwen2");
      const plan = planUpcycle(source, upcycleRecipe(name));
      const shapes = sourceShapes(source);
      const planned = plan.outputs
        .filter(({ slot }) => slot.at.expert !== undefined)
        .map(({ slot, value }) => ({ key: slot.key, from: originOf(value, shapes) }));
      const origins = expertOrigins(source, plan.target);
      expect(origins.map(({ key, from }) => ({ key, from }))).toEqual(planned);

      const tensors = randomTensors(source, 0.1);
      const out = await evaluatePlan(plan, tensors);
      for (const origin of origins) {
        expect(
          cosineSimilarity(entryOf(out, origin.key), originValues(entryOf(tensors, origin.from.key), origin)),
        ).toBeCloseTo(1, 12);
      }
    },
  );

  it("follows permuted units and several parents, also after multiplication", async () => {
    const source = denseSpec("qwen2");
    const parents = [
      { source: 1, noise: 0, scale: 0.5 },
      { source: 0, noise: 0, scale: -2 },
      { source: 2, noise: 0, scale: 1 },
    ];
    const dense = [3, 4, 5].map((seed) => randomTensors(source, 0.1, seed));
    for (const options of [{ permute: true, seed: 7 }, { parents }, { parents, permute: true, seed: 8 }]) {
      const recipe = upcycleRecipe("E3G2T2", options);
      const child = planUpcycle(source, recipe);
      const cosines = (out: ReadonlyMap<string, Float32Array>, spec: DecoderSpec, copies: number): number[] =>
        expertOrigins(source, spec, { recipe, copies }).map((origin) =>
          cosineSimilarity(
            entryOf(out, origin.key),
            originValues(entryOf(at(dense, origin.source), origin.from.key), origin),
          ),
        );
      const out = await evaluateAll(child.outputs, contextOf(source, recipe.seed, ...dense));
      for (const cosine of cosines(out, child.target, 1)) expect(cosine).toBeCloseTo(1, 6);
      const twice = planMultiply(child.target, { copies: 2, topK: null, routerStd: 0, seed: 0 });
      for (const cosine of cosines(await evaluateAll(twice.outputs, contextOf(child.target, 0, out)), twice.target, 2))
        expect(cosine).toBeCloseTo(1, 6);
    }
    const { target } = planUpcycle(source, upcycleRecipe("E4G2T4"));
    expect(() => expertOrigins(source, target, { recipe: upcycleRecipe("E3G2T2"), copies: 1 })).toThrow(
      "8 experts, which the recipe E3G2T2 of its record does not make",
    );
  });

  it("is refused for a parent of another shape", () => {
    const { target } = planUpcycle(denseSpec("llama"), upcycleRecipe("E4G2T4"));
    expect(() => expertOrigins(denseSpec("llama", { ffnDim: 40 }), target)).toThrow(
      "8 experts of size 24 are not parts of an FFN of size 40",
    );
    expect(() => expertOrigins(denseSpec("llama", { layerCount: 3 }), target)).toThrow(
      "the model has 2 layers of width 16",
    );
    expect(() => expertOrigins(target, target)).toThrow("layer 0 of the parent is not dense");
  });
});
