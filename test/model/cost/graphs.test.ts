/** FLOPs and saved activations by formula against the graphs that are really built, and against published sizes. */
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { forwardFlops, forwardFlopsPerToken, recomputedFlops } from "../../../src/model/cost/flops.js";
import { blockActivationBytes, bytesPerParam, headActivationBytes, type Cut } from "../../../src/model/cost/memory.js";
import { keyDim } from "../../../src/graph/nn/attention.js";
import { countParams } from "../../../src/model/cost/params.js";
import { elements, type Graph, type Node } from "../../../src/graph/ir/ir.js";
import { mixtureOf, shapeSpec, shapeDefaults } from "../../../src/laws/planner/shape.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import type { DecoderSpec } from "../../../src/model/decoder/types.js";
import { lossProgram, trainProgram } from "../../../src/graph/programs/programs.js";
import { parseRecipeName } from "../../../src/surgery/planning/recipe.js";
import { families, specOf } from "../decoder/arbitrary.js";
import { golden, goldenFolders } from "../../support/golden.js";
import { presetSpec } from "../../laws/planner/request.js";
import { at } from "../../../src/base/at.js";
import { present } from "../../support/present.js";

const uncut: Cut = { tensor: 1, expertTensor: 1, imbalance: 1 };

const goldenSpec = (model: string): DecoderSpec =>
  specFromConfig(JSON.parse(readFileSync(golden(model, "config.json")).toString()), model);
const shape = { batch: 1, sequence: 16 };

/** Two FLOPs per multiply-add of every matrix product in a graph. */
function countedFlops({ nodes, values }: Graph): number {
  const size = (id: number): readonly number[] => at(values, id).shape;
  const of = (node: Node): number => {
    switch (node.prim) {
      case "matmul":
        return 2 * elements(size(node.out[0])) * present(size(node.in[0])[node.attrs.transA ? 0 : 1]);
      case "groupedMatmul":
        return 2 * elements(size(node.out[0])) * at(size(node.in[0]), 1);
      case "groupedMatmulGradW":
        // Rows are dealt out to the experts: together they are multiplied once.
        return 2 * elements(size(node.in[0])) * at(size(node.in[1]), 1);
      case "attention":
        return 2 * node.attrs.sequence * (elements(size(node.in[0])) + elements(size(node.out[0])));
      case "attentionGrad":
        return 4 * node.attrs.sequence * (elements(size(node.in[0])) + elements(size(present(node.in.at(-1)))));
      case "headCrossEntropy":
        return 2 * elements(size(node.in[0])) * at(size(node.in[1]), 0);
      case "headCrossEntropyGrad":
        return 4 * elements(size(node.in[0])) * at(size(node.in[1]), 0);
      default:
        return 0;
    }
  };
  return nodes.reduce((sum, node) => sum + of(node), 0);
}

/** FLOPs per token of columns that stand for linear biases and for a head's bias, which the formula leaves out. */
function biasColumns({ attn, layers, headBias, vocab }: DecoderSpec, sequence: number): number {
  const columns = attn.heads * (keyDim(attn) - attn.headDim);
  return 2 * sequence * columns * layers.length + (headBias ? 2 * 8 * vocab : 0);
}

