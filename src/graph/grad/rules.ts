/**
 * Reverse-mode rules: for every primitive, how the gradients of its outputs become gradients of its inputs, as graph
 * nodes. The table is typed over all primitives: a missing rule does not compile, and "no gradient" is an entry with
 * its reason.
 *
 * The gradient of a gated unit act(gate x) * up x: `swiglu` with SiLU, one fused primitive whose gradient `swigluGrad`
 * is lowered for CPUs in `graph/onnx/rules.ts`; with any other activation it is `activation` and `mul`, whose rules
 * are below.
 * That of a whole expert layer runs through `groupedMatmul`, `groupedMatmulGradW`, `scaleRows` and `routeTopK`.
 */
import type { GraphBuilder } from "../ir/builder.js";
import type { NodeOf, OneOutputPrim, Prim, PrimOutputs, ValueId } from "../ir/ir.js";

/**
 * Gradients of a node's outputs. The only output of a primitive has one, since its rule is not asked otherwise; of
 * several outputs those have null on which nothing downstream depends.
 */
type OutGrads<P extends Prim> = P extends OneOutputPrim ? readonly [ValueId] : PrimOutputs<P, ValueId | null>;
/** Gradients of the inputs; null where an input has none (integers, tables). */
type InGrads = readonly (ValueId | null)[];

type GradRule<P extends Prim> = (b: GraphBuilder, node: NodeOf<P>, dout: OutGrads<P>) => InGrads;
/** Reason why a primitive is never differentiated. */
type NoGradient = "no inputs" | "integer output" | "a choice" | "second derivative" | "inference only";

/** Sums `x` over the axes along which `shape` was broadcast. */
function unbroadcast(b: GraphBuilder, x: ValueId, shape: readonly number[]): ValueId {
  const from = b.shape(x);
  const pad = from.length - shape.length;
  const axes = from.flatMap((size, axis) => (axis < pad || (shape[axis - pad] === 1 && size !== 1) ? [axis] : []));
  if (axes.length === 0) return x;
  const summed = b.op("reduceSum", [x], { axes, keepDims: false });
  return b.shape(summed).join() === shape.join() ? summed : b.reshape(summed, shape);
}

