/**
 * Lowering rules: how each primitive becomes launches. The table is typed over all primitives, so a missing rule does
 * not compile. Kernels and the order of their arguments are those of the sources in engine/cuda/kernels.
 */
import type { NodeOf, PlainActivation, Prim, ValueId } from "../../../graph/ir/ir.js";
import { matrixSizes, typeOf } from "../../../graph/ir/ir.js";
import {
  EIGHT,
  ROW_WARPS,
  blocksFor,
  bytesPer,
  float,
  gridFor,
  int,
  long,
  operand,
  reads,
  readsOrNull,
  viewed,
  writes,
  type View,
} from "./arguments.js";
import type { Context } from "./context.js";
import type { BufferId, Storage } from "./launches.js";
import { lowerAttention, lowerAttentionGrad, lowerCachedAttention } from "./rules-attention.js";
import { broadcastOf, reduce, singleAxisOf } from "./rules-axes.js";
import { lowerHeadCrossEntropy, lowerHeadCrossEntropyGrad, lowerHeadScores } from "./rules-head.js";
import * as experts from "./rules-experts.js";
import * as route from "./rules-route.js";
import * as tokens from "./rules-tokens.js";
import { lowerSplitProduct } from "./split-product.js";

/** Appends the launches of one node, and defines its outputs. */
export type Rule<P extends Prim> = (c: Context, node: NodeOf<P>) => void;

const words = new DataView(new ArrayBuffer(4));

/** The bits of a float32. */
export function wordOf(value: number, dtype: "f32" | "int" = "f32"): number {
  if (dtype === "int") words.setInt32(0, value);
  else words.setFloat32(0, value);
  return words.getUint32(0);
}

/** Codes of kernels `binary` and `binarySame`. */
const binaryCodes = { add: 0, sub: 1, mul: 2 } as const;

const sameShape = (a: readonly number[], b: readonly number[]): boolean => a.join() === b.join();

/** A broadcast operand: where it lies and its strides over the joint axes. */
function operandOf(
  c: Context,
  id: ValueId,
  shape: readonly number[],
  real: Storage,
): { at: BufferId; of: readonly number[] } {
  const fill = c.fillOf(id);
  if (fill === null) return { at: c.as(id, real), of: c.shapeOf(id) };
  return { at: c.single(fill, real), of: shape.map(() => 1) };
}

function binary(c: Context, node: NodeOf<"add" | "sub" | "mul">): void {
  const [a, b] = node.in;
  const [out] = node.out;
  const shape = c.shapeOf(out);
  const real = c.realOf(a, b);
  const [left, right] = [operandOf(c, a, shape, real), operandOf(c, b, shape, real)];
  const code = int(binaryCodes[node.prim]);
  const n = c.sizeOf(out);
  const over = [a, b].filter((id) => c.fillOf(id) === null && sameShape(c.shapeOf(id), shape));
  const to = c.defineOver(out, over, real);
  const common = { module: "elementwise", real, grid: gridFor(n), flops: n } as const;
  if (sameShape(left.of, shape) && sameShape(right.of, shape)) {
    c.kernel({
      ...common,
      kernel: "binarySame",
      arguments: [reads(left.at), reads(right.at), writes(to), code, long(n)],
    });
    return;
  }
  const { sizes, strides } = broadcastOf(shape, [left.of, right.of]);
  c.kernel({
    ...common,
    kernel: "binary",
    arguments: [
      reads(left.at),
      reads(right.at),
      writes(to),
      code,
      long(n),
      ...sizes.slice(1).map(int),
      ...strides.flat().map(int),
    ],
  });
}

/** Codes of kernels `unary` and `unaryGrad`. */
const unaryCodes: Readonly<Record<"scale" | "sigmoid" | "tanh" | "clamp" | PlainActivation, number>> = {
  scale: 0,
  sigmoid: 1,
  tanh: 2,
  clamp: 3,
  silu: 4,
  gelu: 5,
  geluTanh: 6,
  relu: 7,
  relu2: 8,
  xieluTail: 9,
  softplus: 10,
};

function unary(
  c: Context,
  node: { readonly in: readonly [ValueId]; readonly out: readonly [ValueId] },
  code: keyof typeof unaryCodes,
  [low, high]: readonly [number, number] = [0, 0],
): void {
  const [x] = node.in;
  const [out] = node.out;
  const n = c.sizeOf(out);
  const real = c.realOf(x);
  const from = c.as(x, real);
  c.kernel({
    module: "elementwise",
    kernel: "unary",
    real,
    grid: gridFor(n),
    flops: n,
    arguments: [
      reads(from),
      writes(c.defineOver(out, [x], real)),
      int(unaryCodes[code]),
      long(n),
      float(low),
      float(high),
    ],
  });
}

