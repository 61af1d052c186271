/**
 * The corners of every lowering where an engine is most likely to be wrong, against the reference evaluation. The file
 * is long because every lowering has its corners.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { randomStream } from "../../../src/base/random.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import { elements, type AttentionAttrs, type Graph, type ValueId } from "../../../src/graph/ir/ir.js";
import { routeRule } from "../../../src/graph/nn/experts.js";
import { softmaxRouter } from "../../../src/model/decoder/types.js";
import { prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { queryBlocks } from "../../../src/graph/onnx/rules-attention.js";
import { chunkLengths } from "../../../src/graph/onnx/rules-head.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";

const orders = ["topk-softmax", "softmax-topk"] as const;

function normals(name: string, count: number, std = 1): Float32Array {
  const out = new Float32Array(count);
  randomStream(11, name).normals(out, 0, 0, std);
  return out;
}

async function agree(graph: Graph, feeds: readonly Float32Array[], tolerance = 2e-5): Promise<number[][]> {
  verify(graph);
  const expected = evaluate(
    graph,
    feeds.map((feed) => Float64Array.from(feed)),
  );
  const actual = await evaluateOnce(graph, feeds, 2);
  expected.forEach(({ data }, i) => {
    expect(at(actual, i).data.length).toBe(data.length);
    data.forEach((value, place) => {
      const element = at(at(actual, i).data, place);
      if (!(Math.abs(element - value) <= tolerance * (1 + Math.abs(value))))
        expect.fail(`output ${i}[${place}]: ${element}, expected ${value}`);
    });
  });
  return actual.map(({ data }) => data);
}

interface MoeShape {
  readonly tokens: number;
  readonly hidden: number;
  readonly inner: number;
  readonly experts: number;
  readonly k: number;
  readonly order: (typeof orders)[number];
  readonly capacity?: { readonly rows: number; readonly by: "weight" | "position" };
  readonly sinkhorn?: boolean;
}

/** One MoE layer on given logits, its weighted sum as loss, and gradients of everything. */
function moeLayer({ tokens, hidden, inner, experts, k, order, capacity, sinkhorn = false }: MoeShape): Graph {
  const b = new GraphBuilder();
  const logits = b.input("logits", "f32", [tokens, experts]);
  const x = b.input("x", "f32", [tokens, hidden]);
  const mix = b.input("mix", "f32", [tokens, hidden]);
  const perExpert = (name: string, shape: number[]): ValueId[] =>
    Array.from({ length: experts }, (_, e) => b.input(`${name}${e}`, "f32", shape));
  const [gate, up, down] = [
    perExpert("gate", [inner, hidden]),
    perExpert("up", [inner, hidden]),
    perExpert("down", [hidden, inner]),
  ];
  const rule = routeRule(softmaxRouter(order));
  const choice = sinkhorn
    ? b.mul(b.op("softmax", [logits], {}), b.op("sinkhorn", [logits], { iterations: 32, tolerance: 1e-4 }))
    : logits;
  const [score, best] = b.apply("routeTopK", [choice], { k, rule }) as [ValueId, ValueId];
  const weights = sinkhorn ? b.op("routeWeights", [logits, best], { rule }) : score;
  const chosen = capacity === undefined ? best : b.op("expertCapacity", [weights, best], { experts, ...capacity });
  const [sorted, inverse, counts] = b.apply("expertSort", [chosen], { experts, drops: capacity !== undefined }) as [
    ValueId,
    ValueId,
    ValueId,
  ];
  const rows = b.op("dispatch", [x, sorted, inverse], { k });
  const grouped = (input: ValueId, w: ValueId[]): ValueId =>
    b.op("groupedMatmul", [input, counts, ...w], { transB: true });
  const outputs = grouped(b.op("swiglu", [grouped(rows, gate), grouped(rows, up)], {}), down);
  const out = b.op("combine", [b.op("scaleRows", [outputs, weights, sorted, inverse], {}), sorted, inverse], { k });
  const loss = b.op("reduceSum", [b.mul(out, mix)], { axes: [0, 1], keepDims: false });
  const gradients = backward(b, loss, [logits, x, ...gate, ...up, ...down]);
  return prune(b.finish([out, chosen, counts, ...gradients]));
}

