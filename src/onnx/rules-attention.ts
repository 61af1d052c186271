/** Lowering of rope and attention. */
import type { AttentionAttrs, NodeOf, RopeAttrs, ValueId } from "../graph/ir.js";
import type { Lowering } from "./context.js";

function rope(ctx: Lowering, x: string, cos: string, sin: string, attrs: RopeAttrs): string {
  const e = ctx.emitter;
  const { batch, sequence, heads, headDim, offset, rotary } = attrs;
  if (offset > 0) return ropeBehind(ctx, x, cos, sin, attrs);
  const signed = attrs.inverse ? ctx.remember(`neg ${sin}`, () => [e.op("Neg", [sin])])[0]! : sin;
  const rows = e.reshape(x, [batch, sequence, heads * headDim]);
  // The operator derives the head size from the tables unless it is told that only a part turns.
  const whole = { interleaved: Number(attrs.interleaved) };
  const attributes = rotary === headDim ? whole : { ...whole, rotary_embedding_dim: rotary, num_heads: heads };
  const [turned] = e.emit("RotaryEmbedding", [rows, e.ints([0]), cos, signed], attributes, 1, "com.microsoft");
  return e.reshape(turned!, [batch * sequence, heads * headDim]);
}

/** The operator turns a head's first elements only, so those before the offset are taken away and put back. */
function ropeBehind(ctx: Lowering, x: string, cos: string, sin: string, attrs: RopeAttrs): string {
  const e = ctx.emitter;
  const { batch, sequence, heads, headDim, offset } = attrs;
  const rest = headDim - offset;
  const rows = batch * sequence * heads;
  const [before, behind] = e.emit("Split", [e.reshape(x, [rows, headDim]), e.ints([offset, rest])], { axis: 1 }, 2) as [string, string];
  const turned = rope(ctx, e.reshape(behind, [batch * sequence, heads * rest]), cos, sin, { ...attrs, headDim: rest, offset: 0 });
  return e.reshape(e.op("Concat", [before, e.reshape(turned, [rows, rest])], { axis: 1 }), [batch * sequence, heads * headDim]);
}

interface AttentionParts {
  /** [B, kvHeads, G*S, D] with G = heads / kvHeads query heads per key head. */
  readonly q: string;
  readonly k: string;
  readonly v: string;
  /** [B, kvHeads, G*S, S] */
  readonly probabilities: string;
  /** Share of the sink [B, kvHeads, G*S, 1], or "" without sinks. */
  readonly sink: string;
  /** tanh(score / softcap), or "" without softcap. */
  readonly squashed: string;
  /** [B, kvHeads, G*S, valueDim] */
  readonly out: string;
}

/** [N, kvHeads*G*D] -> [B, kvHeads, G*S, D]; G = 1 for keys and values. */
export function splitHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number, headDim: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
  if (group === 1) return e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, headDim])], { perm: [0, 2, 1, 3] });
  const turned = e.op("Transpose", [e.reshape(x, [batch, sequence, kvHeads, group, headDim])], { perm: [0, 2, 3, 1, 4] });
  return e.reshape(turned, [batch, kvHeads, group * sequence, headDim]);
}

