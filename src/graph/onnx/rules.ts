/**
 * Lowering of every primitive to ONNX operators: the table, and the rules of elementwise primitives, norms, products
 * and gated units. `swiglu` and its gradient `swigluGrad` (with respect to gate and up, as it runs on CPUs) stand at
 * the end of the table; `activationGrad` is the gradient of other activations. Attention, its cache, the output head,
 * experts and routing have files of their own, `rules-*.ts`.
 */
import { at } from "../../base/at.js";
import {
  elements,
  XIELU_EPS,
  type PlainActivation,
  type NodeOf,
  type Prim,
  type PrimInputs,
  type PrimOutputs,
  type ValueId,
} from "../ir/ir.js";
import type { Lowering } from "./context.js";
import { attentionRules } from "./rules-attention.js";
import { cacheRules } from "./rules-cache.js";
import { headRules } from "./rules-head.js";
import { moeRules } from "./rules-moe.js";
import { routeRules } from "./rules-route.js";
import { weightGradientProduct, type Factor } from "./weight-gradient-product.js";

/** Adds the ONNX nodes of one node of the graph and says which names hold its outputs. */
export type LoweringRule<P extends Prim> = (ctx: Lowering, node: NodeOf<P>) => void;

/** ONNX names of the outputs of an elementwise primitive, from those of its inputs. */
type ElementwiseLowering<P extends Prim> = (
  ctx: Lowering,
  inputs: PrimInputs<string>[P],
  node: NodeOf<P>,
) => PrimOutputs<P, string>;

/** An elementwise rule: works on blocks where all inputs are cut alike, else on whole tensors. */
function elementwise<P extends Prim>(lower: ElementwiseLowering<P>): LoweringRule<P> {
  /** A node has as many inputs as its primitive, and so have the names that stand for them. */
  const lowerNamed = (ctx: Lowering, names: readonly string[], node: NodeOf<P>): readonly string[] =>
    lower(ctx, names as unknown as PrimInputs<string>[P], node);
  return (ctx, node) => {
    const counts = ctx.commonCounts(node.in);
    if (counts === null) {
      const inputs = node.in.map((id) => ctx.get(id));
      for (const [i, name] of lowerNamed(ctx, inputs, node).entries()) ctx.set(at(node.out, i), name);
      return;
    }
    const cut = node.in.map((id) => ctx.blocks(id, counts));
    const results = at(cut, 0).map((_, expert) => {
      const inputs = cut.map((names) => at(names, expert));
      return lowerNamed(ctx, inputs, node);
    });
    for (const [i, id] of node.out.entries()) {
      ctx.setBlocks(id, { counts, names: results.map((names) => at(names, i)) });
    }
  };
}

/** A rule for primitives that are one ONNX operator. */
function simple(op: "Sub" | "Mul" | "Sigmoid" | "Tanh") {
  return (ctx: Lowering, node: NodeOf<"sub" | "mul" | "sigmoid" | "tanh">): void => {
    const inputs = node.in.map((id) => ctx.get(id));
    ctx.set(node.out[0], ctx.emitter.op(op, inputs));
  };
}

function sigmoidOf(ctx: Lowering, gate: string): string {
  return ctx.remember(`sigmoid ${gate}`, () => ctx.emitter.op("Sigmoid", [gate]));
}

function siluOf(ctx: Lowering, gate: string): string {
  return ctx.remember(`silu ${gate}`, () => ctx.emitter.op("Mul", [gate, sigmoidOf(ctx, gate)]));
}

function swigluOf(ctx: Lowering, gate: string, up: string): string {
  return ctx.remember(`swiglu ${gate} ${up}`, () => ctx.emitter.op("Mul", [siluOf(ctx, gate), up]));
}

/** x / rms(x) * weight, and 1/rms. */
function normalised(ctx: Lowering, x: ValueId, weight: ValueId, eps: number): [string, string] {
  return ctx.remember(`rms ${x} ${weight} ${eps}`, () =>
    ctx.emitter.emit(
      "SimplifiedLayerNormalization",
      [ctx.get(x), ctx.get(weight)],
      { axis: -1, epsilon: { float: eps }, stash_type: 1 },
      2,
    ),
  );
}

/** (x - mean) / std, mean and 1 / std over the last axis. */
function standardised(ctx: Lowering, x: ValueId, eps: number): [string, string, string] {
  const e = ctx.emitter;
  const hidden = ctx.width(x);
  return ctx.remember(`standardised ${x} ${eps}`, () => {
    const ones = ctx.remember(`ones ${hidden}`, () => e.floats(new Float32Array(hidden).fill(1), [hidden]));
    return e.emit("LayerNormalization", [ctx.get(x), ones], { axis: -1, epsilon: { float: eps }, stash_type: 1 }, 3);
  });
}

