/** Primitives on shapes that fill more than one tile, block or pass of their kernels. */
import { describe, expect, it } from "vitest";
import { randomStream } from "../../../src/base/random.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { elements, type Graph, type ValueId } from "../../../src/graph/ir/ir.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { lowerToLaunches } from "../../../src/engine/cuda/lowering/lower.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { cudaMachine } from "../../support/cuda.js";
import { oldest, runOnCuda } from "./run-list.js";
import type { CudaLowerOptions } from "../../../src/engine/cuda/lowering/options.js";

class Case {
  readonly b = new GraphBuilder();
  readonly feeds: Float64Array[] = [];
  private readonly stream = randomStream(5, "large");

  normal(...shape: number[]): ValueId {
    const data = new Float32Array(elements(shape));
    this.stream.normals(data, 1e6 * this.feeds.length);
    this.feeds.push(Float64Array.from(data));
    return this.b.input(`x${this.feeds.length}`, "f32", shape);
  }

  ints(most: number, ...shape: number[]): ValueId {
    const data = new Float32Array(elements(shape));
    this.stream.uniforms(data, 0, most);
    return this.given(
      Float64Array.from(data, (x) => Math.min(most - 1, Math.floor(x))),
      ...shape,
    );
  }

  given(data: Float64Array, ...shape: number[]): ValueId {
    this.feeds.push(data);
    return this.b.input(`n${this.feeds.length}`, "int", shape);
  }
}

const attention = {
  batch: 2,
  sequence: 100,
  heads: 4,
  kvHeads: 2,
  headDim: 40,
  valueDim: 24,
  scale: 0.2,
  window: null as number | null,
  softcap: null as number | null,
  sinks: false,
  segmentIds: false,
};
const attend = (c: Case, attrs: typeof attention): ValueId[] => {
  const { batch, sequence, heads, kvHeads, headDim, valueDim } = attrs;
  const rows = batch * sequence;
  const documents = Float64Array.from({ length: rows }, (_, i) => Math.floor((i % sequence) / 41));
  const inputs = [
    c.normal(rows, heads * headDim),
    c.normal(rows, kvHeads * headDim),
    c.normal(rows, kvHeads * valueDim),
    ...(attrs.sinks ? [c.normal(heads)] : []),
    ...(attrs.segmentIds ? [c.given(documents, rows)] : []),
  ];
  const [out] = c.b.apply("attention", inputs, attrs);
  return [out, ...c.b.apply("attentionGrad", [...inputs, c.normal(rows, heads * valueDim)], attrs)];
};

/** So many new tokens in three rows: behind a cache that is full, one of 33 keys, and none; also as several texts. */
const manyBehind = (c: Case, sequence: number): ValueId[] => {
  const [batch, heads, kvHeads, headDim, valueDim, capacity] = [3, 4, 2, 64, 40, 70];
  const rows = batch * sequence;
  const lengths = c.given(Float64Array.of(capacity, 33, 0), batch);
  const starts = c.given(
    Float64Array.from({ length: rows }, (_, i) => Math.floor((i % sequence) / 20) * 20),
    rows,
  );
  const inputs = [
    c.normal(rows, heads * headDim),
    c.normal(rows, kvHeads * headDim),
    c.normal(rows, kvHeads * valueDim),
    c.normal(batch, kvHeads, capacity, headDim),
    c.normal(batch, kvHeads, capacity, valueDim),
    lengths,
  ];
  const attrs = { batch, sequence, heads, kvHeads, headDim, valueDim, capacity, scale: 0.125, softcap: null } as const;
  const sinks = c.normal(heads);
  return [
    c.b.op("cachedAttention", inputs, { ...attrs, window: null, sinks: false }),
    c.b.op("cachedAttention", [...inputs, sinks], { ...attrs, window: 29, softcap: 2, sinks: true }),
    c.b.op("cachedAttention", [...inputs, starts], { ...attrs, window: null, sinks: false, branches: true }),
    c.b.op("cachedAttention", [...inputs, sinks, starts], { ...attrs, window: 40, sinks: true, branches: true }),
  ];
};

const routed = (c: Case, tokens: number, experts: number, k: number) => {
  const chosen = c.ints(experts + 1, tokens, k);
  const [order, inverse, counts] = c.b.apply("expertSort", [chosen], { experts, drops: true });
  return { chosen, order, inverse, counts, rows: tokens * k };
};

