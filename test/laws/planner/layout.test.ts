import { describe, expect, it } from "vitest";
import { blockActivationBytes } from "../../../src/model/cost/memory.js";
import type { Ffn } from "../../../src/model/decoder/types.js";
import { countParams, layerParams } from "../../../src/model/cost/params.js";
import type { CostedLayout, LayoutRequest } from "../../../src/laws/planner/layout-types.js";
import { bestLayout, costLayout, fewestGpus } from "../../../src/laws/planner/layout.js";
import type { Gpu } from "../../../src/laws/planner/hardware.js";
import { mixtureOf, publishedShape } from "../../../src/laws/planner/shape.js";
import { defaultSpeed, productShare } from "../../../src/laws/planner/speed.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import kernels from "../../../bench/results/2026-11-22-kernels.json" with { type: "json" };
import { h100, presetSpec } from "./request.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

const mixtral = mixtureOf(presetSpec("mistral-7b"), parseRecipeName("E8G1T2"));
const request = (changes: Partial<LayoutRequest> = {}): LayoutRequest => ({
  spec: mixtral,
  gpu: h100,
  gpus: 64,
  sequence: 4096,
  batchTokens: 2 ** 22,
  speed: defaultSpeed,
  ...changes,
});

/** The best layout of a request, which must have one. */
const layoutOf = (changes: Partial<LayoutRequest> = {}): CostedLayout => present(bestLayout(request(changes)).best);

