/**
 * Lowering of experts; routing is in `rules-route.ts`. Dispatch is gather-only: slots are sorted by expert, each expert
 * gathers the rows of its tokens, multiplies them by its own matrices, and the results are gathered back, so nothing is
 * scattered with duplicates. Rows that a capacity has dropped are a last block, of zeros.
 *
 * Letters: N tokens, K experts per token, E experts, R = N*K routed rows, R_e those of expert e, H hidden size.
 */
import { at } from "../../base/at.js";
import { elements, type NodeOf, type Prim, type ValueId } from "../ir/ir.js";
import type { Lowering } from "./context.js";
import { weightGradientProduct } from "./weight-gradient-product.js";

type MoePrim =
  | "expertSort"
  | "dispatch"
  | "combine"
  | "scaleRows"
  | "scaleRowsGrad"
  | "groupedMatmul"
  | "groupedMatmulGradW"
  | "groupedBias"
  | "groupedBiasGrad";
type Rules = { readonly [P in Extract<Prim, MoePrim>]: (ctx: Lowering, node: NodeOf<P>) => void };

/** Token index of each sorted row: order / k. */
function tokensOf(ctx: Lowering, order: ValueId, k: number): string {
  return ctx.remember(`tokens ${order} ${k}`, () => ctx.emitter.op("Div", [ctx.get(order), ctx.emitter.int(k)]));
}

/** Token indices cut by expert: [R_e] each. */
function tokenBlocks(ctx: Lowering, order: ValueId, counts: ValueId, k: number): string[] {
  return ctx.remember(`tokens ${order} ${k} by ${counts}`, () => ctx.cutRows(tokensOf(ctx, order, k), counts));
}

/** Weights [N, K] in sorted order: [R, 1]. */
function sortedWeights(ctx: Lowering, weights: ValueId, order: ValueId): string {
  const e = ctx.emitter;
  const rows = elements(ctx.shape(order));
  return ctx.remember(`weights ${weights} ${order}`, () =>
    e.reshape(e.op("Gather", [e.reshape(ctx.get(weights), [rows]), ctx.get(order)], { axis: 0 }), [rows, 1]),
  );
}

/** Sorted weights cut by expert: [R_e, 1] each. */
function weightBlocks(ctx: Lowering, weights: ValueId, order: ValueId, counts: ValueId): string[] {
  return ctx.remember(`weights ${weights} ${order} by ${counts}`, () =>
    ctx.cutRows(sortedWeights(ctx, weights, order), counts),
  );
}

/** As many rows of zeros as `rows` has. */
function zeroRows(ctx: Lowering, rows: string, width: number): string {
  const e = ctx.emitter;
  return ctx.remember(`zero rows ${rows} ${width}`, () => {
    const count = e.op("Slice", [e.op("Shape", [rows]), e.ints([0]), e.ints([1])]);
    return e.op("Expand", [e.floats([0]), e.op("Concat", [count, e.ints([width])], { axis: 0 })]);
  });
}

