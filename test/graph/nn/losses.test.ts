import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { randomStream } from "../../../src/base/random.js";
import { GraphBuilder } from "../../../src/graph/ir/builder.js";
import type { RouteRule, ValueId } from "../../../src/graph/ir/ir.js";
import { prune, verify } from "../../../src/graph/ir/passes.js";
import { evaluate } from "../../../src/graph/ir/reference.js";
import type { RouterValues } from "../../../src/graph/nn/context.js";
import { routeRule } from "../../../src/graph/nn/experts.js";
import { softmaxRouter } from "../../../src/model/decoder/types.js";
import { balanceLoss, layerBalanceLoss, routerZLoss } from "../../../src/graph/nn/losses.js";
import { backward } from "../../../src/graph/grad/backward.js";
import { megatronRouting } from "../../support/megatron.js";

const softmax = (row: readonly number[]): number[] => {
  const max = Math.max(...row);
  const e = row.map((x) => Math.exp(x - max));
  const sum = e.reduce((a, b) => a + b);
  return e.map((x) => x / sum);
};

/**
 * transformers' load_balancing_loss_func (modeling_mixtral.py) without attention mask, statement by statement; layers
 * of [tokens][experts] logits.
 */
function loadBalancingLossFunc(layers: readonly (readonly number[][])[], experts: number, topK: number): number {
  const concatenated = layers.flat();
  const routingWeights = concatenated.map(softmax);
  const selected = routingWeights.map((row) =>
    row
      .map((_, e) => e)
      .sort((a, b) => at(row, b) - at(row, a) || a - b)
      .slice(0, topK),
  );
  // expert_mask [tokens, topK, experts] -> tokens_per_expert = mean over tokens [topK, experts]
  const tokensPerExpert = Array.from({ length: topK }, (_, k) =>
    Array.from({ length: experts }, (_, e) => selected.filter((row) => row[k] === e).length / concatenated.length),
  );
  const routerProbPerExpert = Array.from(
    { length: experts },
    (_, e) => routingWeights.reduce((sum, row) => sum + at(row, e), 0) / concatenated.length,
  );
  let overall = 0;
  for (const row of tokensPerExpert) row.forEach((share, e) => (overall += share * at(routerProbPerExpert, e)));
  return overall * experts;
}

/** ST-MoE, equation 5: 1/B sum over tokens of (log sum over experts of e^x)^2. */
function stMoeZLoss(layers: readonly (readonly number[][])[]): number {
  const tokens = layers.flat();
  return tokens.reduce((sum, row) => sum + Math.log(row.reduce((s, x) => s + Math.exp(x), 0)) ** 2, 0) / tokens.length;
}

function routersOf(
  layers: readonly (readonly number[][])[],
  experts: number,
  k: number,
): { b: GraphBuilder; routers: RouterValues[]; feeds: Float64Array[] } {
  const b = new GraphBuilder();
  const feeds = layers.map((layer) => Float64Array.from(layer.flat()));
  const routers = layers.map((layer, i) => {
    const logits = b.input(`l${i}`, "f32", [layer.length, experts]);
    const rule = routeRule(softmaxRouter("softmax-topk"));
    const [weights, chosen] = b.apply("routeTopK", [logits], { k, rule }) as [ValueId, ValueId];
    const [, , counts] = b.apply("expertSort", [chosen], { experts, drops: false }) as [ValueId, ValueId, ValueId];
    return { layer: i, experts, topK: k, rule, logits, weights, chosen, counts, kept: null, jitter: null };
  });
  return { b, routers, feeds };
}

const randomLayers = (layers: number, tokens: number, experts: number, std: number): number[][][] =>
  Array.from({ length: layers }, (_, l) =>
    Array.from({ length: tokens }, (_, t) => {
      const row = new Float64Array(experts);
      randomStream(5, `${layers} ${l} ${t}`).normals(row, 0, 0, std);
      return Array.from(row);
    }),
  );

describe("router losses", () => {
  it.each([
    [1, 7, 4, 1, 1],
    [3, 5, 8, 2, 2],
    [2, 16, 6, 6, 0.1],
    [4, 3, 5, 3, 4],
  ])("over %i layers of %i tokens, %i experts, top %i, logits of std %d", (layers, tokens, experts, k, std) => {
    const logits = randomLayers(layers, tokens, experts, std);
    const { b, routers, feeds } = routersOf(logits, experts, k);
    const graph = prune(b.finish([balanceLoss(b, routers), routerZLoss(b, routers)]));
    verify(graph);
    const [balance, z] = evaluate(graph, feeds).map(({ data }) => at(data, 0));
    expect(balance).toBeCloseTo(loadBalancingLossFunc(logits, experts, k), 10);
    expect(z).toBeCloseTo(stMoeZLoss(logits), 10);
  });

  it("are K and ln(E)² for a router that knows nothing", () => {
    const logits = [Array.from({ length: 4 }, () => [0, 0, 0, 0, 0])];
    const { b, routers, feeds } = routersOf(logits, 5, 2);
    const [balance, z] = evaluate(b.finish([balanceLoss(b, routers), routerZLoss(b, routers)]), feeds).map(({ data }) =>
      at(data, 0),
    );
    expect(balance).toBeCloseTo(2, 12);
    expect(z).toBeCloseTo(Math.log(5) ** 2, 12);
  });

  it("do not mix layers with different numbers of experts", () => {
    const one = routersOf(randomLayers(1, 2, 4, 1), 4, 1);
    const other = { ...at(one.routers, 0), experts: 5 };
    expect(() => balanceLoss(one.b, [at(one.routers, 0), other])).toThrow("different numbers of experts");
  });
});

