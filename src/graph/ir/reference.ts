/**
 * Plain evaluation of a graph in float64: the meaning of every primitive, and the oracle that backends are tested
 * against. Written for clarity, not speed. Integers travel in Float64Arrays too. Attention, routing and experts have
 * files of their own, `reference-*.ts`.
 *
 * Letters as in `ir.ts`.
 */
import { at } from "../../base/at.js";
import { activations } from "./activations.js";
import {
  elements,
  lastSize,
  matrixSizes,
  typeOf,
  type Graph,
  type Node,
  type NodeOf,
  type Prim,
  type PrimInputs,
  type PrimOutputs,
  type RopeAttrs,
  type ValueId,
  type ValueType,
} from "./ir.js";
import { attention, attentionGrad, segmentPositions, segmentIds } from "./reference-attention.js";
import { cachedAttention } from "./reference-cache.js";
import {
  expertCapacity,
  expertCounts,
  expertSort,
  groupedBias,
  groupedBiasGrad,
  groupedMatmul,
  groupedMatmulGradW,
} from "./reference-moe.js";
import { routeTopK, routeTopKGrad, routeWeights, sinkhorn } from "./reference-route.js";
import { addScaled, dot } from "../../base/vectors.js";
import {
  addProduct,
  broadcastIndex,
  broadcastTo,
  cutRows,
  logSumExp,
  mapRows,
  rowOf,
  rowViews,
  sigmoid,
  softmax,
  softmaxGrad,
  zip,
  type Tensor,
} from "./reference-values.js";

/** From a node, its inputs and the types of its outputs to the elements of its outputs. */
type Evaluate<P extends Prim> = (
  node: NodeOf<P>,
  inputs: PrimInputs<Tensor>[P],
  outputs: PrimOutputs<P, ValueType>,
) => Float64Array[];

type One<T> = readonly [T];
type Two<T> = readonly [T, T];

/** A primitive of two values that broadcast. */
function elementwise(f: (a: number, b: number) => number) {
  return (_: unknown, [a, b]: Two<Tensor>, [{ shape }]: One<ValueType>): Float64Array[] => [
    zip(broadcastTo(a, shape), broadcastTo(b, shape), f),
  ];
}

/** A primitive that works element by element. */
function map(f: (x: number) => number) {
  return (_: unknown, [x]: One<Tensor>): Float64Array[] => [x.data.map(f)];
}

/** Turns the rotary elements of each head of x [N, heads*D] by the angles of its position. */
function rope(attrs: RopeAttrs, x: Float64Array, cos: Float64Array, sin: Float64Array): Float64Array {
  const { sequence, heads, headDim, offset, rotary, interleaved, inverse } = attrs;
  const half = rotary / 2;
  const out = x.slice();
  for (const [index, head] of cutRows(out, headDim).entries()) {
    const position = Math.floor(index / heads) % sequence;
    const turning = head.subarray(offset, offset + rotary);
    const before = turning.slice();
    for (let i = 0; i < half; i++) {
      const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, half + i];
      const [xa, xb] = [before[a]!, before[b]!];
      const c = cos[position * half + i]!;
      const s = (inverse ? -1 : 1) * sin[position * half + i]!;
      turning[a] = xa * c - xb * s;
      turning[b] = xb * c + xa * s;
    }
  }
  return out;
}