/** sqrt(2 / pi) and the cubic coefficient of the tanh approximation of gelu. */
const GELU_TANH = { factor: Math.sqrt(2 / Math.PI), cubic: 0.044715 };

/** tanh(sqrt(2/pi) (x + 0.044715 x^3)) */
function geluTanhPart(ctx: Lowering, x: string): string {
  const e = ctx.emitter;
  return ctx.remember(`geluTanh ${x}`, () => {
    const inner = e.op("Add", [e.op("Mul", [e.op("Mul", [x, x]), e.floats([GELU_TANH.cubic])]), e.floats([1])]);
    return e.op("Tanh", [e.op("Mul", [e.op("Mul", [inner, x]), e.floats([GELU_TANH.factor])])]);
  });
}

/** Phi(x), the normal distribution function. */
function normalCumulative(ctx: Lowering, x: string): string {
  const e = ctx.emitter;
  return ctx.remember(`phi ${x}`, () => {
    const part = e.op("Erf", [e.op("Mul", [x, e.floats([Math.SQRT1_2])])]);
    return e.op("Mul", [e.op("Add", [part, e.floats([1])]), e.floats([0.5])]);
  });
}

/** e^x - 1, without the cancellation of a small x: 2 t / (1 - t) with t = tanh(x / 2); x is at most 0. */
function expm1(ctx: Lowering, x: string): string {
  const e = ctx.emitter;
  return ctx.remember(`expm1 ${x}`, () => {
    const t = e.op("Tanh", [e.op("Mul", [x, e.floats([0.5])])]);
    return e.op("Div", [e.op("Add", [t, t]), e.op("Sub", [e.floats([1]), t])]);
  });
}

function activation(ctx: Lowering, kind: PlainActivation, x: string): string {
  const e = ctx.emitter;
  switch (kind) {
    case "silu":
      return siluOf(ctx, x);
    case "gelu":
      return e.op("Mul", [x, normalCumulative(ctx, x)]);
    case "geluTanh":
      return e.op("Mul", [e.op("Mul", [x, e.floats([0.5])]), e.op("Add", [geluTanhPart(ctx, x), e.floats([1])])]);
    case "relu":
      return e.op("Relu", [x]);
    case "relu2": {
      const positive = e.op("Relu", [x]);
      return e.op("Mul", [positive, positive]);
    }
    case "xieluTail": {
      // For x > 0 both parts are taken at 0, and expm1 there is that of eps: too small to see, but not 0.
      const below = e.op("Min", [x, e.floats([0])]);
      const part = e.op("Sub", [expm1(ctx, e.op("Min", [x, e.floats([XIELU_EPS])])), below]);
      return e.op("Where", [e.op("Greater", [x, e.floats([0])]), e.floats([0]), part]);
    }
    case "softplus":
      return e.op("Softplus", [x]);
  }
}

/** Derivative of an activation at x. */
function slope(ctx: Lowering, kind: PlainActivation, x: string): string {
  const e = ctx.emitter;
  const times = (a: string, b: string): string => e.op("Mul", [a, b]);
  const plus = (a: string, b: string): string => e.op("Add", [a, b]);
  switch (kind) {
    case "silu":
      return siluSlope(ctx, x);
    case "gelu": {
      const density = times(
        e.op("Exp", [times(times(x, x), e.floats([-0.5]))]),
        e.floats([1 / Math.sqrt(2 * Math.PI)]),
      );
      return plus(normalCumulative(ctx, x), times(x, density));
    }
    case "geluTanh": {
      const t = geluTanhPart(ctx, x);
      const bend = plus(
        times(times(x, x), e.floats([3 * GELU_TANH.cubic * GELU_TANH.factor])),
        e.floats([GELU_TANH.factor]),
      );
      const curve = times(times(x, bend), e.op("Sub", [e.floats([1]), times(t, t)]));
      return times(plus(plus(t, e.floats([1])), curve), e.floats([0.5]));
    }
    case "relu":
      return e.op("Cast", [e.op("Greater", [x, e.floats([0])])], { to: 1 });
    case "relu2":
      return times(e.op("Relu", [x]), e.floats([2]));
    case "xieluTail": {
      const below = e.op("Where", [
        e.op("Less", [x, e.floats([XIELU_EPS])]),
        expm1(ctx, e.op("Min", [x, e.floats([XIELU_EPS])])),
        e.floats([-1]),
      ]);
      return e.op("Where", [e.op("Greater", [x, e.floats([0])]), e.floats([0]), below]);
    }
    case "softplus":
      return sigmoidOf(ctx, x);
  }
}

/** silu' = sigmoid * (1 + x - silu) */
function siluSlope(ctx: Lowering, x: string): string {
  const e = ctx.emitter;
  return e.op("Mul", [e.op("Add", [e.op("Sub", [x, siluOf(ctx, x)]), e.floats([1])]), sigmoidOf(ctx, x)]);
}

