/**
 * Lowering of the output head with its loss. Logits exist for one run of tokens at a time: [tokens, vocabulary] as a
 * whole may be larger than everything else in a step, and passes over it would leave the processor's cache. So the
 * gradients are made along with the loss, run by run.
 *
 * Letters: N tokens, n tokens of a run, H hidden size, V vocabulary.
 */
import { at } from "../../base/at.js";
import { elements, type NodeOf, type PrimInputs, type ValueId } from "../ir/ir.js";
import type { Lowering } from "./context.js";
import { transpose } from "./weight-gradient-product.js";

/** Logits in one run of tokens, at most: 8 MB of float32. */
const CHUNK_ELEMENTS = 1 << 21;
/** Shorter runs would spend their time on adding to the head's gradient. */
const CHUNK_TOKENS = 512;

/** Lengths of the runs, as even as they can be. */
export function chunkLengths(tokens: number, vocab: number): number[] {
  const most = Math.max(CHUNK_TOKENS, Math.floor(CHUNK_ELEMENTS / vocab));
  const count = Math.ceil(tokens / most);
  return Array.from(
    { length: count },
    (_, i) => Math.floor(((i + 1) * tokens) / count) - Math.floor((i * tokens) / count),
  );
}

interface HeadParts {
  readonly loss: string;
  /** Gradients of the loss, or "" where nobody asks for them. */
  readonly dx: string;
  readonly dhead: string;
}

type HeadInputs = PrimInputs<ValueId>["headCrossEntropy"];

/** The loss and, where the graph has a node that asks for them, its gradients; computed once for both nodes. */
function headParts(ctx: Lowering, [x, head, targets]: HeadInputs, softcap: number | null): HeadParts {
  const [loss, dx, dhead] = ctx.remember<[string, string, string]>(`head ${x} ${head} ${targets} ${softcap}`, () => {
    const differentiated = ctx.graph.nodes.some(
      ({ prim, in: [a, b, c] }) => prim === "headCrossEntropyGrad" && a === x && b === head && c === targets,
    );
    const parts = computeHead(ctx, [x, head, targets], softcap, differentiated);
    return [parts.loss, parts.dx, parts.dhead];
  });
  return { loss, dx, dhead };
}

function computeHead(
  ctx: Lowering,
  [x, head, targets]: HeadInputs,
  softcap: number | null,
  differentiated: boolean,
): HeadParts {
  const e = ctx.emitter;
  const tokens = elements(ctx.shape(targets));
  const lengths = chunkLengths(tokens, ctx.matrix(head)[0]);
  const cut = (whole: string): string[] =>
    lengths.length === 1 ? [whole] : e.emit("Split", [whole, e.ints(lengths)], { axis: 0 }, lengths.length);
  const column = e.reshape(ctx.get(targets), [tokens, 1]);
  const valid = e.op("Cast", [e.op("GreaterOrEqual", [column, e.int(0)])], { to: 1 });
  const counted = e.op("Max", [e.sum(valid, [0, 1], false), e.floats([1])]);
  /**
   * Hidden states [n, H]; targets [n, 1], ignored ones replaced by 0; each row's share of the mean [n, 1], 0 for an
   * ignored target.
   */
  const [rows, safe] = [cut(ctx.get(x)), cut(e.op("Max", [column, e.int(0)]))];
  const shares = cut(e.op("Div", [valid, counted]));
  const dx: string[] = [];
  let [loss, dhead, before] = ["", "", ""];
  lengths.forEach((length, i) => {
    // A zero out of the run before: onnxruntime orders nodes by what they need, and would make all logits first.
    const own = before === "" ? at(rows, i) : e.op("Add", [at(rows, i), before]);
    const raw = ctx.linear(own, head, softcap === null ? 1 : 1 / softcap);
    const squashed = softcap === null ? "" : e.op("Tanh", [raw]);
    const logProbabilities = e.op(
      "LogSoftmax",
      [softcap === null ? raw : e.op("Mul", [squashed, e.floats([softcap])])],
      { axis: -1 },
    );
    const picked = e.op("GatherElements", [logProbabilities, at(safe, i)], { axis: 1 });
    const part = e.sum(e.op("Mul", [picked, at(shares, i)]), [0, 1], false);
    loss = loss === "" ? part : e.op("Add", [loss, part]);
    if (!differentiated) return;
    const minusOne = e.op("Expand", [e.floats([-1]), e.ints([length, 1])]);
    let dlogits = e.op("ScatterElements", [e.op("Exp", [logProbabilities]), at(safe, i), minusOne], {
      axis: 1,
      reduction: "add",
    });
    if (squashed !== "") dlogits = e.op("Sub", [dlogits, e.op("Mul", [dlogits, e.op("Mul", [squashed, squashed])])]);
    // The shares go onto [n, H] on both sides instead of onto [n, V].
    const weighted = e.op("Mul", [own, at(shares, i)]);
    // [H, V], so that neither factor is a transposed one of many elements; transposed once, at the end.
    const factors = [transpose(ctx, weighted), dlogits] as const;
    dhead = dhead === "" ? e.matmul(...factors) : e.op("Gemm", [...factors, dhead]);
    dx.push(e.op("Mul", [e.matmul(dlogits, ctx.get(head)), at(shares, i)]));
    const corner = (whole: string): string => e.op("Slice", [whole, e.ints([0, 0]), e.ints([1, 1])]);
    before = e.op("Mul", [e.op("Add", [corner(at(dx, i)), corner(dhead)]), e.floats([0])]);
  });
  return {
    loss: e.op("Neg", [loss]),
    dx: dx.length > 1 ? e.op("Concat", dx, { axis: 0 }) : (dx[0] ?? ""),
    dhead: differentiated ? transpose(ctx, dhead) : "",
  };
}

