/**
 * Random instances of every primitive: builds a graph around one. Typed over all primitives, so a new one without a
 * case does not compile. Sizes and attributes come from fast-check, which tries the smallest (axes of size 1) and
 * largest first and shrinks what fails; numbers from a stream that it seeds. The file is long because every primitive
 * has a case.
 */
import fc from "fast-check";
import { at } from "../../../src/base/at.js";
import { randomStream, type RandomStream } from "../../../src/base/random.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { elements, type Graph, type Prim, type RouteRule, type ValueId } from "../../../src/graph/ir/ir.js";

export interface Case {
  readonly graph: Graph;
  readonly feeds: readonly Float64Array[];
}

class CaseBuilder {
  readonly b = new GraphBuilder();
  readonly feeds: Float64Array[] = [];
  private readonly stream: RandomStream;
  private drawn = 0;

  /** `smooth`: for finite differences, numbers keep away from where a function bends or a choice changes. */
  constructor(
    prim: string,
    readonly draw: fc.GeneratorValue,
    private readonly smooth: boolean,
  ) {
    this.stream = randomStream(draw(fc.nat), prim);
  }

  /** Whole number in [low, high]. */
  pick(low: number, high: number): number {
    return this.draw(fc.integer, { min: low, max: high });
  }

  /** A size of an axis. */
  size(): number {
    return this.pick(1, 5);
  }

  flag(): boolean {
    return this.draw(fc.boolean);
  }

  oneOf<T>(choices: readonly T[]): T {
    return at(choices, this.pick(0, choices.length - 1));
  }

  shape(): number[] {
    return Array.from({ length: this.pick(1, 4) }, () => this.size());
  }

  private numbers(shape: readonly number[]): Float32Array {
    const data = new Float32Array(elements(shape));
    this.stream.normals(data, 4096 * this.drawn++);
    // Steps of 2^-10 between odd multiples of 2^-11: at least so far from 0 and from the limits of clamp.
    return this.smooth ? data.map((x) => (Math.floor(x * 1024) + 0.5) / 1024) : data;
  }

  /** Logits; unless smooth, many of them may be equal. */
  logits(...shape: number[]): ValueId {
    return !this.smooth && this.flag()
      ? this.floats(
          Float32Array.from({ length: elements(shape) }, () => this.pick(0, 2)),
          shape,
        )
      : this.normal(...shape);
  }

  private floats(data: Float32Array, shape: readonly number[]): ValueId {
    this.feeds.push(Float64Array.from(data));
    return this.b.input(`x${this.feeds.length}`, "f32", shape);
  }

  normal(...shape: number[]): ValueId {
    return this.floats(this.numbers(shape), shape);
  }

  /** Fixed numbers that no gradient reaches, such as rope tables. */
  table(...shape: number[]): ValueId {
    return this.b.constant(this.numbers(shape), shape);
  }

  ints(values: ArrayLike<number>, ...shape: number[]): ValueId {
    this.feeds.push(Float64Array.from(values));
    return this.b.input(`n${this.feeds.length}`, "int", shape);
  }

  randomInts(low: number, high: number, ...shape: number[]): ValueId {
    return this.ints(
      Array.from({ length: elements(shape) }, () => this.pick(low, high)),
      ...shape,
    );
  }
}

type Make = (c: CaseBuilder) => readonly ValueId[];

const activationKinds = ["silu", "gelu", "geluTanh", "relu", "relu2", "xieluTail", "softplus"] as const;

/** Two shapes that broadcast: axes of either may be 1 or missing. */
function broadcasting(c: CaseBuilder): [ValueId, ValueId] {
  const whole = c.shape();
  const part = (): number[] => whole.map((size) => (c.pick(0, 3) === 0 ? 1 : size)).slice(c.pick(0, whole.length));
  return [c.normal(...part()), c.normal(...part())];
}

/** Two values of one shape. */
function pair(c: CaseBuilder): [ValueId, ValueId] {
  const shape = c.shape();
  return [c.normal(...shape), c.normal(...shape)];
}

