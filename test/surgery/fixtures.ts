/** Small dense specs of each source family, random source tensors, and a plain double-precision FFN and MoE layer. */
import { randomStream } from "../../src/base/random.js";
import { fromFloat32 } from "../../src/numeric/dtype.js";
import { plainAttention, plainRope } from "../../src/spec/plain.js";
import { plainBlocks, rmsNorm, routerOrder, type DecoderSpec, type MoeFfn } from "../../src/spec/types.js";
import { evaluateFloat32, regionsOfWhole, type EvaluationContext } from "../../src/surgery/evaluate.js";
import { sourceShapes, type SurgeryPlan } from "../../src/surgery/plan.js";
import { slotsOf } from "../../src/tensors/slots.js";

export function denseSpec(family: "llama" | "mistral" | "qwen2" | "qwen3", changes: Partial<DecoderSpec> & { inner?: number; layerCount?: number } = {}): DecoderSpec {
  const { inner = 48, layerCount = 2, ...rest } = changes;
  return {
    family,
    vocab: 40,
    hidden: 16,
    tiedHead: false,
    ...plainBlocks,
    norm: rmsNorm(1e-5),
    maxPositions: 64,
    attn: {
      ...plainAttention({ heads: 4, kvHeads: 2, headDim: 4 }),
      qkNorm: family === "qwen3" ? { span: "head", norm: rmsNorm(1e-5), afterRope: false } : null,
      qkvBias: family === "qwen2",
    },
    layers: Array.from({ length: layerCount }, () => ({
      window: family === "mistral" ? 8 : null,
      rope: plainRope(10000, 4),
      ffn: { kind: "dense", inner, bias: false, activation: "silu", gated: true } as const,
    })),
    tokens: { bos: null, eos: [], pad: null },
    initStd: 0.02,
    auxLossCoef: 0,
    ...rest,
  };
}

/** Normal values of the given std for every tensor of a spec. */
export function randomTensors(spec: DecoderSpec, std: number, seed = 7): Map<string, Float32Array> {
  return new Map(
    slotsOf(spec).map(({ key, shape }) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      randomStream(seed, key).normals(values, 0, 0, std);
      return [key, values];
    }),
  );
}

/** Every output of a plan. */
export async function evaluatePlan(plan: SurgeryPlan, tensors: ReadonlyMap<string, Float32Array>): Promise<Map<string, Float32Array>> {
  const shapes = sourceShapes(plan.source);
  const context: EvaluationContext = {
    shapes, seed: plan.recipe.seed, dtypeOf: () => "F32",
    readRegion: regionsOfWhole(shapes, async (key) => ({ dtype: "F32", bytes: fromFloat32("F32", tensors.get(key)!) })),
  };
  const out = new Map<string, Float32Array>();
  for (const { slot, value } of plan.outputs) out.set(slot.key, await evaluateFloat32(value, slot.shape, context));
  return out;
}

/** y = W x for row-major W [rows, x.length], in double precision. */
export function matVec(weights: ArrayLike<number>, x: readonly number[]): number[] {
  const rows = weights.length / x.length;
  return Array.from({ length: rows }, (_, row) => x.reduce((sum, value, column) => sum + weights[row * x.length + column]! * value, 0));
}

/** down(silu(gate x) * up x). */
export function ffn(gate: Float32Array, up: Float32Array, down: Float32Array, x: readonly number[]): number[] {
  const g = matVec(gate, x);
  const u = matVec(up, x);
  return matVec(down, g.map((value, i) => (value / (1 + Math.exp(-value))) * u[i]!));
}

/** Layer 0's MoE for one token: output, and the chosen experts. */
export function moe(spec: DecoderSpec, tensors: ReadonlyMap<string, Float32Array>, x: readonly number[]): { y: number[]; chosen: number[] } {
  const { experts, topK, router, shared } = spec.layers[0]!.ffn as MoeFfn;
  const order = routerOrder(router);
  const at = (key: string): Float32Array => tensors.get(`layers.0.${key}`)!;
  const logits = matVec(at("router"), x);
  const chosen = Array.from({ length: experts }, (_, e) => e).sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, topK);
  const pool = order === "topk-softmax" ? chosen : logits.map((_, e) => e);
  const total = pool.reduce((sum, e) => sum + Math.exp(logits[e]!), 0);
  const y = x.map(() => 0);
  for (const e of chosen) {
    const weight = Math.exp(logits[e]!) / total;
    const part = ffn(at(`experts.${e}.gate`), at(`experts.${e}.up`), at(`experts.${e}.down`), x);
    part.forEach((value, i) => (y[i]! += weight * value));
  }
  if (shared !== null) {
    const open = 1 / (1 + Math.exp(-matVec(at("sharedRouter"), x)[0]!));
    ffn(at("sharedGate"), at("sharedUp"), at("sharedDown"), x).forEach((value, i) => (y[i]! += open * value));
  }
  return { y, chosen };
}

/** Relative error over several random tokens of unit RMS: |moe - dense| / |dense|. */
export function ffnError(plan: SurgeryPlan, source: ReadonlyMap<string, Float32Array>, target: ReadonlyMap<string, Float32Array>, tokens = 12): number {
  let difference = 0;
  let size = 0;
  for (let token = 0; token < tokens; token++) {
    const values = new Float64Array(plan.source.hidden);
    randomStream(1, `x${token}`).normals(values, 0);
    const x = [...values];
    const dense = ffn(source.get("layers.0.gate")!, source.get("layers.0.up")!, source.get("layers.0.down")!, x);
    const { y } = moe(plan.target, target, x);
    dense.forEach((value, i) => {
      difference += (value - y[i]!) ** 2;
      size += value ** 2;
    });
  }
  return Math.sqrt(difference / size);
}