async function checkMoe(shape: MoeShape, logits: Float32Array): Promise<{ chosen: number[]; counts: number[] }> {
  const { tokens, hidden, inner, experts } = shape;
  const weights = Array.from({ length: 3 * experts }, (_, i) => normals(`w${i}`, hidden * inner, 0.5));
  const [, chosen, counts] = await agree(moeLayer(shape), [
    logits,
    normals("x", tokens * hidden),
    normals("mix", tokens * hidden),
    ...weights,
  ]);
  return { chosen: chosen!, counts: counts! };
}

describe.each(orders)("experts, %s", (order) => {
  const shape = { tokens: 5, hidden: 4, inner: 3, experts: 6, k: 2, order };

  it("all tokens to the same experts, the others empty", async () => {
    const logits = Float32Array.from({ length: 30 }, (_, i) => at([0, -9, 3, -9, 5, -9], i % 6));
    const { chosen, counts } = await checkMoe(shape, logits);
    expect(chosen).toEqual([4, 2, 4, 2, 4, 2, 4, 2, 4, 2]);
    expect(counts).toEqual([0, 0, 5, 0, 5, 0]);
  });

  it("equal logits choose the lowest index, for every k", async () => {
    for (const k of [1, 2, 3, 5, 6]) {
      for (const experts of [6, 64]) {
        const value = Float32Array.from({ length: 5 * experts }, (_, i) => Math.floor(i / experts) - 2);
        const { chosen, counts } = await checkMoe({ ...shape, k, experts }, value);
        expect(chosen).toEqual(Array.from({ length: 5 * k }, (_, i) => i % k));
        expect(counts).toEqual(Array.from({ length: experts }, (_, e) => (e < k ? 5 : 0)));
      }
    }
  });

  it("ties between groups of equal logits go to whole groups, lowest first", async () => {
    // 4 groups of 4 equal logits; two groups tie for the second place.
    const logits = Float32Array.from({ length: 5 * 16 }, (_, i) => at([1, 0, 1, 2], Math.floor((i % 16) / 4)));
    const { chosen } = await checkMoe({ ...shape, experts: 16, k: 8 }, logits);
    expect(chosen.slice(0, 8)).toEqual([12, 13, 14, 15, 0, 1, 2, 3]);
  });

  it("agrees with the reference when every token chooses every expert", async () => {
    const { counts } = await checkMoe({ ...shape, k: 6 }, normals("all", 30));
    expect(counts).toEqual([5, 5, 5, 5, 5, 5]);
  });

  it("agrees with the reference on one token with one expert", async () => {
    const { chosen } = await checkMoe({ ...shape, tokens: 1, k: 1 }, Float32Array.of(0, 1, 5, 2, 3, -1));
    expect(chosen).toEqual([2]);
  });

  it("agrees with the reference when logits lie hundreds apart", async () => {
    await checkMoe(shape, normals("far", 30, 200));
  });

  it.each(["weight", "position"] as const)(
    "a capacity by %s: all tokens to the same experts, ties, hardly any room, room for all",
    async (by) => {
      const same = Float32Array.from({ length: 30 }, (_, i) => at([0, -9, 3, -9, 5, -9], i % 6));
      // Equal weights: the first tokens stay.
      const { chosen, counts } = await checkMoe({ ...shape, capacity: { rows: 2, by } }, same);
      expect(chosen).toEqual([4, 2, 4, 2, 6, 6, 6, 6, 6, 6]);
      expect(counts).toEqual([0, 0, 2, 0, 2, 0]);
      expect(
        (await checkMoe({ ...shape, capacity: { rows: 1, by } }, normals("room", 30))).counts.every(
          (count) => count <= 1,
        ),
      ).toBe(true);
      expect((await checkMoe({ ...shape, capacity: { rows: 5, by } }, same)).counts).toEqual([0, 0, 5, 0, 5, 0]);
      expect(
        (await checkMoe({ ...shape, tokens: 1, k: 1, capacity: { rows: 1, by } }, Float32Array.of(0, 1, 5, 2, 3, -1)))
          .chosen,
      ).toEqual([2]);
      expect((await checkMoe({ ...shape, k: 6, capacity: { rows: 3, by } }, new Float32Array(30))).counts).toEqual([
        3, 3, 3, 3, 3, 3,
      ]);
    },
  );

  it(
    "Sinkhorn: one token, as many tokens as experts, equal logits, every expert chosen, logits that one expert " +
      "has to itself",
    async () => {
      // Balanced, one token's row is all equal: rounding says which expert it gets, the weight is that expert's own all
      // the same.
      const alone = { ...shape, tokens: 1, k: 1, sinkhorn: true };
      const weights = Array.from({ length: 18 }, (_, i) => normals(`w${i}`, 12, 0.5));
      const results = await evaluateOnce(moeLayer(alone), [
        Float32Array.of(0, 1, 5, 2, 3, -1),
        normals("x", 4),
        normals("mix", 4),
        ...weights,
      ]);
      expect(at(results, 2).data.reduce((a, c) => a + c)).toBe(1);
      for (const { data } of results) expect(data.every(Number.isFinite)).toBe(true);
      // Each token is a little closer to an expert of its own than to the first, which all would choose.
      const own = Float32Array.from({ length: 36 }, (_, i) => (i % 6 === 0 ? 2 : i % 6 === Math.floor(i / 6) ? 1 : 0));
      const wide = { ...shape, tokens: 6, k: 1, sinkhorn: true };
      expect((await checkMoe({ ...wide, sinkhorn: false }, own)).counts).toEqual([6, 0, 0, 0, 0, 0]);
      expect((await checkMoe(wide, own)).counts).toEqual([1, 1, 1, 1, 1, 1]);
      await checkMoe({ ...shape, sinkhorn: true }, new Float32Array(30));
      expect((await checkMoe({ ...shape, k: 6, sinkhorn: true }, normals("sink", 30))).counts).toEqual([
        5, 5, 5, 5, 5, 5,
      ]);
      await checkMoe(
        { ...shape, sinkhorn: true },
        Float32Array.from({ length: 30 }, (_, i) => (i % 6 === 2 ? 6 : Math.sin(i))),
      );
    },
  );
});