function attentionCase(c: CaseBuilder, prim: "attention" | "attentionGrad"): readonly ValueId[] {
  const [batch, sequence, kvHeads, group, half] = [
    c.pick(1, 2),
    c.pick(1, 6),
    c.pick(1, 2),
    c.pick(1, 3),
    c.pick(1, 3),
  ];
  const headDim = 2 * half;
  const valueDim = c.pick(1, 4);
  const rows = batch * sequence;
  // Also as long as the sequence and longer.
  const window = c.flag() ? null : c.pick(1, sequence + 2);
  const q = c.normal(rows, kvHeads * group * headDim);
  const k = c.normal(rows, kvHeads * headDim);
  const v = c.normal(rows, kvHeads * valueDim);
  const softcap = c.flag() ? null : 1.5;
  const sinks = c.flag();
  const segmentIds = c.flag();
  const attrs = {
    batch,
    sequence,
    heads: kvHeads * group,
    kvHeads,
    headDim,
    valueDim,
    scale: 0.7,
    window,
    softcap,
    sinks,
    segmentIds,
  };
  const inputs = [
    q,
    k,
    v,
    ...(sinks ? [c.normal(kvHeads * group)] : []),
    ...(segmentIds ? [segmentIdsOf(c, batch, sequence)] : []),
  ];
  if (prim === "attention") return c.b.apply("attention", inputs, attrs);
  return c.b.apply("attentionGrad", [...inputs, c.normal(rows, kvHeads * group * valueDim)], attrs);
}

/** Documents of random lengths in each row. */
function segmentIdsOf(c: CaseBuilder, batch: number, sequence: number): ValueId {
  const starts = Array.from({ length: batch * sequence }, (_, i) => (i % sequence === 0 ? -1 : c.pick(0, 1)));
  let document = 0;
  return c.ints(
    starts.map((start) => (document = start < 0 ? 0 : document + start)),
    batch * sequence,
  );
}

/** Where the text of each new token begins among those of its row. */
function startsOf(c: CaseBuilder, batch: number, sequence: number): ValueId {
  let start = 0;
  return c.ints(
    Array.from({ length: batch * sequence }, (_, i) => {
      const place = i % sequence;
      if (place === 0 || c.flag()) start = place;
      return start;
    }),
    batch * sequence,
  );
}

function cachedCase(c: CaseBuilder): readonly ValueId[] {
  const [batch, sequence, kvHeads, group, headDim, valueDim] = [
    c.pick(1, 3),
    c.pick(1, 5),
    c.pick(1, 2),
    c.pick(1, 3),
    c.pick(1, 4),
    c.pick(1, 4),
  ];
  const capacity = c.pick(1, 5);
  const heads = kvHeads * group;
  const [sinks, branches] = [c.flag(), c.flag()];
  const inputs = [
    c.normal(batch * sequence, heads * headDim),
    c.normal(batch * sequence, kvHeads * headDim),
    c.normal(batch * sequence, kvHeads * valueDim),
    c.normal(batch, kvHeads, capacity, headDim),
    c.normal(batch, kvHeads, capacity, valueDim),
    c.ints(
      Array.from({ length: batch }, () => c.pick(0, capacity)),
      batch,
    ),
    ...(sinks ? [c.normal(heads)] : []),
    ...(branches ? [startsOf(c, batch, sequence)] : []),
  ];
  const window = c.flag() ? null : c.pick(1, capacity + sequence);
  return c.b.apply("cachedAttention", inputs, {
    branches,
    batch,
    sequence,
    heads,
    kvHeads,
    headDim,
    valueDim,
    capacity,
    window,
    sinks,
    scale: 0.7,
    softcap: c.flag() ? null : 1.5,
  });
}

/** Experts of N tokens, k each, all different; where all tokens choose alike, other experts are empty. */
function choices(c: CaseBuilder, tokens: number, experts: number, k: number): number[] {
  const choice = (): number[] =>
    c.draw(
      fc.shuffledSubarray,
      Array.from({ length: experts }, (_, e) => e),
      { minLength: k, maxLength: k },
    );
  const common = c.flag() ? choice() : null;
  return Array.from({ length: tokens }, () => common ?? choice()).flat();
}

/** Routed operands: N tokens, top k of E experts, some choices dropped. */
function routed(c: CaseBuilder): {
  k: number;
  experts: number;
  tokens: number;
  order: ValueId;
  inverse: ValueId;
  counts: ValueId;
} {
  const [tokens, experts] = [c.pick(1, 6), c.pick(1, 5)];
  const k = c.pick(1, experts);
  const drops = c.flag();
  const chosen = choices(c, tokens, experts, k).map((expert) => (drops && c.pick(0, 2) === 0 ? experts : expert));
  const [order, inverse, counts] = c.b.apply("expertSort", [c.ints(chosen, tokens, k)], { experts, drops }) as [
    ValueId,
    ValueId,
    ValueId,
  ];
  return { k, experts, tokens, order, inverse, counts };
}

