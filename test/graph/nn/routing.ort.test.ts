/** Routing in training, of whole networks: what a layer computes, gradients, and the engine against the reference. */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { elements, type Graph, type ValueId } from "../../../src/graph/ir/ir.js";
import { prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import type { TrainingRouting } from "../../../src/graph/nn/context.js";
import { buildDecoder } from "../../../src/graph/nn/decoder.js";
import { evaluateOnce } from "../../engine/onnxruntime/evaluate-once.js";
import {
  plainExperts,
  sigmoidRouter,
  softmaxRouter,
  type DecoderSpec,
  type MoeFfn,
  type RouterSpec,
} from "../../../src/model/decoder/types.js";
import { trainProgram, type TrainProgram } from "../../../src/graph/programs/programs.js";
import type { RoutingSettings } from "../../../src/graph/programs/routing.js";
import { moeSpec } from "../../support/runs.js";

const plain: TrainingRouting = { jitter: false, sinkhorn: false, capacity: null };
const settings: RoutingSettings = { ...plain, balance: "model" };

function specWith(router: RouterSpec, changes: Partial<MoeFfn> = {}): DecoderSpec {
  const ffn = {
    kind: "moe",
    activation: "silu",
    ffnDim: 6,
    experts: 4,
    topK: 2,
    router,
    ...plainExperts,
    shared: null,
    ...changes,
  } as const;
  return {
    ...moeSpec,
    vocab: 11,
    hidden: 8,
    attn: { ...moeSpec.attn, heads: 1, kvHeads: 1 },
    layers: moeSpec.layers.map((layer) => ({ ...layer, ffn })),
  };
}

/**
 * Numbers for every input of a graph: ids and targets in the vocabulary, jitter around 1, counts whole, the rest normal
 * deviates.
 */
function feedsOf(graph: Graph, vocab: number): Float64Array[] {
  return graph.inputs.map((id, position) => {
    const { name = "", dtype, shape } = at(graph.values, id);
    const stream = randomStream(3, `feed ${name}`);
    const data = new Float64Array(elements(shape));
    if (dtype === "int") return data.map((_, i) => Math.floor(stream.uniformAt(i + 100 * position) * vocab));
    if (name.startsWith("jitter")) return data.map((_, i) => Math.fround(0.9 + 0.2 * stream.uniformAt(i)));
    if (name === "shares.perToken") return data.fill(1 / 20);
    if (name.startsWith("shares")) return data.map((_, i) => Math.floor(5 * stream.uniformAt(i)));
    stream.normals(data, 0, name.includes("orm") ? 1 : 0, name.endsWith("router") ? 0.7 : 0.4);
    return data.map(Math.fround);
  });
}

const softmax = (row: readonly number[]): number[] => {
  const max = Math.max(...row);
  const sum = row.reduce((a, x) => a + Math.exp(x - max), 0);
  return row.map((x) => Math.exp(x - max) / sum);
};
const silu = (x: number): number => x / (1 + Math.exp(-x));

/** (weight [out, in], x [in]) -> [out] */
const times = (weight: Float64Array, x: readonly number[]): number[] =>
  Array.from({ length: weight.length / x.length }, (_, o) =>
    x.reduce((sum, value, i) => sum + value * at(weight, o * x.length + i), 0),
  );

describe("a layer of experts, token by token", () => {
  const [batch, sequence] = [2, 7];
  const tokens = batch * sequence;

  /** The first MoE layer's input and output as the graph has them, and its parameters. */
  function layer(
    spec: DecoderSpec,
    routing: TrainingRouting | null,
  ): { x: number[][]; y: number[][]; param: (name: string) => Float64Array; jitter: Float64Array | null } {
    const decoder = buildDecoder(spec, { batch, sequence }, routing);
    const { nodes } = decoder.builder;
    const dispatched = nodes.find(({ prim }) => prim === "dispatch")!.in[0];
    const combined = nodes.find(({ prim }) => prim === "combine")!.out[0];
    const graph = prune(decoder.builder.finish([dispatched, combined]));
    verify(graph);
    const feeds = feedsOf(graph, spec.vocab);
    const [x, y] = evaluate(graph, feeds).map(({ data }) =>
      Array.from({ length: tokens }, (_, t) => Array.from(data.subarray(t * spec.hidden, (t + 1) * spec.hidden))),
    );
    const named = (name: string): Float64Array | undefined =>
      feeds[graph.inputs.findIndex((id: ValueId) => at(graph.values, id).name === name)];
    return { x: x!, y: y!, param: (name) => named(`layers.0.${name}`)!, jitter: named("jitter.0") ?? null };
  }

  /** Which choices stay: a loop over experts and places, as a queue at each expert's door. */
  function admitted(
    choices: readonly (readonly [number, number][])[],
    rows: number,
    by: "weight" | "position",
  ): Set<string> {
    const open = new Set<string>();
    const all = choices.flatMap((own, token) => own.map(([expert, weight]) => ({ token, expert, weight })));
    for (const expert of new Set(all.map((choice) => choice.expert))) {
      const queue = all.filter((choice) => choice.expert === expert);
      for (let place = 0; place < rows && queue.length > 0; place++) {
        let first = 0;
        if (by === "weight")
          queue.forEach((choice, i) => (first = choice.weight > at(queue, first).weight ? i : first));
        const [next] = queue.splice(first, 1);
        open.add(`${next!.token} ${expert}`);
      }
    }
    return open;
  }

  it.each([
    ["dropless", plain],
    ["jitter", { ...plain, jitter: true }],
    ["capacity by weight", { ...plain, capacity: { factor: 0.8, by: "weight" } }],
    ["capacity by position", { ...plain, capacity: { factor: 0.8, by: "position" } }],
    ["hardly any capacity", { ...plain, capacity: { factor: 0.01, by: "weight" } }],
    ["capacity for all", { ...plain, capacity: { factor: 4, by: "weight" } }],
    ["capacity and jitter", { ...plain, jitter: true, capacity: { factor: 1, by: "position" } }],
  ] as const)("%s", (_, routing) => {
    for (const renormalised of [true, false]) {
      const spec = specWith(softmaxRouter(renormalised ? "topk-softmax" : "softmax-topk"));
      const { x, y, param, jitter } = layer(spec, routing);
      const { hidden } = spec;
      const choices = x.map((row, t) => {
        const read = jitter === null ? row : row.map((value, i) => value * at(jitter, t * hidden + i));
        const scores = softmax(times(param("router"), read));
        const top = scores
          .map((_, e) => e)
          .sort((a, b) => at(scores, b) - at(scores, a))
          .slice(0, 2);
        const sum = renormalised ? top.reduce((a, e) => a + at(scores, e), 0) : 1;
        return top.map((e) => [e, at(scores, e) / sum] as [number, number]);
      });
      const rows = routing.capacity === null ? Infinity : Math.ceil(((tokens * 2) / 4) * routing.capacity.factor);
      const open = admitted(choices, rows, routing.capacity?.by ?? "position");
      if (rows < 2) expect(open.size).toBeLessThanOrEqual(4);
      choices.forEach((own, t) => {
        const expected = new Array<number>(hidden).fill(0);
        for (const [e, weight] of own) {
          if (!open.has(`${t} ${e}`)) continue;
          const gate = times(param(`experts.${e}.gate`), at(x, t)).map(silu);
          const up = times(param(`experts.${e}.up`), at(x, t));
          times(
            param(`experts.${e}.down`),
            gate.map((value, i) => value * at(up, i)),
          ).forEach((value, i) => (expected[i]! += weight * value));
        }
        expected.forEach((value, i) => expect(at(y, t)[i], `token ${t}`).toBeCloseTo(value, 9));
      });
    }
  });

  it("Sinkhorn: experts by the balanced matrix, weights by the router's own rule", () => {
    for (const renormalised of [true, false]) {
      const { x, y, param } = layer(specWith(softmaxRouter(renormalised ? "topk-softmax" : "softmax-topk")), {
        ...plain,
        sinkhorn: true,
      });
      const logits = x.map((row) => times(param("router"), row));
      // Rows and columns scaled in turn until nothing moves.
      const matrix = logits.map((row) => row.map(Math.exp));
      for (let i = 0; i < 200; i++) {
        matrix.forEach((row) => {
          const sum = row.reduce((a, b) => a + b);
          row.forEach((value, e) => (row[e] = value / sum));
        });
        for (let e = 0; e < 4; e++) {
          const sum = matrix.reduce((a, row) => a + at(row, e), 0);
          for (const row of matrix) row[e] = (at(row, e) * tokens) / (4 * sum);
        }
      }
      x.forEach((row, t) => {
        const scores = softmax(at(logits, t));
        const top = scores
          .map((_, e) => e)
          .sort((a, b) => at(at(matrix, t), b) - at(at(matrix, t), a))
          .slice(0, 2);
        const sum = renormalised ? top.reduce((a, e) => a + at(scores, e), 0) : 1;
        const expected = new Array<number>(row.length).fill(0);
        for (const e of top) {
          const gate = times(param(`experts.${e}.gate`), row).map(silu);
          const up = times(param(`experts.${e}.up`), row);
          times(
            param(`experts.${e}.down`),
            gate.map((value, i) => value * at(up, i)),
          ).forEach((value, i) => (expected[i]! += (at(scores, e) / sum) * value));
        }
        expected.forEach((value, i) => expect(at(y, t)[i], `token ${t}`).toBeCloseTo(value, 9));
      });
    }
  });

  it("without settings is the network as it is evaluated, and with room for all it computes the same", () => {
    const spec = specWith(softmaxRouter("topk-softmax"));
    expect(layer(spec, plain).y).toEqual(layer(spec, null).y);
    expect(layer(spec, { ...plain, capacity: { factor: 4, by: "weight" } }).y).toEqual(layer(spec, null).y);
  });
});

const topK = softmaxRouter("topk-softmax");
const sigmoid = sigmoidRouter({ groups: { count: 2, kept: 1 }, renormalised: true, scaling: 1.5 });
const kinds: readonly (readonly [string, RouterSpec, RoutingSettings, Partial<MoeFfn>?])[] = [
  ["loss over layers", topK, { ...settings, balance: "layer" }],
  ["loss over sequences", topK, { ...settings, balance: "sequence" }],
  ["loss over a step", topK, { ...settings, balance: "global" }],
  ["loss over sequences of sigmoid scores, groups and a bias", sigmoid, { ...settings, balance: "sequence" }],
  ["loss over micro-batches so far, of sigmoid scores", sigmoid, { ...settings, balance: "running" }],
  ["capacity by weight", topK, { ...settings, capacity: { factor: 0.7, by: "weight" } }],
  [
    "capacity by position, plain FFNs with biases",
    topK,
    { ...settings, capacity: { factor: 0.7, by: "position" } },
    { gated: false, activation: "gelu", bias: true },
  ],
  [
    "capacity, gated units with limits",
    sigmoid,
    { ...settings, capacity: { factor: 0.5, by: "weight" } },
    { bias: true, clampedGlu: { alpha: 1.7, limit: 3 } },
  ],
  ["jitter", softmaxRouter("softmax-topk"), { ...settings, jitter: true }],
  ["Sinkhorn of one", softmaxRouter("softmax-topk"), { ...settings, sinkhorn: true }, { topK: 1 }],
  [
    "Sinkhorn of two, capacity and jitter, a shared expert",
    topK,
    { ...settings, sinkhorn: true, jitter: true, capacity: { factor: 0.6, by: "weight" } },
    { shared: { ffnDim: 5, gated: true } },
  ],
];

describe.each(kinds.map(([name, router, routing, changes = {}]) => [name, router, routing, changes] as const))(
  "%s",
  (_, router, routing, changes) => {
    const spec = specWith(router, changes);
    const coefficients = routing.sinkhorn ? { auxCoef: 0, zCoef: 0.02 } : { auxCoef: 0.3, zCoef: 0.02 };
    const program: TrainProgram = trainProgram(spec, { batch: 2, sequence: 5, ...coefficients, routing });
    const feeds = feedsOf(program.graph, spec.vocab);

    it("has the gradients of its loss", () => {
      verify(program.graph);
      const { loss, balance, z } = program.outputs;
      const forward = prune({
        ...program.graph,
        outputs: [loss, balance!, z!].map((index) => at(program.graph.outputs, index)),
      });
      const total = (changed: readonly Float64Array[]): number => {
        const [ce, aux, squares] = evaluate(forward, changed).map(({ data }) => at(data, 0)) as [
          number,
          number,
          number,
        ];
        return ce + coefficients.auxCoef * aux + coefficients.zCoef * squares;
      };
      const gradients = evaluate(program.graph, feeds).slice(program.gradients);
      const stream = randomStream(8, "picks");
      program.trained.forEach(({ key }, i) => {
        const position = program.graph.inputs.findIndex((id) => at(program.graph.values, id).name === key);
        for (let pick = 0; pick < (key.endsWith("router") ? 8 : 2); pick++) {
          const place = Math.floor(stream.uniformAt(100 * i + pick) * at(feeds, position).length);
          const shifted = (by: number): number =>
            total(
              feeds.map((data, p) =>
                p === position ? data.map((value, j) => (j === place ? value + by : value)) : data,
              ),
            );
          const numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
          expect(Math.abs(at(at(gradients, i).data, place) - numeric), `${key}[${place}]`).toBeLessThan(
            1e-6 * (1 + Math.abs(numeric)),
          );
        }
      });
    });

    it("runs on onnxruntime as in the reference, forward and backward, on one thread and on two", async () => {
      const expected = evaluate(program.graph, feeds);
      const feeds32 = feeds.map((data) => Float32Array.from(data));
      const actual = await evaluateOnce(program.graph, feeds32);
      expected.forEach(({ data }, i) =>
        data.forEach((value, place) =>
          expect(Math.abs(at(at(actual, i).data, place) - value), `output ${i}[${place}]`).toBeLessThan(
            2e-5 * (1 + Math.abs(value)),
          ),
        ),
      );
      expect(await evaluateOnce(program.graph, feeds32, 2)).toEqual(actual);
      if (program.outputs.kept.length > 0) {
        const sum = (index: number): number => at(actual, index).data.reduce((a, b) => a + b, 0);
        program.outputs.kept.forEach((index, l) => expect(sum(index)).toBeLessThan(sum(at(program.outputs.counts, l))));
      }
    });
  },
);