const addElements = elementwise<"add">((ctx, names) => [ctx.emitter.op("Add", names)]);

/**
 * A product of matrices that nobody else reads, plus a matrix or a row (a residual, a bias, another gradient), as one
 * Gemm: a pass over memory less. Null for other sums.
 */
function productPlus(ctx: Lowering, { in: terms }: NodeOf<"add">): string | null {
  const [left, right] = terms;
  for (const [product, other] of [terms, [right, left] as const]) {
    const maker = ctx.maker(product);
    if (maker?.prim !== "matmul" || !ctx.usedOnce(product)) continue;
    const [shape, added] = [ctx.shape(product), ctx.shape(other)];
    if (added.length === 0 || !added.every((size, axis) => size === shape.at(axis - added.length))) continue;
    const [a, b] = maker.in;
    const { transA, transB } = maker.attrs;
    return ctx.emitter.op("Gemm", [ctx.get(a), ctx.get(b), ctx.get(other)], {
      transA: Number(transA),
      transB: Number(transB && !ctx.isTransposed(b)),
    });
  }
  return null;
}

/** A product of matrices, by the way that is quickest for its factors. */
function product(ctx: Lowering, { in: [a, b], attrs: { transA, transB } }: NodeOf<"matmul">): string {
  const factor = (id: ValueId): Factor => ({ name: ctx.get(id), width: ctx.width(id) });
  const [left, right] = [factor(a), factor(b)];
  if (transA && !transB) return weightGradientProduct(ctx, left, right, ctx.matrix(a)[0], weightGradientsOf(ctx, b));
  if (!transA && transB) return ctx.linear(left.name, b);
  return ctx.emitter.matmul(left.name, right.name, { transA, transB });
}

/** How many products aᵀ b have this value as b. */
function weightGradientsOf(ctx: Lowering, b: ValueId): number {
  return ctx.graph.nodes.filter(
    ({ prim, in: [, second], attrs }) => prim === "matmul" && second === b && attrs.transA && !attrs.transB,
  ).length;
}