describe("the layout", () => {
  const models: [string, LayoutRequest][] = [
    ["Mistral 7B", request({ spec: presetSpec("mistral-7b") })],
    ["Mixtral 8x7B", request()],
    ["Llama 3.1 70B", request({ spec: presetSpec("llama-3.1-70b"), gpus: 256 })],
    [
      "Llama 3.1 70B E8G8T8",
      request({ spec: mixtureOf(presetSpec("llama-3.1-70b"), parseRecipeName("E8G8T8")), gpus: 512 }),
    ],
    ["long context", request({ sequence: 32768 })],
    ["96 GPUs", request({ gpus: 96 })],
  ];
  it.each(models)("of %s covers the GPUs and the model", (_, model) => {
    const { spec, gpu, gpus, sequence } = model;
    const { layout, tokensPerStep, bytes, mfu } = layoutOf(model);
    const { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches } = layout;
    expect(tp * cp * dp * pp).toBe(gpus);
    expect(etp * ep * edp * pp).toBe(gpus);
    expect(spec.layers.length % (pp * vpp)).toBe(0);
    expect([spec.attn.heads % tp, spec.attn.kvHeads % tp, tp <= gpu.perNode]).toEqual([0, 0, true]);
    expect(tokensPerStep).toBe(microBatch * microBatches * dp * sequence);
    expect(bytes.total).toBeLessThanOrEqual(gpu.memory);
    expect(mfu).toBeGreaterThan(0.2);
    expect(mfu).toBeLessThan(0.6);
  });

  it("adds up to the totals of bytes and seconds", () => {
    const { bytes, seconds } = layoutOf();
    const { plainParams, expertParams, total, ...parts } = bytes;
    expect(Object.values(parts).reduce((sum, value) => sum + value, 0)).toBeCloseTo(total, 0);
    expect(bytes.weights).toBe(2 * (plainParams + expertParams));
    expect(bytes.gradients).toBe(2 * bytes.weights);
    const { compute, tensor, expert, context, pipeline, data } = seconds;
    expect(compute + tensor + expert + context + pipeline + data).toBeCloseTo(seconds.total, 9);
  });

  it("holds every parameter once where nothing is cut", () => {
    for (const spec of [
      presetSpec("llama-3.2-1b"),
      presetSpec("qwen2.5-0.5b"),
      mixtureOf(presetSpec("qwen2.5-0.5b"), parseRecipeName("E4G1T1")),
    ]) {
      const { layout, bytes } = layoutOf({ spec, gpus: 1, gpu: { ...h100, memory: 1e15 } });
      const { total } = countParams(spec);
      expect(layout).toMatchObject({ tp: 1, pp: 1, ep: 1, dp: 1, recompute: "none" });
      expect(bytes.plainParams + bytes.expertParams).toBe(total);
      expect(bytes.weights + bytes.gradients + bytes.optimizer).toBe(18 * total);
    }
  });

  it("is never slower with more memory, and fits on fewer GPUs", () => {
    const gpu = { ...h100, memory: 141e9 };
    expect(layoutOf({ gpu }).tokensPerSecond).toBeGreaterThanOrEqual(layoutOf().tokensPerSecond * 0.998);
    const fewest = present(fewestGpus(request()));
    expect(fewest).toBeGreaterThan(4);
    expect(present(fewestGpus(request({ gpu })))).toBeLessThanOrEqual(fewest);
  });

  it("recomputes and cuts more where memory is short", () => {
    const { layout } = layoutOf({ spec: presetSpec("llama-2-7b"), gpus: 8, gpu: { ...h100, memory: 40e9 } });
    expect(layout.recompute === "full" || layout.tp * layout.pp > 1).toBe(true);
  });

  it.each([
    [512, 2 ** 22],
    [512, 3 * 2 ** 20],
    [64, 2 ** 21],
    [96, 96 * 4096 * 8],
  ])("on %d GPUs makes steps of exactly %d tokens", (gpus, batchTokens) => {
    expect(layoutOf({ gpus, batchTokens }).tokensPerStep).toBe(batchTokens);
  });

  it("comes near a batch that no layout can make of whole micro-batches", () => {
    const { tokensPerStep } = layoutOf({ gpus: 96, batchTokens: 2 ** 22 });
    expect(tokensPerStep).not.toBe(2 ** 22);
    expect(Math.abs(tokensPerStep / 2 ** 22 - 1)).toBeLessThanOrEqual(0.125);
  });

  it("cuts a number of layers that nothing divides into stages of two sizes", () => {
    // DeepSeek-V3 has 61 layers.
    const dense = presetSpec("llama-2-7b");
    const layers = Array.from({ length: 61 }, () => at(dense.layers, 0));
    const spec = { ...dense, layers };
    const { layout, bytes, seconds } = layoutOf({ spec, gpus: 32, gpu: { ...h100, memory: 25e9 } });
    expect(layout.pp).toBeGreaterThan(1);
    expect(layout.pp).not.toBe(61);
    expect(bytes.total).toBeLessThanOrEqual(25e9);
    expect(seconds.total).toBeGreaterThan(0);
    // The fullest stage holds the longer share of the layers.
    const longest = Math.ceil(61 / layout.pp);
    const perLayer = (countParams(spec).total - countParams({ ...spec, layers: [] }).total) / 61;
    expect(bytes.plainParams).toBeGreaterThanOrEqual((longest * perLayer) / layout.tp / 1.001);
  });

  it("looks for the fullest GPU among stages of dense layers and of mixtures", () => {
    // As in DeepSeek-V3, the first layers are dense: the first stages are small, and the last has one batch in flight.
    const layers = mixtral.layers.map((layer, i) => (i < 3 ? at(presetSpec("mistral-7b").layers, i) : layer));
    const spec = { ...mixtral, layers };
    const one = request({ spec, gpus: 128, gpu: { ...h100, memory: 1e12 } });
    const layout = {
      ...{ tp: 1, pp: 16, vpp: 1, cp: 1, ep: 8, etp: 1, dp: 8, edp: 1, microBatch: 1, microBatches: 128 },
      recompute: "none",
    } as const;
    const stages = Array.from({ length: 16 }, (_, index) => {
      const own = layers.slice(2 * index, 2 * index + 2);
      const parts = own.map((layer) => layerParams(spec, layer));
      const sum = (of: (part: (typeof parts)[number]) => number): number =>
        parts.reduce((total, part) => total + of(part), 0);
      const edge = index === 0 || index === 15 ? spec.vocab * spec.hidden : 0;
      const plain =
        sum(({ attention, ffn, shared, norms, router }) => attention + ffn + shared + norms + router) + edge;
      const expert = sum(({ experts }) => experts) / 8;
      const saved = own.reduce(
        (total, layer) =>
          total + blockActivationBytes(spec, layer, "none", { tensor: 1, expertTensor: 1, imbalance: 1.25 }),
        0,
      );
      return (
        6 * (plain + expert) + 12 * (plain / 8 + expert) + 4096 * (saved * (16 - index) + (index === 0 ? 2 * 4096 : 0))
      );
    });
    const fullest = stages.indexOf(Math.max(...stages));
    expect(fullest).toBe(2);
    const { bytes } = costLayout(one, layout);
    expect(bytes.total - bytes.reserve - bytes.logits).toBeCloseTo(at(stages, fullest), 0);
  });

  it("keeps context parallelism for long sequences", () => {
    expect(layoutOf().layout.cp).toBe(1);
  });

  it("does without what cannot be: no layout on GPUs that do not divide", () => {
    expect(bestLayout(request({ batchTokens: 4096, gpus: 7 }))).toMatchObject({ best: null, tried: 0 });
  });
});

