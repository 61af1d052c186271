/**
 * Plain evaluation of a graph in float64: the meaning of every primitive, and the oracle that backends are tested
 * against. Written for clarity, not speed. Integers travel in Float64Arrays too.
 */
import { activations } from "./activations.js";
import {
  elements,
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
import {
  broadcastIndex,
  eachRow,
  logSumExpRow,
  matmulInto,
  sigmoid,
  softmaxRow,
  type Tensor,
} from "./reference-values.js";

/** From a node, its inputs and the types of its outputs to what it gives, flat. */
type Evaluate<P extends Prim> = (
  node: NodeOf<P>,
  inputs: PrimInputs<Tensor>[P],
  outputs: PrimOutputs<P, ValueType>,
) => Float64Array[];

type One<T> = readonly [T];
type Two<T> = readonly [T, T];

function elementwise(f: (a: number, b: number) => number) {
  return (_: unknown, [a, b]: Two<Tensor>, [out]: One<ValueType>): Float64Array[] => {
    const ia = broadcastIndex(a.shape, out.shape);
    const ib = broadcastIndex(b.shape, out.shape);
    return [Float64Array.from(ia, (at, i) => f(a.data[at]!, b.data[ib[i]!]!))];
  };
}

function map(f: (x: number) => number) {
  return (_: unknown, [x]: One<Tensor>): Float64Array[] => [x.data.map(f)];
}

function rope(attrs: RopeAttrs, x: Float64Array, cos: Float64Array, sin: Float64Array): Float64Array {
  const out = x.slice();
  const half = attrs.rotary / 2;
  const sign = attrs.inverse ? -1 : 1;
  for (let row = 0; row < attrs.batch * attrs.sequence; row++) {
    const position = row % attrs.sequence;
    for (let head = 0; head < attrs.heads; head++) {
      const start = (row * attrs.heads + head) * attrs.headDim + attrs.offset;
      for (let i = 0; i < half; i++) {
        const [a, b] = attrs.interleaved ? [start + 2 * i, start + 2 * i + 1] : [start + i, start + half + i];
        const c = cos[position * half + i]!;
        const s = sign * sin[position * half + i]!;
        out[a] = x[a]! * c - x[b]! * s;
        out[b] = x[b]! * c + x[a]! * s;
      }
    }
  }
  return out;
}

const evaluators: { readonly [P in Prim]: Evaluate<P> } = {
  constant: ({ attrs }) => {
    const size = elements(attrs.shape);
    return [
      attrs.values.length === size ? Float64Array.from(attrs.values) : new Float64Array(size).fill(attrs.values[0]!),
    ];
  },
  add: elementwise((a, b) => a + b),
  sub: elementwise((a, b) => a - b),
  mul: elementwise((a, b) => a * b),
  scale: ({ attrs }, [x]) => [x.data.map((value) => value * attrs.by)],
  sigmoid: map(sigmoid),
  tanh: map(Math.tanh),
  activation: ({ attrs }, [x]) => [x.data.map(activations[attrs.kind].value)],
  activationGrad: ({ attrs }, [x, dy]) => [
    x.data.map((value, i) => activations[attrs.kind].slope(value) * dy.data[i]!),
  ],
  clamp: ({ attrs }, [x]) => [x.data.map((value) => Math.min(attrs.high, Math.max(attrs.low, value)))],
  clampGrad: ({ attrs }, [x, dy]) => [
    x.data.map((value, i) => (value >= attrs.low && value <= attrs.high ? dy.data[i]! : 0)),
  ],
  layerNorm({ attrs }, [x]) {
    const out = new Float64Array(x.data.length);
    eachRow(x, (start, length) => out.set(standardised(x.data, start, length, attrs.eps).hat, start));
    return [out];
  },
  layerNormGrad({ attrs }, [x, dy]) {
    const dx = new Float64Array(x.data.length);
    eachRow(x, (start, length) => {
      const { hat, inverse } = standardised(x.data, start, length, attrs.eps);
      let sum = 0;
      let dot = 0;
      for (let i = 0; i < length; i++) {
        sum += dy.data[start + i]! / length;
        dot += (dy.data[start + i]! * hat[i]!) / length;
      }
      for (let i = 0; i < length; i++) dx[start + i] = inverse * (dy.data[start + i]! - sum - hat[i]! * dot);
    });
    return [dx];
  },
  toFloat: map((x) => x),
  reshape: (_, [x]) => [x.data.slice()],
  reduceSum({ attrs }, [x]) {
    const kept = x.shape.map((size, axis) => (attrs.axes.includes(axis) ? 1 : size));
    const out = new Float64Array(elements(kept));
    broadcastIndex(kept, x.shape).forEach((to, from) => (out[to]! += x.data[from]!));
    return [out];
  },
  softmax(_, [x]) {
    const out = new Float64Array(x.data.length);
    eachRow(x, (start, length) => softmaxRow(x.data, start, length, out));
    return [out];
  },
  softmaxGrad(_, [y, dy]) {
    const out = new Float64Array(y.data.length);
    eachRow(y, (start, length) => {
      let dot = 0;
      for (let i = start; i < start + length; i++) dot += y.data[i]! * dy.data[i]!;
      for (let i = start; i < start + length; i++) out[i] = y.data[i]! * (dy.data[i]! - dot);
    });
    return [out];
  },
  logSumExp(_, [x], [type]) {
    const out = new Float64Array(elements(type.shape));
    eachRow(x, (start, length, row) => (out[row] = logSumExpRow(x.data, start, length)));
    return [out];
  },
  matmul({ attrs }, [a, b], [type]) {
    const out = new Float64Array(elements(type.shape));
    const [[rows, columns], [m, n]] = [matrixSizes(a), matrixSizes(type)];
    matmulInto(out, a.data, b.data, m, attrs.transA ? rows : columns, n, attrs.transA, attrs.transB);
    return [out];
  },
  embedding(_, [table, ids], [type]) {
    const hidden = matrixSizes(type)[1];
    const out = new Float64Array(elements(type.shape));
    ids.data.forEach((id, row) => out.set(table.data.subarray(id * hidden, (id + 1) * hidden), row * hidden));
    return [out];
  },
  segmentIds: ({ attrs }, [ids]) => [segmentIds(attrs, attrs.end, ids.data)],
  segmentPositions: ({ attrs }, [of]) => [segmentPositions(attrs, of.data)],
  embeddingGrad(_, [ids, dy], [type]) {
    const hidden = matrixSizes(type)[1];
    const out = new Float64Array(elements(type.shape));
    ids.data.forEach((id, row) => {
      for (let i = 0; i < hidden; i++) out[id * hidden + i]! += dy.data[row * hidden + i]!;
    });
    return [out];
  },
  rmsNorm({ attrs }, [x, weight]) {
    const out = new Float64Array(x.data.length);
    eachRow(x, (start, length) => {
      const r = rmsScale(x.data, start, length, attrs.eps);
      for (let i = 0; i < length; i++) out[start + i] = x.data[start + i]! * r * weight.data[i]!;
    });
    return [out];
  },
  rmsNormGrad({ attrs }, [x, weight, dy]) {
    const dx = new Float64Array(x.data.length);
    const dweight = new Float64Array(weight.data.length);
    eachRow(x, (start, length) => {
      const r = rmsScale(x.data, start, length, attrs.eps);
      let mean = 0;
      for (let i = 0; i < length; i++) {
        const hat = x.data[start + i]! * r;
        const gradient = dy.data[start + i]!;
        dweight[i]! += gradient * hat;
        mean += (gradient * weight.data[i]! * hat) / length;
      }
      for (let i = 0; i < length; i++) {
        dx[start + i] = r * (dy.data[start + i]! * weight.data[i]! - x.data[start + i]! * r * mean);
      }
    });
    return [dx, dweight];
  },
  rope: ({ attrs }, [x, cos, sin]) => [rope(attrs, x.data, cos.data, sin.data)],
  joinHeads({ attrs: { heads } }, [own, shared], [type]) {
    const [rows, ownSize] = matrixSizes(own);
    const [a, b] = [ownSize / heads, matrixSizes(shared)[1]];
    const out = new Float64Array(elements(type.shape));
    for (let row = 0; row < rows; row++) {
      for (let head = 0; head < heads; head++) {
        const [from, to] = [(row * heads + head) * a, (row * heads + head) * (a + b)];
        out.set(own.data.subarray(from, from + a), to);
        out.set(shared.data.subarray(row * b, (row + 1) * b), to + a);
      }
    }
    return [out];
  },
  joinHeadsGrad({ attrs: { heads } }, [own, shared, dy]) {
    const [rows, ownSize] = matrixSizes(own);
    const [a, b] = [ownSize / heads, matrixSizes(shared)[1]];
    const down = new Float64Array(own.data.length);
    const dshared = new Float64Array(shared.data.length);
    for (let row = 0; row < rows; row++) {
      for (let head = 0; head < heads; head++) {
        const [to, from] = [(row * heads + head) * a, (row * heads + head) * (a + b)];
        down.set(dy.data.subarray(from, from + a), to);
        for (let i = 0; i < b; i++) dshared[row * b + i]! += dy.data[from + a + i]!;
      }
    }
    return [down, dshared];
  },
  attention: ({ attrs }, inputs) => [attention(attrs, inputs)],
  attentionGrad: ({ attrs }, inputs) => attentionGrad(attrs, inputs),
  cachedAttention: ({ attrs }, inputs) => [cachedAttention(attrs, inputs)],
  swiglu: (_, [gate, up]) => [gate.data.map((g, i) => g * sigmoid(g) * up.data[i]!)],
  swigluGrad(_, [gate, up, dh]) {
    const dgate = gate.data.map((g, i) => {
      const s = sigmoid(g);
      return dh.data[i]! * up.data[i]! * s * (1 + g * (1 - s));
    });
    const dup = gate.data.map((g, i) => dh.data[i]! * g * sigmoid(g));
    return [dgate, dup];
  },
  headCrossEntropy({ attrs }, [x, head, targets]) {
    const { logits, vocab, counted } = headLogits(x, head, targets, attrs.softcap);
    let loss = 0;
    targets.data.forEach((target, row) => {
      if (target >= 0) loss += (logSumExpRow(logits, row * vocab, vocab) - logits[row * vocab + target]!) / counted;
    });
    return [Float64Array.of(loss)];
  },
  headCrossEntropyGrad({ attrs }, [x, head, targets, dloss]) {
    const { logits, vocab, counted } = headLogits(x, head, targets, attrs.softcap);
    const dlogits = new Float64Array(logits.length);
    targets.data.forEach((target, row) => {
      if (target < 0) return;
      softmaxRow(logits, row * vocab, vocab, dlogits);
      dlogits[row * vocab + target]! -= 1;
      for (let i = row * vocab; i < (row + 1) * vocab; i++) {
        const slope = attrs.softcap === null ? 1 : 1 - (logits[i]! / attrs.softcap) ** 2;
        dlogits[i]! *= (slope * dloss.data[0]!) / counted;
      }
    });
    const [tokens, hidden] = matrixSizes(x);
    const dx = new Float64Array(x.data.length);
    const dhead = new Float64Array(head.data.length);
    matmulInto(dx, dlogits, head.data, tokens, vocab, hidden, false, false);
    matmulInto(dhead, dlogits, x.data, vocab, tokens, hidden, true, false);
    return [dx, dhead];
  },
  routeTopK: ({ attrs }, [logits, correction]) => routeTopK(logits, correction ?? null, attrs.k, attrs.rule),
  routeTopKGrad: ({ attrs }, [logits, experts, dweights]) => [routeTopKGrad(logits, experts, dweights, attrs.rule)],
  routeWeights: ({ attrs }, [logits, experts]) => [routeWeights(logits, experts, attrs.rule)],
  sinkhorn: ({ attrs }, [logits]) => [sinkhorn(logits, attrs)],
  expertCapacity: ({ attrs }, [weights, experts]) => [expertCapacity(weights.data, experts.data, attrs)],
  expertCounts: ({ attrs }, [experts]) => [expertCounts(experts.data, attrs.experts, attrs.blocks)],
  expertSort: ({ attrs }, [experts]) => expertSort(experts.data, attrs.experts),
  dispatch({ attrs }, [x, order]) {
    const hidden = matrixSizes(x)[1];
    const out = new Float64Array(order.data.length * hidden);
    order.data.forEach((slot, place) => {
      const token = Math.floor(slot / attrs.k);
      out.set(x.data.subarray(token * hidden, (token + 1) * hidden), place * hidden);
    });
    return [out];
  },
  combine({ attrs }, [y, , inverse], [type]) {
    const hidden = matrixSizes(y)[1];
    const out = new Float64Array(elements(type.shape));
    inverse.data.forEach((place, slot) => {
      const token = Math.floor(slot / attrs.k);
      for (let i = 0; i < hidden; i++) out[token * hidden + i]! += y.data[place * hidden + i]!;
    });
    return [out];
  },
  scaleRows(_, [y, weights, order]) {
    const hidden = matrixSizes(y)[1];
    return [y.data.map((value, i) => value * weights.data[order.data[Math.floor(i / hidden)]!]!)];
  },
  scaleRowsGrad(_, [y, weights, order, , dout]) {
    const hidden = matrixSizes(y)[1];
    const slotOf = (i: number): number => order.data[Math.floor(i / hidden)]!;
    const dweights = new Float64Array(weights.data.length);
    dout.data.forEach((value, i) => (dweights[slotOf(i)]! += value * y.data[i]!));
    return [dout.data.map((value, i) => value * weights.data[slotOf(i)]!), dweights];
  },
  groupedMatmul: ({ attrs }, inputs, [type]) => [groupedMatmul(inputs, attrs.transB, type)],
  groupedBias: (_, inputs) => [groupedBias(inputs)],
  groupedBiasGrad: (_, [dy, counts], types) => groupedBiasGrad(dy, counts, types),
  groupedMatmulGradW: (_, [x, dy, counts], types) => groupedMatmulGradW(x, dy, counts, types),
};

function rmsScale(x: Float64Array, start: number, length: number, eps: number): number {
  let square = 0;
  for (let i = start; i < start + length; i++) square += x[i]! * x[i]!;
  return 1 / Math.sqrt(square / length + eps);
}

/** One row minus its mean, over its standard deviation. */
function standardised(
  x: Float64Array,
  start: number,
  length: number,
  eps: number,
): { hat: Float64Array; inverse: number } {
  const row = x.subarray(start, start + length);
  const mean = row.reduce((a, b) => a + b, 0) / length;
  const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / length;
  const inverse = 1 / Math.sqrt(variance + eps);
  return { hat: row.map((value) => (value - mean) * inverse), inverse };
}

function headLogits(
  x: Tensor,
  head: Tensor,
  targets: Tensor,
  softcap: number | null,
): { logits: Float64Array; vocab: number; counted: number } {
  const [tokens, hidden] = matrixSizes(x);
  const [vocab] = matrixSizes(head);
  const logits = new Float64Array(tokens * vocab);
  matmulInto(logits, x.data, head.data, tokens, hidden, vocab, false, true);
  if (softcap !== null) logits.forEach((value, i) => (logits[i] = softcap * Math.tanh(value / softcap)));
  return { logits, vocab, counted: Math.max(1, targets.data.filter((target) => target >= 0).length) };
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
  for (const node of graph.nodes)
    put(
      node.out,
      run(
        node,
        node.in.map(tensorOf),
        node.out.map((id) => typeOf(graph, id)),
      ),
    );
  return graph.outputs.map(tensorOf);
}

/** Evaluates one node; the graph's verification has proved the numbers of inputs and outputs. */
function run(node: Node, inputs: readonly Tensor[], outputs: readonly ValueType[]): Float64Array[] {
  return (evaluators[node.prim] as (...operands: unknown[]) => Float64Array[])(node, inputs, outputs);
}