/** An expert layer, its gradients and a sum of its result, each weighted by a number: what fusions see in a model. */
const expertLayer = (c: Case, [tokens, hidden, inner]: readonly [number, number, number]): readonly ValueId[] => {
  const [experts, k] = [5, 2];
  const { order, inverse, counts } = routed(c, tokens, experts, k);
  const [x, weights, seed] = [c.normal(tokens, hidden), c.normal(tokens, k), c.normal(tokens, hidden)];
  const each = (rows: number, columns: number): ValueId[] =>
    Array.from({ length: experts }, () => c.b.scale(c.normal(rows, columns), 0.2));
  const [gates, ups, downs] = [each(inner, hidden), each(inner, hidden), each(hidden, inner)];
  const grouped = (from: ValueId, matrices: readonly ValueId[]): ValueId =>
    c.b.op("groupedMatmul", [from, counts, ...matrices], { transB: true });
  const scaled = (y: ValueId): ValueId => c.b.op("scaleRows", [y, weights, order, inverse], {});
  const rows = c.b.op("dispatch", [x, order, inverse], { k });
  const unit = c.b.op("swiglu", [grouped(rows, gates), grouped(rows, ups)], {});
  const y = inner < hidden ? grouped(scaled(unit), downs) : scaled(grouped(unit, downs));
  const out = c.b.op("combine", [y, order, inverse], { k });
  const loss = c.b.op("reduceSum", [c.b.mul(out, seed)], { axes: [0, 1], keepDims: false });
  const [first, second] = [gates, ups].map((matrices) => matrices[0]!);
  return [out, ...backward(c.b, loss, [x, weights, first!, second!, ...downs])];
};

/** What tensor cores take: heads of 64 and 128, rows of multiples of 8. */
const tensorCases: Readonly<Record<string, (c: Case) => readonly ValueId[]>> = {
  "attention with heads of 64": (c) => attend(c, { ...attention, headDim: 64, valueDim: 64 }),
  "attention with heads of 128, one key head for all": (c) =>
    attend(c, { ...attention, kvHeads: 1, headDim: 128, valueDim: 128 }),
  "attention with heads of 64, a window, a soft cap, sinks and documents": (c) =>
    attend(c, { ...attention, headDim: 64, valueDim: 64, window: 37, softcap: 2, sinks: true, segmentIds: true }),
  "capacity among weights of both signs, often equal": (c) => {
    const { chosen } = routed(c, 1500, 3, 2);
    const weights = c.b.constant(
      Array.from({ length: 3000 }, (_, i) => (((i * 7919) % 13) - 6) / 4),
      [1500, 2],
    );
    return [1, 400, 700, 1500].map((rows) =>
      c.b.op("expertCapacity", [weights, chosen], { experts: 3, rows, by: "weight" }),
    );
  },
  "experts of several tiles": (c) => {
    const { counts, rows } = routed(c, 300, 5, 2);
    const [x, dy] = [c.normal(rows, 72), c.normal(rows, 136)];
    const weights = Array.from({ length: 5 }, () => c.normal(72, 136));
    return [
      c.b.op("groupedMatmul", [x, counts, ...weights], { transB: false }),
      c.b.op("groupedMatmul", [dy, counts, ...weights], { transB: true }),
      ...c.b.apply("groupedMatmulGradW", [x, dy, counts], {}),
    ];
  },
  "an expert layer of several tiles that scales narrow rows": (c) => expertLayer(c, [200, 136, 72]),
  "an expert layer of several tiles that scales results": (c) => expertLayer(c, [200, 72, 136]),
  "norms, rope and gated units in eights": (c) => {
    const [x, weight, dy] = [c.normal(70, 128), c.normal(128), c.normal(70, 128)];
    const tables = [c.normal(35, 32), c.normal(35, 32)];
    const turned = { batch: 2, sequence: 35, heads: 2, headDim: 64, offset: 0, rotary: 64, interleaved: false };
    return [
      c.b.op("rmsNorm", [x, weight], { eps: 1e-5 }),
      ...c.b.apply("rmsNormGrad", [x, weight, dy], { eps: 1e-5 }),
      c.b.op("rope", [x, ...tables], { ...turned, inverse: false }),
      c.b.op("rope", [x, ...tables], { ...turned, inverse: true }),
      c.b.op("swiglu", [x, dy], {}),
      ...c.b.apply("swigluGrad", [x, dy, x], {}),
      c.b.add(x, dy),
    ];
  },
  "products and a head": (c) => {
    const [x, w, head] = [c.normal(200, 64), c.normal(48, 64), c.normal(300, 48)];
    const y = c.b.op("matmul", [x, w], { transA: false, transB: true });
    const targets = c.ints(300, 200);
    const scaled = c.b.scale(y, 0.1);
    const loss = c.b.op("headCrossEntropy", [scaled, head, targets], { softcap: null });
    return [
      y,
      loss,
      ...c.b.apply("headCrossEntropyGrad", [scaled, head, targets, c.b.constant([1], [])], { softcap: null }),
    ];
  },
};