export function mergeHeads(ctx: Lowering, x: string, a: AttentionAttrs, group: number, headDim: number): string {
  const e = ctx.emitter;
  const { batch, sequence, kvHeads } = a;
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

/** Softmax over keys and, where there is one, the sink. */
function softmaxWithSink(ctx: Lowering, scores: string, sinks: ValueId | undefined, a: AttentionAttrs): readonly [string, string] {
  const e = ctx.emitter;
  if (sinks === undefined) return [e.op("Softmax", [scores], { axis: -1 }), ""];
  const { batch, kvHeads, heads, sequence } = a;
  const group = heads / kvHeads;
  const open = e.reshape(ctx.get(sinks), [1, kvHeads, group, 1, 1]);
  const column = e.reshape(e.op("Expand", [open, e.ints([batch, kvHeads, group, sequence, 1])]), [batch, kvHeads, group * sequence, 1]);
  const all = e.op("Softmax", [e.op("Concat", [scores, column], { axis: 3 })], { axis: -1 });
  const [probabilities, sink] = e.emit("Split", [all, e.ints([sequence, 1])], { axis: 3 }, 2);
  return [probabilities!, sink!];
}

function attentionParts(ctx: Lowering, inputs: readonly ValueId[], a: AttentionAttrs): AttentionParts {
  const e = ctx.emitter;
  const [qId, kId, vId, sinks] = inputs as [ValueId, ValueId, ValueId, ValueId | undefined];
  const key = `attention ${qId} ${kId} ${vId} ${a.sinks ? sinks : ""} ${JSON.stringify(a)}`;
  const [q, k, v, probabilities, sink, squashed, out] = ctx.remember(key, () => {
    const group = a.heads / a.kvHeads;
    const qh = splitHeads(ctx, ctx.get(qId), a, group, a.headDim);
    const kh = splitHeads(ctx, ctx.get(kId), a, 1, a.headDim);
    const vh = splitHeads(ctx, ctx.get(vId), a, 1, a.valueDim);
    let scores = e.matmul(qh, kh, { transB: true, alpha: a.softcap === null ? a.scale : a.scale / a.softcap });
    let tanh = "";
    if (a.softcap !== null) {
      tanh = e.op("Tanh", [scores]);
      scores = e.op("Mul", [tanh, e.floats([a.softcap])]);
    }
    const [p, spare] = softmaxWithSink(ctx, e.op("Add", [scores, mask(ctx, a)]), a.sinks ? sinks : undefined, a);
    return [qh, kh, vh, p, spare, tanh, e.matmul(p, vh)];
  }) as [string, string, string, string, string, string, string];
  return { q, k, v, probabilities, sink, squashed, out };
}

type AttentionPrims = "rope" | "joinHeads" | "joinHeadsGrad" | "attention" | "attentionGrad";

export const attentionRules: { readonly [P in AttentionPrims]: (ctx: Lowering, node: NodeOf<P>) => void } = {
  rope: (ctx, { in: [x, cos, sin], out, attrs }) => ctx.set(out[0]!, rope(ctx, ctx.get(x!), ctx.get(cos!), ctx.get(sin!), attrs)),
  joinHeads(ctx, { in: [own, shared], out, attrs: { heads } }) {
    const e = ctx.emitter;
    const [rows, columns] = ctx.shape(out[0]!) as [number, number];
    const b = ctx.shape(shared!)[1]!;
    const each = e.reshape(ctx.get(own!), [rows, heads, columns / heads - b]);
    const all = e.op("Expand", [e.reshape(ctx.get(shared!), [rows, 1, b]), e.ints([rows, heads, b])]);
    ctx.set(out[0]!, e.reshape(e.op("Concat", [each, all], { axis: 2 }), [rows, columns]));
  },
  joinHeadsGrad(ctx, { in: [own, shared, dy], out, attrs: { heads } }) {
    const e = ctx.emitter;
    const [rows, columns] = ctx.shape(own!) as [number, number];
    const [a, b] = [columns / heads, ctx.shape(shared!)[1]!];
    const [each, all] = e.emit("Split", [e.reshape(ctx.get(dy!), [rows, heads, a + b]), e.ints([a, b])], { axis: 2 }, 2) as [string, string];
    ctx.set(out[0]!, e.reshape(each, [rows, columns]));
    ctx.set(out[1]!, e.sum(all, [1], false));
  },
  attention(ctx, node) {
    const group = node.attrs.heads / node.attrs.kvHeads;
    ctx.set(node.out[0]!, mergeHeads(ctx, attentionParts(ctx, node.in, node.attrs).out, node.attrs, group, node.attrs.valueDim));
  },
  attentionGrad(ctx, { in: inputs, out, attrs }) {
    const e = ctx.emitter;
    const { batch, sequence, heads, kvHeads, headDim, valueDim } = attrs;
    const group = heads / kvHeads;
    const { q, k, v, probabilities, sink, squashed, out: forward } = attentionParts(ctx, inputs, attrs);
    const dout = splitHeads(ctx, ctx.get(inputs.at(-1)!), attrs, group, valueDim);
    // Rows of dp·p sum to dout·out, so the [S, S] product need not be summed (Dao et al. 2022, appendix B.4).
    const dot = e.sum(e.op("Mul", [dout, forward]), [3], true);
    const dp = e.matmul(dout, v, { transB: true });
    let dscores = e.op("Mul", [e.op("Sub", [dp, dot]), probabilities]);
    if (squashed !== "") dscores = e.op("Sub", [dscores, e.op("Mul", [dscores, e.op("Mul", [squashed, squashed])])]);
    // Key and value gradients sum over the G query heads of a group because those are rows of one matrix here.
    ctx.set(out[0]!, mergeHeads(ctx, e.matmul(dscores, k, { alpha: attrs.scale }), attrs, group, headDim));
    ctx.set(out[1]!, mergeHeads(ctx, e.matmul(dscores, q, { transA: true, alpha: attrs.scale }), attrs, 1, headDim));
    ctx.set(out[2]!, mergeHeads(ctx, e.matmul(probabilities, dout, { transA: true }), attrs, 1, valueDim));
    if (!attrs.sinks) return;
    const lost = e.reshape(e.op("Neg", [e.op("Mul", [sink, dot])]), [batch, kvHeads, group, sequence]);
    ctx.set(out[3]!, e.reshape(e.sum(lost, [0, 3], false), [heads]));
  },
};
