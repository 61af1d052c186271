import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { Graph, Node, Value, ValueId } from "../../../src/graph/ir/ir.js";
import { print, prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import { logitsProgram, lossProgram } from "../../../src/graph/programs/programs.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import { routeRule } from "../../../src/graph/nn/experts.js";
import {
  plainBlocks,
  plainExperts,
  rmsNorm,
  softmaxRouter,
  type DecoderSpec,
} from "../../../src/model/decoder/types.js";

/** x [2, 3] -> sigmoid -> times w [4, 3] transposed. */
function small(): { graph: Graph; x: ValueId; w: ValueId; s: ValueId; y: ValueId } {
  const b = new GraphBuilder();
  const x = b.input("x", "f32", [2, 3]);
  const w = b.input("w", "f32", [4, 3]);
  const s = b.op("sigmoid", [x], {});
  const y = b.linear(s, w);
  return { graph: b.finish([y]), x, w, s, y };
}

const spec: DecoderSpec = {
  family: "mixtral",
  vocab: 7,
  hidden: 4,
  tiedHead: true,
  ...plainBlocks,
  norm: rmsNorm(1e-5),
  maxPositions: 8,
  attn: plainAttention({ heads: 2, kvHeads: 1, headDim: 2 }),
  layers: [
    {
      window: null,
      rope: plainRope(100, 2),
      ffn: {
        kind: "moe",
        activation: "silu",
        ffnDim: 3,
        experts: 2,
        topK: 1,
        router: softmaxRouter("topk-softmax"),
        ...plainExperts,
        shared: null,
      },
    },
  ],
  tokens: { bos: null, eos: [], pad: null },
  initStd: 0.02,
  auxLossCoef: 0.01,
};

/** A node of the graph with some of it replaced by what no builder would make. */
const malformed = (graph: Graph, index: number, by: object): Node => ({ ...graph.nodes[index], ...by }) as Node;

describe("verify", () => {
  it("accepts what the builder builds", () => {
    expect(() => verify(small().graph)).not.toThrow();
  });

  const breaches: [string, (parts: ReturnType<typeof small>) => Graph, string][] = [
    [
      "use before definition",
      ({ graph }) => ({ ...graph, nodes: [...graph.nodes].reverse() }),
      "node 0 (matmul): reads %2 before it is defined",
    ],
    [
      "use of a value nobody defines",
      ({ graph, s }) => ({ ...graph, nodes: [malformed(graph, 1, { in: [s, 99] })] }),
      "node 0 (matmul): reads %2 before",
    ],
    [
      "a value defined twice",
      ({ graph }) => ({ ...graph, nodes: [at(graph.nodes, 0), ...graph.nodes] }),
      "node 1 (sigmoid): %2 is defined twice",
    ],
    [
      "an input defined again",
      ({ graph, x }) => ({ ...graph, nodes: [malformed(graph, 0, { out: [x] }), ...graph.nodes] }),
      "%0 is defined twice",
    ],
    [
      "an input listed twice",
      ({ graph, x }) => ({ ...graph, inputs: [...graph.inputs, x] }),
      "an input is listed twice",
    ],
    [
      "an output nobody computes",
      ({ graph }) => ({ ...graph, nodes: graph.nodes.slice(0, 1) }),
      "output %3 is never defined",
    ],
    [
      "too few outputs of a node",
      ({ graph }) => ({ ...graph, nodes: [malformed(graph, 0, { out: [] })] }),
      "node 0 (sigmoid): 0 outputs, the rule gives 1",
    ],
    [
      "an output without a type",
      ({ graph }) => ({ ...graph, nodes: [malformed(graph, 0, { out: [42] })] }),
      "output %42 has no type",
    ],
    [
      "an input of another shape than the rule allows",
      ({ graph, w }) => withValue(graph, w, { shape: [4, 2] }),
      "matmul: inner sizes 3 and 2 differ",
    ],
    [
      "an output of another shape than the rule gives",
      ({ graph, y }) => withValue(graph, y, { shape: [4, 2] }),
      "node 1 (matmul): %3 is f32[4,2], the rule gives f32[2,4]",
    ],
    [
      "an output of another type than the rule gives",
      ({ graph, s }) => withValue(graph, s, { dtype: "int" }),
      "node 0 (sigmoid): %2 is int[2,3], the rule gives f32[2,3]",
    ],
  ];
  it.each(breaches)("refuses %s", (_, breach, message) => {
    expect(() => verify(breach(small()))).toThrow(message);
  });
});

function withValue(graph: Graph, id: ValueId, change: Partial<Value>): Graph {
  return { ...graph, values: graph.values.map((value, i) => (i === id ? { ...value, ...change } : value)) };
}

describe("shape errors name the primitive and the sizes", () => {
  const b = new GraphBuilder();
  const m23 = b.input("a", "f32", [2, 3]);
  const m45 = b.input("b", "f32", [4, 5]);
  const row = b.input("c", "f32", [5]);
  const ids = b.input("ids", "int", [2]);
  const cases: [string, () => unknown, string][] = [
    ["add", () => b.add(m23, m45), "add: [2,3] and [4,5] do not broadcast"],
    ["mul of integers", () => b.mul(m23, ids), "mul: right must be f32"],
    ["matmul", () => b.linear(m23, m45), "matmul: inner sizes 3 and 5 differ"],
    ["matmul of a vector", () => b.linear(m23, row), "matmul: b must have 2 axes, got [5]"],
    ["reshape", () => b.reshape(m23, [7]), "reshape: [2,3] does not fit [7]"],
    ["constant", () => b.constant([1, 2], [3]), "constant: 2 values for [3]"],
    ["reduceSum", () => b.op("reduceSum", [m23], { axes: [2], keepDims: false }), "reduceSum: axes [2] of [2,3]"],
    ["toFloat", () => b.op("toFloat", [m23], {}), "toFloat: input must be int"],
    ["embedding", () => b.op("embedding", [m23, m23], {}), "embedding: ids must have 1 axes"],
    ["rmsNorm", () => b.op("rmsNorm", [m23, row], { eps: 1e-5 }), "rmsNorm: last axis and weight: [3] and [5] differ"],
    [
      "rope of odd heads",
      () =>
        b.op("rope", [m23, row, row], {
          batch: 1,
          sequence: 2,
          heads: 1,
          headDim: 3,
          offset: 0,
          rotary: 3,
          interleaved: false,
          inverse: false,
        }),
      "rope: 3 rotary elements from 0 of a head of 3",
    ],
    [
      "attention",
      () =>
        b.op("attention", [m23, m23, m23], {
          batch: 1,
          sequence: 2,
          heads: 3,
          kvHeads: 2,
          headDim: 1,
          valueDim: 1,
          scale: 1,
          window: null,
          softcap: null,
          sinks: false,
        }),
      "attention: 3 heads are no multiple of 2",
    ],
    ["swiglu", () => b.op("swiglu", [m23, m45], {}), "swiglu: gate and up: [2,3] and [4,5] differ"],
    [
      "headCrossEntropy",
      () => b.op("headCrossEntropy", [m23, m45, ids], { softcap: null }),
      "headCrossEntropy: hidden sizes 3 and 5 differ",
    ],
    [
      "routeTopK",
      () => b.apply("routeTopK", [m23], { k: 4, rule: routeRule(softmaxRouter("softmax-topk")) }),
      "routeTopK: top-4 of 3 experts",
    ],
    [
      "groupedMatmul",
      () => b.op("groupedMatmul", [m23, ids, m45], { transB: true }),
      "groupedMatmul: counts: [2] and [1] differ",
    ],
    ["a missing input", () => b.op("sigmoid", [], {}), "sigmoid: takes 1 inputs, got 0"],
  ];
  it.each(cases)("%s", (_, build, message) => {
    expect(build).toThrow(message);
  });
});

describe("prune", () => {
  it("drops exactly what no output needs, and keeps what a graph computes", () => {
    const b = new GraphBuilder();
    const x = b.input("x", "f32", [2, 3]);
    const w = b.input("w", "f32", [4, 3]);
    const unused = b.input("unused", "f32", [1]);
    b.op("sigmoid", [b.add(x, x)], {});
    const targets = b.input("targets", "int", [2]);
    const loss = b.op("headCrossEntropy", [b.op("sigmoid", [x], {}), w, targets], { softcap: null });
    // The weight's gradient is computed by the same node as the hidden state's: one used output keeps a node.
    const [gradient] = backward(b, loss, [w]);
    const whole = b.finish([loss, gradient!]);
    const pruned = prune(whole);
    verify(pruned);
    expect(pruned.inputs).toEqual([x, w, unused, targets]);
    expect(pruned.nodes.map(({ prim }) => prim)).toEqual([
      "sigmoid",
      "headCrossEntropy",
      "constant",
      "headCrossEntropyGrad",
    ]);
    expect(whole.nodes.length).toBeGreaterThan(pruned.nodes.length);
    const feeds = [
      Float64Array.of(1, 2, 3, -1, 0, 0.5),
      Float64Array.from({ length: 12 }, (_, i) => Math.sin(i)),
      Float64Array.of(0),
      Float64Array.of(3, 1),
    ];
    expect(evaluate(pruned, feeds)).toEqual(evaluate(whole, feeds));
    expect(prune(pruned)).toEqual(pruned);
  });

  it("leaves no dead node in the graphs of a decoder", () => {
    for (const graph of [
      lossProgram(spec, { batch: 1, sequence: 2 }).graph,
      logitsProgram(spec, { batch: 1, sequence: 2 }).graph,
    ]) {
      const used = new Set([...graph.outputs, ...graph.nodes.flatMap((node) => [...node.in])]);
      for (const node of graph.nodes)
        expect(
          node.out.some((id) => used.has(id)),
          node.prim,
        ).toBe(true);
    }
  });
});

it("prints an attention and mixture-of-experts block", () => {
  expect(print(logitsProgram(spec, { batch: 1, sequence: 3 }).graph)).toMatchInlineSnapshot(`
    "input %ids: int[3]
    input %embed: f32[7,4]
    input %layers.0.inputNorm: f32[4]
    input %layers.0.q: f32[4,4]
    input %layers.0.k: f32[2,4]
    input %layers.0.v: f32[2,4]
    input %layers.0.o: f32[4,4]
    input %layers.0.ffnNorm: f32[4]
    input %layers.0.router: f32[2,4]
    input %layers.0.experts.0.gate: f32[3,4]
    input %layers.0.experts.0.up: f32[3,4]
    input %layers.0.experts.0.down: f32[4,3]
    input %layers.0.experts.1.gate: f32[3,4]
    input %layers.0.experts.1.up: f32[3,4]
    input %layers.0.experts.1.down: f32[4,3]
    input %finalNorm: f32[4]
    %16: f32[3,4] = embedding(%embed, %ids)
    %17: f32[3,4] = rmsNorm(%16, %layers.0.inputNorm) {eps=0.00001}
    %18: f32[3,4] = matmul(%17, %layers.0.q) {transB}
    %19: f32[3,1] = constant() {1 0.5403022766113281 -0.416146844625473}
    %20: f32[3,1] = constant() {0 0.8414709568023682 0.9092974066734314}
    %21: f32[3,4] = rope(%18, %19, %20) {batch=1 sequence=3 heads=2 headDim=2 offset=0 rotary=2}
    %22: f32[3,2] = matmul(%17, %layers.0.k) {transB}
    %23: f32[3,2] = rope(%22, %19, %20) {batch=1 sequence=3 heads=1 headDim=2 offset=0 rotary=2}
    %24: f32[3,2] = matmul(%17, %layers.0.v) {transB}
    %25: f32[3,4] = attention(%21, %23, %24) {batch=1 sequence=3 heads=2 kvHeads=1 headDim=2 valueDim=2 scale=0.7071067811865475}
    %26: f32[3,4] = matmul(%25, %layers.0.o) {transB}
    %27: f32[3,4] = add(%16, %26)
    %28: f32[3,4] = rmsNorm(%27, %layers.0.ffnNorm) {eps=0.00001}
    %29: f32[3,2] = matmul(%28, %layers.0.router) {transB}
    %30: f32[3,1], %31: int[3,1] = routeTopK(%29) {k=1 rule=[object Object]}
    %32: int[3], %33: int[3], %34: int[2] = expertSort(%31) {experts=2}
    %35: f32[3,4] = dispatch(%28, %32, %33) {k=1}
    %36: f32[3,3] = groupedMatmul(%35, %34, %layers.0.experts.0.gate, %layers.0.experts.1.gate) {transB}
    %37: f32[3,3] = groupedMatmul(%35, %34, %layers.0.experts.0.up, %layers.0.experts.1.up) {transB}
    %38: f32[3,3] = swiglu(%36, %37)
    %39: f32[3,3] = scaleRows(%38, %30, %32, %33)
    %40: f32[3,4] = groupedMatmul(%39, %34, %layers.0.experts.0.down, %layers.0.experts.1.down) {transB}
    %41: f32[3,4] = combine(%40, %32, %33) {k=1}
    %42: f32[3,4] = add(%27, %41)
    %43: f32[3,4] = rmsNorm(%42, %finalNorm) {eps=0.00001}
    %44: f32[3,7] = matmul(%43, %embed) {transB}
    output %44"
  `);
});