/** What the target of each token is worth [N, 2], run by run. */
function headScores(ctx: Lowering, { in: [x, head, targets, bias], out, attrs }: NodeOf<"headScores">): void {
  const e = ctx.emitter;
  const { softcap } = attrs;
  const tokens = elements(ctx.shape(targets));
  const lengths = chunkLengths(tokens, ctx.matrix(head)[0]);
  const cut = (whole: string): string[] =>
    lengths.length === 1 ? [whole] : e.emit("Split", [whole, e.ints(lengths)], { axis: 0 }, lengths.length);
  const [rows, columns] = [cut(ctx.get(x)), cut(e.reshape(ctx.get(targets), [tokens, 1]))];
  const parts: string[] = [];
  lengths.forEach((_, i) => {
    const before = parts[i - 1];
    // A zero out of the run before, as in `computeHead`.
    const corner = before === undefined ? "" : e.op("Slice", [before, e.ints([0, 1]), e.ints([1, 2])]);
    const own = corner === "" ? at(rows, i) : e.op("Add", [at(rows, i), e.op("Mul", [corner, e.floats([0])])]);
    let logits = ctx.linear(own, head);
    if (bias !== undefined) logits = e.op("Add", [logits, ctx.get(bias)]);
    if (softcap !== null)
      logits = e.op("Mul", [e.op("Tanh", [e.op("Mul", [logits, e.floats([1 / softcap])])]), e.floats([softcap])]);
    const target = at(columns, i);
    const score = e.op("GatherElements", [e.op("LogSoftmax", [logits], { axis: -1 }), target], { axis: 1 });
    const likeliest = e.op("ArgMax", [logits], { axis: 1, keepdims: 1 });
    const isLikeliest = e.op("Cast", [e.op("Equal", [likeliest, target])], { to: 1 });
    parts.push(e.op("Concat", [score, isLikeliest], { axis: 1 }));
  });
  ctx.set(out[0], parts.length === 1 ? at(parts, 0) : e.op("Concat", parts, { axis: 0 }));
}

type HeadPrims = "headCrossEntropy" | "headCrossEntropyGrad" | "headScores";

/** The lowering of the output head with its loss or its scores, and of the loss's gradient. */
export const headRules: { readonly [P in HeadPrims]: (ctx: Lowering, node: NodeOf<P>) => void } = {
  headCrossEntropy: (ctx, { in: inputs, out, attrs }) => ctx.set(out[0], headParts(ctx, inputs, attrs.softcap).loss),
  headCrossEntropyGrad(ctx, { in: [x, head, targets, dloss], out, attrs }) {
    const { dx, dhead } = headParts(ctx, [x, head, targets], attrs.softcap);
    // A total loss in which the cross entropy counts once is the rule.
    const times = (gradient: string): string =>
      ctx.isOne(dloss) ? gradient : ctx.emitter.op("Mul", [gradient, ctx.get(dloss)]);
    ctx.set(out[0], times(dx));
    ctx.set(out[1], times(dhead));
  },
  headScores,
};