/** Every kind of routing: scores, renormalisation with and without a floor, groups, correction, scaling. */
function routeCase(c: CaseBuilder): { readonly k: number; readonly rule: RouteRule; readonly experts: number } {
  if (c.pick(0, 4) === 0) {
    const rule = {
      score: "sparsemixer",
      jitter: c.pick(0, 2) * 0.2,
      renormalise: null,
      groups: null,
      corrected: false,
      scaling: 1,
    } as const;
    return { k: 2, experts: c.pick(2, 6), rule };
  }
  const count = c.pick(1, 3);
  const size = c.pick(count === 1 ? 1 : 2, 4);
  const openGroups = c.pick(1, count);
  const rule: RouteRule = {
    score: c.flag() ? "softmax" : "sigmoid",
    jitter: 0,
    renormalise: at(
      [null, { plus: 0, atLeast: 0 }, { plus: 0.3, atLeast: 0 }, { plus: 0, atLeast: 0.6 }],
      c.pick(0, 3),
    ),
    groups: count === 1 ? null : { count, kept: openGroups },
    corrected: c.flag(),
    scaling: c.flag() ? 1 : 2.5,
  };
  return { k: c.pick(1, count === 1 ? size : openGroups * size), rule, experts: count * size };
}

/** Hidden states, head and targets, some or all of which are ignored. */
function headCase(c: CaseBuilder): [ValueId, ValueId, ValueId] {
  const [tokens, hidden, vocab] = [c.size(), c.size(), c.pick(1, 7)];
  return [c.normal(tokens, hidden), c.normal(vocab, hidden), c.randomInts(c.oneOf([0, -1, -100]), vocab - 1, tokens)];
}

const softcap = (c: CaseBuilder): { softcap: number | null } => ({ softcap: c.flag() ? null : 1.5 });