describe("FLOPs are those of the graph", () => {
  it.each(goldenFolders)("of %s, forward and backward", (model) => {
    const spec = goldenSpec(model);
    const tokens = shape.batch * shape.sequence;
    const { auxLossCoef: auxCoef } = spec;
    const perToken = forwardFlopsPerToken(spec, shape.sequence) + biasColumns(spec, shape.sequence);
    expect(countedFlops(lossProgram(spec, shape).graph)).toBe(tokens * perToken);
    expect(countedFlops(trainProgram(spec, { ...shape, auxCoef, zCoef: 0 }).graph)).toBe(3 * tokens * perToken);
  });

  it("of every spec that can be described, forward and backward", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        expect(countedFlops(lossProgram(spec, shape).graph)).toBe(
          16 * (forwardFlopsPerToken(spec, 16) + biasColumns(spec, 16)),
        );
      }),
      { numRuns: 40 },
    );
  });

  it("by part add up; masks save half; full recomputation is one forward pass of the blocks", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), fc.integer({ min: 2, max: 8192 }), (spec, sequence) => {
        const [dense, causal] = [forwardFlops(spec, sequence, "dense"), forwardFlops(spec, sequence, "causal")];
        const { total, ...parts } = causal;
        expect(Object.values(parts).reduce((sum, value) => sum + value, 0)).toBeCloseTo(total, -2);
        expect(causal.attention).toBeLessThan(dense.attention);
        // A token sees half of the others and itself, where no window hides more.
        if (spec.layers.every(({ window }) => window === null))
          expect(causal.attention / dense.attention).toBeCloseTo((sequence + 1) / (2 * sequence), 9);
        expect([
          recomputedFlops(causal, "none"),
          recomputedFlops(causal, "selective"),
          recomputedFlops(causal, "full"),
        ]).toEqual([0, 0, total - causal.head]);
      }),
    );
  });

  it("count the tokens in a window one by one", () => {
    const spec = goldenSpec("dense/llama");
    for (const [sequence, window] of [
      [9, 4],
      [9, 9],
      [9, 30],
      [1, 1],
    ] as const) {
      const windowed = { ...spec, layers: spec.layers.map((layer) => ({ ...layer, window })) };
      const tokensSeen =
        Array.from({ length: sequence }, (_, i) => Math.min(i + 1, window)).reduce((sum, value) => sum + value, 0) /
        sequence;
      expect(forwardFlops(windowed, sequence, "causal").attention).toBeCloseTo(
        spec.layers.length * 4 * spec.attn.heads * spec.attn.headDim * tokensSeen,
        6,
      );
    }
  });
});

/**
 * Float values of the forward pass that the backward pass reads, in elements: those of the second layer, found as what
 * one more layer adds.
 */
function savedElements(spec: DecoderSpec, without: (node: Node) => boolean): number {
  const saved = (layers: number): number => {
    const short = { ...spec, layers: Array.from({ length: layers }, () => at(spec.layers, 0)) };
    const { graph } = trainProgram(short, { ...shape, auxCoef: 0, zCoef: 0 });
    const forward = lossProgram(short, shape).graph.nodes.length;
    // The loss graph is pruned, the training graph holds it first: what the first gradient node follows.
    const firstGradient = graph.nodes.findIndex(({ prim }) => /Grad/.test(prim));
    expect(firstGradient).toBeGreaterThanOrEqual(forward / 2);
    const forwardValues = new Set(
      graph.nodes.slice(0, firstGradient).flatMap((node) => (without(node) ? [] : node.out)),
    );
    const readValues = new Set(graph.nodes.slice(firstGradient).flatMap((node) => node.in));
    // A reshaped value is the same memory.
    const root = new Map<number, number>(
      graph.nodes.flatMap((node) => (node.prim === "reshape" ? [[node.out[0], node.in[0]] as [number, number]] : [])),
    );
    const rooted = (id: number): number => (root.has(id) ? rooted(present(root.get(id))) : id);
    const saved = new Set(
      [...readValues].filter((id) => forwardValues.has(id) && at(graph.values, id).dtype === "f32").map(rooted),
    );
    return [...saved].reduce((sum, id) => sum + elements(at(graph.values, id).shape), 0);
  };
  return saved(3) - saved(2);
}