const evaluators: { readonly [P in Prim]: Evaluate<P> } = {
  constant: ({ attrs: { shape, values } }) => {
    const size = elements(shape);
    return [values.length === size ? Float64Array.from(values) : new Float64Array(size).fill(at(values, 0))];
  },
  add: elementwise((a, b) => a + b),
  sub: elementwise((a, b) => a - b),
  mul: elementwise((a, b) => a * b),
  scale: ({ attrs }, [x]) => [x.data.map((value) => value * attrs.by)],
  sigmoid: map(sigmoid),
  tanh: map(Math.tanh),
  activation: ({ attrs }, [x]) => [x.data.map(activations[attrs.kind].value)],
  activationGrad: ({ attrs }, [x, dy]) => [
    zip(x.data, dy.data, (value, d) => activations[attrs.kind].slope(value) * d),
  ],
  clamp: ({ attrs }, [x]) => [x.data.map((value) => Math.min(attrs.high, Math.max(attrs.low, value)))],
  clampGrad: ({ attrs: { low, high } }, [x, dy]) => [
    zip(x.data, dy.data, (value, d) => (value >= low && value <= high ? d : 0)),
  ],
  layerNorm: ({ attrs }, [x]) => [mapRows(x, (row) => standardised(row, attrs.eps).hat)],
  layerNormGrad({ attrs }, [x, dy]) {
    const gradients = rowViews(dy);
    return [mapRows(x, (row, index) => layerNormGrad(row, at(gradients, index), attrs.eps))];
  },
  toFloat: map((x) => x),
  reshape: (_, [x]) => [x.data.slice()],
  reduceSum({ attrs }, [x]) {
    const summedShape = x.shape.map((size, axis) => (attrs.axes.includes(axis) ? 1 : size));
    const out = new Float64Array(elements(summedShape));
    broadcastIndex(summedShape, x.shape).forEach((to, from) => (out[to]! += x.data[from]!));
    return [out];
  },
  softmax: (_, [x]) => [mapRows(x, softmax)],
  softmaxGrad(_, [y, dy]) {
    const gradients = rowViews(dy);
    return [mapRows(y, (row, index) => softmaxGrad(row, at(gradients, index)))];
  },
  logSumExp: (_, [x]) => [Float64Array.from(rowViews(x), logSumExp)],
  matmul({ attrs: { transA, transB } }, [a, b], [type]) {
    const [[rows, columns], [m, n]] = [matrixSizes(a), matrixSizes(type)];
    const out = new Float64Array(m * n);
    addProduct(out, a.data, b.data, { m, k: transA ? rows : columns, n, transA, transB });
    return [out];
  },
  embedding(_, [table, ids], [type]) {
    const hidden = lastSize(type);
    const out = new Float64Array(elements(type.shape));
    ids.data.forEach((id, row) => out.set(rowOf(table.data, id, hidden), row * hidden));
    return [out];
  },
  segmentIds: ({ attrs }, [ids]) => [segmentIds(attrs, attrs.end, ids.data)],
  segmentPositions: ({ attrs }, [segments]) => [segmentPositions(attrs, segments.data)],
  embeddingGrad(_, [ids, dy], [type]) {
    const hidden = lastSize(type);
    const out = new Float64Array(elements(type.shape));
    ids.data.forEach((id, row) => addScaled(rowOf(out, id, hidden), 1, rowOf(dy.data, row, hidden)));
    return [out];
  },
  rmsNorm: ({ attrs }, [x, weight]) => [
    mapRows(x, (row) => {
      const inverse = inverseRms(row, attrs.eps);
      return zip(row, weight.data, (value, factor) => value * inverse * factor);
    }),
  ],
  rmsNormGrad({ attrs }, [x, weight, dy]) {
    const gradients = rowViews(dy);
    const dweight = new Float64Array(weight.data.length);
    const dx = mapRows(x, (row, index) => {
      const gradient = at(gradients, index);
      const inverse = inverseRms(row, attrs.eps);
      const hat = row.map((value) => value * inverse);
      addScaled(
        dweight,
        1,
        zip(gradient, hat, (d, value) => d * value),
      );
      const dhat = zip(gradient, weight.data, (d, factor) => d * factor);
      const mean = dot(dhat, hat) / row.length;
      return zip(dhat, hat, (d, value) => inverse * (d - value * mean));
    });
    return [dx, dweight];
  },
  rope: ({ attrs }, [x, cos, sin]) => [rope(attrs, x.data, cos.data, sin.data)],
  joinHeads({ attrs: { heads } }, [own, shared], [type]) {
    const [ownSize, sharedSize] = [lastSize(own) / heads, lastSize(shared)];
    const out = new Float64Array(elements(type.shape));
    const sharedRows = rowViews(shared);
    const ownHeads = cutRows(own.data, ownSize);
    for (const [place, head] of cutRows(out, ownSize + sharedSize).entries()) {
      head.set(at(ownHeads, place));
      head.set(at(sharedRows, Math.floor(place / heads)), ownSize);
    }
    return [out];
  },
  joinHeadsGrad({ attrs: { heads } }, [own, shared, dy]) {
    const [ownSize, sharedSize] = [lastSize(own) / heads, lastSize(shared)];
    const [down, dshared] = [new Float64Array(own.data.length), new Float64Array(shared.data.length)];
    for (const [place, head] of cutRows(dy.data, ownSize + sharedSize).entries()) {
      down.set(head.subarray(0, ownSize), place * ownSize);
      addScaled(rowOf(dshared, Math.floor(place / heads), sharedSize), 1, head.subarray(ownSize));
    }
    return [down, dshared];
  },
  attention: ({ attrs }, inputs) => [attention(attrs, inputs)],
  attentionGrad: ({ attrs }, inputs) => attentionGrad(attrs, inputs),
  cachedAttention: ({ attrs }, inputs) => [cachedAttention(attrs, inputs)],
  swiglu: (_, [gate, up]) => [zip(gate.data, up.data, (g, u) => g * sigmoid(g) * u)],
  swigluGrad(_, [gate, up, dh]) {
    const { value: silu, slope } = activations.silu;
    const dgate = zip(
      zip(dh.data, up.data, (d, u) => d * u),
      gate.data,
      (d, g) => d * slope(g),
    );
    return [dgate, zip(dh.data, gate.data, (d, g) => d * silu(g))];
  },
  headCrossEntropy({ attrs }, [x, head, targets]) {
    const { logits, counted } = headLogits(x, head, targets, attrs.softcap);
    let loss = 0;
    for (const [token, row] of logits.entries()) {
      const target = at(targets.data, token);
      if (target >= 0) loss += (logSumExp(row) - at(row, target)) / counted;
    }
    return [Float64Array.of(loss)];
  },
  headCrossEntropyGrad({ attrs: { softcap } }, [x, head, targets, dloss]) {
    const { logits, counted } = headLogits(x, head, targets, softcap);
    const [[tokens, hidden], [vocab]] = [matrixSizes(x), matrixSizes(head)];
    const dlogits = new Float64Array(tokens * vocab);
    const perToken = at(dloss.data, 0) / counted;
    for (const [token, row] of logits.entries()) {
      const target = at(targets.data, token);
      if (target < 0) continue;
      const gradient = softmax(row);
      gradient[target] = at(gradient, target) - 1;
      const slope = (logit: number): number => (softcap === null ? 1 : 1 - (logit / softcap) ** 2);
      dlogits.set(
        zip(gradient, row, (d, logit) => d * slope(logit) * perToken),
        token * vocab,
      );
    }
    const [dx, dhead] = [new Float64Array(x.data.length), new Float64Array(head.data.length)];
    addProduct(dx, dlogits, head.data, { m: tokens, k: vocab, n: hidden });
    addProduct(dhead, dlogits, x.data, { m: vocab, k: tokens, n: hidden, transA: true });
    return [dx, dhead];
  },
  headScores({ attrs }, [x, head, targets, bias]) {
    const { logits } = headLogits(x, head, targets, attrs.softcap, bias);
    return [
      Float64Array.from(
        logits.flatMap((row, token) => {
          const target = at(targets.data, token);
          const first = row.findIndex((value) => value >= row.reduce((most, one) => Math.max(most, one)));
          return [at(row, target) - logSumExp(row), Number(first === target)];
        }),
      ),
    ];
  },
  routeTopK: ({ attrs }, [logits, correction]) => routeTopK(logits, correction, attrs.k, attrs.rule),
  routeTopKGrad: ({ attrs }, [logits, experts, dweights]) => [routeTopKGrad(logits, experts, dweights, attrs.rule)],
  routeWeights: ({ attrs }, [logits, experts]) => [routeWeights(logits, experts, attrs.rule)],
  sinkhorn: ({ attrs }, [logits]) => [sinkhorn(logits, attrs)],
  expertCapacity: ({ attrs }, [weights, experts]) => [expertCapacity(weights.data, experts.data, attrs)],
  expertCounts: ({ attrs }, [experts]) => [expertCounts(experts.data, attrs.experts, attrs.blocks)],
  expertSort: ({ attrs }, [experts]) => expertSort(experts.data, attrs.experts),
  dispatch({ attrs }, [x, order]) {
    const hidden = lastSize(x);
    const out = new Float64Array(order.data.length * hidden);
    order.data.forEach((slot, place) => out.set(rowOf(x.data, Math.floor(slot / attrs.k), hidden), place * hidden));
    return [out];
  },
  combine({ attrs }, [y, , inverse], [type]) {
    const hidden = lastSize(y);
    const out = new Float64Array(elements(type.shape));
    inverse.data.forEach((place, slot) =>
      addScaled(rowOf(out, Math.floor(slot / attrs.k), hidden), 1, rowOf(y.data, place, hidden)),
    );
    return [out];
  },
  scaleRows: (_, [y, weights, order]) => [scaleRows(y, weights, order)],
  scaleRowsGrad(_, [y, weights, order, , dout]) {
    const dweights = new Float64Array(weights.data.length);
    const rows = rowViews(y);
    for (const [place, gradient] of rowViews(dout).entries())
      dweights[at(order.data, place)] = dot(gradient, at(rows, place));
    return [scaleRows(dout, weights, order), dweights];
  },
  groupedMatmul: ({ attrs }, inputs, [type]) => [groupedMatmul(inputs, attrs.transB, type)],
  groupedBias: (_, inputs) => [groupedBias(inputs)],
  groupedBiasGrad: (_, [dy, counts]) => groupedBiasGrad(dy, counts),
  groupedMatmulGradW: (_, [x, dy, counts]) => groupedMatmulGradW(x, dy, counts),
};