function unaryGrad(
  c: Context,
  node: { readonly in: readonly [ValueId, ValueId]; readonly out: readonly [ValueId] },
  code: keyof typeof unaryCodes,
  [low, high]: readonly [number, number] = [0, 0],
): void {
  const [x, dy] = node.in;
  const [out] = node.out;
  const n = c.sizeOf(out);
  const real = c.realOf(x, dy);
  const [from, grad] = [c.as(x, real), c.as(dy, real)];
  const to = c.defineOver(out, [dy, x], real);
  c.kernel({
    module: "elementwise",
    kernel: "unaryGrad",
    real,
    grid: gridFor(n),
    flops: n,
    arguments: [reads(from), reads(grad), writes(to), int(unaryCodes[code]), long(n), float(low), float(high)],
  });
}

/** softmax and what resembles it: a warp for each row of the last axis. */
function rowWise(c: Context, kernel: string, inputs: readonly ValueId[], out: ValueId): void {
  const [rows, size] = c.rowsOf(inputs[0]!);
  const sources = inputs.map((id) => reads(c.of(id)));
  c.kernel({
    module: "reduce",
    kernel,
    grid: [blocksFor(rows, ROW_WARPS), 1, 1],
    flops: 4 * rows * size,
    arguments: [...sources, writes(c.define(out)), int(rows), int(size)],
  });
}

/** Norms: a block for each row of the last axis. */
function norm(c: Context, node: NodeOf<"rmsNorm" | "layerNorm" | "layerNormGrad">): void {
  const [rows, size] = c.rowsOf(node.out[0]);
  const [x, second] = node.in;
  const real = node.prim === "layerNormGrad" ? c.realOf(x, node.in[1]) : c.realOf(x);
  if (node.prim === "rmsNorm" && size % EIGHT === 0) {
    const source = reads(c.as(x, real));
    c.kernel({
      module: "norm",
      kernel: "rmsNormRows",
      real,
      grid: [blocksFor(rows, ROW_WARPS), 1, 1],
      flops: 4 * rows * size,
      arguments: [
        source,
        reads(c.of(node.in[1])),
        writes(c.define(node.out[0], real)),
        int(rows),
        int(size),
        float(node.attrs.eps),
      ],
    });
    return;
  }
  // A weight stays in float32.
  const more = second === undefined ? [] : [reads(node.prim === "rmsNorm" ? c.of(second) : c.as(second, real))];
  c.kernel({
    module: "norm",
    kernel: node.prim,
    real,
    grid: [rows, 1, 1],
    flops: 4 * rows * size,
    arguments: [reads(c.as(x, real)), ...more, writes(c.define(node.out[0], real)), int(size), float(node.attrs.eps)],
  });
}

/** Multiprocessors that the rows of a norm's gradient are cut for; each block leaves a part of the weight's. */
const MULTIPROCESSORS = 132;

/**
 * Numbers of eights of a row that each lane of a warp can hold, for which norm.cu has a kernel, and the kernel's blocks
 * on a multiprocessor.
 */
const heldEights: readonly (readonly [eights: number, blocks: number])[] = [
  [1, 4],
  [2, 3],
  [3, 3],
  [4, 2],
  [6, 1],
  [8, 1],
];

/** Kernel of a norm's gradient for rows of so many elements, and its blocks on a multiprocessor. */
function normGradKernel(size: number): { readonly kernel: string; readonly blocks: number } {
  const [eights, blocks] = heldEights.find(([count]) => size <= count * EIGHT * 32) ?? [];
  if (size % EIGHT !== 0 || eights === undefined || blocks === undefined) return { kernel: "rmsNormGrad", blocks: 2 };
  return { kernel: `rmsNormGradRows${eights}`, blocks };
}

