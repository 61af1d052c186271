/**
 * One small random instance of every primitive: builds a graph around it. Typed over all primitives, so a new one without a case does
 * not compile. Shapes vary with the seed.
 */
import { randomStream, type RandomStream } from "../../src/base/random.js";
import { GraphBuilder } from "../../src/graph/builder.js";
import { elements, type Graph, type Prim, type RouteRule, type ValueId } from "../../src/graph/ir.js";

export interface Case {
  readonly graph: Graph;
  readonly feeds: readonly Float64Array[];
}

class CaseBuilder {
  readonly b = new GraphBuilder();
  readonly feeds: Float64Array[] = [];
  private readonly stream: RandomStream;
  private drawn = 0;

  constructor(prim: string, seed: number) {
    this.stream = randomStream(seed, prim);
  }

  /** Whole number in [low, high]. */
  pick(low: number, high: number): number {
    return low + Math.floor(this.stream.uniformAt(1_000_000 + this.drawn++) * (high - low + 1));
  }

  normal(...shape: number[]): ValueId {
    const data = new Float32Array(elements(shape));
    this.stream.normals(data, 4096 * this.drawn++);
    this.feeds.push(Float64Array.from(data));
    return this.b.input(`x${this.feeds.length}`, "f32", shape);
  }

  /** Fixed numbers that no gradient reaches, such as rope tables. */
  table(...shape: number[]): ValueId {
    const data = new Float32Array(elements(shape));
    this.stream.normals(data, 4096 * this.drawn++);
    return this.b.constant(data, shape);
  }

  ints(values: ArrayLike<number>, ...shape: number[]): ValueId {
    this.feeds.push(Float64Array.from(values));
    return this.b.input(`n${this.feeds.length}`, "int", shape);
  }

  randomInts(low: number, high: number, ...shape: number[]): ValueId {
    return this.ints(Array.from({ length: elements(shape) }, () => this.pick(low, high)), ...shape);
  }
}

type Make = (c: CaseBuilder) => readonly ValueId[];

const activationKinds = ["silu", "gelu", "geluTanh", "relu", "relu2"] as const;

const matrix = (c: CaseBuilder): ValueId => c.normal(c.pick(1, 5), c.pick(1, 6));

function attentionCase(c: CaseBuilder, prim: "attention" | "attentionGrad"): readonly ValueId[] {
  const [batch, sequence, kvHeads, group, half] = [c.pick(1, 2), c.pick(1, 6), c.pick(1, 2), c.pick(1, 3), c.pick(1, 3)];
  const headDim = 2 * half;
  const valueDim = c.pick(1, 4);
  const rows = batch * sequence;
  const window = c.pick(0, 1) === 0 ? null : c.pick(1, sequence);
  const q = c.normal(rows, kvHeads * group * headDim);
  const k = c.normal(rows, kvHeads * headDim);
  const v = c.normal(rows, kvHeads * valueDim);
  const softcap = c.pick(0, 1) === 0 ? null : 1.5;
  const sinks = c.pick(0, 1) === 1;
  const documents = c.pick(0, 1) === 1;
  const attrs = { batch, sequence, heads: kvHeads * group, kvHeads, headDim, valueDim, scale: 0.7, window, softcap, sinks, documents };
  const inputs = [q, k, v, ...(sinks ? [c.normal(kvHeads * group)] : []), ...(documents ? [documentsOf(c, batch, sequence)] : [])];
  if (prim === "attention") return c.b.apply("attention", inputs, attrs);
  return c.b.apply("attentionGrad", [...inputs, c.normal(rows, kvHeads * group * valueDim)], attrs);
}

/** Documents of random lengths in each row. */
function documentsOf(c: CaseBuilder, batch: number, sequence: number): ValueId {
  const starts = Array.from({ length: batch * sequence }, (_, i) => (i % sequence === 0 ? -1 : c.pick(0, 1)));
  let document = 0;
  return c.ints(starts.map((start) => (document = start < 0 ? 0 : document + start)), batch * sequence);
}

