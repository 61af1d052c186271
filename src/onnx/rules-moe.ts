/**
 * Lowering of experts; routing is in `rules-route.ts`. Dispatch is gather-only: rows are sorted by expert, cut into one segment per expert, multiplied
 * by that expert's own matrices and gathered back, so no expert ever drops a token and nothing is scattered with duplicates.
 */
import type { NodeOf, Prim, ValueId } from "../graph/ir.js";
import type { Lowering } from "./context.js";

type MoePrim = "expertSort" | "dispatch" | "dispatchGrad" | "combine" | "combineGrad" | "groupedMatmul" | "groupedMatmulGradW" | "groupedBias" | "groupedBiasGrad";
type Rules = { readonly [P in Extract<Prim, MoePrim>]: (ctx: Lowering, node: NodeOf<P>) => void };

/** Token index of each sorted row: order / k. */
function tokensOf(ctx: Lowering, order: ValueId, k: number): string {
  return ctx.remember(`tokens ${order} ${k}`, () => [ctx.emitter.op("Div", [ctx.get(order), ctx.emitter.int(k)])])[0]!;
}

/** Routed rows [R, H] back in token order: [N, K, H]. */
function byToken(ctx: Lowering, rows: ValueId, inverse: ValueId, k: number): string {
  const size = ctx.shape(inverse)[0]!;
  const e = ctx.emitter;
  return ctx.remember(`byToken ${rows} ${inverse} ${k}`, () => [
    e.op("Gather", [ctx.get(rows), e.reshape(ctx.get(inverse), [size / k, k])], { axis: 0 }),
  ])[0]!;
}

export const moeRules: Rules = {
  expertSort(ctx, { in: [experts], out, attrs }) {
    const e = ctx.emitter;
    const rows = ctx.shape(out[0]!)[0]!;
    const flat = e.reshape(ctx.get(experts!), [rows]);
    const iota = ctx.remember(`iota ${rows}`, () => [e.ints(Array.from({ length: rows }, (_, i) => i))])[0]!;
    // expert * rows + slot is unique, so the ascending order is the stable sort by expert.
    const key = e.op("Add", [e.op("Mul", [flat, e.int(rows)]), iota]);
    const [, order] = e.emit("TopK", [key, e.ints([rows])], { axis: 0, largest: 0, sorted: 1 }, 2);
    ctx.set(out[0]!, order!);
    ctx.set(out[1]!, e.op("ScatterElements", [iota, order!, iota], { axis: 0 }));
    const oneHot = e.op("OneHot", [flat, e.ints([attrs.experts]), e.ints([0, 1])], { axis: -1 });
    ctx.set(out[2]!, e.sum(oneHot, [0], false));
  },
  dispatch(ctx, { in: [x, order], out, attrs }) {
    ctx.set(out[0]!, ctx.emitter.op("Gather", [ctx.get(x!), tokensOf(ctx, order!, attrs.k)], { axis: 0 }));
  },
  dispatchGrad(ctx, { in: [dy, inverse], out, attrs }) {
    ctx.set(out[0]!, ctx.emitter.sum(byToken(ctx, dy!, inverse!, attrs.k), [1], false));
  },
  combine(ctx, { in: [y, weights, , inverse], out }) {
    const e = ctx.emitter;
    const [tokens, k] = ctx.shape(weights!) as [number, number];
    const weighted = e.op("Mul", [byToken(ctx, y!, inverse!, k), e.reshape(ctx.get(weights!), [tokens, k, 1])]);
    ctx.set(out[0]!, e.sum(weighted, [1], false));
  },
  combineGrad(ctx, { in: [y, weights, order, inverse, dout], out }) {
    const e = ctx.emitter;
    const [tokens, k] = ctx.shape(weights!) as [number, number];
    const rowWeights = e.op("Gather", [e.reshape(ctx.get(weights!), [tokens * k]), ctx.get(order!)], { axis: 0 });
    const routed = e.op("Gather", [ctx.get(dout!), tokensOf(ctx, order!, k)], { axis: 0 });
    ctx.set(out[0]!, e.op("Mul", [routed, e.reshape(rowWeights, [tokens * k, 1])]));
    const hidden = ctx.shape(dout!)[1]!;
    const product = e.op("Mul", [byToken(ctx, y!, inverse!, k), e.reshape(ctx.get(dout!), [tokens, 1, hidden])]);
    ctx.set(out[1]!, e.sum(product, [2], false));
  },
  groupedMatmul(ctx, { in: [x, counts, ...weights], out, attrs }) {
    const rows = ctx.segments(x!, counts!);
    const times = (x: string, weight: ValueId): string => (attrs.transB ? ctx.linear(x, weight) : ctx.emitter.matmul(x, ctx.get(weight)));
    const names = weights.map((weight, expert) => times(rows[expert]!, weight));
    ctx.setSegments(out[0]!, { counts: counts!, names });
  },
  groupedMatmulGradW(ctx, { in: [x, dy, counts], out }) {
    const left = ctx.segments(dy!, counts!);
    const right = ctx.segments(x!, counts!);
    out.forEach((id, expert) => ctx.set(id, ctx.emitter.matmul(left[expert]!, right[expert]!, { transA: true })));
  },
  groupedBias(ctx, { in: [y, counts, ...biases], out }) {
    const rows = ctx.segments(y!, counts!);
    ctx.setSegments(out[0]!, { counts: counts!, names: biases.map((bias, expert) => ctx.emitter.op("Add", [rows[expert]!, ctx.get(bias)])) });
  },
  groupedBiasGrad(ctx, { in: [dy, counts], out }) {
    const rows = ctx.segments(dy!, counts!);
    out.forEach((id, expert) => ctx.set(id, ctx.emitter.sum(rows[expert]!, [0], false)));
  },
};