function rmsNormGrad(c: Context, node: NodeOf<"rmsNormGrad">): void {
  const [x, weight, dy] = node.in;
  const [dx, dweight] = node.out;
  const [rows, size] = c.rowsOf(x);
  const { kernel, blocks: resident } = normGradKernel(size);
  // As many blocks as are at work at once at most, and the same number of rows for every warp, or block.
  const atOnce = kernel === "rmsNormGrad" ? 1 : ROW_WARPS;
  const turns = Math.ceil(rows / (atOnce * MULTIPROCESSORS * resident));
  const blocks = Math.ceil(rows / (atOnce * turns));
  const parts = c.scratch(blocks * size);
  const real = c.realOf(x, dy);
  const sources = [reads(c.as(x, real)), reads(c.of(weight)), reads(c.as(dy, real))];
  const sum = c.sumOf(dx, real);
  const rest = sum === null ? null : c.as(sum.other, real);
  const to = sum === null ? c.define(dx, real) : c.defineSum(sum, real);
  c.kernel({
    module: "norm",
    real,
    kernel,
    grid: [blocks, 1, 1],
    shared: size * 4,
    flops: 10 * rows * size,
    arguments: [...sources, readsOrNull(rest), writes(to), writes(parts), int(rows), int(size), float(node.attrs.eps)],
  });
  if (c.readingNodes(dweight).length === 0) c.sumLater({ parts, to: c.define(dweight), size: blocks, inner: size });
  else reduce(c, parts, c.define(dweight), { outer: 1, size: blocks, inner: size });
}

/** Whether rows can be taken in eights, wherever they begin. */
const inEights = (size: number, views: readonly View[]): boolean =>
  size % EIGHT === 0 && views.every(({ first, stride }) => first % EIGHT === 0 && stride % EIGHT === 0);

const areApart = (size: number, views: readonly View[]): boolean => views.some(({ stride }) => stride !== size);

function swigluGrad(c: Context, node: NodeOf<"swigluGrad">): void {
  const n = c.sizeOf(node.in[0]);
  const real = c.realOf(...node.in);
  const [gate, up, dh] = node.in;
  const [rows, size] = c.rowsOf(gate);
  const from = [gate, up].map((id) => c.viewOf(id, real));
  if (areApart(size, from) && inEights(size, from)) {
    const grad = reads(c.as(dh, real));
    const to = node.out.map((id) => c.defineRows(id, [], real));
    c.kernel({
      module: "elementwise",
      real,
      kernel: "swigluGradRows",
      grid: gridFor(n),
      flops: 10 * n,
      bytes: 5 * n * bytesPer[real],
      arguments: [
        ...from.map((view) => viewed(view, "read", real)),
        grad,
        ...to.map((view) => viewed(view, "write", real)),
        ...[rows, size, ...[...from, ...to].map(({ stride }) => stride)].map(int),
      ],
    });
    return;
  }
  const sources = node.in.map((id) => reads(c.as(id, real)));
  const outputs = node.out.map((id) => writes(c.defineOver(id, node.in, real)));
  c.kernel({
    module: "elementwise",
    real,
    kernel: "swigluGrad",
    grid: gridFor(n),
    flops: 10 * n,
    arguments: [...sources, ...outputs, long(n)],
  });
}

function swiglu(c: Context, node: NodeOf<"swiglu">): void {
  const n = c.sizeOf(node.in[0]);
  const real = c.realOf(...node.in);
  const [rows, size] = c.rowsOf(node.in[0]);
  const from = node.in.map((id) => c.viewOf(id, real));
  if (areApart(size, from) && inEights(size, from)) {
    c.kernel({
      module: "elementwise",
      kernel: "swigluRows",
      real,
      grid: gridFor(n),
      flops: 5 * n,
      bytes: 3 * n * bytesPer[real],
      arguments: [
        ...from.map((view) => viewed(view, "read", real)),
        writes(c.define(node.out[0], real)),
        ...[rows, size, ...from.map(({ stride }) => stride)].map(int),
      ],
    });
    return;
  }
  const sources = node.in.map((id) => reads(c.as(id, real)));
  c.kernel({
    module: "elementwise",
    kernel: "swiglu",
    real,
    grid: gridFor(n),
    flops: 5 * n,
    arguments: [...sources, writes(c.defineOver(node.out[0], node.in, real)), long(n)],
  });
}

function matmul(c: Context, node: NodeOf<"matmul">): void {
  const [a, b] = node.in;
  const [m, n] = matrixSizes(typeOf(c.graph, node.out[0]));
  const [rows, columns] = matrixSizes(typeOf(c.graph, a));
  const k = node.attrs.transA ? rows : columns;
  const [out] = node.out;
  const real = c.feedsFloats(out) || [a, b].some((id) => c.storageOf(id) === "f32") ? "f32" : c.realOf(a, b);
  if (real === "f32" && lowerSplitProduct(c, node)) return;
  // Gradients of weights are sums over all tokens, and so is what leaves the graph, in float32.
  const stored = node.attrs.transA || c.feedsOutput(out) ? "f32" : real;
  const operands = { a: operand(c.as(a, real)), b: operand(c.as(b, real)) };
  const sum = c.sumOf(out, stored);
  const [addend, to] =
    sum === null ? [null, c.define(out, stored)] : [operand(c.as(sum.other, stored)), c.defineProductSum(sum, stored)];
  c.product({ m, n, k }, { ...node.attrs, real, stored }, { ...operands, addend, out: operand(to) });
}