function cachedCase(c: CaseBuilder): readonly ValueId[] {
  const [batch, sequence, kvHeads, group, headDim, valueDim] = [c.pick(1, 3), c.pick(1, 3), c.pick(1, 2), c.pick(1, 3), c.pick(1, 4), c.pick(1, 4)];
  const capacity = c.pick(1, 5);
  const heads = kvHeads * group;
  const sinks = c.pick(0, 1) === 1;
  const inputs = [
    c.normal(batch * sequence, heads * headDim), c.normal(batch * sequence, kvHeads * headDim), c.normal(batch * sequence, kvHeads * valueDim),
    c.normal(batch, kvHeads, capacity, headDim), c.normal(batch, kvHeads, capacity, valueDim),
    c.ints(Array.from({ length: batch }, () => c.pick(0, capacity)), batch), ...(sinks ? [c.normal(heads)] : []),
  ];
  const window = c.pick(0, 1) === 0 ? null : c.pick(1, capacity + sequence);
  return c.b.apply("cachedAttention", inputs, {
    batch, sequence, heads, kvHeads, headDim, valueDim, capacity, window, sinks, scale: 0.7, softcap: c.pick(0, 1) === 0 ? null : 1.5,
  });
}

/** Experts of N tokens, k each, all different. */
function choices(c: CaseBuilder, tokens: number, experts: number, k: number): number[] {
  return Array.from({ length: tokens }, () => c.pick(0, experts - 1)).flatMap((first) => Array.from({ length: k }, (_, i) => (first + i) % experts));
}

/** Routed operands: N tokens, top k of E experts, some experts empty, some choices dropped. */
function routed(c: CaseBuilder): { k: number; experts: number; tokens: number; order: ValueId; inverse: ValueId; counts: ValueId } {
  const [tokens, experts] = [c.pick(1, 6), c.pick(2, 5)];
  const k = c.pick(1, experts);
  const drops = c.pick(0, 1) === 1;
  const chosen = choices(c, tokens, experts, k).map((expert) => (drops && c.pick(0, 2) === 0 ? experts : expert));
  const [order, inverse, counts] = c.b.apply("expertSort", [c.ints(chosen, tokens, k)], { experts, drops }) as [ValueId, ValueId, ValueId];
  return { k, experts, tokens, order, inverse, counts };
}

/** Every kind of routing: scores, renormalisation with and without a floor, groups, correction, scaling. */
function routeCase(c: CaseBuilder): { readonly k: number; readonly rule: RouteRule; readonly experts: number } {
  if (c.pick(0, 4) === 0) {
    const rule = { score: "sparsemixer", jitter: c.pick(0, 2) * 0.2, renormalise: null, groups: null, corrected: false, scaling: 1 } as const;
    return { k: 2, experts: 5, rule };
  }
  const count = c.pick(1, 3);
  const size = c.pick(2, 3);
  const kept = c.pick(1, count);
  const rule: RouteRule = {
    score: c.pick(0, 1) === 0 ? "softmax" : "sigmoid",
    jitter: 0,
    renormalise: [null, { plus: 0, atLeast: 0 }, { plus: 0.3, atLeast: 0 }, { plus: 0, atLeast: 0.6 }][c.pick(0, 3)]!,
    groups: count === 1 ? null : { count, kept },
    corrected: c.pick(0, 1) === 1,
    scaling: c.pick(0, 1) === 0 ? 1 : 2.5,
  };
  return { k: c.pick(1, count === 1 ? size : kept * size), rule, experts: count * size };
}

const targetsOf = (c: CaseBuilder, tokens: number, vocab: number): ValueId =>
  c.ints(Array.from({ length: tokens }, (_, i) => (i % 3 === 2 ? -1 : c.pick(0, vocab - 1))), tokens);