/** Attention restated: every query, every head, loops only. */
function plainAttention(q: Float32Array, k: Float32Array, v: Float32Array, a: AttentionAttrs): Float64Array {
  const out = new Float64Array(q.length);
  const group = a.heads / a.kvHeads;
  const startOf = (row: number, head: number, heads: number): number => (row * heads + head) * a.headDim;
  for (let b = 0; b < a.batch; b++) {
    for (let h = 0; h < a.heads; h++) {
      for (let i = 0; i < a.sequence; i++) {
        const scores: number[] = [];
        for (let j = 0; j < a.sequence; j++) {
          let dot = 0;
          for (let d = 0; d < a.headDim; d++) {
            dot +=
              at(q, startOf(b * a.sequence + i, h, a.heads) + d) *
              at(k, startOf(b * a.sequence + j, Math.floor(h / group), a.kvHeads) + d);
          }
          scores.push(j > i || (a.window !== null && i - j >= a.window) ? 0 : Math.exp(dot * a.scale));
        }
        const sum = scores.reduce((x, y) => x + y);
        scores.forEach((score, j) => {
          for (let d = 0; d < a.headDim; d++) {
            out[startOf(b * a.sequence + i, h, a.heads) + d]! +=
              (score / sum) * at(v, startOf(b * a.sequence + j, Math.floor(h / group), a.kvHeads) + d);
          }
        });
      }
    }
  }
  return out;
}