const cases: Readonly<Record<string, (c: Case) => readonly ValueId[]>> = {
  "attention over several tiles of keys": (c) => attend(c, attention),
  "attention with a window, a soft cap, sinks and documents": (c) =>
    attend(c, { ...attention, window: 37, softcap: 2, sinks: true, segmentIds: true }),
  "attention with heads of 192 and value heads of 128": (c) =>
    attend(c, { ...attention, batch: 1, sequence: 40, heads: 2, headDim: 192, valueDim: 128 }),
  "attention behind a long cache": (c) => {
    const [batch, sequence, heads, kvHeads, headDim, capacity] = [2, 3, 4, 2, 64, 300];
    const inputs = [
      c.normal(batch * sequence, heads * headDim),
      c.normal(batch * sequence, kvHeads * headDim),
      c.normal(batch * sequence, kvHeads * headDim),
      c.normal(batch, kvHeads, capacity, headDim),
      c.normal(batch, kvHeads, capacity, headDim),
      c.given(Float64Array.of(297, 140), batch),
    ];
    const attrs = { batch, sequence, heads, kvHeads, headDim, valueDim: headDim, capacity };
    return [
      c.b.op("cachedAttention", inputs, { ...attrs, scale: 0.125, window: 200, softcap: null, sinks: false }),
      c.b.op("cachedAttention", inputs, { ...attrs, scale: 0.125, window: null, softcap: null, sinks: false }),
    ];
  },
  // One query more or less than a warp or a block has, and one key than a tile.
  "attention of sequences around a warp's queries and a tile's keys": (c) =>
    [31, 32, 33, 127, 129].flatMap((sequence) =>
      attend(c, { ...attention, batch: 1, sequence, headDim: 64, valueDim: 64, window: sequence === 127 ? 32 : null }),
    ),
  "attention by each kernel, with heads of odd sizes": (c) =>
    (
      [
        [1, 1],
        [20, 64],
        [64, 63],
        [80, 80],
        [97, 128],
        [130, 129],
        [256, 256],
      ] as const
    ).flatMap(([headDim, valueDim]) =>
      attend(c, { ...attention, batch: 1, sequence: 35, heads: 2, kvHeads: 1, headDim, valueDim, sinks: true }),
    ),
  "attention of many tokens behind a cache": (c) =>
    ([9, 33, 70] as const).flatMap((sequence) => manyBehind(c, sequence)),
  "products of odd sizes, both ways": (c) => {
    const [a, b] = [c.normal(130, 70), c.normal(90, 70)];
    const y = c.b.op("matmul", [a, b], { transA: false, transB: true });
    return [y, c.b.op("matmul", [y, a], { transA: true, transB: false })];
  },
  // One thread of the sum over tiles and experts has one count, several of them, or none.
  "sorts of few slots and of many, to few experts and to many": (c) => {
    const ofOneTile = [
      [3, 1, 1],
      [341, 300, 3],
      [512, 8, 2],
    ] as const;
    const sizes = [...ofOneTile, [1025, 2, 1], [30_001, 7, 2], [9_000, 64, 8], [2_000, 300, 3]] as const;
    const all = sizes.flatMap(([tokens, experts, k]) => {
      const { order, inverse, counts } = routed(c, tokens, experts, k);
      return [order, inverse, counts];
    });
    // All slots are one expert's, and none is anybody's.
    const alike = [1, 3].flatMap((expert) => {
      const chosen = c.given(new Float64Array(5000).fill(expert), 2500, 2);
      return c.b.apply("expertSort", [chosen], { experts: 3, drops: true });
    });
    return [...all, ...alike];
  },
  "a sort of several tiles, dispatch, capacity, combine": (c) => {
    const { chosen, order, inverse, counts } = routed(c, 1500, 7, 2);
    const x = c.normal(1500, 3);
    const weights = c.normal(1500, 2);
    const rows = c.b.op("dispatch", [x, order, inverse], { k: 2 });
    const scaled = c.b.op("scaleRows", [rows, weights, order, inverse], {});
    return [
      order,
      inverse,
      counts,
      rows,
      c.b.op("combine", [scaled, order, inverse], { k: 2 }),
      c.b.op("expertCapacity", [weights, chosen], { experts: 7, rows: 300, by: "weight" }),
      c.b.op("expertCapacity", [weights, chosen], { experts: 7, rows: 300, by: "position" }),
    ];
  },
  "experts of several tiles": (c) => {
    const { counts, rows } = routed(c, 150, 5, 2);
    const [x, dy] = [c.normal(rows, 70), c.normal(rows, 90)];
    const weights = Array.from({ length: 5 }, () => c.normal(70, 90));
    const biases = Array.from({ length: 5 }, () => c.normal(90));
    return [
      c.b.op("groupedMatmul", [x, counts, ...weights], { transB: false }),
      c.b.op("groupedMatmul", [dy, counts, ...weights], { transB: true }),
      ...c.b.apply("groupedMatmulGradW", [x, dy, counts], {}),
      c.b.op("groupedBias", [dy, counts, ...biases], {}),
      ...c.b.apply("groupedBiasGrad", [dy, counts], {}),
    ];
  },
  "an expert layer that scales narrow rows": (c) => expertLayer(c, [90, 30, 13]),
  "an expert layer that scales results": (c) => expertLayer(c, [90, 13, 30]),
  "an embedding of 70,000 words and its gradient": (c) => {
    const ids = c.ints(70_000, 2500);
    return [c.b.op("embeddingGrad", [ids, c.normal(2500, 5)], { vocab: 70_000 })];
  },
  "norms of wide rows": (c) => {
    const [x, weight, dy] = [c.normal(300, 600), c.normal(600), c.normal(300, 600)];
    return [
      c.b.op("rmsNorm", [x, weight], { eps: 1e-5 }),
      ...c.b.apply("rmsNormGrad", [x, weight, dy], { eps: 1e-5 }),
      c.b.op("layerNorm", [x], { eps: 1e-5 }),
      c.b.op("layerNormGrad", [x, dy], { eps: 1e-5 }),
    ];
  },
  "norms, rope and gated units in eights": (c) => tensorCases["norms, rope and gated units in eights"]!(c),
  "sums over long axes, softmax of wide rows": (c) => {
    const x = c.normal(1300, 3, 40);
    return [
      c.b.op("reduceSum", [x], { axes: [0], keepDims: false }),
      c.b.op("reduceSum", [x], { axes: [0, 2], keepDims: true }),
      c.b.op("reduceSum", [x], { axes: [0, 1, 2], keepDims: false }),
      c.b.op("softmax", [x], {}),
      c.b.op("logSumExp", [x], {}),
    ];
  },
  "routers of 100 experts": (c) => {
    const logits = c.normal(70, 100);
    const rule = {
      score: "sigmoid",
      jitter: 0,
      renormalise: { plus: 1e-20, atLeast: 0 },
      groups: { count: 10, kept: 4 },
      corrected: true,
      scaling: 2.5,
    } as const;
    const [weights, chosen] = c.b.apply("routeTopK", [logits, c.normal(100)], { k: 8, rule });
    const dlogits = c.b.op("routeTopKGrad", [logits, chosen, c.normal(70, 8)], { rule });
    return [weights, chosen, dlogits, c.b.op("sinkhorn", [logits], { iterations: 20, tolerance: 1e-4 })];
  },
  "the head in runs of tokens": (c) => {
    const targets = c.ints(600, 300);
    const [x, head] = [c.normal(300, 20), c.normal(600, 20)];
    const loss = c.b.op("headCrossEntropy", [x, head, targets], { softcap: null });
    const capped = c.b.op("headCrossEntropy", [x, head, targets], { softcap: 3 });
    const one = c.b.constant([1], []);
    return [
      loss,
      ...c.b.apply("headCrossEntropyGrad", [x, head, targets, one], { softcap: null }),
      capped,
      ...c.b.apply("headCrossEntropyGrad", [x, head, targets, one], { softcap: 3 }),
    ];
  },
};