/** The rule of each primitive, or why it has none. */
export const gradRules: { readonly [P in Prim]: GradRule<P> | NoGradient } = {
  constant: "no inputs",
  add: (b, node, [d]) => node.in.map((id) => unbroadcast(b, d, b.shape(id))),
  sub: (b, node, [d]) => [unbroadcast(b, d, b.shape(node.in[0])), unbroadcast(b, b.scale(d, -1), b.shape(node.in[1]))],
  mul: (b, node, [d]) => {
    const [x, y] = node.in;
    return [unbroadcast(b, b.mul(d, y), b.shape(x)), unbroadcast(b, b.mul(d, x), b.shape(y))];
  },
  scale: (b, node, [d]) => [b.scale(d, node.attrs.by)],
  sigmoid: (b, node, [d]) => {
    const y = node.out[0];
    return [b.mul(d, b.op("sub", [y, b.mul(y, y)], {}))];
  },
  tanh: (b, node, [d]) => {
    const y = node.out[0];
    return [b.op("sub", [d, b.mul(d, b.mul(y, y))], {})];
  },
  activation: (b, node, [d]) => [b.op("activationGrad", [node.in[0], d], node.attrs)],
  activationGrad: "second derivative",
  clamp: (b, node, [d]) => [b.op("clampGrad", [node.in[0], d], node.attrs)],
  clampGrad: "second derivative",
  layerNorm: (b, node, [d]) => [b.op("layerNormGrad", [node.in[0], d], node.attrs)],
  layerNormGrad: "second derivative",
  toFloat: "integer output",
  reshape: (b, node, [d]) => [b.reshape(d, b.shape(node.in[0]))],
  reduceSum: (b, node, [d]) => {
    const shape = b.shape(node.in[0]);
    const keptAxes = shape.map((size, axis) => (node.attrs.axes.includes(axis) ? 1 : size));
    return [b.mul(b.reshape(d, keptAxes), b.constant([1], shape))];
  },
  softmax: (b, node, [d]) => [b.op("softmaxGrad", [node.out[0], d], {})],
  softmaxGrad: "second derivative",
  logSumExp: (b, node, [d]) => {
    const x = node.in[0];
    return [b.mul(b.op("softmax", [x], {}), b.reshape(d, [...b.shape(x).slice(0, -1), 1]))];
  },
  matmul: (b, node, [d]) => {
    const [x, y] = node.in;
    const { transA, transB } = node.attrs;
    const product = (l: ValueId, r: ValueId, tl: boolean, tr: boolean): ValueId =>
      b.op("matmul", [l, r], { transA: tl, transB: tr });
    return [
      transA ? product(y, d, transB, true) : product(d, y, false, !transB),
      transB ? product(d, x, true, transA) : product(x, d, !transA, false),
    ];
  },
  embedding: (b, node, [d]) => {
    const [table, ids] = node.in;
    return [b.op("embeddingGrad", [ids, d], { vocab: b.matrix(table)[0] }), null];
  },
  segmentIds: "integer output",
  segmentPositions: "integer output",
  embeddingGrad: "second derivative",
  rmsNorm: (b, node, [d]) => b.apply("rmsNormGrad", [...node.in, d], node.attrs),
  rmsNormGrad: "second derivative",
  rope: (b, node, [d]) => {
    const [, cos, sin] = node.in;
    return [b.op("rope", [d, cos, sin], { ...node.attrs, inverse: !node.attrs.inverse }), null, null];
  },
  joinHeads: (b, node, [d]) => b.apply("joinHeadsGrad", [...node.in, d], node.attrs),
  joinHeadsGrad: "second derivative",
  attention: (b, node, [d]) => [
    ...b.apply("attentionGrad", [...node.in, d], node.attrs),
    ...(node.attrs.segmentIds === true ? [null] : []),
  ],
  attentionGrad: "second derivative",
  cachedAttention: "inference only",
  swiglu: (b, node, [d]) => b.apply("swigluGrad", [...node.in, d], {}),
  swigluGrad: "second derivative",
  headCrossEntropy: (b, node, [d]) => [...b.apply("headCrossEntropyGrad", [...node.in, d], node.attrs), null],
  headCrossEntropyGrad: "second derivative",
  headScores: "inference only",
  // The correction bias moves the choice only, which has no gradient.
  routeTopK: (b, node, [d]) => {
    const dlogits = d === null ? null : b.op("routeTopKGrad", [node.in[0], node.out[1], d], { rule: node.attrs.rule });
    return node.attrs.rule.corrected ? [dlogits, null] : [dlogits];
  },
  routeTopKGrad: "second derivative",
  routeWeights: (b, node, [d]) => [b.op("routeTopKGrad", [...node.in, d], { rule: node.attrs.rule }), null],
  sinkhorn: "a choice",
  expertCapacity: "integer output",
  expertCounts: "integer output",
  expertSort: "integer output",
  dispatch: (b, node, [d]) => [b.op("combine", [d, node.in[1], node.in[2]], node.attrs), null, null],
  combine: (b, node, [d]) => [b.op("dispatch", [d, node.in[1], node.in[2]], node.attrs), null, null],
  scaleRows: (b, node, [d]) => [...b.apply("scaleRowsGrad", [...node.in, d], {}), null, null],
  scaleRowsGrad: "second derivative",
  groupedMatmul: (b, node, [d]) => {
    const [x, counts, ...weights] = node.in;
    const dx = b.op("groupedMatmul", [d, counts, ...weights], { transB: !node.attrs.transB });
    const [left, right] = node.attrs.transB ? [x, d] : [d, x];
    return [dx, null, ...b.apply("groupedMatmulGradW", [left, right, counts], {})];
  },
  groupedBias: (b, node, [d]) => [d, null, ...b.apply("groupedBiasGrad", [d, node.in[1]], {})],
  groupedBiasGrad: "second derivative",
  groupedMatmulGradW: "second derivative",
};
