/** Lowering of the output head with its loss. */
import type { NodeOf, ValueId } from "../graph/ir.js";
import type { Lowering } from "./context.js";

interface HeadParts {
  /** After the softcap, if there is one. */
  readonly logits: string;
  /** tanh(raw logits / softcap), or "" without softcap. */
  readonly squashed: string;
  /** Targets [N, 1], ignored ones replaced by 0. */
  readonly targets: string;
  /** Weight of each row's loss in the mean [N, 1]: 1 / counted, or 0 for an ignored target. */
  readonly weight: string;
}

function headParts(ctx: Lowering, [x, head, targets]: readonly ValueId[], softcap: number | null): HeadParts {
  const e = ctx.emitter;
  const [logits, squashed, safe, weight] = ctx.remember(`head ${x} ${head} ${targets} ${softcap}`, () => {
    const tokens = ctx.shape(targets!)[0]!;
    const column = e.reshape(ctx.get(targets!), [tokens, 1]);
    const valid = e.op("Cast", [e.op("GreaterOrEqual", [column, e.int(0)])], { to: 1 });
    const counted = e.op("Max", [e.sum(valid, [0, 1], false), e.floats([1])]);
    const raw = ctx.linear(ctx.get(x!), head!, softcap === null ? 1 : 1 / softcap);
    const tanh = softcap === null ? "" : e.op("Tanh", [raw]);
    return [
      softcap === null ? raw : e.op("Mul", [tanh, e.floats([softcap])]),
      tanh,
      e.op("Max", [column, e.int(0)]),
      e.op("Div", [valid, counted]),
    ];
  }) as [string, string, string, string];
  return { logits, squashed, targets: safe, weight };
}

type HeadPrims = "headCrossEntropy" | "headCrossEntropyGrad";

export const headRules: { readonly [P in HeadPrims]: (ctx: Lowering, node: NodeOf<P>) => void } = {
  headCrossEntropy(ctx, { in: inputs, out, attrs }) {
    const e = ctx.emitter;
    const { logits, targets, weight } = headParts(ctx, inputs, attrs.softcap);
    const logProbability = ctx.remember(`logSoftmax ${logits}`, () => [e.op("LogSoftmax", [logits], { axis: -1 })])[0]!;
    const picked = e.op("GatherElements", [logProbability, targets], { axis: 1 });
    ctx.set(out[0]!, e.op("Neg", [e.sum(e.op("Mul", [picked, weight]), [0, 1], false)]));
  },
  headCrossEntropyGrad(ctx, { in: inputs, out, attrs }) {
    const e = ctx.emitter;
    const [x, head, , dloss] = inputs as [ValueId, ValueId, ValueId, ValueId];
    const { logits, squashed, targets, weight } = headParts(ctx, inputs, attrs.softcap);
    const tokens = ctx.shape(x)[0]!;
    const probabilities = e.op("Softmax", [logits], { axis: -1 });
    const minusOne = e.op("Expand", [e.floats([-1]), e.ints([tokens, 1])]);
    let dlogits = e.op("ScatterElements", [probabilities, targets, minusOne], { axis: 1, reduction: "add" });
    if (squashed !== "") dlogits = e.op("Sub", [dlogits, e.op("Mul", [dlogits, e.op("Mul", [squashed, squashed])])]);
    // The row weights go onto [N, H] on both sides instead of onto [N, V].
    const rowWeight = e.op("Mul", [weight, ctx.get(dloss)]);
    ctx.set(out[0]!, e.op("Mul", [e.matmul(dlogits, ctx.get(head)), rowWeight]));
    ctx.set(out[1]!, e.matmul(dlogits, e.op("Mul", [ctx.get(x), rowWeight]), { transA: true }));
  },
};