const lowering: CudaLowerOptions = { mostLogits: 128 * 600 };

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, agrees with the float64 interpreter`, () => {
  it.each(Object.keys(cases))("%s", async (name) => {
    const c = new Case();
    const graph: Graph = c.b.finish(cases[name]!(c));
    const expected = evaluate(graph, c.feeds);
    const actual = await runOnCuda(graph, c.feeds, lowering);
    for (const [i, { data }] of expected.entries()) {
      const found = actual[i]!;
      const size = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = data.reduce((most, value, at) => Math.max(most, Math.abs(found[at]! - value)), 0);
      expect(worst, `output ${i}`).toBeLessThanOrEqual(1e-5 * size);
      expect(found.every(Number.isFinite)).toBe(true);
    }
    // Equal inputs give equal bits.
    expect(await runOnCuda(graph, c.feeds, lowering)).toEqual(actual);
  });
});

/** The nearest numbers of bfloat16: 8 bits of mantissa. */
const toBfloat16 = (data: Float64Array): Float64Array =>
  data.map((x) => {
    const unit = 2 ** (Math.floor(Math.log2(Math.abs(x))) - 7);
    return x === 0 ? 0 : Math.round(x / unit) * unit;
  });

describe.skipIf(cudaMachine === "no machine")(`on ${cudaMachine}, in bfloat16`, () => {
  it("a router's product and its gradient are as exact as in float32", async () => {
    const c = new Case();
    const [tokens, hidden, experts] = [96, 72, 16];
    const [x, router] = [c.normal(tokens, hidden), c.normal(experts, hidden)];
    c.feeds[0] = toBfloat16(c.feeds[0]!);
    // An input counts as either; what a node makes is stored as bfloat16, and dispatched rows are as they were.
    const { order, inverse } = routed(c, tokens, 4, 1);
    const rows = c.b.op("dispatch", [c.b.scale(x, 2), order, inverse], { k: 1 });
    const logits = c.b.op("matmul", [rows, router], { transA: false, transB: true });
    const chances = c.b.op("softmax", [logits], {});
    const seed = c.normal(tokens, experts);
    c.feeds[3] = toBfloat16(c.feeds[3]!);
    const loss = c.b.op("reduceSum", [c.b.mul(chances, seed)], { axes: [0, 1], keepDims: false });
    const [dx, drouter] = backward(c.b, loss, [x, router]);
    const graph = c.b.finish([logits, drouter!, dx!]);
    const list = lowerToLaunches(graph, { precision: "bf16" });
    const products = list.launches.flatMap((launch) => (launch.kind === "product" ? [launch.compute] : []));
    expect(products).toEqual(["bf16", "bf16", "bf16"]);
    const expected = evaluate(graph, c.feeds);
    const actual = await runOnCuda(graph, c.feeds, { precision: "bf16" });
    for (const [i, bound] of [1e-6, 1e-6, 2 ** -7].entries()) {
      const { data } = expected[i]!;
      const size = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = data.reduce((most, value, at) => Math.max(most, Math.abs(actual[i]![at]! - value)), 0);
      expect(worst / size, `output ${i}`).toBeLessThan(bound);
    }
  });
});

/** The kernels that the GPU gets, and those that every GPU from compute capability 8.0 on runs. */
const tables: readonly (readonly [string, CudaLowerOptions])[] = [
  ["the GPU's kernels", {}],
  ...(cudaMachine === "a GPU" ? [["kernels of 8.0", { chip: oldest }] as const] : []),
];

describe.skipIf(cudaMachine === "no machine").each(tables)(`on ${cudaMachine}, in bfloat16, %s`, (_, table) => {
  it.each(Object.keys(tensorCases))("%s: within 2^-6 of the interpreter", async (name) => {
    const c = new Case();
    const graph: Graph = c.b.finish(tensorCases[name]!(c));
    const expected = evaluate(graph, c.feeds);
    const options = { ...lowering, ...table, precision: "bf16" } as const;
    const actual = await runOnCuda(graph, c.feeds, options);
    for (const [i, { data }] of expected.entries()) {
      const found = actual[i]!;
      const size = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = data.reduce((most, value, at) => Math.max(most, Math.abs(found[at]! - value)), 0);
      expect(worst / size, `output ${i}`).toBeLessThan(2 ** -6);
      expect(found.every(Number.isFinite)).toBe(true);
    }
    expect(await runOnCuda(graph, c.feeds, options)).toEqual(actual);
  });
});
