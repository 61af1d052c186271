/** Reference evaluation of expert primitives (see `reference.ts`). */
import { elements, matrixSizes, type PrimAttrs, type PrimInputs, type ValueType } from "./ir.js";
import { matmulInto, type Tensor } from "./reference-values.js";

export function expertSort(experts: Float64Array, count: number): Float64Array[] {
  const slots = Array.from(experts.keys()).sort((a, b) => experts[a]! - experts[b]! || a - b);
  const inverse = new Float64Array(experts.length);
  slots.forEach((slot, place) => (inverse[slot] = place));
  return [Float64Array.from(slots), inverse, expertCounts(experts, count, 1)];
}

export function expertCounts(experts: Float64Array, count: number, blocks: number): Float64Array {
  const counts = new Float64Array(blocks * count);
  const size = experts.length / blocks;
  experts.forEach((expert, slot) => {
    if (expert < count) counts[Math.floor(slot / size) * count + expert]!++;
  });
  return counts;
}

export function expertCapacity(
  weights: Float64Array,
  experts: Float64Array,
  attrs: PrimAttrs["expertCapacity"],
): Float64Array {
  const out = new Float64Array(experts.length).fill(attrs.experts);
  for (let expert = 0; expert < attrs.experts; expert++) {
    const slots = Array.from(experts.keys()).filter((slot) => experts[slot] === expert);
    // The sort is stable: equal weights stay in the order of their slots.
    if (attrs.by === "weight") slots.sort((a, b) => weights[b]! - weights[a]!);
    for (const slot of slots.slice(0, attrs.rows)) out[slot] = expert;
  }
  return out;
}

export function groupedMatmul(
  inputs: PrimInputs<Tensor>["groupedMatmul"],
  transB: boolean,
  type: ValueType,
): Float64Array {
  const [x, counts, ...weights] = inputs;
  const [inner, outer] = [matrixSizes(x)[1], matrixSizes(type)[1]];
  const out = new Float64Array(elements(type.shape));
  let row = 0;
  weights.forEach((weight, expert) => {
    const rows = counts.data[expert]!;
    matmulInto(out, x.data, weight.data, rows, inner, outer, false, transB, { out: row * outer, a: row * inner, b: 0 });
    row += rows;
  });
  return out;
}

export function groupedMatmulGradW(x: Tensor, dy: Tensor, counts: Tensor, types: readonly ValueType[]): Float64Array[] {
  const [inner, outer] = [matrixSizes(x)[1], matrixSizes(dy)[1]];
  let row = 0;
  return types.map((type, expert) => {
    const out = new Float64Array(elements(type.shape));
    const rows = counts.data[expert]!;
    // dyᵀ [outer, rows] times x [rows, inner]
    matmulInto(
      out,
      dy.data.subarray(row * outer, (row + rows) * outer),
      x.data.subarray(row * inner),
      outer,
      rows,
      inner,
      true,
      false,
    );
    row += rows;
    return out;
  });
}

export function groupedBias(inputs: PrimInputs<Tensor>["groupedBias"]): Float64Array {
  const [y, counts, ...biases] = inputs;
  const out = y.data.slice();
  let at = 0;
  biases.forEach((bias, expert) => {
    for (const end = at + counts.data[expert]! * bias.data.length; at < end; at++)
      out[at]! += bias.data[at % bias.data.length]!;
  });
  return out;
}

export function groupedBiasGrad(dy: Tensor, counts: Tensor, types: readonly ValueType[]): Float64Array[] {
  let at = 0;
  return types.map(({ shape }, expert) => {
    const width = elements(shape);
    const out = new Float64Array(width);
    for (const end = at + counts.data[expert]! * width; at < end; at++) out[at % width]! += dy.data[at]!;
    return out;
  });
}
