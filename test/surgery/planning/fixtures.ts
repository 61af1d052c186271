/** Small dense specs of each source family, random source tensors, and a plain double-precision FFN and MoE layer. */
import { at, entryOf } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { fromFloat32, type FloatDtype } from "../../../src/files/numeric/dtype.js";
import { copyRectangle, matrixShape, type TypedBytes } from "../../../src/files/numeric/rectangles.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import { erf } from "../../../src/graph/ir/activations.js";
import {
  plainBlocks,
  rmsNorm,
  type ActivationKind,
  type DecoderSpec,
  type MoeFfn,
  type RouterSpec,
} from "../../../src/model/decoder/types.js";
import { draftOf } from "../../../src/surgery/planning/draft.js";
import { upcycleFfns } from "../../../src/surgery/planning/experts.js";
import type { UpcycleRecipe } from "../../../src/surgery/planning/recipe.js";
import { matricesOf } from "../../../src/surgery/planning/router-rows.js";
import type { FfnKind } from "../../../src/surgery/planning/scaling.js";
import { targets, type Target } from "../../../src/surgery/planning/targets.js";
import { evaluateFloat32, evaluateRectangle } from "../../../src/surgery/planning/evaluate.js";
import type { EvaluationContext } from "../../../src/surgery/planning/evaluation.js";
import type { Expr, Shapes } from "../../../src/surgery/planning/expr.js";
import { sourceShapes, type SurgeryPlan } from "../../../src/surgery/planning/plan.js";
import { slotsOf } from "../../../src/model/tensors/slots.js";