describe("attention on longer sequences", () => {
  const base = { batch: 2, sequence: 37, headDim: 4, scale: 0.5, softcap: null, sinks: false };
  it.each([
    [4, 4, null],
    [4, 2, null],
    [6, 1, null],
    [4, 2, 1],
    [4, 2, 5],
    [2, 2, 36],
    [4, 1, 37],
    [4, 2, 100],
  ])("%i query heads on %i key heads, window %s", async (heads, kvHeads, window) => {
    const attrs = { ...base, valueDim: base.headDim, heads, kvHeads, window };
    const rows = base.batch * base.sequence;
    const feeds = [heads, kvHeads, kvHeads, heads].map((count, i) =>
      normals(`attention ${i} ${heads} ${kvHeads}`, rows * count * base.headDim),
    );
    const b = new GraphBuilder();
    const [q, k, v, mix] = [heads, kvHeads, kvHeads, heads].map((count, i) =>
      b.input(`x${i}`, "f32", [rows, count * base.headDim]),
    ) as [ValueId, ValueId, ValueId, ValueId];
    const out = b.op("attention", [q, k, v], attrs);
    const loss = b.op("reduceSum", [b.mul(out, mix)], { axes: [0, 1], keepDims: false });
    const graph = prune(b.finish([out, ...backward(b, loss, [q, k, v])]));
    const [output] = await agree(graph, feeds);
    const expected = plainAttention(at(feeds, 0), at(feeds, 1), at(feeds, 2), attrs);
    output!.forEach((value, i) => {
      if (Math.abs(value - at(expected, i)) > 1e-5) expect.fail(`[${i}]: ${value}, expected ${expected[i]}`);
    });
  });
});

describe("attention in blocks of queries", () => {
  it.each([
    { sequence: 255, window: null, softcap: null, sinks: false, kvHeads: 2 },
    { sequence: 256, window: null, softcap: null, sinks: false, kvHeads: 1 },
    { sequence: 300, window: null, softcap: 2, sinks: true, kvHeads: 2 },
    { sequence: 300, window: 1, softcap: null, sinks: false, kvHeads: 1 },
    { sequence: 390, window: 128, softcap: null, sinks: true, kvHeads: 1 },
    { sequence: 513, window: 129, softcap: 3, sinks: false, kvHeads: 2 },
  ])("$sequence tokens, window $window, softcap $softcap, sinks $sinks, 2 query heads on $kvHeads", async (shape) => {
    const attrs = { batch: 2, heads: 2, headDim: 2, valueDim: 3, scale: 0.7, ...shape };
    const rows = attrs.batch * attrs.sequence;
    const sizes = [
      [rows, 4],
      [rows, attrs.kvHeads * 2],
      [rows, attrs.kvHeads * 3],
      ...(attrs.sinks ? [[2]] : []),
      [rows, 6],
    ];
    const b = new GraphBuilder();
    const inputs = sizes.map((size, i) => b.input(`x${i}`, "f32", size));
    const out = b.op("attention", inputs.slice(0, -1), attrs);
    const loss = b.op("reduceSum", [b.mul(out, at(inputs, inputs.length - 1))], { axes: [0, 1], keepDims: false });
    const graph = prune(b.finish([out, ...backward(b, loss, inputs.slice(0, -1))]));
    await agree(
      graph,
      sizes.map((size, i) =>
        normals(
          `blocks ${i} ${shape.sequence}`,
          size.reduce((x, y) => x * y, 1),
        ),
      ),
      5e-5,
    );
  });

  it("cover every pair of query and key that the mask lets through, once", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 5000 }),
        fc.option(fc.integer({ min: 1, max: 5000 })),
        (sequence, window) => {
          const blocks = queryBlocks({ sequence, window });
          expect(blocks.reduce((end, { start, length }) => (start === end ? end + length : NaN), 0)).toBe(sequence);
          const starts = new Set(blocks.map(({ start }) => start));
          for (const { start, length, from, to } of blocks) {
            expect(from).toBeLessThanOrEqual(window === null ? 0 : Math.max(0, start - window + 1));
            expect(to).toBe(start + length);
            expect(starts.has(from)).toBe(true);
          }
        },
      ),
    );
  });
});