describe("the speed model", () => {
  it("multiplies the blocks' products alone faster in FP8, in the same memory", () => {
    const { layout, ...bf16 } = layoutOf({ spec: presetSpec("llama-3.1-70b"), gpus: 256 });
    const cost = (gpu: Gpu): CostedLayout =>
      costLayout(request({ spec: presetSpec("llama-3.1-70b"), gpus: 256, gpu, precision: "fp8" }), layout);
    const { bytes, seconds } = cost(h100);
    const gain = bf16.seconds.compute / seconds.compute;
    expect(gain).toBeGreaterThan(1.6);
    expect(gain).toBeLessThan(1.9);
    expect(bytes).toEqual(bf16.bytes);
    expect(seconds.tensor).toBe(bf16.seconds.tensor);
    // A GPU that gains nothing takes as long as in bfloat16.
    expect(cost({ ...h100, fp8Peak: h100.peak }).seconds).toEqual(bf16.seconds);
    expect(() => cost({ ...h100, fp8Peak: null })).toThrow("h100-sxm has no speed in 8-bit floats");
  });

  // Tokens per second and GPU in FP8, forced balance: Megatron-Bridge, docs/performance-summary-archive.md, DGX-H100.
  const steps = [
    { id: "llama-3-8b", gpus: 8, batch: 128, sequence: 8192, degrees: { tp: 1, pp: 1 }, measured: 14451, least: 0.9 },
    {
      id: "llama-3-70b",
      gpus: 64,
      batch: 128,
      sequence: 8192,
      degrees: { tp: 4, pp: 8, vpp: 5 },
      measured: 1602,
      least: 0.9,
    },
    {
      id: "llama-3-70b",
      gpus: 64,
      batch: 256,
      sequence: 8192,
      degrees: { tp: 4, pp: 8, vpp: 5 },
      measured: 1621,
      least: 0.9,
    },
    // Rows to experts of other nodes are counted as sent one by one and not behind other work, which is too slow.
    {
      ...{ id: "deepseek-v3", gpus: 1024, batch: 8192, sequence: 4096, measured: 1297, least: 0.6 },
      degrees: { tp: 2, pp: 8, vpp: 4, ep: 64, edp: 2 },
    },
  ];
  it.each(steps)("comes near NVIDIA's step of $id on $gpus GPUs with $batch sequences", (step) => {
    const { id, gpus, batch, sequence, degrees, measured, least } = step;
    const dp = gpus / (degrees.tp * degrees.pp);
    const layout = {
      ...{ vpp: 1, cp: 1, ep: 1, etp: 1, edp: 1, dp, microBatch: 1, microBatches: batch / dp },
      ...degrees,
      recompute: "none" as const,
    };
    const training = { spec: publishedShape(id), gpus, sequence, batchTokens: batch * sequence };
    const { tokensPerSecond } = costLayout(request({ ...training, precision: "fp8" }), layout);
    expect(tokensPerSecond / gpus / measured).toBeGreaterThan(least);
    expect(tokensPerSecond / gpus / measured).toBeLessThan(1.05);
  });

  it("takes longer for products of short sides: latents, small shared experts", () => {
    const deepseek = publishedShape("deepseek-v3");
    const { layers } = deepseek;
    const widened = (ffn: Ffn): Ffn =>
      ffn.kind === "moe" ? { ...ffn, topK: 4, shared: { ffnDim: 5 * 2048, gated: false } } : ffn;
    // Four routed experts fewer, a shared one as large as those: the same FLOPs in larger products.
    const wide = { ...deepseek, layers: layers.map((layer) => ({ ...layer, ffn: widened(layer.ffn) })) };
    const layout = {
      ...{ tp: 8, pp: 16, vpp: 1, cp: 1, ep: 8, etp: 1, dp: 2, edp: 2, microBatch: 1, microBatches: 64 },
      recompute: "none",
    } as const;
    const seconds = [deepseek, wide].map(
      (spec) => costLayout(request({ spec, gpus: 256, batchTokens: 128 * 4096 }), layout).seconds.compute,
    );
    expect(at(seconds, 1)).toBeLessThan(0.98 * at(seconds, 0));
  });

  it("is within 17 % (root mean square) of the measured products", () => {
    const rows = [...kernels.matmul.map(({ m, k, n, tflops }) => ({ rows: m, k, n, tflops })), ...kernels.grouped];
    expect(rows).toHaveLength(33);
    const errors = rows.map(({ rows: m, k, n, tflops }) =>
      Math.log((defaultSpeed.matrices * productShare(m, k, n) * 989.4) / tflops),
    );
    expect(Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length)).toBeLessThan(0.171);
    // Attention of the usual size, forward and backward together.
    const { forward, backward } = at(kernels.attention, 0);
    expect(3 / (1 / forward + 2 / backward) / 989.4).toBeCloseTo(defaultSpeed.attention, 2);
  });
});
