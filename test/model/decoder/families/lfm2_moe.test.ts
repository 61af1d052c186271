import { describe, expect, it } from "vitest";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";

describe("lfm2_moe", () => {
  const config = goldenConfig("moe/lfm2_moe");
  const spec = read(config);

  it("reads absent keys as the class does", () => {
    const bare = without(
      config,
      "num_experts",
      "num_experts_per_tok",
      "norm_topk_prob",
      "use_expert_bias",
      "routed_scaling_factor",
      "num_dense_layers",
      "tie_word_embeddings",
    );
    const three = read({ ...bare, num_hidden_layers: 3, layer_types: Array(3).fill("full_attention") });
    expect(three.tiedHead).toBe(true);
    expect(three.layers.map(({ ffn }) => ffn.kind)).toEqual(["dense", "dense", "moe"]);
    expect(at(three.layers, 2).ffn).toMatchObject({
      experts: 32,
      topK: 4,
      router: { score: "sigmoid", renormalise: { plus: 1e-6, atLeast: 0 }, correctionBias: true, scaling: 1 },
    });
    expect(read({ ...bare, num_dense_layers: 0, tie_embedding: false }).tiedHead).toBe(false);
    expect(read({ ...config, norm_topk_prob: null })).toEqual(read({ ...config, norm_topk_prob: false }));
    expect(at(read({ ...config, norm_topk_prob: false, use_expert_bias: false }).layers, 1).ffn).toMatchObject({
      router: { renormalise: null, correctionBias: false },
    });
  });

  it("keeps a coefficient of a balancing loss, though the class has none", () => {
    expect(spec.auxLossCoef).toBe(0);
    expect(write(spec)).not.toHaveProperty("router_aux_loss_coef");
    expect(read(write({ ...spec, auxLossCoef: 0.25 })).auxLossCoef).toBe(0.25);
  });

  it("refuses convolution layers, softmax routers and dense layers behind sparse ones", () => {
    refuses(
      () => read({ ...config, layer_types: ["conv", "full_attention"] }),
      'layer_types is ["conv","full_attention"], expected only "full_attention" (convolution layers are not supported)',
    );
    refuses(() => read(without(config, "layer_types")), "layer_types is missing, expected 2 entries, one per layer");
    refuses(
      () => read({ ...config, num_dense_layers: 2 }),
      "num_dense_layers is 2, expected fewer dense layers than the 2 there are",
    );
    refuses(() => read({ ...config, num_experts_per_tok: 9 }), "num_experts_per_tok is 9");
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("topk-softmax") })),
      "a lfm2_moe model cannot have a softmax router",
    );
    refuses(
      () => write({ ...spec, layers: [...spec.layers].reverse() }),
      "a dense layer behind a mixture-of-experts layer",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkNorm: null } }),
      "cannot have queries and keys without a norm",
    );
    refuses(() => write(withExperts(spec, { shared: { ffnDim: 16, gated: false } })), "a shared expert");
  });
});
