/**
 * Shape rules: input types -> output types of every primitive, or an error that names the primitive. The file is long
 * because both of its tables have an entry for each primitive. Letters as in `ir.ts`.
 */
import { at } from "../../base/at.js";
import {
  attentionExtras,
  cachedExtras,
  elements,
  type AttentionAttrs,
  type Prim,
  type PrimAttrs,
  type PrimInputs,
  type SegmentAttrs,
  type ValueType,
} from "./ir.js";

/** Called with as many inputs as the primitive has (see `arities`). */
type ShapeRule<P extends Prim> = (attrs: PrimAttrs[P], inputs: PrimInputs<ValueType>[P]) => readonly ValueType[];

const f32 = (...shape: number[]): ValueType => ({ dtype: "f32", shape });
const int = (...shape: number[]): ValueType => ({ dtype: "int", shape });

class ShapeError extends Error {}

function expect(condition: boolean, message: () => string): void {
  if (!condition) throw new ShapeError(message());
}

/** Refuses another number of inputs than the primitive has. */
function requireArity<P extends Prim>(prim: P, attrs: PrimAttrs[P], inputs: readonly ValueType[]): void {
  const arity = arities[prim];
  const count: number | null = typeof arity === "function" ? arity(attrs) : arity;
  expect(count === null || inputs.length === count, () => `takes ${count} inputs, got ${inputs.length}`);
}

function same(a: readonly number[], b: readonly number[], what: string): void {
  expect(a.length === b.length && a.every((size, axis) => size === b[axis]), () => `${what}: [${a}] and [${b}] differ`);
}

function float(type: ValueType, what: string): void {
  expect(type.dtype === "f32", () => `${what} must be f32`);
}

function whole(type: ValueType, what: string): void {
  expect(type.dtype === "int", () => `${what} must be int`);
}

/** Both sizes of a value that must have two axes. */
function matrix({ shape }: ValueType, what: string): readonly [number, number] {
  const [rows, columns, ...more] = shape;
  if (rows === undefined || columns === undefined || more.length > 0)
    throw new ShapeError(`${what} must have 2 axes, got [${shape}]`);
  return [rows, columns];
}

/** Size of a value that must have one axis. */
function vector({ shape }: ValueType, what: string): number {
  const [size, ...more] = shape;
  if (size === undefined || more.length > 0) throw new ShapeError(`${what} must have 1 axes, got [${shape}]`);
  return size;
}

/** Shape of two values that broadcast as in NumPy. */
export function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const axes = Math.max(a.length, b.length);
  return Array.from({ length: axes }, (_, i) => {
    const x = a[a.length - axes + i] ?? 1;
    const y = b[b.length - axes + i] ?? 1;
    expect(x === y || x === 1 || y === 1, () => `[${a}] and [${b}] do not broadcast`);
    return x === 1 ? y : x;
  });
}

type One = readonly [ValueType];
type Two = readonly [ValueType, ValueType];

function binary(_: unknown, [a, b]: Two): readonly ValueType[] {
  float(a, "left");
  float(b, "right");
  return [f32(...broadcast(a.shape, b.shape))];
}

function unary(_: unknown, [x]: One): readonly ValueType[] {
  float(x, "input");
  return [x];
}

function pairwise(_: unknown, [x, dy]: Two): readonly ValueType[] {
  float(x, "x");
  same(x.shape, dy.shape, "x and dy");
  return [x];
}

function attentionShapes(attrs: AttentionAttrs, inputs: PrimInputs<ValueType>["attention"]): void {
  const rows = attrs.batch * attrs.sequence;
  expect(
    attrs.heads % attrs.kvHeads === 0,
    () => `${attrs.heads} heads are no multiple of ${attrs.kvHeads} key/value heads`,
  );
  const [q, k, v] = inputs;
  same(q.shape, [rows, attrs.heads * attrs.headDim], "q");
  same(k.shape, [rows, attrs.kvHeads * attrs.headDim], "k");
  same(v.shape, [rows, attrs.kvHeads * attrs.valueDim], "v");
  const { sinks, segmentIds } = attentionExtras(attrs, inputs);
  if (sinks !== null) same(sinks.shape, [attrs.heads], "sinks");
  if (segmentIds === null) return;
  whole(segmentIds, "segment ids");
  same(segmentIds.shape, [rows], "segment ids");
}