export function denseSpec(
  family: "llama" | "mistral" | "qwen2" | "qwen3",
  changes: Partial<DecoderSpec> & { ffnDim?: number; layerCount?: number } = {},
): DecoderSpec {
  const { ffnDim = 48, layerCount = 2, ...rest } = changes;
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
      ffn: { kind: "dense", ffnDim, bias: false, activation: "silu", gated: true } as const,
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

/** A context whose source tensors are float32 in memory, of one parent or several of one shape. */
export function contextOf(
  source: DecoderSpec,
  seed: number,
  ...parents: readonly ReadonlyMap<string, Float32Array>[]
): EvaluationContext {
  const shapes = sourceShapes(source);
  const readers = parents.map((tensors) =>
    rectanglesOfWhole(shapes, async (key) => ({ dtype: "F32", bytes: fromFloat32("F32", entryOf(tensors, key)) })),
  );
  return {
    shapes,
    seed,
    cache: new Map(),
    dtypeOf: () => "F32",
    readRectangle: (rectangle) => at(readers, rectangle.source ?? 0)(rectangle),
  };
}

/** The values of every output of a plan, by slot key. */
export function evaluatePlan(
  plan: SurgeryPlan,
  tensors: ReadonlyMap<string, Float32Array>,
): Promise<Map<string, Float32Array>> {
  const context = contextOf(plan.source, plan.recipe.seed, tensors);
  return evaluateAll(plan.outputs, { ...context, data: matricesOf(plan.data) });
}

/** The values of outputs, by slot key. */
export async function evaluateAll(
  outputs: SurgeryPlan["outputs"],
  context: EvaluationContext,
): Promise<Map<string, Float32Array>> {
  const out = new Map<string, Float32Array>();
  for (const { slot, value } of outputs) out.set(slot.key, await evaluateFloat32(value, slot.shape, context));
  return out;
}

/** Layer 0's relative error (see `ffnError`) behind any router, whether a released family has it or not. */
export async function draftError(
  source: DecoderSpec,
  recipe: UpcycleRecipe,
  router: RouterSpec,
  sharedExpert: Target["sharedExpert"] = null,
): Promise<number> {
  const target = { ...targets.upcycle, routers: { [recipe.order]: router }, sharedExpert };
  const { spec, values } = upcycleFfns(draftOf(source), recipe, target);
  const tensors = randomTensors(source, 0.2);
  const outputs = slotsOf(spec).map((slot) => ({ slot, value: entryOf(values, slot.key) }));
  return ffnError(
    { source, target: spec },
    tensors,
    await evaluateAll(outputs, contextOf(source, recipe.seed, tensors)),
  );
}

/** y = W x for row-major W [rows, x.length], in double precision. */
export function matVec(weights: ArrayLike<number>, x: readonly number[]): number[] {
  const rows = weights.length / x.length;
  return Array.from({ length: rows }, (_, row) =>
    x.reduce((sum, value, column) => sum + at(weights, row * x.length + column) * value, 0),
  );
}

/** An FFN's tensors by part. */
export type FfnTensors = (
  part: "gate" | "gateBias" | "up" | "upBias" | "down" | "downBias",
) => ArrayLike<number> | undefined;

const activations: Readonly<Record<ActivationKind, (x: number) => number>> = {
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  geluTanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
  // With the numbers that a model begins with.
  xielu: (x) => (x > 0 ? 0.8 * x * x : 0.8 * (Math.expm1(Math.min(x, -1e-6)) - x)) + 0.5 * x,
};

/** down(act(gate x) * up x) or down(act(up x)), with biases where there are any. */
export function ffn({ gated, activation }: FfnKind, tensorOf: FfnTensors, x: readonly number[]): number[] {
  const act = activations[activation];
  const linear = (weight: "gate" | "up" | "down", input: readonly number[]): number[] => {
    const matrix = tensorOf(weight);
    if (matrix === undefined) throw new Error(`the FFN has no ${weight}`);
    return matVec(matrix, input).map((value, i) => value + (tensorOf(`${weight}Bias`)?.[i] ?? 0));
  };
  const up = linear("up", x);
  return linear("down", gated ? linear("gate", x).map((value, i) => act(value) * at(up, i)) : up.map(act));
}

/** The chosen experts and their weights. */
function route({ experts, topK, router }: MoeFfn, logits: readonly number[]): [expert: number, weight: number][] {
  const order = Array.from({ length: experts }, (_, e) => e).sort((a, b) => at(logits, b) - at(logits, a) || a - b);
  const chosen = order.slice(0, topK);
  if (router.score === "sparsemixer") return chosen.map((e) => [e, router.scaling]);
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
  const score = (e: number): number =>
    router.score === "sigmoid" ? 1 / (1 + Math.exp(-at(logits, e))) : Math.exp(at(logits, e)) / total;
  const { renormalise } = router;
  const divisor =
    renormalise === null
      ? 1
      : Math.max(chosen.reduce((sum, e) => sum + score(e), 0) + renormalise.plus, renormalise.atLeast);
  return chosen.map((e) => [e, (score(e) / divisor) * router.scaling]);
}

/** Layer 0's MoE for one token: output, and the chosen experts. */
export function moe(
  spec: DecoderSpec,
  tensors: ReadonlyMap<string, Float32Array>,
  x: readonly number[],
): { y: number[]; chosen: number[] } {
  const layer = at(spec.layers, 0).ffn as MoeFfn;
  const tensorOf = (key: string): Float32Array => entryOf(tensors, `layers.0.${key}`);
  const routed = route(layer, matVec(tensorOf("router"), x));
  const y = x.map(() => 0);
  const add = (output: readonly number[], weight: number): void =>
    output.forEach((value, i) => (y[i] = at(y, i) + weight * value));
  for (const [e, weight] of routed)
    add(
      ffn(layer, (part) => tensors.get(`layers.0.experts.${e}.${part}`), x),
      weight,
    );
  if (layer.shared !== null) {
    const open = layer.shared.gated ? 1 / (1 + Math.exp(-at(matVec(tensorOf("sharedRouter"), x), 0))) : 1;
    const shared: FfnTensors = (part) => tensors.get(`layers.0.shared${part.charAt(0).toUpperCase()}${part.slice(1)}`);
    add(ffn(layer, shared, x), open);
  }
  return { y, chosen: routed.map(([e]) => e) };
}

/** Relative error over several random tokens of unit RMS: |moe - dense| / |dense|. */
export function ffnError(
  { source: from, target: to }: Pick<SurgeryPlan, "source" | "target">,
  source: ReadonlyMap<string, Float32Array>,
  target: ReadonlyMap<string, Float32Array>,
  tokens = 12,
): number {
  let difference = 0;
  let size = 0;
  for (let token = 0; token < tokens; token++) {
    const values = new Float64Array(from.hidden);
    randomStream(1, `x${token}`).normals(values, 0);
    const x = [...values];
    const dense = ffn(at(from.layers, 0).ffn, (part) => source.get(`layers.0.${part}`), x);
    const { y } = moe(to, target, x);
    dense.forEach((value, i) => {
      difference += (value - at(y, i)) ** 2;
      size += value ** 2;
    });
  }
  return Math.sqrt(difference / size);
}

/** A reader of rectangles for tensors that can only be read as a whole. */
export function rectanglesOfWhole(
  shapes: Shapes,
  readBytes: (key: string) => Promise<TypedBytes>,
): EvaluationContext["readRectangle"] {
  return async (rectangle) => {
    const { dtype, bytes } = await readBytes(rectangle.key);
    const [rows, columns] = matrixShape(shapes.get(rectangle.key) ?? []);
    const width = bytes.length / (rows * columns);
    if (!Number.isInteger(width)) throw new Error(`${rectangle.key}: ${bytes.length} bytes do not fit its shape`);
    // A row of n elements is a row of n * width bytes.
    const { columnStart, columnCount, stride } = rectangle;
    const part = {
      ...rectangle,
      columnStart: columnStart * width,
      columnCount: columnCount * width,
      stride: stride * width,
    };
    return { dtype, bytes: copyRectangle(bytes, part) };
  };
}

/** Like `evaluateRectangle`, for whole rows. */
export function evaluateRows(
  expr: Expr,
  shape: readonly number[],
  rowStart: number,
  rowCount: number,
  dtype: FloatDtype,
  context: EvaluationContext,
  into?: Uint8Array,
): Promise<Uint8Array> {
  const [, columnCount] = matrixShape(shape);
  return evaluateRectangle(expr, shape, { rowStart, rowCount, columnStart: 0, columnCount }, dtype, context, into);
}
