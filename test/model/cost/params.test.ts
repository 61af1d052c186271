import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { forwardFlopsPerToken, trainFlopsPerToken } from "../../../src/model/cost/flops.js";
import { countParams } from "../../../src/model/cost/params.js";
import { parseSafetensors } from "../../support/safetensors.js";
import { specFromConfig } from "../../../src/model/decoder/config.js";
import { isBuffer, slotsOf } from "../../../src/model/tensors/slots.js";
import { readFileSync } from "node:fs";
import { golden, goldenFolders, weightFiles } from "../../support/golden.js";
import { families, specOf } from "../decoder/arbitrary.js";
import { at as elementAt, valueAt } from "../../../src/base/at.js";

const elements = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);
const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
const goldenSpec = (model: string): ReturnType<typeof specFromConfig> =>
  specFromConfig(JSON.parse(readFileSync(golden(model, "config.json")).toString()), model);

const mixtral8x7b = {
  model_type: "mixtral",
  hidden_size: 4096,
  intermediate_size: 14336,
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_experts_per_tok: 2,
  num_local_experts: 8,
  vocab_size: 32000,
  sliding_window: null,
  rope_theta: 1e6,
  rms_norm_eps: 1e-5,
  router_aux_loss_coef: 0.02,
  max_position_embeddings: 32768,
  tie_word_embeddings: false,
};
const qwen3A3b = {
  model_type: "qwen3_moe",
  hidden_size: 2048,
  intermediate_size: 6144,
  moe_intermediate_size: 768,
  head_dim: 128,
  num_attention_heads: 32,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  num_experts: 128,
  num_experts_per_tok: 8,
  norm_topk_prob: true,
  decoder_sparse_step: 1,
  mlp_only_layers: [],
  vocab_size: 151936,
  tie_word_embeddings: false,
  attention_bias: false,
  rope_theta: 1e6,
  max_position_embeddings: 40960,
  use_sliding_window: false,
  sliding_window: null,
};

describe("countParams", () => {
  const index = JSON.parse(readFileSync(golden("", "index.json"), "utf8")) as Record<string, [number, number, string]>;

  it.each(goldenFolders)("%s: formula = slots = stored elements = what transformers counted", (model) => {
    const spec = goldenSpec(model);
    const { total } = countParams(spec);
    expect(total).toBe(sum(slotsOf(spec).map(({ shape }) => elements(shape))));
    const tensors = weightFiles(model).flatMap((file) => [
      ...parseSafetensors(readFileSync(golden(model, file)), file).tensors.values(),
    ]);
    expect(total).toBe(sum(tensors.map(({ shape }) => elements(shape))));
    // ERNIE's correction biases are parameters of its class; the other classes have them as buffers, which are not
    // counted.
    const buffers = sum(
      slotsOf(spec)
        .filter(({ at }) => isBuffer(at) && spec.family !== "ernie4_5_moe")
        .map(({ shape }) => elements(shape)),
    );
    if (!model.startsWith("train/")) expect(total - buffers).toBe(valueAt(index, model)[1]);
  });

  it("formula = slots for every spec; active leaves out experts T+1 to E", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        const { total, active, embedding } = countParams(spec);
        const slots = slotsOf(spec);
        expect(total).toBe(sum(slots.map(({ shape }) => elements(shape))));
        const isIdle = ({ at }: (typeof slots)[number]): boolean => {
          const ffn = at.layer === undefined ? undefined : elementAt(spec.layers, at.layer).ffn;
          return ffn?.kind === "moe" && at.expert !== undefined && at.expert >= ffn.topK;
        };
        expect(active).toBe(sum(slots.filter((slot) => !isIdle(slot)).map(({ shape }) => elements(shape))));
        expect(embedding).toBe(
          sum(slots.filter(({ at }) => at.part === "embed" || at.part === "head").map(({ shape }) => elements(shape))),
        );
      }),
    );
  });

  it("counts published models as their makers do", () => {
    expect(countParams(specFromConfig(mixtral8x7b, "t"))).toEqual({
      total: 46_702_792_704,
      active: 12_879_925_248,
      embedding: 262_144_000,
    });
    expect(countParams(specFromConfig(qwen3A3b, "t"))).toMatchObject({ total: 30_532_122_624, active: 3_353_032_704 });
  });
});

describe("forwardFlops", () => {
  /** Everything that is multiplied with a token's vector: all matrices but those that are looked up in. */
  const isMatrix = ({ at, shape }: ReturnType<typeof slotsOf>[number]): boolean =>
    shape.length === 2 && at.part !== "embed" && at.part !== "positions";

  it("is 2 x active matrix parameters + attention", () => {
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), fc.integer({ min: 1, max: 4096 }), (spec, sequence) => {
        const activeMatrices = slotsOf(spec).filter((slot) => {
          const { at } = slot;
          const ffn = at.layer === undefined ? undefined : elementAt(spec.layers, at.layer).ffn;
          return isMatrix(slot) && !(ffn?.kind === "moe" && at.expert !== undefined && at.expert >= ffn.topK);
        });
        const tiedHead = spec.tiedHead ? spec.vocab * spec.hidden : 0;
        const attention =
          spec.layers.length *
          2 *
          spec.attn.heads *
          (spec.attn.headDim + (spec.attn.latent?.valueDim ?? spec.attn.headDim)) *
          sequence;
        expect(forwardFlopsPerToken(spec, sequence)).toBe(
          2 * (sum(activeMatrices.map(({ shape }) => elements(shape))) + tiedHead) + attention,
        );
        expect(trainFlopsPerToken(spec, sequence)).toBe(3 * forwardFlopsPerToken(spec, sequence));
      }),
    );
  });

  it("agrees with a count by hand for the golden llama", () => {
    // 2 layers x (q 32x32, k and v 16x32, o 32x32, 3 x 64x32, scores and values 2 x 32 x 24) and head 96x32, two FLOPs
    // each.
    expect(forwardFlopsPerToken(goldenSpec("dense/llama"), 24)).toBe(
      2 * (2 * (1024 + 512 + 512 + 1024 + 6144 + 1536) + 3072),
    );
  });
});