describe("saved activations are those that the graph's backward pass reads", () => {
  const tokens = shape.batch * shape.sequence;

  it.each(["dense/llama", "dense/mistral", "dense/qwen2"])("of the golden model %s", (model) => {
    const spec = goldenSpec(model);
    const graph = 2 * savedElements(spec, ({ prim }) => prim === "constant");
    // Flash attention keeps the log-sum of each row besides.
    expect(blockActivationBytes(spec, at(spec.layers, 0), "none", uncut)).toBe(graph / tokens + 4 * spec.attn.heads);
  });

  it("of a mixture of experts with a shared one", () => {
    const spec = goldenSpec("moe/mixtral");
    const ffn = at(spec.layers, 0).ffn;
    if (ffn.kind !== "moe") throw new Error("expected a mixture");
    const isRouter = (node: Node): boolean => node.prim === "constant" || node.prim === "routeTopK";
    // Router logits [N, E] are kept with their probabilities in float32; the graph keeps the logits alone.
    const graph = 2 * (savedElements(spec, isRouter) - tokens * ffn.experts) + tokens * 8 * ffn.experts;
    expect(blockActivationBytes(spec, at(spec.layers, 0), "none", uncut)).toBe(graph / tokens + 4 * spec.attn.heads);
  });

  it("shrink with recomputation and with cutting", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        for (const layer of spec.layers) {
          const [none, selective, full] = (["none", "selective", "full"] as const).map((mode) =>
            blockActivationBytes(spec, layer, mode, uncut),
          ) as [number, number, number];
          expect(full < selective && selective < none).toBe(true);
          expect(blockActivationBytes(spec, layer, "none", { ...uncut, tensor: 2 })).toBeCloseTo(none / 2, 6);
        }
        expect(headActivationBytes(spec, 1)).toBe(6 * spec.vocab);
      }),
    );
  });

  it("and states take 18 bytes a parameter", () => {
    expect(bytesPerParam.weights + bytesPerParam.gradients + bytesPerParam.optimizer).toBe(18);
  });
});

describe("published mixtures", () => {
  const olmoe = {
    model_type: "olmoe",
    hidden_size: 2048,
    intermediate_size: 1024,
    num_hidden_layers: 16,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    num_experts: 64,
    num_experts_per_tok: 8,
    vocab_size: 50304,
    norm_topk_prob: false,
    tie_word_embeddings: false,
    rope_theta: 10000,
    max_position_embeddings: 4096,
  };
  // Without the layer for multi-token prediction.
  const deepseekV3 = {
    model_type: "deepseek_v3",
    hidden_size: 7168,
    intermediate_size: 18432,
    moe_intermediate_size: 2048,
    num_hidden_layers: 61,
    num_attention_heads: 128,
    num_key_value_heads: 128,
    q_lora_rank: 1536,
    kv_lora_rank: 512,
    qk_nope_head_dim: 128,
    qk_rope_head_dim: 64,
    v_head_dim: 128,
    n_routed_experts: 256,
    n_shared_experts: 1,
    num_experts_per_tok: 8,
    n_group: 8,
    topk_group: 4,
    first_k_dense_replace: 3,
    vocab_size: 129280,
    tie_word_embeddings: false,
    rope_theta: 10000,
    max_position_embeddings: 163840,
    routed_scaling_factor: 2.5,
  };
  it.each([
    ["OLMoE", olmoe, 6_919_161_856, "1.28"],
    ["DeepSeek-V3", deepseekV3, 671_026_419_200, "37.55"],
  ] as const)("%s", (_, config, total, active) => {
    const count = countParams(specFromConfig(config, "config.json"));
    expect(count.total).toBe(total);
    expect((count.active / 1e9).toFixed(2)).toBe(active);
    // The other definition: neither embedding.
    expect(count.embedding).toBe(2 * config.vocab_size * config.hidden_size);
  });

  const nemotron = presetSpec("nemotron-4-15b");
  const billions = (value: number): string => (value / 1e9).toFixed(2);

  it("of Nemotron-4 15B, squared ReLU, without gates", () => {
    expect(billions(countParams(nemotron).total)).toBe("15.63");
    const of = (recipe: string): string[] => {
      const { total, active } = countParams(mixtureOf(nemotron, parseRecipeName(recipe)));
      return [billions(total), billions(active)];
    };
    expect(of("E8G1T2")).toEqual(["83.28", "25.29"]);
    expect(of("E8G8T8")).toEqual(["83.29", "15.64"]);
  });

  it("cost T / G of the dense FFN", () => {
    const dense = shapeSpec({
      ...shapeDefaults,
      hidden: 64,
      layers: 2,
      heads: 4,
      kvHeads: 2,
      headDim: 16,
      ffnDim: 256,
      vocab: 512,
    });
    for (const [recipe, factor] of [
      ["E8G1T2", 2],
      ["E8G8T8", 1],
      ["E8G4T8", 2],
      ["E4G1T1", 1],
    ] as const) {
      expect(forwardFlops(mixtureOf(dense, parseRecipeName(recipe)), 128, "causal").experts).toBe(
        factor * forwardFlops(dense, 128, "causal").ffn,
      );
    }
  });
});
