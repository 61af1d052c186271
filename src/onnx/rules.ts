/** Lowering of every primitive to ONNX operators. Experts are in `rules-moe.ts`. */
import { elements, type AttentionAttrs, type Node, type NodeOf, type Prim, type RopeAttrs, type ValueId } from "../graph/ir.js";
import type { Lowering } from "./context.js";
import { moeRules } from "./rules-moe.js";

export type LoweringRule<P extends Prim> = (ctx: Lowering, node: NodeOf<P>) => void;

/** An elementwise rule: works on segments where all inputs are cut alike, else on whole tensors. */
function elementwise<P extends Prim>(lower: (ctx: Lowering, inputs: readonly string[], key: string, node: NodeOf<P>) => string[]): LoweringRule<P> {
  return (ctx, node) => {
    const counts = ctx.commonCounts(node.in);
    if (counts === null) {
      lower(ctx, node.in.map((id) => ctx.get(id)), "", node).forEach((name, i) => ctx.set(node.out[i]!, name));
      return;
    }
    const cut = node.in.map((id) => ctx.segments(id, counts));
    const results = cut[0]!.map((_, expert) => lower(ctx, cut.map((names) => names[expert]!), `#${expert}`, node));
    node.out.forEach((id, i) => ctx.setSegments(id, { counts, names: results.map((names) => names[i]!) }));
  };
}

function simple(op: "Add" | "Sub" | "Mul" | "Sigmoid") {
  return (ctx: Lowering, node: Node): void => ctx.set(node.out[0]!, ctx.emitter.op(op, node.in.map((id) => ctx.get(id))));
}

function sigmoidOf(ctx: Lowering, gate: string): string {
  return ctx.remember(`sigmoid ${gate}`, () => [ctx.emitter.op("Sigmoid", [gate])])[0]!;
}

function siluOf(ctx: Lowering, gate: string): string {
  return ctx.remember(`silu ${gate}`, () => [ctx.emitter.op("Mul", [gate, sigmoidOf(ctx, gate)])])[0]!;
}

/** y and 1/rms of a normalisation. */
function normalised(ctx: Lowering, x: ValueId, weight: ValueId, eps: number): string[] {
  return ctx.remember(`rms ${x} ${weight} ${eps}`, () =>
    ctx.emitter.emit("SimplifiedLayerNormalization", [ctx.get(x), ctx.get(weight)], { axis: -1, epsilon: { float: eps }, stash_type: 1 }, 2),
  );
}

function rope(ctx: Lowering, x: string, cos: string, sin: string, attrs: RopeAttrs): string {
  const e = ctx.emitter;
  const { batch, sequence, heads, headDim } = attrs;
  const signed = attrs.inverse ? ctx.remember(`neg ${sin}`, () => [e.op("Neg", [sin])])[0]! : sin;
  const rows = e.reshape(x, [batch, sequence, heads * headDim]);
  const [turned] = e.emit("RotaryEmbedding", [rows, e.ints([0]), cos, signed], { interleaved: 0 }, 1, "com.microsoft");
  return e.reshape(turned!, [batch * sequence, heads * headDim]);
}

interface AttentionParts {
  /** [B, kvHeads, G*S, D] with G = heads / kvHeads query heads per key head. */
  readonly q: string;
  readonly k: string;
  readonly v: string;
  /** [B, kvHeads, G*S, S] */
  readonly probabilities: string;
  /** [B, kvHeads, G*S, D] */
  readonly out: string;
}

/** [N, kvHeads*G*D] -> [B, kvHeads, G*S, D]; G = 1 for keys and values. */
function splitHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads, headDim } = a;
  if (group === 1) return e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, headDim])], { perm: [0, 2, 1, 3] });
  const turned = e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, group, headDim])], { perm: [0, 2, 3, 1, 4] });
  return e.reshape(turned, [batch, kvHeads, group * sequence, headDim]);
}

function joinHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads, headDim } = a;
  const columns = kvHeads * group * headDim;
  if (group === 1) return e.reshape(e.op("Transpose", [x], { perm: [0, 2, 1, 3] }), [batch * sequence, columns]);
  const open = e.reshape(x, [batch, kvHeads, group, sequence, headDim]);
  return e.reshape(e.op("Transpose", [open], { perm: [0, 3, 1, 2, 4] }), [batch * sequence, columns]);
}

/** Additive mask [G*S, S]: 0 where a query sees a key, else a number so low that its probability underflows to 0. */
function mask(ctx: Lowering, a: AttentionAttrs): string {
  const { sequence, heads, kvHeads, window } = a;
  const group = heads / kvHeads;
  return ctx.remember(`mask ${group} ${sequence} ${window}`, () => {
    const values = new Float32Array(group * sequence * sequence);
    for (let row = 0; row < group * sequence; row++) {
      const query = row % sequence;
      for (let key = 0; key < sequence; key++) {
        const seen = key <= query && (window === null || key > query - window);
        values[row * sequence + key] = seen ? 0 : -1e30;
      }
    }
    return [ctx.emitter.floats(values, [group * sequence, sequence])];
  })[0]!;
}

function attentionParts(ctx: Lowering, [qId, kId, vId]: readonly ValueId[], a: AttentionAttrs): AttentionParts {
  const e = ctx.emitter;
  const [q, k, v, probabilities, out] = ctx.remember(`attention ${qId} ${kId} ${vId} ${JSON.stringify(a)}`, () => {
    const group = a.heads / a.kvHeads;
    const qh = splitHeads(ctx, ctx.get(qId!), a, group);
    const kh = splitHeads(ctx, ctx.get(kId!), a, 1);
    const vh = splitHeads(ctx, ctx.get(vId!), a, 1);
    const scores = e.matmul(qh, kh, { transB: true, alpha: a.scale });
    const p = e.op("Softmax", [e.op("Add", [scores, mask(ctx, a)])], { axis: -1 });
    return [qh, kh, vh, p, e.matmul(p, vh)];
  }) as [string, string, string, string, string];
  return { q, k, v, probabilities, out };
}

/** softmax(x headᵀ) [N, V] and, per row, the weight of its loss in the mean: 1/counted, or 0 for an ignored target. */
function headParts(ctx: Lowering, [x, head, targets]: readonly ValueId[]): { logits: string; targets: string; weight: string } {
  const e = ctx.emitter;
  const [logits, safe, weight] = ctx.remember(`head ${x} ${head} ${targets}`, () => {
    const tokens = ctx.shape(targets!)[0]!;
    const column = e.reshape(ctx.get(targets!), [tokens, 1]);
    const valid = e.op("Cast", [e.op("GreaterOrEqual", [column, e.int(0)])], { to: 1 });
    const counted = e.op("Max", [e.sum(valid, [0, 1], false), e.floats([1])]);
    return [
      e.matmul(ctx.get(x!), ctx.get(head!), { transB: true }),
      e.op("Max", [column, e.int(0)]),
      e.op("Div", [valid, counted]),
    ];
  }) as [string, string, string];
  return { logits, targets: safe, weight };
}