/** Type of attention's output [N, heads * valueDim]. */
const outputOf = ({ batch, sequence, heads, valueDim }: AttentionAttrs): ValueType =>
  f32(batch * sequence, heads * valueDim);

function perToken({ batch, sequence }: SegmentAttrs, [x]: One): readonly ValueType[] {
  whole(x, "input");
  same(x.shape, [batch * sequence], "tokens");
  return [int(batch * sequence)];
}

/** How many inputs a primitive has: a number that its type proves, or one by its attributes; null: its rule says. */
type Arity<P extends Prim> = number extends PrimInputs<unknown>[P]["length"]
  ? number | ((attrs: PrimAttrs[P]) => number) | null
  : PrimInputs<unknown>[P]["length"];

/** Inputs of attention without a gradient. */
const attentionArity = ({ sinks, segmentIds }: AttentionAttrs): number =>
  3 + Number(sinks) + Number(segmentIds === true);

const arities: { readonly [P in Prim]: Arity<P> } = {
  constant: 0,
  add: 2,
  sub: 2,
  mul: 2,
  scale: 1,
  sigmoid: 1,
  tanh: 1,
  activation: 1,
  activationGrad: 2,
  clamp: 1,
  clampGrad: 2,
  toFloat: 1,
  reshape: 1,
  reduceSum: 1,
  softmax: 1,
  softmaxGrad: 2,
  logSumExp: 1,
  matmul: 2,
  embedding: 2,
  segmentIds: 1,
  segmentPositions: 1,
  embeddingGrad: 2,
  rmsNorm: 2,
  rmsNormGrad: 3,
  layerNorm: 1,
  layerNormGrad: 2,
  rope: 3,
  joinHeads: 2,
  joinHeadsGrad: 3,
  attention: attentionArity,
  attentionGrad: (attrs) => attentionArity(attrs) + 1,
  cachedAttention: ({ sinks, branches }) => 6 + Number(sinks) + Number(branches === true),
  swiglu: 2,
  swigluGrad: 3,
  headCrossEntropy: 3,
  headCrossEntropyGrad: 4,
  headScores: ({ bias }) => 3 + Number(bias),
  routeTopK: ({ rule }) => 1 + Number(rule.corrected),
  routeTopKGrad: 3,
  routeWeights: 2,
  sinkhorn: 1,
  expertCapacity: 2,
  expertCounts: 1,
  expertSort: 1,
  dispatch: 3,
  combine: 3,
  scaleRows: 4,
  scaleRowsGrad: 5,
  groupedMatmul: null,
  groupedBias: null,
  groupedBiasGrad: 2,
  groupedMatmulGradW: 3,
};