/** The lowering of each primitive. */
export const loweringRules: { readonly [P in Prim]: LoweringRule<P> } = {
  ...attentionRules,
  ...cacheRules,
  ...headRules,
  ...moeRules,
  ...routeRules,
  constant(ctx, { out, attrs }) {
    const size = elements(attrs.shape);
    const e = ctx.emitter;
    const make = (values: ArrayLike<number>, shape: readonly number[]): string =>
      attrs.dtype === "f32" ? e.floats(values, shape) : e.ints(values, shape);
    const one = attrs.values.length === 1 && size !== 1;
    ctx.set(
      out[0],
      one ? e.op("Expand", [make(attrs.values, []), e.ints(attrs.shape)]) : make(attrs.values, attrs.shape),
    );
  },
  add(ctx, node) {
    const fused = productPlus(ctx, node);
    if (fused === null) addElements(ctx, node);
    else ctx.set(node.out[0], fused);
  },
  sub: simple("Sub"),
  mul: simple("Mul"),
  sigmoid: simple("Sigmoid"),
  tanh: simple("Tanh"),
  activation: elementwise((ctx, [x], { attrs }) => [activation(ctx, attrs.kind, x)]),
  activationGrad: elementwise((ctx, [x, dy], { attrs }) => [ctx.emitter.op("Mul", [slope(ctx, attrs.kind, x), dy])]),
  clamp: (ctx, { in: [x], out, attrs }) => {
    const e = ctx.emitter;
    ctx.set(out[0], e.op("Clip", [ctx.get(x), e.floats([attrs.low]), e.floats([attrs.high])]));
  },
  clampGrad: (ctx, { in: [x, dy], out, attrs }) => {
    const e = ctx.emitter;
    const above = e.op("GreaterOrEqual", [ctx.get(x), e.floats([attrs.low])]);
    const below = e.op("LessOrEqual", [ctx.get(x), e.floats([attrs.high])]);
    ctx.set(out[0], e.op("Where", [e.op("And", [above, below]), ctx.get(dy), e.floats([0])]));
  },
  scale: elementwise((ctx, [x], { attrs }) => [ctx.emitter.op("Mul", [x, ctx.emitter.floats([attrs.by])])]),
  toFloat: (ctx, { in: [x], out }) => ctx.set(out[0], ctx.emitter.op("Cast", [ctx.get(x)], { to: 1 })),
  reshape: (ctx, { in: [x], out, attrs }) => ctx.set(out[0], ctx.emitter.reshape(ctx.get(x), attrs.shape)),
  reduceSum: (ctx, { in: [x], out, attrs }) => ctx.set(out[0], ctx.emitter.sum(ctx.get(x), attrs.axes, attrs.keepDims)),
  softmax: (ctx, { in: [x], out }) => {
    ctx.set(
      out[0],
      ctx.remember(`softmax ${x}`, () => ctx.emitter.op("Softmax", [ctx.get(x)], { axis: -1 })),
    );
  },
  softmaxGrad(ctx, { in: [y, dy], out }) {
    const e = ctx.emitter;
    const dot = e.sum(e.op("Mul", [ctx.get(y), ctx.get(dy)]), [ctx.shape(y).length - 1], true);
    ctx.set(out[0], e.op("Mul", [e.op("Sub", [ctx.get(dy), dot]), ctx.get(y)]));
  },
  logSumExp(ctx, { in: [x], out }) {
    const e = ctx.emitter;
    ctx.set(
      out[0],
      ctx.remember(`logSumExp ${x}`, () => e.op("ReduceLogSumExp", [ctx.get(x), e.ints([-1])], { keepdims: 0 })),
    );
  },
  matmul: (ctx, node) => ctx.set(node.out[0], product(ctx, node)),
  embedding: (ctx, { in: [table, ids], out }) =>
    ctx.set(out[0], ctx.emitter.op("Gather", [ctx.get(table), ctx.get(ids)], { axis: 0 })),
  embeddingGrad(ctx, { in: [ids, dy], out, attrs }) {
    // ScatterElements adds duplicates one after another; ScatterND with a reduction is not safe with duplicates on
    // several threads.
    const e = ctx.emitter;
    const [tokens, hidden] = ctx.matrix(dy);
    const zero = e.op("Expand", [e.floats([0]), e.ints([attrs.vocab, hidden])]);
    const index = e.op("Expand", [e.reshape(ctx.get(ids), [tokens, 1]), e.ints([tokens, hidden])]);
    ctx.set(out[0], e.op("ScatterElements", [zero, index, ctx.get(dy)], { axis: 0, reduction: "add" }));
  },
  rmsNorm: (ctx, { in: [x, weight], out, attrs }) => ctx.set(out[0], normalised(ctx, x, weight, attrs.eps)[0]),
  rmsNormGrad(ctx, { in: [x, weight, dy], out, attrs }) {
    // With p = dy x, both sums are products of p: of each row with the weight, and of the column of 1/rms with all
    // rows.
    const e = ctx.emitter;
    const hidden = ctx.width(x);
    const rows = elements(ctx.shape(x)) / hidden;
    const [, inverse] = normalised(ctx, x, weight, attrs.eps);
    const p = e.op("Mul", [ctx.get(dy), ctx.get(x)]);
    const dot = e.op("MatMul", [p, e.reshape(e.op("Mul", [ctx.get(weight), e.floats([1 / hidden])]), [hidden, 1])]);
    const along = e.op("Mul", [e.op("Mul", [e.op("Mul", [inverse, inverse]), inverse]), dot]);
    const across = e.op("Mul", [e.op("Mul", [ctx.get(dy), ctx.get(weight)]), inverse]);
    ctx.set(out[0], e.op("Sub", [across, e.op("Mul", [ctx.get(x), along])]));
    ctx.set(out[1], e.reshape(e.op("MatMul", [e.reshape(inverse, [1, rows]), e.reshape(p, [rows, hidden])]), [hidden]));
  },
  layerNorm: (ctx, { in: [x], out, attrs }) => ctx.set(out[0], standardised(ctx, x, attrs.eps)[0]),
  layerNormGrad(ctx, { in: [x, dy], out, attrs }) {
    const e = ctx.emitter;
    const [hat, , inverse] = standardised(ctx, x, attrs.eps);
    const mean = (y: string): string => e.op("ReduceMean", [y, e.ints([ctx.shape(x).length - 1])], { keepdims: 1 });
    const dx = ctx.get(dy);
    const dot = mean(e.op("Mul", [dx, hat]));
    ctx.set(out[0], e.op("Mul", [e.op("Sub", [e.op("Sub", [dx, mean(dx)]), e.op("Mul", [hat, dot])]), inverse]));
  },
  swiglu: elementwise((ctx, [gate, up]) => [swigluOf(ctx, gate, up)]),
  swigluGrad: elementwise((ctx, [gate, up, dh]) => {
    const e = ctx.emitter;
    // With h = silu(gate) up: up silu'(gate) = h + sigmoid(gate) (up - h), so that the gate itself need not be kept.
    const h = swigluOf(ctx, gate, up);
    const slopeTimesUp = e.op("Add", [h, e.op("Mul", [sigmoidOf(ctx, gate), e.op("Sub", [up, h])])]);
    return [e.op("Mul", [dh, slopeTimesUp]), e.op("Mul", [dh, siluOf(ctx, gate)])];
  }),
};