describe("the head in runs of tokens", () => {
  it.each([null, 2])("loss and gradients of more logits than are made at once, softcap %s", async (softcap) => {
    const [tokens, hidden, vocab] = [1100, 2, 4200];
    expect(chunkLengths(tokens, vocab)).toEqual([366, 367, 367]);
    const b = new GraphBuilder();
    const [x, head, targets] = [
      b.input("x", "f32", [tokens, hidden]),
      b.input("head", "f32", [vocab, hidden]),
      b.input("targets", "int", [tokens]),
    ];
    const loss = b.op("headCrossEntropy", [x, head, targets], { softcap });
    const graph = prune(b.finish([loss, ...backward(b, loss, [x, head]), ...backward(b, b.scale(loss, 3), [x, head])]));
    const ids = Float32Array.from({ length: tokens }, (_, i) => (i % 7 === 3 ? -100 : (i * 911) % vocab));
    await agree(graph, [normals("hx", tokens * hidden, 2), normals("hh", vocab * hidden, 2), ids]);
  });
});

describe("gradients of weights over many rows", () => {
  // Narrow and wide gradients of one shared input, and of one that nobody shares; fewer rows than are worth a
  // transposition.
  it.each([
    [1030, [3, 7, 7], 5],
    [1030, [3], 5],
    [1030, [7], 5],
    [1023, [3, 7], 5],
  ] as const)("%i rows, widths %j with %i", async (rows, widths, shared) => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [rows, shared]);
    const gradients = widths.map((width, i) => b.input(`dy${i}`, "f32", [rows, width]));
    const both = gradients.flatMap((dy) => [
      b.op("matmul", [dy, x], { transA: true, transB: false }),
      b.op("matmul", [dy, b.input("square", "f32", [4, rows])], { transA: true, transB: true }),
    ]);
    const graph = b.finish(both);
    await agree(
      graph,
      [
        normals("tall x", rows * shared),
        ...widths.map((width, i) => normals(`tall ${i}`, rows * width)),
        ...widths.map((_, i) => normals(`square ${i}`, 4 * rows)),
      ],
      2e-4,
    );
  });

  it("of experts, some without rows", async () => {
    const [tokens, k, experts] = [1100, 2, 2];
    const b = new GraphBuilder();
    const chosen = b.input("chosen", "int", [tokens, k]);
    const [order, inverse, counts] = b.apply("expertSort", [chosen], { experts, drops: false }) as [
      ValueId,
      ValueId,
      ValueId,
    ];
    const [x, ...dys] = [5, 3, 7].map((width, i) =>
      b.op("dispatch", [b.input(`x${i}`, "f32", [tokens, width]), order, inverse], { k }),
    ) as [ValueId, ValueId, ValueId];
    const graph = prune(b.finish(dys.flatMap((dy) => b.apply("groupedMatmulGradW", [x, dy, counts], {}))));
    for (const to of [0, 1, 2]) {
      const ids = Float32Array.from({ length: tokens * k }, (_, i) => (to === 2 ? Number(i % 3 === 0) : to));
      await agree(graph, [ids, ...[5, 3, 7].map((width, i) => normals(`expert ${i}`, tokens * width))], 5e-4);
    }
  });
});

