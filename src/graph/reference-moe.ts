/** Reference evaluation of routing and expert primitives (see `reference.ts`). */
import { elements, type PrimAttrs, type ValueType } from "./ir.js";
import { matmulInto, softmaxRow, type Tensor } from "./reference.js";

type Order = PrimAttrs["routeTopK"]["order"];

export function routeTopK(logits: Tensor, k: number, order: Order): Float64Array[] {
  const [tokens, experts] = logits.shape as [number, number];
  const weights = new Float64Array(tokens * k);
  const chosen = new Float64Array(tokens * k);
  const all = new Float64Array(logits.data.length);
  for (let token = 0; token < tokens; token++) {
    const start = token * experts;
    softmaxRow(logits.data, start, experts, all);
    // Sort is stable, so ties keep the lowest index first.
    const ranked = Array.from({ length: experts }, (_, e) => e).sort((a, b) => logits.data[start + b]! - logits.data[start + a]!);
    const top = ranked.slice(0, k);
    const mass = order === "topk-softmax" ? top.reduce((sum, e) => sum + all[start + e]!, 0) : 1;
    top.forEach((expert, i) => {
      chosen[token * k + i] = expert;
      weights[token * k + i] = all[start + expert]! / mass;
    });
  }
  return [weights, chosen];
}

export function routeTopKGrad(logits: Tensor, chosen: Tensor, dweights: Tensor, order: Order): Float64Array {
  const [tokens, experts] = logits.shape as [number, number];
  const k = chosen.shape[1]!;
  const out = new Float64Array(logits.data.length);
  const all = new Float64Array(logits.data.length);
  for (let token = 0; token < tokens; token++) {
    const start = token * experts;
    softmaxRow(logits.data, start, experts, all);
    const top = Array.from(chosen.data.subarray(token * k, (token + 1) * k));
    const mass = order === "topk-softmax" ? top.reduce((sum, e) => sum + all[start + e]!, 0) : 1;
    let dot = 0;
    top.forEach((expert, i) => (dot += (all[start + expert]! / mass) * dweights.data[token * k + i]!));
    if (order === "softmax-topk") for (let e = 0; e < experts; e++) out[start + e] = -all[start + e]! * dot;
    top.forEach((expert, i) => {
      const weight = all[start + expert]! / mass;
      out[start + expert]! += weight * (order === "topk-softmax" ? dweights.data[token * k + i]! - dot : dweights.data[token * k + i]!);
    });
  }
  return out;
}

export function expertSort(experts: Float64Array, count: number): Float64Array[] {
  const slots = Array.from(experts.keys()).sort((a, b) => experts[a]! - experts[b]! || a - b);
  const inverse = new Float64Array(experts.length);
  slots.forEach((slot, place) => (inverse[slot] = place));
  const counts = new Float64Array(count);
  for (const expert of experts) counts[expert]!++;
  return [Float64Array.from(slots), inverse, counts];
}

export function groupedMatmul(inputs: readonly Tensor[], transB: boolean, type: ValueType): Float64Array {
  const [x, counts, ...weights] = inputs as [Tensor, Tensor, ...Tensor[]];
  const [inner, outer] = [x.shape[1]!, type.shape[1]!];
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
  const [inner, outer] = [x.shape[1]!, dy.shape[1]!];
  let row = 0;
  return types.map((type, expert) => {
    const out = new Float64Array(elements(type.shape));
    const rows = counts.data[expert]!;
    // dyᵀ [outer, rows] times x [rows, inner]
    matmulInto(out, dy.data.subarray(row * outer, (row + rows) * outer), x.data.subarray(row * inner), outer, rows, inner, true, false);
    row += rows;
    return out;
  });
}