export const cases: { readonly [P in Prim]: Make } = {
  constant: (c) => {
    const shape = c.shape();
    return [c.b.add(c.b.constant([2.5], shape), c.table(...shape))];
  },
  add: (c) => [c.b.add(...broadcasting(c))],
  sub: (c) => [c.b.op("sub", broadcasting(c), {})],
  mul: (c) => [c.b.mul(...broadcasting(c))],
  scale: (c) => [c.b.scale(c.normal(...c.shape()), c.oneOf([-1.5, 0, 3]))],
  sigmoid: (c) => [c.b.op("sigmoid", [c.normal(...c.shape())], {})],
  tanh: (c) => [c.b.op("tanh", [c.normal(...c.shape())], {})],
  activation: (c) => activationKinds.map((kind) => c.b.op("activation", [c.normal(...c.shape())], { kind })),
  activationGrad: (c) => activationKinds.map((kind) => c.b.op("activationGrad", pair(c), { kind })),
  clamp: (c) => [c.b.op("clamp", [c.normal(...c.shape())], { low: -0.5, high: 0.7 })],
  clampGrad: (c) => [c.b.op("clampGrad", pair(c), { low: -0.5, high: 0.7 })],
  layerNorm: (c) => [c.b.op("layerNorm", [c.normal(...c.shape())], { eps: 1e-3 })],
  layerNormGrad: (c) => [c.b.op("layerNormGrad", pair(c), { eps: 1e-3 })],
  toFloat: (c) => [c.b.op("toFloat", [c.randomInts(0, 9, ...c.shape())], {})],
  reshape: (c) => {
    const shape = c.shape();
    return [c.b.reshape(c.normal(...shape), c.oneOf([[elements(shape)], [...shape].reverse(), [1, ...shape, 1]]))];
  },
  reduceSum: (c) => {
    const shape = c.shape();
    const axes = c.draw(
      fc.subarray,
      shape.map((_, axis) => axis),
    );
    return [c.b.op("reduceSum", [c.normal(...shape)], { axes, keepDims: c.flag() })];
  },
  softmax: (c) => [c.b.op("softmax", [c.normal(...c.shape())], {})],
  softmaxGrad: (c) => {
    const [x, dy] = pair(c);
    return [c.b.op("softmaxGrad", [c.b.op("softmax", [x], {}), dy], {})];
  },
  logSumExp: (c) => [c.b.op("logSumExp", [c.normal(...c.shape())], {})],
  matmul: (c) => {
    const [m, k, n, transA, transB] = [c.pick(1, 4), c.pick(1, 4), c.pick(1, 4), c.flag(), c.flag()];
    return [
      c.b.op("matmul", [transA ? c.normal(k, m) : c.normal(m, k), transB ? c.normal(n, k) : c.normal(k, n)], {
        transA,
        transB,
      }),
    ];
  },
  embedding: (c) => [c.b.op("embedding", [c.normal(3, c.size()), c.randomInts(0, 2, c.pick(1, 7))], {})],
  segmentIds: (c) => {
    const [batch, sequence] = [c.size(), c.size()];
    return [c.b.op("segmentIds", [c.randomInts(0, 3, batch * sequence)], { batch, sequence, end: 2 })];
  },
  segmentPositions: (c) => {
    const [batch, sequence] = [c.size(), c.size()];
    return [c.b.op("segmentPositions", [segmentIdsOf(c, batch, sequence)], { batch, sequence })];
  },
  embeddingGrad: (c) => {
    const tokens = c.pick(1, 7);
    return [c.b.op("embeddingGrad", [c.randomInts(0, 2, tokens), c.normal(tokens, c.size())], { vocab: 3 })];
  },
  rmsNorm: (c) => {
    const shape = c.shape();
    return [c.b.op("rmsNorm", [c.normal(...shape), c.normal(at(shape, shape.length - 1))], { eps: 1e-3 })];
  },
  rmsNormGrad: (c) => {
    const [x, dy] = pair(c);
    return c.b.apply("rmsNormGrad", [x, c.normal(c.b.shape(x).at(-1)!), dy], { eps: 1e-3 });
  },
  rope: (c) => {
    const rotary = 2 * c.pick(1, 3);
    const offset = 2 * c.pick(0, 1);
    const attrs = {
      batch: c.pick(1, 2),
      sequence: c.pick(1, 4),
      heads: c.pick(1, 3),
      headDim: offset + rotary + 2 * c.pick(0, 1),
      offset,
      rotary,
      interleaved: c.flag(),
      inverse: c.flag(),
    };
    const table = [attrs.sequence, rotary / 2] as const;
    return [
      c.b.op(
        "rope",
        [c.normal(attrs.batch * attrs.sequence, attrs.heads * attrs.headDim), c.table(...table), c.table(...table)],
        attrs,
      ),
    ];
  },
  joinHeads: (c) => {
    const [rows, heads] = [c.size(), c.pick(1, 3)];
    return [c.b.op("joinHeads", [c.normal(rows, heads * c.pick(1, 3)), c.normal(rows, c.pick(1, 2))], { heads })];
  },
  joinHeadsGrad: (c) => {
    const [rows, heads, a, b] = [c.size(), c.pick(1, 3), c.pick(1, 3), c.pick(1, 2)];
    return c.b.apply("joinHeadsGrad", [c.normal(rows, heads * a), c.normal(rows, b), c.normal(rows, heads * (a + b))], {
      heads,
    });
  },
  attention: (c) => attentionCase(c, "attention"),
  attentionGrad: (c) => attentionCase(c, "attentionGrad"),
  cachedAttention: cachedCase,
  swiglu: (c) => [c.b.op("swiglu", pair(c), {})],
  swigluGrad: (c) => {
    const [gate, up] = pair(c);
    return c.b.apply("swigluGrad", [gate, up, c.normal(...c.b.shape(gate))], {});
  },
  headCrossEntropy: (c) => [c.b.op("headCrossEntropy", headCase(c), softcap(c))],
  headCrossEntropyGrad: (c) => c.b.apply("headCrossEntropyGrad", [...headCase(c), c.normal()], softcap(c)),
  headScores: (c) => {
    const [tokens, hidden, vocab] = [c.size(), c.size(), c.pick(1, 7)];
    const bias = c.flag();
    const inputs = [c.normal(tokens, hidden), c.normal(vocab, hidden), c.randomInts(0, vocab - 1, tokens)];
    return [c.b.op("headScores", [...inputs, ...(bias ? [c.normal(vocab)] : [])], { ...softcap(c), bias })];
  },
  routeTopK: (c) => {
    const { k, rule, experts } = routeCase(c);
    return c.b.apply("routeTopK", [c.logits(c.size(), experts), ...(rule.corrected ? [c.table(experts)] : [])], {
      k,
      rule,
    });
  },
  routeTopKGrad: (c) => {
    const { k, rule, experts } = routeCase(c);
    const tokens = c.size();
    const logits = c.logits(tokens, experts);
    const [, chosen] = c.b.apply("routeTopK", [logits, ...(rule.corrected ? [c.table(experts)] : [])], { k, rule });
    return [c.b.op("routeTopKGrad", [logits, chosen, c.normal(tokens, k)], { rule })];
  },
  routeWeights: (c) => {
    const { k, rule, experts } = routeCase(c);
    const plain = { ...rule, score: rule.score === "sparsemixer" ? "softmax" : rule.score } as const;
    return [c.b.op("routeWeights", [c.normal(4, experts), c.ints(choices(c, 4, experts, k), 4, k)], { rule: plain })];
  },
  sinkhorn: (c) => [c.b.op("sinkhorn", [c.normal(c.size(), c.size())], { iterations: c.pick(1, 12), tolerance: 1e-4 })],
  expertCapacity: (c) => {
    const [tokens, experts] = [c.pick(1, 6), c.pick(2, 5)];
    const k = c.pick(1, experts);
    const by = c.flag() ? "weight" : "position";
    // Few different weights, so that there are ties.
    const weights = c.b.constant(
      Array.from({ length: tokens * k }, () => c.pick(1, 3) / 4),
      [tokens, k],
    );
    return [
      c.b.op("expertCapacity", [weights, c.ints(choices(c, tokens, experts, k), tokens, k)], {
        experts,
        rows: c.pick(1, tokens),
        by,
      }),
    ];
  },
  expertCounts: (c) => {
    const [blocks, size, experts] = [c.pick(1, 3), c.pick(1, 3), c.pick(2, 4)];
    const k = c.pick(1, experts);
    return [
      c.b.op("expertCounts", [c.ints(choices(c, blocks * size, experts, k), blocks * size, k)], { experts, blocks }),
    ];
  },
  expertSort: (c) => {
    const { order, inverse, counts } = routed(c);
    return [order, inverse, counts];
  },
  dispatch: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("dispatch", [c.normal(tokens, c.size()), order, inverse], { k })];
  },
  combine: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("combine", [c.normal(tokens * k, c.size()), order, inverse], { k })];
  },
  scaleRows: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    return [c.b.op("scaleRows", [c.normal(tokens * k, c.size()), c.normal(tokens, k), order, inverse], {})];
  },
  scaleRowsGrad: (c) => {
    const { order, inverse, k, tokens } = routed(c);
    const width = c.size();
    return c.b.apply(
      "scaleRowsGrad",
      [c.normal(tokens * k, width), c.normal(tokens, k), order, inverse, c.normal(tokens * k, width)],
      {},
    );
  },
  groupedMatmul: (c) => {
    const { counts, k, tokens, experts } = routed(c);
    const [inner, outer, transB] = [c.size(), c.size(), c.flag()];
    const weights = Array.from({ length: experts }, () => (transB ? c.normal(outer, inner) : c.normal(inner, outer)));
    return [c.b.op("groupedMatmul", [c.normal(tokens * k, inner), counts, ...weights], { transB })];
  },
  groupedBias: (c) => {
    const { counts, experts, k, tokens } = routed(c);
    const width = c.size();
    return [
      c.b.op(
        "groupedBias",
        [c.normal(tokens * k, width), counts, ...Array.from({ length: experts }, () => c.normal(width))],
        {},
      ),
    ];
  },
  groupedBiasGrad: (c) => {
    const { counts, k, tokens } = routed(c);
    return c.b.apply("groupedBiasGrad", [c.normal(tokens * k, c.size()), counts], {});
  },
  groupedMatmulGradW: (c) => {
    const { counts, k, tokens } = routed(c);
    return c.b.apply(
      "groupedMatmulGradW",
      [c.normal(tokens * k, c.size()), c.normal(tokens * k, c.size()), counts],
      {},
    );
  },
};

export function makeCase(prim: Prim, draw: fc.GeneratorValue, { smooth = false } = {}): Case {
  const c = new CaseBuilder(prim, draw, smooth);
  const outputs = cases[prim](c);
  return { graph: c.b.finish(outputs), feeds: c.feeds };
}