describe("numbers at the edge", () => {
  it("softmax, log-sum-exp and cross entropy of large logits neither overflow nor vanish", async () => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [3, 4]);
    const head = b.input("head", "f32", [4, 4]);
    const targets = b.input("targets", "int", [3]);
    const loss = b.op("headCrossEntropy", [x, head, targets], { softcap: null });
    const z = b.op("logSumExp", [x], {});
    const total = b.add(loss, b.scale(b.op("reduceSum", [b.mul(z, z)], { axes: [0], keepDims: false }), 1e-4));
    const graph = prune(b.finish([b.op("softmax", [x], {}), z, loss, ...backward(b, total, [x, head])]));
    const logits = Float32Array.of(1000, 999, -1000, 0, -500, -501, -502, -503, 88, 89, 90, 91);
    const identity = Float32Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1);
    await agree(graph, [logits, identity, Float32Array.of(1, 3, 0)]);
  });

  it("a text without any target has loss 0 and no gradient", async () => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [3, 2]);
    const head = b.input("head", "f32", [4, 2]);
    const targets = b.input("targets", "int", [3]);
    const loss = b.op("headCrossEntropy", [x, head, targets], { softcap: null });
    const [value, dx, dhead] = await agree(prune(b.finish([loss, ...backward(b, loss, [x, head])])), [
      normals("x0", 6),
      normals("h0", 8),
      Float32Array.of(-1, -1, -100),
    ]);
    expect(Math.abs(at(value!, 0))).toBe(0);
    expect([...dx!, ...dhead!].every((g) => Math.abs(g) === 0)).toBe(true);
  });

  it("rms norm of zeros is zeros, and eps lies under the root", async () => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [2, 3]);
    const w = b.input("w", "f32", [3]);
    const y = b.op("rmsNorm", [x, w], { eps: 0.5 });
    const loss = b.op("reduceSum", [y], { axes: [0, 1], keepDims: false });
    const [out] = await agree(prune(b.finish([y, ...backward(b, loss, [x, w])])), [
      Float32Array.of(0, 0, 0, 1, -2, 0.5),
      Float32Array.of(1, 2, 3),
    ]);
    const r = 1 / Math.sqrt((1 + 4 + 0.25) / 3 + 0.5);
    [0, 0, 0, r, -4 * r, 1.5 * r].forEach((value, i) => expect(out![i]).toBeCloseTo(value, 6));
  });

  it("repeated tokens add up in the embedding's gradient", async () => {
    const b = new GraphBuilder();
    const ids = b.input("ids", "int", [4096]);
    const dy = b.input("dy", "f32", [4096, 2]);
    const graph = b.finish([b.op("embeddingGrad", [ids, dy], { vocab: 3 })]);
    const feeds = [Float32Array.from({ length: 4096 }, (_, i) => i % 3), new Float32Array(8192).fill(1)];
    for (let run = 0; run < 3; run++) {
      const [gradient] = await agree(graph, feeds);
      expect(gradient).toEqual([1366, 1366, 1365, 1365, 1365, 1365]);
    }
  });
});

describe("a product of matrices with something added", () => {
  it.each([
    [false, false],
    [false, true],
    [true, false],
    [true, true],
  ])("is the sum, transposed %s and %s, with a matrix or a row on either side", async (transA, transB) => {
    for (const [shape, flip] of [
      [[3, 5], false],
      [[3, 5], true],
      [[5], false],
      [[1, 5], true],
    ] as const) {
      const b = new GraphBuilder();
      const [x, w] = [b.input("x", "f32", transA ? [4, 3] : [3, 4]), b.input("w", "f32", transB ? [5, 4] : [4, 5])];
      const other = b.input("c", "f32", shape);
      const product = b.op("matmul", [x, w], { transA, transB });
      await agree(b.finish([flip ? b.add(other, product) : b.add(product, other)]), [
        normals("x", 12),
        normals("w", 20),
        normals("c", elements(shape)),
      ]);
    }
  });
});