/** The lowering of expert primitives. */
export const moeRules: Rules = {
  expertSort(ctx, { in: [experts], out, attrs }) {
    const e = ctx.emitter;
    const rows = elements(ctx.shape(out[0]));
    const flat = e.reshape(ctx.get(experts), [rows]);
    const iota = ctx.remember(`iota ${rows}`, () => e.ints(Array.from({ length: rows }, (_, i) => i)));
    // expert * rows + slot is unique, so the ascending order is the stable sort by expert.
    const key = e.op("Add", [e.op("Mul", [flat, e.int(rows)]), iota]);
    const [, order] = e.emit("TopK", [key, e.ints([rows])], { axis: 0, largest: 0, sorted: 1 }, 2);
    ctx.set(out[0], order);
    ctx.set(out[1], e.op("ScatterElements", [iota, order, iota], { axis: 0 }));
    const ones = e.op("Expand", [e.ints([1]), e.ints([rows])]);
    const none = e.op("Expand", [e.ints([0]), e.ints([attrs.experts + Number(attrs.drops)])]);
    const counts = e.op("ScatterElements", [none, flat, ones], { axis: 0, reduction: "add" });
    if (attrs.drops) ctx.setCuts(out[2], counts);
    ctx.set(out[2], attrs.drops ? e.op("Slice", [counts, e.ints([0]), e.ints([attrs.experts])]) : counts);
    for (const id of [out[0], out[1]]) ctx.setCounts(id, out[2]);
  },
  dispatch(ctx, { in: [x, order], out, attrs }) {
    const e = ctx.emitter;
    const counts = ctx.countsOf(order);
    if (counts === null) {
      ctx.set(out[0], e.op("Gather", [ctx.get(x), tokensOf(ctx, order, attrs.k)], { axis: 0 }));
      return;
    }
    const names = tokenBlocks(ctx, order, counts, attrs.k).map((tokens) =>
      e.op("Gather", [ctx.get(x), tokens], { axis: 0 }),
    );
    ctx.setBlocks(out[0], { counts, names });
  },
  combine(ctx, { in: [y, , inverse], out, attrs: { k } }) {
    const e = ctx.emitter;
    const [tokens, hidden] = ctx.matrix(out[0]);
    const places = ctx.remember(`places ${inverse} ${k}`, () =>
      e.op("Transpose", [e.reshape(ctx.get(inverse), [tokens, k])], { perm: [1, 0] }),
    );
    const rows = e.op("Gather", [ctx.get(y), places], { axis: 0 });
    if (k === 1) {
      ctx.set(out[0], e.reshape(rows, [tokens, hidden]));
      return;
    }
    // Times a row of ones: faster than a reduction over an outer axis.
    const ones = ctx.remember(`ones ${k}`, () => e.floats(new Float32Array(k).fill(1), [1, k]));
    ctx.set(out[0], e.reshape(e.op("MatMul", [ones, e.reshape(rows, [k, tokens * hidden])]), [tokens, hidden]));
  },
  scaleRows(ctx, { in: [y, weights, order], out }) {
    const e = ctx.emitter;
    const counts = ctx.countsOf(order);
    if (counts === null) {
      ctx.set(out[0], e.op("Mul", [ctx.get(y), sortedWeights(ctx, weights, order)]));
      return;
    }
    const factors = weightBlocks(ctx, weights, order, counts);
    ctx.setBlocks(out[0], {
      counts,
      names: ctx.blocks(y, counts).map((rows, expert) => e.op("Mul", [rows, at(factors, expert)])),
    });
  },
  scaleRowsGrad(ctx, { in: [y, weights, order, inverse, dout], out }) {
    const e = ctx.emitter;
    const counts = ctx.countsOf(order);
    const dot = (a: string, b: string): string => e.sum(e.op("Mul", [a, b]), [1], false);
    let dots: string;
    if (counts === null) {
      ctx.set(out[0], e.op("Mul", [ctx.get(dout), sortedWeights(ctx, weights, order)]));
      dots = dot(ctx.get(y), ctx.get(dout));
    } else {
      const factors = weightBlocks(ctx, weights, order, counts);
      const [rows, drows] = [ctx.blocks(y, counts), ctx.blocks(dout, counts)];
      ctx.setBlocks(out[0], { counts, names: drows.map((row, expert) => e.op("Mul", [row, at(factors, expert)])) });
      dots = e.op(
        "Concat",
        rows.map((row, expert) => dot(row, at(drows, expert))),
        { axis: 0 },
      );
    }
    ctx.set(out[1], e.reshape(e.op("Gather", [dots, ctx.get(inverse)], { axis: 0 }), ctx.shape(weights)));
  },
  groupedMatmul(ctx, { in: [x, counts, ...weights], out, attrs }) {
    const rows = ctx.blocks(x, counts);
    const times = (x: string, weight: ValueId): string =>
      attrs.transB ? ctx.linear(x, weight) : ctx.emitter.matmul(x, ctx.get(weight));
    const names = weights.map((weight, expert) => times(at(rows, expert), weight));
    const rest = rows.slice(weights.length).map((nobodys) => zeroRows(ctx, nobodys, ctx.width(out[0])));
    ctx.setBlocks(out[0], { counts, names: [...names, ...rest] });
  },
  groupedMatmulGradW(ctx, { in: [x, dy, counts], out }) {
    const [left, right] = [ctx.blocks(dy, counts), ctx.blocks(x, counts)];
    const [rows, width] = ctx.matrix(dy);
    const readers = ctx.graph.nodes.filter(
      ({ prim, in: [first] }) => prim === "groupedMatmulGradW" && first === x,
    ).length;
    for (const [expert, id] of out.entries()) {
      const [a, b] = [
        { name: at(left, expert), width },
        { name: at(right, expert), width: ctx.width(x) },
      ];
      ctx.set(id, weightGradientProduct(ctx, a, b, rows / out.length, readers));
    }
  },
  groupedBias(ctx, { in: [y, counts, ...biases], out }) {
    const rows = ctx.blocks(y, counts);
    const names = biases.map((bias, expert) => ctx.emitter.op("Add", [at(rows, expert), ctx.get(bias)]));
    ctx.setBlocks(out[0], { counts, names: [...names, ...rows.slice(biases.length)] });
  },
  groupedBiasGrad(ctx, { in: [dy, counts], out }) {
    const rows = ctx.blocks(dy, counts);
    out.forEach((id, expert) => ctx.set(id, ctx.emitter.sum(at(rows, expert), [0], false)));
  },
};
