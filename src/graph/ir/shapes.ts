/** Shape rules: input types -> output types of every primitive, or an error that names the primitive. */
import { elements, type AttentionAttrs, type SegmentAttrs, type Prim, type PrimAttrs, type ValueType } from "./ir.js";

type ShapeRule<P extends Prim> = (attrs: PrimAttrs[P], inputs: readonly ValueType[]) => ValueType[];

const f32 = (...shape: number[]): ValueType => ({ dtype: "f32", shape });
const int = (...shape: number[]): ValueType => ({ dtype: "int", shape });

class ShapeError extends Error {}

function expect(condition: boolean, message: () => string): void {
  if (!condition) throw new ShapeError(message());
}

function arity(inputs: readonly ValueType[], count: number): void {
  expect(inputs.length === count, () => `takes ${count} inputs, got ${inputs.length}`);
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

function rank(type: ValueType, count: number, what: string): void {
  expect(type.shape.length === count, () => `${what} must have ${count} axes, got [${type.shape}]`);
}

export function broadcast(a: readonly number[], b: readonly number[]): number[] {
  const axes = Math.max(a.length, b.length);
  return Array.from({ length: axes }, (_, i) => {
    const x = a[a.length - axes + i] ?? 1;
    const y = b[b.length - axes + i] ?? 1;
    expect(x === y || x === 1 || y === 1, () => `[${a}] and [${b}] do not broadcast`);
    return x === 1 ? y : x;
  });
}

function binary(_: unknown, inputs: readonly ValueType[]): ValueType[] {
  arity(inputs, 2);
  const [a, b] = inputs as [ValueType, ValueType];
  float(a, "left");
  float(b, "right");
  return [f32(...broadcast(a.shape, b.shape))];
}

function unary(_: unknown, inputs: readonly ValueType[]): ValueType[] {
  arity(inputs, 1);
  float(inputs[0]!, "input");
  return [inputs[0]!];
}

function pairwise(_: unknown, inputs: readonly ValueType[]): ValueType[] {
  arity(inputs, 2);
  float(inputs[0]!, "x");
  same(inputs[0]!.shape, inputs[1]!.shape, "x and dy");
  return [inputs[0]!];
}

function attentionShapes(attrs: AttentionAttrs, inputs: readonly ValueType[]): void {
  const rows = attrs.batch * attrs.sequence;
  expect(
    attrs.heads % attrs.kvHeads === 0,
    () => `${attrs.heads} heads are no multiple of ${attrs.kvHeads} key/value heads`,
  );
  same(inputs[0]!.shape, [rows, attrs.heads * attrs.headDim], "q");
  same(inputs[1]!.shape, [rows, attrs.kvHeads * attrs.headDim], "k");
  same(inputs[2]!.shape, [rows, attrs.kvHeads * attrs.valueDim], "v");
  if (attrs.sinks) same(inputs[3]!.shape, [attrs.heads], "sinks");
  if (attrs.segmentIds !== true) return;
  const segmentIds = inputs[attrs.sinks ? 4 : 3]!;
  whole(segmentIds, "segment ids");
  same(segmentIds.shape, [rows], "segment ids");
}

/** Inputs of attention without a gradient. */
const attentionInputs = ({ sinks, segmentIds }: AttentionAttrs): number =>
  3 + Number(sinks) + Number(segmentIds === true);

function perToken({ batch, sequence }: SegmentAttrs, inputs: readonly ValueType[]): ValueType[] {
  arity(inputs, 1);
  whole(inputs[0]!, "input");
  same(inputs[0]!.shape, [batch * sequence], "tokens");
  return [int(batch * sequence)];
}

export const shapeRules: { readonly [P in Prim]: ShapeRule<P> } = {
  constant(attrs, inputs) {
    arity(inputs, 0);
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
  toFloat(_, inputs) {
    arity(inputs, 1);
    whole(inputs[0]!, "input");
    return [f32(...inputs[0]!.shape)];
  },
  reshape({ shape }, inputs) {
    arity(inputs, 1);
    expect(elements(shape) === elements(inputs[0]!.shape), () => `[${inputs[0]!.shape}] does not fit [${shape}]`);
    return [{ dtype: inputs[0]!.dtype, shape }];
  },
  reduceSum({ axes, keepDims }, inputs) {
    arity(inputs, 1);
    float(inputs[0]!, "input");
    const { shape } = inputs[0]!;
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
  logSumExp(_, inputs) {
    arity(inputs, 1);
    float(inputs[0]!, "input");
    return [f32(...inputs[0]!.shape.slice(0, -1))];
  },
  matmul({ transA, transB }, inputs) {
    arity(inputs, 2);
    const [a, b] = inputs as [ValueType, ValueType];
    rank(a, 2, "a");
    rank(b, 2, "b");
    float(a, "a");
    float(b, "b");
    const [m, k] = transA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
    const [k2, n] = transB ? [b.shape[1]!, b.shape[0]!] : [b.shape[0]!, b.shape[1]!];
    expect(k === k2, () => `inner sizes ${k} and ${k2} differ`);
    return [f32(m, n)];
  },
  embedding(_, inputs) {
    arity(inputs, 2);
    rank(inputs[0]!, 2, "table");
    rank(inputs[1]!, 1, "ids");
    whole(inputs[1]!, "ids");
    return [f32(inputs[1]!.shape[0]!, inputs[0]!.shape[1]!)];
  },
  segmentIds: perToken,
  segmentPositions: perToken,
  embeddingGrad({ vocab }, inputs) {
    arity(inputs, 2);
    whole(inputs[0]!, "ids");
    expect(inputs[1]!.shape[0] === inputs[0]!.shape[0], () => "ids and dy differ in rows");
    return [f32(vocab, inputs[1]!.shape[1]!)];
  },
  rmsNorm(_, inputs) {
    arity(inputs, 2);
    same([inputs[0]!.shape.at(-1)!], inputs[1]!.shape, "last axis and weight");
    return [inputs[0]!];
  },
  rmsNormGrad(_, inputs) {
    arity(inputs, 3);
    same(inputs[0]!.shape, inputs[2]!.shape, "x and dy");
    return [inputs[0]!, inputs[1]!];
  },
  rope(attrs, inputs) {
    arity(inputs, 3);
    const { rotary, headDim, offset } = attrs;
    const fits = rotary % 2 === 0 && rotary > 0 && offset >= 0 && offset + rotary <= headDim;
    expect(fits, () => `${rotary} rotary elements from ${offset} of a head of ${headDim}`);
    same(inputs[0]!.shape, [attrs.batch * attrs.sequence, attrs.heads * attrs.headDim], "x");
    same(inputs[1]!.shape, [attrs.sequence, rotary / 2], "cos");
    same(inputs[2]!.shape, [attrs.sequence, rotary / 2], "sin");
    return [inputs[0]!];
  },
  joinHeads({ heads }, inputs) {
    arity(inputs, 2);
    const [own, shared] = inputs as [ValueType, ValueType];
    expect(own.shape[0] === shared.shape[0], () => "own and shared differ in rows");
    expect(own.shape[1]! % heads === 0, () => `${own.shape[1]} elements for ${heads} heads`);
    return [f32(own.shape[0]!, own.shape[1]! + heads * shared.shape[1]!)];
  },
  joinHeadsGrad({ heads }, inputs) {
    arity(inputs, 3);
    const [own, shared, dy] = inputs as [ValueType, ValueType, ValueType];
    same(dy.shape, [own.shape[0]!, own.shape[1]! + heads * shared.shape[1]!], "dy");
    return [own, shared];
  },
  attention(attrs, inputs) {
    arity(inputs, attentionInputs(attrs));
    attentionShapes(attrs, inputs);
    return [f32(inputs[0]!.shape[0]!, attrs.heads * attrs.valueDim)];
  },
  cachedAttention(attrs, inputs) {
    arity(inputs, attrs.sinks ? 7 : 6);
    const { batch, sequence, heads, kvHeads, headDim, valueDim, capacity } = attrs;
    attentionShapes({ ...attrs, sinks: false, segmentIds: false }, inputs);
    same(inputs[3]!.shape, [batch, kvHeads, capacity, headDim], "past keys");
    same(inputs[4]!.shape, [batch, kvHeads, capacity, valueDim], "past values");
    whole(inputs[5]!, "lengths");
    same(inputs[5]!.shape, [batch], "lengths");
    if (attrs.sinks) same(inputs[6]!.shape, [heads], "sinks");
    return [f32(batch * sequence, heads * valueDim)];
  },
  attentionGrad(attrs, inputs) {
    arity(inputs, attentionInputs(attrs) + 1);
    attentionShapes(attrs, inputs);
    same(inputs.at(-1)!.shape, [inputs[0]!.shape[0]!, attrs.heads * attrs.valueDim], "dout");
    return inputs.slice(0, attrs.sinks ? 4 : 3);
  },
  swiglu: (_, inputs) => {
    arity(inputs, 2);
    same(inputs[0]!.shape, inputs[1]!.shape, "gate and up");
    return [inputs[0]!];
  },
  swigluGrad: (_, inputs) => {
    arity(inputs, 3);
    same(inputs[0]!.shape, inputs[1]!.shape, "gate and up");
    same(inputs[0]!.shape, inputs[2]!.shape, "gate and dh");
    return [inputs[0]!, inputs[1]!];
  },
  headCrossEntropy(_, inputs) {
    arity(inputs, 3);
    headShapes(inputs);
    return [f32()];
  },
  headCrossEntropyGrad(_, inputs) {
    arity(inputs, 4);
    headShapes(inputs);
    same(inputs[3]!.shape, [], "dloss");
    return [inputs[0]!, inputs[1]!];
  },
  routeTopK({ k, rule }, inputs) {
    arity(inputs, rule.corrected ? 2 : 1);
    rank(inputs[0]!, 2, "logits");
    const [tokens, experts] = inputs[0]!.shape as [number, number];
    expect(k >= 1 && k <= experts, () => `top-${k} of ${experts} experts`);
    if (rule.corrected) same(inputs[1]!.shape, [experts], "correction");
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
  routeTopKGrad(_, inputs) {
    arity(inputs, 3);
    whole(inputs[1]!, "experts");
    same(inputs[1]!.shape, inputs[2]!.shape, "experts and dweights");
    return [inputs[0]!];
  },
  routeWeights({ rule }, inputs) {
    arity(inputs, 2);
    whole(inputs[1]!, "experts");
    expect(inputs[0]!.shape[0] === inputs[1]!.shape[0], () => "logits and experts differ in rows");
    expect(rule.score !== "sparsemixer", () => "sparsemixer's weights hang on its own choices");
    return [f32(...inputs[1]!.shape)];
  },
  sinkhorn({ iterations, tolerance }, inputs) {
    arity(inputs, 1);
    rank(inputs[0]!, 2, "logits");
    expect(iterations >= 1 && tolerance >= 0, () => `${iterations} iterations to a tolerance of ${tolerance}`);
    return [f32(inputs[0]!.shape[1]!)];
  },
  expertCapacity({ rows }, inputs) {
    arity(inputs, 2);
    whole(inputs[1]!, "experts");
    same(inputs[0]!.shape, inputs[1]!.shape, "weights and experts");
    expect(
      rows >= 1 && rows <= inputs[0]!.shape[0]!,
      () => `a capacity of ${rows} rows for ${inputs[0]!.shape[0]} tokens`,
    );
    return [inputs[1]!];
  },
  expertCounts({ experts, pieces }, inputs) {
    arity(inputs, 1);
    whole(inputs[0]!, "experts");
    expect(inputs[0]!.shape[0]! % pieces === 0, () => `${inputs[0]!.shape[0]} tokens in ${pieces} pieces`);
    return [int(pieces, experts)];
  },
  expertSort({ experts }, inputs) {
    arity(inputs, 1);
    whole(inputs[0]!, "experts");
    const rows = elements(inputs[0]!.shape);
    return [int(rows), int(rows), int(experts)];
  },
  dispatch({ k }, inputs) {
    arity(inputs, 3);
    const [tokens, hidden] = inputs[0]!.shape as [number, number];
    same(inputs[1]!.shape, [tokens * k], "order");
    same(inputs[2]!.shape, [tokens * k], "inverse");
    return [f32(tokens * k, hidden)];
  },
  combine({ k }, inputs) {
    arity(inputs, 3);
    const [rows, hidden] = inputs[0]!.shape as [number, number];
    expect(rows % k === 0, () => `${rows} rows for top-${k}`);
    same(inputs[1]!.shape, [rows], "order");
    same(inputs[2]!.shape, [rows], "inverse");
    return [f32(rows / k, hidden)];
  },
  scaleRows(_, inputs) {
    arity(inputs, 4);
    scaleRowsShapes(inputs);
    return [inputs[0]!];
  },
  scaleRowsGrad(_, inputs) {
    arity(inputs, 5);
    scaleRowsShapes(inputs);
    same(inputs[0]!.shape, inputs[4]!.shape, "y and dout");
    return [inputs[0]!, inputs[1]!];
  },
  groupedMatmul({ transB }, inputs) {
    expect(inputs.length >= 3, () => `takes x, counts and at least one weight, got ${inputs.length} inputs`);
    const [x, counts, first] = inputs as [ValueType, ValueType, ValueType];
    whole(counts, "counts");
    same(counts.shape, [inputs.length - 2], "counts");
    for (const weight of inputs.slice(2)) same(weight.shape, first.shape, "expert weights");
    const [inner, outer] = transB ? [first.shape[1]!, first.shape[0]!] : [first.shape[0]!, first.shape[1]!];
    expect(x.shape[1] === inner, () => `inner sizes ${x.shape[1]} and ${inner} differ`);
    return [f32(x.shape[0]!, outer)];
  },
  groupedBias(_, inputs) {
    expect(inputs.length >= 3, () => `takes y, counts and at least one bias, got ${inputs.length} inputs`);
    const [y, counts, ...biases] = inputs as [ValueType, ValueType, ...ValueType[]];
    whole(counts, "counts");
    same(counts.shape, [biases.length], "counts");
    for (const bias of biases) same(bias.shape, [y.shape[1]!], "expert bias");
    return [y];
  },
  groupedBiasGrad(_, inputs) {
    arity(inputs, 2);
    const [dy, counts] = inputs as [ValueType, ValueType];
    whole(counts, "counts");
    return Array.from({ length: counts.shape[0]! }, () => f32(dy.shape[1]!));
  },
  groupedMatmulGradW(_, inputs) {
    arity(inputs, 3);
    const [x, dy, counts] = inputs as [ValueType, ValueType, ValueType];
    whole(counts, "counts");
    expect(x.shape[0] === dy.shape[0], () => "x and dy differ in rows");
    return Array.from({ length: counts.shape[0]! }, () => f32(dy.shape[1]!, x.shape[1]!));
  },
};

function headShapes(inputs: readonly ValueType[]): void {
  const [x, head, targets] = inputs as [ValueType, ValueType, ValueType];
  rank(x, 2, "x");
  whole(targets, "targets");
  expect(x.shape[1] === head.shape[1], () => `hidden sizes ${x.shape[1]} and ${head.shape[1]} differ`);
  same(targets.shape, [x.shape[0]!], "targets");
}

function scaleRowsShapes(inputs: readonly ValueType[]): void {
  const [y, weights, order, inverse] = inputs as [ValueType, ValueType, ValueType, ValueType];
  rank(weights, 2, "weights");
  const rows = elements(weights.shape);
  same([y.shape[0]!], [rows], "rows and weights");
  same(order.shape, [rows], "order");
  same(inverse.shape, [rows], "inverse");
}

/**
 * Output types of one primitive. Throws an Error naming the primitive and the sizes: a defect of the caller, not of the
 * user.
 */
export function inferShapes<P extends Prim>(prim: P, attrs: PrimAttrs[P], inputs: readonly ValueType[]): ValueType[] {
  try {
    return shapeRules[prim](attrs, inputs);
  } catch (error) {
    if (error instanceof ShapeError) throw new Error(`${prim}: ${error.message}`, { cause: error });
    throw error;
  }
}
