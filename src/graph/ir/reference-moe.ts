/**
 * Reference evaluation of expert primitives (see `reference.ts`).
 *
 * Letters: N tokens, E experts, K experts per token, R = N*K routed rows, A and B sizes of a row before and behind a
 * product.
 */
import { at } from "../../base/at.js";
import { elements, lastSize, type PrimAttrs, type PrimInputs, type ValueType } from "./ir.js";
import { addScaled } from "../../base/vectors.js";
import { addProduct, cutRows, type Tensor } from "./reference-values.js";

/** Order, inverse and counts of the primitive `expertSort`, from experts [N, K]. */
export function expertSort(experts: Float64Array, count: number): Float64Array[] {
  const slots = Array.from(experts.keys()).sort((a, b) => at(experts, a) - at(experts, b) || a - b);
  const inverse = new Float64Array(experts.length);
  for (const [place, slot] of slots.entries()) inverse[slot] = place;
  return [Float64Array.from(slots), inverse, expertCounts(experts, count, 1)];
}

/** How often each expert stands in each of `blocks` equal runs of experts [N, K]: [blocks, E]. */
export function expertCounts(experts: Float64Array, count: number, blocks: number): Float64Array {
  const counts = new Float64Array(blocks * count);
  const size = experts.length / blocks;
  for (const [slot, expert] of experts.entries()) {
    if (expert >= count) continue;
    const place = Math.floor(slot / size) * count + expert;
    counts[place] = at(counts, place) + 1;
  }
  return counts;
}

/** Experts [N, K] with `attrs.experts` in the place of each choice that its expert has no room for. */
export function expertCapacity(
  weights: Float64Array,
  experts: Float64Array,
  attrs: PrimAttrs["expertCapacity"],
): Float64Array {
  const out = new Float64Array(experts.length).fill(attrs.experts);
  for (let expert = 0; expert < attrs.experts; expert++) {
    const slots = Array.from(experts.keys()).filter((slot) => experts[slot] === expert);
    // The sort is stable: equal weights stay in the order of their slots.
    if (attrs.by === "weight") slots.sort((a, b) => at(weights, b) - at(weights, a));
    for (const slot of slots.slice(0, attrs.rows)) out[slot] = expert;
  }
  return out;
}

/** The rows [R, A] of each expert as one view, in the order of the experts; nobody's rows are left out. */
function expertRows(x: Tensor, counts: Tensor): Float64Array[] {
  const width = lastSize(x);
  let start = 0;
  return Array.from(counts.data, (rows) => {
    const end = start + rows * width;
    const own = x.data.subarray(start, end);
    start = end;
    return own;
  });
}

/** Rows of each expert times its weight: [R, B], zeros for nobody's rows. */
export function groupedMatmul(
  [x, counts, ...weights]: PrimInputs<Tensor>["groupedMatmul"],
  transB: boolean,
  type: ValueType,
): Float64Array {
  const [k, n] = [lastSize(x), lastSize(type)];
  const out = new Float64Array(elements(type.shape));
  const outs = expertRows({ ...type, data: out }, counts);
  for (const [expert, rows] of expertRows(x, counts).entries())
    addProduct(at(outs, expert), rows, at(weights, expert).data, { m: rows.length / k, k, n, transB });
  return out;
}

/** dy_eᵀ x_e [B, A] of each expert, from x [R, A] and dy [R, B]. */
export function groupedMatmulGradW(x: Tensor, dy: Tensor, counts: Tensor): Float64Array[] {
  const [n, m] = [lastSize(x), lastSize(dy)];
  const gradients = expertRows(dy, counts);
  return expertRows(x, counts).map((rows, expert) => {
    const out = new Float64Array(m * n);
    addProduct(out, at(gradients, expert), rows, { m, k: rows.length / n, n, transA: true });
    return out;
  });
}

/** y [R, B] with each expert's bias [B] added to its rows. */
export function groupedBias([y, counts, ...biases]: PrimInputs<Tensor>["groupedBias"]): Float64Array {
  const data = y.data.slice();
  for (const [expert, rows] of expertRows({ ...y, data }, counts).entries()) {
    const bias = at(biases, expert).data;
    for (const row of cutRows(rows, bias.length)) addScaled(row, 1, bias);
  }
  return data;
}

/** Sum [B] over the rows of each expert, from dy [R, B]. */
export function groupedBiasGrad(dy: Tensor, counts: Tensor): Float64Array[] {
  const width = lastSize(dy);
  return expertRows(dy, counts).map((rows) => {
    const sum = new Float64Array(width);
    for (const row of cutRows(rows, width)) addScaled(sum, 1, row);
    return sum;
  });
}