export const cases: { readonly [P in Prim]: Make } = {
  constant: (c) => [c.b.add(c.b.constant([2.5], [2, 3]), c.b.constant([1, 2, 3, 4, 5, 6], [2, 3]))],
  add: (c) => [c.b.add(c.normal(2, 3), c.normal(3))],
  sub: (c) => [c.b.op("sub", [c.normal(2, 1), c.normal(2, 3)], {})],
  mul: (c) => [c.b.mul(c.normal(2, 1, 3), c.normal(4, 1))],
  scale: (c) => [c.b.scale(matrix(c), -1.5)],
  sigmoid: (c) => [c.b.op("sigmoid", [matrix(c)], {})],
  tanh: (c) => [c.b.op("tanh", [matrix(c)], {})],
  activation: (c) => activationKinds.map((kind) => c.b.op("activation", [matrix(c)], { kind })),
  activationGrad: (c) => activationKinds.map((kind) => c.b.op("activationGrad", [c.normal(3, 4), c.normal(3, 4)], { kind })),
  clamp: (c) => [c.b.op("clamp", [c.normal(3, 4)], { low: -0.5, high: 0.7 })],
  clampGrad: (c) => [c.b.op("clampGrad", [c.normal(3, 4), c.normal(3, 4)], { low: -0.5, high: 0.7 })],
  layerNorm: (c) => [c.b.op("layerNorm", [c.normal(2, 3, 4)], { eps: 1e-3 })],
  layerNormGrad: (c) => [c.b.op("layerNormGrad", [c.normal(5, 4), c.normal(5, 4)], { eps: 1e-3 })],
  toFloat: (c) => [c.b.op("toFloat", [c.randomInts(0, 9, 4)], {})],
  reshape: (c) => [c.b.reshape(c.normal(2, 6), [3, 4])],
  reduceSum: (c) => [c.b.op("reduceSum", [c.normal(2, 3, 4)], { axes: [0, 2], keepDims: c.pick(0, 1) === 0 })],
  softmax: (c) => [c.b.op("softmax", [matrix(c)], {})],
  softmaxGrad: (c) => {
    const x = c.normal(3, 4);
    return [c.b.op("softmaxGrad", [c.b.op("softmax", [x], {}), c.normal(3, 4)], {})];
  },
  logSumExp: (c) => [c.b.op("logSumExp", [matrix(c)], {})],
  matmul: (c) => {
    const [m, k, n, transA, transB] = [c.pick(1, 4), c.pick(1, 4), c.pick(1, 4), c.pick(0, 1) === 1, c.pick(0, 1) === 1];
    return [c.b.op("matmul", [transA ? c.normal(k, m) : c.normal(m, k), transB ? c.normal(n, k) : c.normal(k, n)], { transA, transB })];
  },
  embedding: (c) => [c.b.op("embedding", [c.normal(5, 3), c.randomInts(0, 4, 7)], {})],
  documents: (c) => [c.b.op("documents", [c.randomInts(0, 3, 12)], { batch: 3, sequence: 4, end: 2 })],
  documentPositions: (c) => [c.b.op("documentPositions", [documentsOf(c, 3, 4)], { batch: 3, sequence: 4 })],
  embeddingGrad: (c) => [c.b.op("embeddingGrad", [c.randomInts(0, 4, 7), c.normal(7, 3)], { vocab: 5 })],
  rmsNorm: (c) => [c.b.op("rmsNorm", [c.normal(2, 3, 4), c.normal(4)], { eps: 1e-3 })],
  rmsNormGrad: (c) => c.b.apply("rmsNormGrad", [c.normal(5, 4), c.normal(4), c.normal(5, 4)], { eps: 1e-3 }),
  rope: (c) => {
    const rotary = 2 * c.pick(1, 3);
    const offset = 2 * c.pick(0, 1);
    const attrs = {
      batch: 2, sequence: c.pick(1, 4), heads: c.pick(1, 3), headDim: offset + rotary + 2 * c.pick(0, 1), offset, rotary,
      interleaved: c.pick(0, 1) === 1, inverse: c.pick(0, 1) === 1,
    };
    const table = [attrs.sequence, rotary / 2] as const;
    return [c.b.op("rope", [c.normal(2 * attrs.sequence, attrs.heads * attrs.headDim), c.table(...table), c.table(...table)], attrs)];
  },
  joinHeads: (c) => {
    const heads = c.pick(1, 3);
    return [c.b.op("joinHeads", [c.normal(4, heads * c.pick(1, 3)), c.normal(4, c.pick(1, 2))], { heads })];
  },
  joinHeadsGrad: (c) => {
    const [heads, a, b] = [c.pick(1, 3), c.pick(1, 3), c.pick(1, 2)];
    return c.b.apply("joinHeadsGrad", [c.normal(4, heads * a), c.normal(4, b), c.normal(4, heads * (a + b))], { heads });
  },
  attention: (c) => attentionCase(c, "attention"),
  attentionGrad: (c) => attentionCase(c, "attentionGrad"),
  cachedAttention: cachedCase,
  swiglu: (c) => [c.b.op("swiglu", [c.normal(3, 4), c.normal(3, 4)], {})],
  swigluGrad: (c) => c.b.apply("swigluGrad", [c.normal(3, 4), c.normal(3, 4), c.normal(3, 4)], {}),
  headCrossEntropy: (c) => [c.b.op("headCrossEntropy", [c.normal(6, 3), c.normal(5, 3), targetsOf(c, 6, 5)], { softcap: c.pick(0, 1) === 0 ? null : 1.5 })],
  headCrossEntropyGrad: (c) => c.b.apply("headCrossEntropyGrad", [c.normal(6, 3), c.normal(5, 3), targetsOf(c, 6, 5), c.normal()], { softcap: c.pick(0, 1) === 0 ? null : 1.5 }),
  routeTopK: (c) => {
    const { k, rule, experts } = routeCase(c);
    return c.b.apply("routeTopK", [c.normal(4, experts), ...(rule.corrected ? [c.table(experts)] : [])], { k, rule });
  },
  routeTopKGrad: (c) => {
    const { k, rule, experts } = routeCase(c);
    const logits = c.normal(4, experts);
    const [, chosen] = c.b.apply("routeTopK", [logits, ...(rule.corrected ? [c.table(experts)] : [])], { k, rule });
    return [c.b.op("routeTopKGrad", [logits, chosen!, c.normal(4, k)], { rule })];
  },
  routeWeights: (c) => {
    const { k, rule, experts } = routeCase(c);
    const plain = { ...rule, score: rule.score === "sparsemixer" ? "softmax" : rule.score } as const;
    return [c.b.op("routeWeights", [c.normal(4, experts), c.ints(choices(c, 4, experts, k), 4, k)], { rule: plain })];
  },
  sinkhorn: (c) => [c.b.op("sinkhorn", [matrix(c)], { iterations: c.pick(1, 12), tolerance: 1e-4 })],
  expertCapacity: (c) => {
    const [tokens, experts] = [c.pick(1, 6), c.pick(2, 5)];
    const k = c.pick(1, experts);
    const by = c.pick(0, 1) === 0 ? "weight" : "position";
    // Few different weights, so that there are ties.
    const weights = c.b.constant(Array.from({ length: tokens * k }, () => c.pick(1, 3) / 4), [tokens, k]);
    return [c.b.op("expertCapacity", [weights, c.ints(choices(c, tokens, experts, k), tokens, k)], { experts, rows: c.pick(1, tokens), by })];
  },
  expertCounts: (c) => {
    const [pieces, size, experts] = [c.pick(1, 3), c.pick(1, 3), c.pick(2, 4)];
    const k = c.pick(1, experts);
    return [c.b.op("expertCounts", [c.ints(choices(c, pieces * size, experts, k), pieces * size, k)], { experts, pieces })];
  },
  expertSort: (c) => {
    const { order, inverse, counts } = routed(c);
    return [order, inverse, counts];
  },
  dispatch: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("dispatch", [c.normal(tokens, 3), order, inverse], { k })];
  },
  combine: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("combine", [c.normal(tokens * k, 3), order, inverse], { k })];
  },
  weigh: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("weigh", [c.normal(tokens * k, 3), c.normal(tokens, k), order, inverse], {})];
  },
  weighGrad: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return c.b.apply("weighGrad", [c.normal(tokens * k, 3), c.normal(tokens, k), order, inverse, c.normal(tokens * k, 3)], {});
  },
  groupedMatmul: (c) => {
    const { counts, k, tokens, experts } = routed(c);
    const transB = c.pick(0, 1) === 1;
    const weights = Array.from({ length: experts }, () => (transB ? c.normal(2, 3) : c.normal(3, 2)));
    return [c.b.op("groupedMatmul", [c.normal(tokens * k, 3), counts, ...weights], { transB })];
  },
  groupedBias: (c) => {
    const { counts, experts, k, tokens } = routed(c);
    return [c.b.op("groupedBias", [c.normal(tokens * k, 3), counts, ...Array.from({ length: experts }, () => c.normal(3))], {})];
  },
  groupedBiasGrad: (c) => {
    const { counts, k, tokens } = routed(c);
    return c.b.apply("groupedBiasGrad", [c.normal(tokens * k, 3), counts], {});
  },
  groupedMatmulGradW: (c) => {
    const { counts, k, tokens } = routed(c);
    return c.b.apply("groupedMatmulGradW", [c.normal(tokens * k, 3), c.normal(tokens * k, 2), counts], {});
  },
};

export function makeCase(prim: Prim, seed: number): Case {
  const c = new CaseBuilder(prim, seed);
  const outputs = cases[prim](c);
  return { graph: c.b.finish(outputs), feeds: c.feeds };
}