const shapeRules: { readonly [P in Prim]: ShapeRule<P> } = {
  constant(attrs) {
    expect(
      attrs.values.length === 1 || attrs.values.length === elements(attrs.shape),
      () => `${attrs.values.length} values for [${attrs.shape}]`,
    );
    return [{ dtype: attrs.dtype, shape: attrs.shape }];
  },
  add: binary,
  sub: binary,
  mul: binary,
  scale: unary,
  sigmoid: unary,
  tanh: unary,
  activation: unary,
  activationGrad: pairwise,
  clamp: unary,
  clampGrad: pairwise,
  layerNorm: unary,
  layerNormGrad: pairwise,
  toFloat(_, [x]) {
    whole(x, "input");
    return [f32(...x.shape)];
  },
  reshape({ shape }, [x]) {
    expect(elements(shape) === elements(x.shape), () => `[${x.shape}] does not fit [${shape}]`);
    return [{ dtype: x.dtype, shape }];
  },
  reduceSum({ axes, keepDims }, [x]) {
    float(x, "input");
    const { shape } = x;
    expect(
      axes.every((axis) => axis >= 0 && axis < shape.length),
      () => `axes [${axes}] of [${shape}]`,
    );
    return [
      f32(
        ...(keepDims
          ? shape.map((size, axis) => (axes.includes(axis) ? 1 : size))
          : shape.filter((_, axis) => !axes.includes(axis))),
      ),
    ];
  },
  softmax: unary,
  softmaxGrad: pairwise,
  logSumExp(_, [x]) {
    float(x, "input");
    return [f32(...x.shape.slice(0, -1))];
  },
  matmul({ transA, transB }, [a, b]) {
    const [[rowsA, columnsA], [rowsB, columnsB]] = [matrix(a, "a"), matrix(b, "b")];
    float(a, "a");
    float(b, "b");
    const [m, k] = transA ? [columnsA, rowsA] : [rowsA, columnsA];
    const [k2, n] = transB ? [columnsB, rowsB] : [rowsB, columnsB];
    expect(k === k2, () => `inner sizes ${k} and ${k2} differ`);
    return [f32(m, n)];
  },
  embedding(_, [table, ids]) {
    const [[, hidden], tokens] = [matrix(table, "table"), vector(ids, "ids")];
    whole(ids, "ids");
    return [f32(tokens, hidden)];
  },
  segmentIds: perToken,
  segmentPositions: perToken,
  embeddingGrad({ vocab }, [ids, dy]) {
    whole(ids, "ids");
    const [rows, hidden] = matrix(dy, "dy");
    expect(rows === ids.shape[0], () => "ids and dy differ in rows");
    return [f32(vocab, hidden)];
  },
  rmsNorm(_, [x, weight]) {
    same(x.shape.slice(-1), weight.shape, "last axis and weight");
    return [x];
  },
  rmsNormGrad(_, [x, weight, dy]) {
    same(x.shape, dy.shape, "x and dy");
    return [x, weight];
  },
  rope(attrs, [x, cos, sin]) {
    const { rotary, headDim, offset } = attrs;
    const fits = rotary % 2 === 0 && rotary > 0 && offset >= 0 && offset + rotary <= headDim;
    expect(fits, () => `${rotary} rotary elements from ${offset} of a head of ${headDim}`);
    same(x.shape, [attrs.batch * attrs.sequence, attrs.heads * attrs.headDim], "x");
    same(cos.shape, [attrs.sequence, rotary / 2], "cos");
    same(sin.shape, [attrs.sequence, rotary / 2], "sin");
    return [x];
  },
  joinHeads({ heads }, [own, shared]) {
    const [[rows, size], [sharedRows, sharedSize]] = [matrix(own, "own"), matrix(shared, "shared")];
    expect(rows === sharedRows, () => "own and shared differ in rows");
    expect(size % heads === 0, () => `${size} elements for ${heads} heads`);
    return [f32(rows, size + heads * sharedSize)];
  },
  joinHeadsGrad({ heads }, [own, shared, dy]) {
    const [[rows, size], [, sharedSize]] = [matrix(own, "own"), matrix(shared, "shared")];
    same(dy.shape, [rows, size + heads * sharedSize], "dy");
    return [own, shared];
  },
  attention(attrs, inputs) {
    attentionShapes(attrs, inputs);
    return [outputOf(attrs)];
  },
  cachedAttention(attrs, inputs) {
    const { batch, sequence, heads, kvHeads, headDim, valueDim, capacity } = attrs;
    const [q, k, v, pastKeys, pastValues, lengths] = inputs;
    const { sinks, starts } = cachedExtras(attrs, inputs);
    attentionShapes({ ...attrs, sinks: false, segmentIds: false }, [q, k, v]);
    same(pastKeys.shape, [batch, kvHeads, capacity, headDim], "past keys");
    same(pastValues.shape, [batch, kvHeads, capacity, valueDim], "past values");
    whole(lengths, "lengths");
    same(lengths.shape, [batch], "lengths");
    if (sinks !== null) same(sinks.shape, [heads], "sinks");
    if (starts !== null) {
      whole(starts, "starts");
      same(starts.shape, [batch * sequence], "starts");
    }
    return [outputOf(attrs)];
  },
  attentionGrad(attrs, inputs) {
    attentionShapes(attrs, inputs);
    const dout = at(inputs, inputs.length - 1);
    same(dout.shape, outputOf(attrs).shape, "dout");
    return inputs.slice(0, attrs.sinks ? 4 : 3);
  },
  swiglu: (_, [gate, up]) => {
    same(gate.shape, up.shape, "gate and up");
    return [gate];
  },
  swigluGrad: (_, [gate, up, dh]) => {
    same(gate.shape, up.shape, "gate and up");
    same(gate.shape, dh.shape, "gate and dh");
    return [gate, up];
  },
  headCrossEntropy(_, inputs) {
    headShapes(inputs);
    return [f32()];
  },
  headCrossEntropyGrad(_, [x, head, targets, dloss]) {
    headShapes([x, head, targets]);
    same(dloss.shape, [], "dloss");
    return [x, head];
  },
  headScores(_, [x, head, targets, bias]) {
    headShapes([x, head, targets]);
    if (bias !== undefined) same(bias.shape, [matrix(head, "head")[0]], "bias");
    return [f32(matrix(x, "x")[0], 2)];
  },
  routeTopK({ k, rule }, [logits, correction]) {
    const [tokens, experts] = matrix(logits, "logits");
    expect(k >= 1 && k <= experts, () => `top-${k} of ${experts} experts`);
    if (correction !== undefined) same(correction.shape, [experts], "correction");
    expect(
      rule.score !== "sparsemixer" || (k === 2 && rule.groups === null && !rule.corrected),
      () => "sparsemixer takes two experts of all, uncorrected",
    );
    if (rule.groups !== null) {
      const { count, kept } = rule.groups;
      expect(
        experts % count === 0 && kept >= 1 && kept <= count,
        () => `${kept} of ${count} groups of ${experts} experts`,
      );
      expect(k <= (experts / count) * kept, () => `top-${k} of ${(experts / count) * kept} experts in ${kept} groups`);
    }
    return [f32(tokens, k), int(tokens, k)];
  },
  routeTopKGrad(_, [logits, experts, dweights]) {
    whole(experts, "experts");
    same(experts.shape, dweights.shape, "experts and dweights");
    return [logits];
  },
  routeWeights({ rule }, [logits, experts]) {
    whole(experts, "experts");
    expect(logits.shape[0] === experts.shape[0], () => "logits and experts differ in rows");
    expect(rule.score !== "sparsemixer", () => "sparsemixer's weights hang on its own choices");
    return [f32(...experts.shape)];
  },
  sinkhorn({ iterations, tolerance }, [logits]) {
    const [, experts] = matrix(logits, "logits");
    expect(iterations >= 1 && tolerance >= 0, () => `${iterations} iterations to a tolerance of ${tolerance}`);
    return [f32(experts)];
  },
  expertCapacity({ rows }, [weights, experts]) {
    whole(experts, "experts");
    same(weights.shape, experts.shape, "weights and experts");
    const [tokens] = matrix(weights, "weights");
    expect(rows >= 1 && rows <= tokens, () => `a capacity of ${rows} rows for ${tokens} tokens`);
    return [experts];
  },
  expertCounts({ experts, blocks }, [chosen]) {
    whole(chosen, "experts");
    const [tokens] = matrix(chosen, "experts");
    expect(tokens % blocks === 0, () => `${tokens} tokens in ${blocks} blocks`);
    return [int(blocks, experts)];
  },
  expertSort({ experts }, [chosen]) {
    whole(chosen, "experts");
    const rows = elements(chosen.shape);
    return [int(rows), int(rows), int(experts)];
  },
  dispatch({ k }, [x, order, inverse]) {
    const [tokens, hidden] = matrix(x, "x");
    same(order.shape, [tokens * k], "order");
    same(inverse.shape, [tokens * k], "inverse");
    return [f32(tokens * k, hidden)];
  },
  combine({ k }, [y, order, inverse]) {
    const [rows, hidden] = matrix(y, "y");
    expect(rows % k === 0, () => `${rows} rows for top-${k}`);
    same(order.shape, [rows], "order");
    same(inverse.shape, [rows], "inverse");
    return [f32(rows / k, hidden)];
  },
  scaleRows(_, inputs) {
    scaleRowsShapes(inputs);
    return [inputs[0]];
  },
  scaleRowsGrad(_, [y, weights, order, inverse, dout]) {
    scaleRowsShapes([y, weights, order, inverse]);
    same(y.shape, dout.shape, "y and dout");
    return [y, weights];
  },
  groupedMatmul({ transB }, [x, counts, first, ...others]) {
    if (first === undefined) throw new ShapeError("takes x, counts and at least one weight");
    whole(counts, "counts");
    same(counts.shape, [1 + others.length], "counts");
    for (const weight of others) same(weight.shape, first.shape, "expert weights");
    const [[slots, size], [rows, columns]] = [matrix(x, "x"), matrix(first, "expert weights")];
    const [inner, outer] = transB ? [columns, rows] : [rows, columns];
    expect(size === inner, () => `inner sizes ${size} and ${inner} differ`);
    return [f32(slots, outer)];
  },
  groupedBias(_, [y, counts, ...biases]) {
    expect(biases.length > 0, () => "takes y, counts and at least one bias");
    whole(counts, "counts");
    same(counts.shape, [biases.length], "counts");
    const [, width] = matrix(y, "y");
    for (const bias of biases) same(bias.shape, [width], "expert bias");
    return [y];
  },
  groupedBiasGrad(_, [dy, counts]) {
    whole(counts, "counts");
    const [, width] = matrix(dy, "dy");
    return Array.from({ length: vector(counts, "counts") }, () => f32(width));
  },
  groupedMatmulGradW(_, [x, dy, counts]) {
    whole(counts, "counts");
    const [[rows, inner], [rowsDy, outer]] = [matrix(x, "x"), matrix(dy, "dy")];
    expect(rows === rowsDy, () => "x and dy differ in rows");
    return Array.from({ length: vector(counts, "counts") }, () => f32(outer, inner));
  },
};

