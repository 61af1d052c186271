import { describe, expect, it } from "vitest";
import { countParams } from "../../../src/model/cost/params.js";
import type { LayoutRequest } from "../../../src/laws/planner/layout-types.js";
import { bestLayout, fewestGpus } from "../../../src/laws/planner/layout.js";
import { mixtureOf } from "../../../src/laws/planner/shape.js";
import { defaultSpeed, productShare } from "../../../src/laws/planner/speed.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import kernels from "../../../bench/results/2026-11-22-kernels.json" with { type: "json" };
import { h100, presetSpec } from "./request.js";

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
  it.each(models)("of %s covers the GPUs and the model", (_, asked) => {
    const { best } = bestLayout(asked);
    const { tp, pp, vpp, cp, ep, etp, dp, edp, microBatch, microBatches } = best!.layout;
    expect(tp * cp * dp * pp).toBe(asked.gpus);
    expect(etp * ep * edp * pp).toBe(asked.gpus);
    expect(asked.spec.layers.length % (pp * vpp)).toBe(0);
    expect([asked.spec.attn.heads % tp, asked.spec.attn.kvHeads % tp, tp <= asked.gpu.perNode]).toEqual([0, 0, true]);
    expect(best!.tokensPerStep).toBe(microBatch * microBatches * dp * asked.sequence);
    expect(best!.bytes.total).toBeLessThanOrEqual(asked.gpu.memory);
    expect(best!.mfu).toBeGreaterThan(0.2);
    expect(best!.mfu).toBeLessThan(0.6);
  });

  it("adds up", () => {
    const { bytes, seconds } = bestLayout(request()).best!;
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
      const { best } = bestLayout(request({ spec, gpus: 1, gpu: { ...h100, memory: 1e15 } }));
      expect(best!.layout).toMatchObject({ tp: 1, pp: 1, ep: 1, dp: 1, recompute: "none" });
      expect(best!.bytes.plainParams + best!.bytes.expertParams).toBe(countParams(spec).total);
      expect(best!.bytes.weights + best!.bytes.gradients + best!.bytes.optimizer).toBe(18 * countParams(spec).total);
    }
  });

  it("is never slower with more memory, and fits on fewer GPUs", () => {
    const [small, large] = [80e9, 141e9].map(
      (memory) => bestLayout(request({ gpu: { ...h100, memory } })).best!.tokensPerSecond,
    );
    expect(large!).toBeGreaterThanOrEqual(small! * 0.998);
    expect(fewestGpus(request())!).toBeGreaterThan(4);
    expect(fewestGpus(request({ gpu: { ...h100, memory: 141e9 } }))!).toBeLessThanOrEqual(fewestGpus(request())!);
  });

  it("recomputes and cuts more where memory is short", () => {
    const { best } = bestLayout(request({ spec: presetSpec("llama-2-7b"), gpus: 8, gpu: { ...h100, memory: 40e9 } }));
    expect(best!.layout.recompute === "full" || best!.layout.tp * best!.layout.pp > 1).toBe(true);
  });

  it("keeps context parallelism for long sequences", () => {
    expect(bestLayout(request()).best!.layout.cp).toBe(1);
  });

  it("does without what cannot be: no layout on GPUs that do not divide", () => {
    expect(bestLayout(request({ batchTokens: 4096, gpus: 7 }))).toMatchObject({ best: null, tried: 0 });
  });
});

describe("the speed model", () => {
  it("is within 17 % (root mean square) of the measured products", () => {
    const rows = [...kernels.matmul.map(({ m, k, n, tflops }) => ({ rows: m, k, n, tflops })), ...kernels.grouped];
    expect(rows).toHaveLength(33);
    const errors = rows.map(({ rows: m, k, n, tflops }) =>
      Math.log((defaultSpeed.matrices * productShare(m, k, n) * 989.4) / tflops),
    );
    expect(Math.sqrt(errors.reduce((sum, error) => sum + error * error, 0) / errors.length)).toBeLessThan(0.171);
    // Attention of the usual size, forward and backward together.
    const { forward, backward } = kernels.attention[0]!;
    expect(3 / (1 / forward + 2 / backward) / 989.4).toBeCloseTo(defaultSpeed.attention, 2);
  });
});