/** Sums over axes that lie together, one such group after the other, the last first. */
function reduceSum(c: Context, node: NodeOf<"reduceSum">): void {
  const [x] = node.in;
  const [out] = node.out;
  const groups = singleAxisOf(c.shapeOf(x), node.attrs.axes);
  let from = c.of(x);
  if (groups.length === 0) {
    const n = c.sizeOf(x);
    const to = writes(c.define(out));
    c.kernel({
      module: "elementwise",
      kernel: "copyWords",
      grid: gridFor(n),
      arguments: [reads(from), to, long(n)],
    });
  }
  for (const [index, group] of groups.entries()) {
    const to = index === groups.length - 1 ? c.define(out) : c.scratch(group.outer * group.inner);
    reduce(c, from, to, group);
    from = to;
  }
}

function constant(c: Context, { attrs, out: [out] }: NodeOf<"constant">): void {
  const [first = 0] = attrs.values;
  if (attrs.values.length === 1) {
    c.defineFill(out, wordOf(first, attrs.dtype));
    return;
  }
  const data = attrs.dtype === "int" ? Int32Array.from(attrs.values) : Float32Array.from(attrs.values);
  c.defineConstant(out, new Uint32Array(data.buffer));
}

function toFloat(c: Context, node: NodeOf<"toFloat">): void {
  const n = c.sizeOf(node.out[0]);
  c.kernel({
    module: "elementwise",
    kernel: "toFloat",
    grid: gridFor(n),
    arguments: [reads(c.of(node.in[0])), writes(c.define(node.out[0])), long(n)],
  });
}

/** The lowering rule of every primitive. */
export const rules: { readonly [P in Prim]: Rule<P> } = {
  constant,
  add: binary,
  sub: binary,
  mul: binary,
  scale: (c, node) => unary(c, node, "scale", [node.attrs.by, 0]),
  sigmoid: (c, node) => unary(c, node, "sigmoid"),
  tanh: (c, node) => unary(c, node, "tanh"),
  activation: (c, node) => unary(c, node, node.attrs.kind),
  activationGrad: (c, node) => unaryGrad(c, node, node.attrs.kind),
  clamp: (c, node) => unary(c, node, "clamp", [node.attrs.low, node.attrs.high]),
  clampGrad: (c, node) => unaryGrad(c, node, "clamp", [node.attrs.low, node.attrs.high]),
  toFloat,
  // A value by another name: see `Context`.
  reshape: () => undefined,
  reduceSum,
  softmax: (c, node) => rowWise(c, "softmax", node.in, node.out[0]),
  softmaxGrad: (c, node) => rowWise(c, "softmaxGrad", node.in, node.out[0]),
  logSumExp: (c, node) => rowWise(c, "logSumExp", node.in, node.out[0]),
  matmul,
  embedding: tokens.lowerEmbedding,
  segmentIds: tokens.lowerSegmentIds,
  segmentPositions: tokens.lowerSegmentPositions,
  embeddingGrad: tokens.lowerEmbeddingGrad,
  rmsNorm: norm,
  rmsNormGrad,
  layerNorm: norm,
  layerNormGrad: norm,
  rope: tokens.lowerRope,
  joinHeads: tokens.lowerJoinHeads,
  joinHeadsGrad: tokens.lowerJoinHeadsGrad,
  attention: lowerAttention,
  attentionGrad: lowerAttentionGrad,
  cachedAttention: lowerCachedAttention,
  swiglu,
  swigluGrad,
  headCrossEntropy: lowerHeadCrossEntropy,
  headCrossEntropyGrad: lowerHeadCrossEntropyGrad,
  headScores: lowerHeadScores,
  routeTopK: route.lowerRouteTopK,
  routeTopKGrad: route.lowerRouteTopKGrad,
  routeWeights: route.lowerRouteWeights,
  sinkhorn: route.lowerSinkhorn,
  expertCapacity: experts.lowerExpertCapacity,
  expertCounts: experts.lowerExpertCounts,
  expertSort: experts.lowerExpertSort,
  dispatch: experts.lowerDispatch,
  combine: experts.lowerCombine,
  scaleRows: experts.lowerScaleRows,
  scaleRowsGrad: experts.lowerScaleRowsGrad,
  groupedMatmul: experts.lowerGroupedMatmul,
  groupedBias: experts.lowerGroupedBias,
  groupedBiasGrad: experts.lowerGroupedBiasGrad,
  groupedMatmulGradW: experts.lowerGroupedMatmulGradW,
};