describe("load balancing layer by layer", () => {
  const ruleOf = (score: "softmax" | "sigmoid", changes: Partial<RouteRule> = {}): RouteRule => ({
    ...routeRule(softmaxRouter("topk-softmax")),
    score,
    ...changes,
  });

  /** One router on given logits; the correction, where the rule takes one, is a constant. */
  function routerOn(
    b: GraphBuilder,
    name: string,
    [tokens, experts]: readonly [number, number],
    k: number,
    rule: RouteRule,
  ): RouterValues {
    const logits = b.input(name, "f32", [tokens, experts]);
    const correction = rule.corrected
      ? [
          b.constant(
            Array.from({ length: experts }, (_, e) => -3 * e),
            [experts],
          ),
        ]
      : [];
    const [weights, chosen] = b.apply("routeTopK", [logits, ...correction], { k, rule }) as [ValueId, ValueId];
    const counts = b.reshape(b.op("expertCounts", [chosen], { experts, blocks: 1 }), [experts]);
    return { layer: 0, experts, topK: k, rule, logits, weights, chosen, counts, kept: null, jitter: null };
  }

  it.each(
    megatronRouting.loss.flatMap((golden) =>
      (["layer", "sequence", "running"] as const).map((over) => [golden.score, over, golden] as const),
    ),
  )("%s scores, over a %s: Megatron's values and gradients", (score, over, { batch, k, logits, ...golden }) => {
    // Bias and groups move the choice, but not what the loss goes by.
    for (const rule of [
      ruleOf(score),
      ruleOf(score, { corrected: true }),
      ruleOf(score, { groups: { count: 5, kept: 2 } }),
    ]) {
      const [tokens, experts] = [at(logits, 0).length, at(at(logits, 0), 0).length];
      const b = new GraphBuilder();
      const routers = logits.map((_, micro) => routerOn(b, `l${micro}`, [tokens, experts], k, rule));
      const before = routers.map((_, micro) => ({
        counts: b.input(`n${micro}`, "f32", [experts]),
        perToken: b.constant([1 / (tokens * (micro + 1))], []),
      }));
      const losses = routers.map((router, micro) =>
        layerBalanceLoss(b, [router], {
          blocks: over === "sequence" ? batch : 1,
          elsewhere: over === "running" ? [at(before, micro)] : undefined,
        }),
      );
      const gradients = backward(
        b,
        losses.reduce((sum, loss) => b.add(sum, loss)),
        routers.map((router) => router.logits),
      );
      const graph = prune(b.finish([...losses, ...gradients]));
      verify(graph);
      // Of each micro-batch, how often each expert is among the best k scores, which go as the logits.
      const counts = logits.map((micro) => {
        const sum = new Array<number>(experts).fill(0);
        for (const row of micro)
          for (const e of row
            .map((_, i) => i)
            .sort((x, y) => at(row, y) - at(row, x) || x - y)
            .slice(0, k))
            sum[e]!++;
        return sum;
      });
      const earlier = counts.map((_, micro) =>
        counts
          .slice(0, micro)
          .reduce((sum, part) => sum.map((n, e) => n + at(part, e)), new Array<number>(experts).fill(0)),
      );
      const feeds = graph.inputs.map((id) => {
        const name = at(graph.values, id).name!;
        return Float64Array.from(
          name.startsWith("l") ? at(logits, Number(name.slice(1))).flat() : at(earlier, Number(name.slice(1))),
        );
      });
      const results = evaluate(graph, feeds);
      golden[over].values.forEach((value, micro) => expect(at(results, micro).data[0]).toBeCloseTo(value, 9));
      golden[over].gradient.forEach((matrix, micro) =>
        matrix
          .flat()
          .forEach((value, i) =>
            expect(at(results, logits.length + micro).data[i], `${micro}[${i}]`).toBeCloseTo(value, 8),
          ),
      );
    }
  });

  it("adds layers, which may have different numbers of experts, and is 1 for each that is balanced", () => {
    const b = new GraphBuilder();
    const routers = [routerOn(b, "a", [4, 2], 1, ruleOf("softmax")), routerOn(b, "b", [6, 3], 1, ruleOf("softmax"))];
    const one = (e: number, size: number): number[] => Array.from({ length: size }, (_, i) => (i === e ? 9 : 0));
    const feeds = [[0, 1, 0, 1].flatMap((e) => one(e, 2)), [0, 1, 2, 0, 1, 2].flatMap((e) => one(e, 3))];
    const [loss] = evaluate(
      b.finish([layerBalanceLoss(b, routers, {})]),
      feeds.map((data) => Float64Array.from(data)),
    );
    expect(loss!.data[0]).toBeCloseTo(2, 12);
  });

  it("is E / K times the best share where all go to one expert, and takes a single token", () => {
    for (const tokens of [1, 5]) {
      const b = new GraphBuilder();
      const router = routerOn(b, "a", [tokens, 4], 1, ruleOf("softmax"));
      const row = [3, 0, 0, 0];
      const [loss] = evaluate(b.finish([layerBalanceLoss(b, [router], { blocks: tokens })]), [
        Float64Array.from(Array.from({ length: tokens }, () => row).flat()),
      ]);
      expect(loss!.data[0]).toBeCloseTo(4 * at(softmax(row), 0), 12);
    }
  });
});