/** 1 / sqrt(mean(x^2) + eps) of a row. */
const inverseRms = (row: Float64Array, eps: number): number => 1 / Math.sqrt(dot(row, row) / row.length + eps);

/** A row minus its mean, over its standard deviation, and the inverse of that. */
function standardised(row: Float64Array, eps: number): { readonly hat: Float64Array; readonly inverse: number } {
  const mean = row.reduce((a, b) => a + b, 0) / row.length;
  const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
  const inverse = 1 / Math.sqrt(variance + eps);
  return { hat: row.map((value) => (value - mean) * inverse), inverse };
}

/** Gradient of a row in front of `layerNorm`, from that behind it. */
function layerNormGrad(row: Float64Array, dy: Float64Array, eps: number): Float64Array {
  const { hat, inverse } = standardised(row, eps);
  const mean = dy.reduce((a, b) => a + b, 0) / row.length;
  const slope = dot(dy, hat) / row.length;
  return zip(dy, hat, (d, value) => inverse * (d - mean - value * slope));
}

/** y [R, H] with each row times the weight of its slot. */
function scaleRows(y: Tensor, weights: Tensor, order: Tensor): Float64Array {
  return mapRows(y, (row, place) => {
    const weight = at(weights.data, at(order.data, place));
    return row.map((value) => value * weight);
  });
}

