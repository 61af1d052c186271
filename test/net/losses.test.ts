import { describe, expect, it } from "vitest";
import { randomStream } from "../../src/base/random.js";
import { GraphBuilder } from "../../src/graph/builder.js";
import type { ValueId } from "../../src/graph/ir.js";
import { prune, verify } from "../../src/graph/passes.js";
import { evaluate } from "../../src/graph/reference.js";
import { routeRule, type RouterValues } from "../../src/net/decoder.js";
import { softmaxRouter } from "../../src/spec/types.js";
import { balanceLoss, routerZLoss } from "../../src/net/losses.js";

const softmax = (row: readonly number[]): number[] => {
  const max = Math.max(...row);
  const e = row.map((x) => Math.exp(x - max));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
};

/** transformers' load_balancing_loss_func (modeling_mixtral.py) without attention mask, statement by statement; layers of [tokens][experts] logits. */
function loadBalancingLossFunc(layers: readonly (readonly number[][])[], experts: number, topK: number): number {
  const concatenated = layers.flat();
  const routingWeights = concatenated.map(softmax);
  const selected = routingWeights.map((row) => row.map((_, e) => e).sort((a, b) => row[b]! - row[a]! || a - b).slice(0, topK));
  // expert_mask [tokens, topK, experts] -> tokens_per_expert = mean over tokens [topK, experts]
  const tokensPerExpert = Array.from({ length: topK }, (_, k) =>
    Array.from({ length: experts }, (_, e) => selected.filter((row) => row[k] === e).length / concatenated.length));
  const routerProbPerExpert = Array.from({ length: experts }, (_, e) => routingWeights.reduce((sum, row) => sum + row[e]!, 0) / concatenated.length);
  let overall = 0;
  for (const row of tokensPerExpert) row.forEach((share, e) => (overall += share * routerProbPerExpert[e]!));
  return overall * experts;
}

/** ST-MoE, equation 5: 1/B sum over tokens of (log sum over experts of e^x)^2. */
function stMoeZLoss(layers: readonly (readonly number[][])[]): number {
  const tokens = layers.flat();
  return tokens.reduce((sum, row) => sum + Math.log(row.reduce((s, x) => s + Math.exp(x), 0)) ** 2, 0) / tokens.length;
}

function routersOf(layers: readonly (readonly number[][])[], experts: number, k: number): { b: GraphBuilder; routers: RouterValues[]; feeds: Float64Array[] } {
  const b = new GraphBuilder();
  const feeds = layers.map((layer) => Float64Array.from(layer.flat()));
  const routers = layers.map((layer, i) => {
    const logits = b.input(`l${i}`, "f32", [layer.length, experts]);
    const rule = routeRule(softmaxRouter("softmax-topk"));
    const [, chosen] = b.apply("routeTopK", [logits], { k, rule }) as [ValueId, ValueId];
    const [, , counts] = b.apply("expertSort", [chosen], { experts, drops: false }) as [ValueId, ValueId, ValueId];
    return { layer: i, experts, topK: k, rule, logits, chosen, counts, kept: null, jitter: null };
  });
  return { b, routers, feeds };
}

const randomLayers = (layers: number, tokens: number, experts: number, std: number): number[][][] =>
  Array.from({ length: layers }, (_, l) => Array.from({ length: tokens }, (_, t) => {
    const row = new Float64Array(experts);
    randomStream(5, `${layers} ${l} ${t}`).normals(row, 0, 0, std);
    return Array.from(row);
  }));

describe("router losses", () => {
  it.each([[1, 7, 4, 1, 1], [3, 5, 8, 2, 2], [2, 16, 6, 6, 0.1], [4, 3, 5, 3, 4]])(
    "over %i layers of %i tokens, %i experts, top %i, logits of std %d", (layers, tokens, experts, k, std) => {
      const logits = randomLayers(layers, tokens, experts, std);
      const { b, routers, feeds } = routersOf(logits, experts, k);
      const graph = prune(b.finish([balanceLoss(b, routers), routerZLoss(b, routers)]));
      verify(graph);
      const [balance, z] = evaluate(graph, feeds).map(({ data }) => data[0]!);
      expect(balance).toBeCloseTo(loadBalancingLossFunc(logits, experts, k), 10);
      expect(z).toBeCloseTo(stMoeZLoss(logits), 10);
    });

  it("are K and ln(E)² for a router that knows nothing", () => {
    const logits = [Array.from({ length: 4 }, () => [0, 0, 0, 0, 0])];
    const { b, routers, feeds } = routersOf(logits, 5, 2);
    const [balance, z] = evaluate(b.finish([balanceLoss(b, routers), routerZLoss(b, routers)]), feeds).map(({ data }) => data[0]!);
    expect(balance).toBeCloseTo(2, 12);
    expect(z).toBeCloseTo(Math.log(5) ** 2, 12);
  });

  it("do not mix layers with different numbers of experts", () => {
    const one = routersOf(randomLayers(1, 2, 4, 1), 4, 1);
    const other = { ...one.routers[0]!, experts: 5 };
    expect(() => balanceLoss(one.b, [one.routers[0]!, other])).toThrow("different numbers of experts");
  });
});