function headShapes([x, head, targets]: PrimInputs<ValueType>["headCrossEntropy"]): void {
  const [tokens, hidden] = matrix(x, "x");
  whole(targets, "targets");
  const [, width] = matrix(head, "head");
  expect(hidden === width, () => `hidden sizes ${hidden} and ${width} differ`);
  same(targets.shape, [tokens], "targets");
}

function scaleRowsShapes([y, weights, order, inverse]: PrimInputs<ValueType>["scaleRows"]): void {
  matrix(weights, "weights");
  const rows = elements(weights.shape);
  same(y.shape.slice(0, 1), [rows], "rows and weights");
  same(order.shape, [rows], "order");
  same(inverse.shape, [rows], "inverse");
}

/**
 * Output types of one primitive. Throws an Error naming the primitive and the sizes: a defect of the caller, not of the
 * user.
 */
export function inferShapes<P extends Prim>(
  prim: P,
  attrs: PrimAttrs[P],
  inputs: readonly ValueType[],
): readonly ValueType[] {
  try {
    requireArity(prim, attrs, inputs);
    return shapeRules[prim](attrs, inputs as PrimInputs<ValueType>[P]);
  } catch (error) {
    if (error instanceof ShapeError) throw new Error(`${prim}: ${error.message}`, { cause: error });
    throw error;
  }
}