export const loweringRules: { readonly [P in Prim]: LoweringRule<P> } = {
  ...moeRules,
  constant(ctx, { out, attrs }) {
    const size = elements(attrs.shape);
    const e = ctx.emitter;
    const make = (values: ArrayLike<number>, shape: readonly number[]): string => (attrs.dtype === "f32" ? e.floats(values, shape) : e.ints(values, shape));
    const one = attrs.values.length === 1 && size !== 1;
    ctx.set(out[0]!, one ? e.op("Expand", [make(attrs.values, []), e.ints(attrs.shape)]) : make(attrs.values, attrs.shape));
  },
  add: simple("Add"),
  sub: simple("Sub"),
  mul: simple("Mul"),
  sigmoid: simple("Sigmoid"),
  scale: elementwise((ctx, [x], _, { attrs }) => [ctx.emitter.op("Mul", [x!, ctx.emitter.floats([attrs.by])])]),
  toFloat: (ctx, { in: [x], out }) => ctx.set(out[0]!, ctx.emitter.op("Cast", [ctx.get(x!)], { to: 1 })),
  reshape: (ctx, { in: [x], out, attrs }) => ctx.set(out[0]!, ctx.emitter.reshape(ctx.get(x!), attrs.shape)),
  reduceSum: (ctx, { in: [x], out, attrs }) => ctx.set(out[0]!, ctx.emitter.sum(ctx.get(x!), attrs.axes, attrs.keepDims)),
  softmax: (ctx, { in: [x], out }) => {
    ctx.set(out[0]!, ctx.remember(`softmax ${x}`, () => [ctx.emitter.op("Softmax", [ctx.get(x!)], { axis: -1 })])[0]!);
  },
  softmaxGrad(ctx, { in: [y, dy], out }) {
    const e = ctx.emitter;
    const dot = e.sum(e.op("Mul", [ctx.get(y!), ctx.get(dy!)]), [ctx.shape(y!).length - 1], true);
    ctx.set(out[0]!, e.op("Mul", [e.op("Sub", [ctx.get(dy!), dot]), ctx.get(y!)]));
  },
  logSumExp(ctx, { in: [x], out }) {
    const e = ctx.emitter;
    ctx.set(out[0]!, e.op("ReduceLogSumExp", [ctx.get(x!), e.ints([-1])], { keepdims: 0 }));
  },
  matmul: (ctx, { in: [a, b], out, attrs }) => ctx.set(out[0]!, ctx.emitter.matmul(ctx.get(a!), ctx.get(b!), attrs)),
  embedding: (ctx, { in: [table, ids], out }) => ctx.set(out[0]!, ctx.emitter.op("Gather", [ctx.get(table!), ctx.get(ids!)], { axis: 0 })),
  embeddingGrad(ctx, { in: [ids, dy], out, attrs }) {
    // ScatterElements adds duplicates one after another; ScatterND with a reduction is not safe with duplicates on several threads.
    const e = ctx.emitter;
    const [tokens, hidden] = ctx.shape(dy!) as [number, number];
    const zero = e.op("Expand", [e.floats([0]), e.ints([attrs.vocab, hidden])]);
    const index = e.op("Expand", [e.reshape(ctx.get(ids!), [tokens, 1]), e.ints([tokens, hidden])]);
    ctx.set(out[0]!, e.op("ScatterElements", [zero, index, ctx.get(dy!)], { axis: 0, reduction: "add" }));
  },
  rmsNorm: (ctx, { in: [x, weight], out, attrs }) => ctx.set(out[0]!, normalised(ctx, x!, weight!, attrs.eps)[0]!),
  rmsNormGrad(ctx, { in: [x, weight, dy], out, attrs }) {
    const e = ctx.emitter;
    const axes = ctx.shape(x!).length;
    const inverse = normalised(ctx, x!, weight!, attrs.eps)[1]!;
    const hat = e.op("Mul", [ctx.get(x!), inverse]);
    const dhat = e.op("Mul", [ctx.get(dy!), ctx.get(weight!)]);
    const mean = e.op("ReduceMean", [e.op("Mul", [dhat, hat]), e.ints([axes - 1])], { keepdims: 1 });
    ctx.set(out[0]!, e.op("Mul", [e.op("Sub", [dhat, e.op("Mul", [hat, mean])]), inverse]));
    const rows = Array.from({ length: axes - 1 }, (_, axis) => axis);
    ctx.set(out[1]!, e.sum(e.op("Mul", [ctx.get(dy!), hat]), rows, false));
  },
  rope: (ctx, { in: [x, cos, sin], out, attrs }) => ctx.set(out[0]!, rope(ctx, ctx.get(x!), ctx.get(cos!), ctx.get(sin!), attrs)),
  attention(ctx, node) {
    const group = node.attrs.heads / node.attrs.kvHeads;
    ctx.set(node.out[0]!, joinHeads(ctx, attentionParts(ctx, node.in, node.attrs).out, node.attrs, group));
  },
  attentionGrad(ctx, { in: inputs, out, attrs }) {
    const e = ctx.emitter;
    const group = attrs.heads / attrs.kvHeads;
    const { q, k, v, probabilities, out: forward } = attentionParts(ctx, inputs, attrs);
    const dout = splitHeads(ctx, ctx.get(inputs[3]!), attrs, group);
    // Rows of dp·p sum to dout·out, so the [S, S] product need not be summed (Dao et al. 2022, appendix B.4).
    const dot = e.sum(e.op("Mul", [dout, forward]), [3], true);
    const dp = e.matmul(dout, v, { transB: true });
    const dscores = e.op("Mul", [e.op("Sub", [dp, dot]), probabilities]);
    // Key and value gradients sum over the G query heads of a group because those are rows of one matrix here.
    ctx.set(out[0]!, joinHeads(ctx, e.matmul(dscores, k, { alpha: attrs.scale }), attrs, group));
    ctx.set(out[1]!, joinHeads(ctx, e.matmul(dscores, q, { transA: true, alpha: attrs.scale }), attrs, 1));
    ctx.set(out[2]!, joinHeads(ctx, e.matmul(probabilities, dout, { transA: true }), attrs, 1));
  },
  swiglu: elementwise((ctx, [gate, up]) => [ctx.emitter.op("Mul", [siluOf(ctx, gate!), up!])]),
  swigluGrad: elementwise((ctx, [gate, up, dh]) => {
    const e = ctx.emitter;
    const sigmoid = sigmoidOf(ctx, gate!);
    const silu = siluOf(ctx, gate!);
    // silu' = sigmoid * (1 + gate - silu)
    const slope = e.op("Mul", [e.op("Add", [e.op("Sub", [gate!, silu]), e.floats([1])]), sigmoid]);
    return [e.op("Mul", [e.op("Mul", [dh!, up!]), slope]), e.op("Mul", [dh!, silu])];
  }),
  headCrossEntropy(ctx, { in: inputs, out }) {
    const e = ctx.emitter;
    const { logits, targets, weight } = headParts(ctx, inputs);
    const logProbability = ctx.remember(`logSoftmax ${logits}`, () => [e.op("LogSoftmax", [logits], { axis: -1 })])[0]!;
    const picked = e.op("GatherElements", [logProbability, targets], { axis: 1 });
    ctx.set(out[0]!, e.op("Neg", [e.sum(e.op("Mul", [picked, weight]), [0, 1], false)]));
  },
  headCrossEntropyGrad(ctx, { in: inputs, out }) {
    const e = ctx.emitter;
    const [x, head, , dloss] = inputs as [ValueId, ValueId, ValueId, ValueId];
    const { logits, targets, weight } = headParts(ctx, inputs);
    const tokens = ctx.shape(x)[0]!;
    const probabilities = e.op("Softmax", [logits], { axis: -1 });
    const minusOne = e.op("Expand", [e.floats([-1]), e.ints([tokens, 1])]);
    const dlogits = e.op("ScatterElements", [probabilities, targets, minusOne], { axis: 1, reduction: "add" });
    // The row weights go onto [N, H] on both sides instead of onto [N, V].
    const rowWeight = e.op("Mul", [weight, ctx.get(dloss)]);
    ctx.set(out[0]!, e.op("Mul", [e.matmul(dlogits, ctx.get(head)), rowWeight]));
    ctx.set(out[1]!, e.matmul(dlogits, e.op("Mul", [ctx.get(x), rowWeight]), { transA: true }));
  },
};