/** Logits of each token, a row [V] each, and how many targets count. */
function headLogits(
  x: Tensor,
  head: Tensor,
  targets: Tensor,
  softcap: number | null,
  bias?: Tensor,
): { readonly logits: readonly Float64Array[]; readonly counted: number } {
  const [[m, k], [n]] = [matrixSizes(x), matrixSizes(head)];
  const raw = new Float64Array(m * n);
  addProduct(raw, x.data, head.data, { m, k, n, transB: true });
  if (bias !== undefined) for (const row of cutRows(raw, n)) addScaled(row, 1, bias.data);
  const logits = softcap === null ? raw : raw.map((value) => softcap * Math.tanh(value / softcap));
  const counted = Math.max(1, targets.data.filter((target) => target >= 0).length);
  return { logits: cutRows(logits, n), counted };
}

/**
 * Values of all graph outputs, in order. `feeds` holds the elements of one tensor for each graph input, in order.
 * Throws an Error where a feed is missing.
 */
export function evaluate(graph: Graph, feeds: readonly Float64Array[]): Tensor[] {
  const tensors = new Map<ValueId, Tensor>();
  const put = (ids: readonly ValueId[], data: readonly Float64Array[]): void => {
    for (const [i, id] of ids.entries()) {
      const elements = data[i];
      if (elements === undefined) throw new Error(`value %${id} got no elements`);
      tensors.set(id, { ...typeOf(graph, id), data: elements });
    }
  };
  const tensorOf = (id: ValueId): Tensor => {
    const tensor = tensors.get(id);
    if (tensor === undefined) throw new Error(`value %${id} is read before it is computed`);
    return tensor;
  };
  put(graph.inputs, feeds);
  for (const node of graph.nodes) {
    const types = node.out.map((id) => typeOf(graph, id));
    put(node.out, run(node, node.in.map(tensorOf), types));
  }
  return graph.outputs.map(tensorOf);
}

/** Evaluates one node; the graph's verification has proved the numbers of inputs and outputs. */
function run(node: Node, inputs: readonly Tensor[], outputs: readonly ValueType[]): Float64Array[] {
  return (evaluators[node.prim] as (...operands: unknown[]) => Float64Array[])(node, inputs, outputs);
}
