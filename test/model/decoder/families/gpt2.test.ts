import { describe, expect, it } from "vitest";
import { goldenConfig, read, refuses, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";

describe("gpt2", () => {
  const config = goldenConfig("dense/gpt2");
  const spec = read(config);

  it("reads absent keys as the class does", () => {
    const bare = read(
      without(
        config,
        "activation_function",
        "n_inner",
        "n_positions",
        "layer_norm_epsilon",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
      ),
    );
    expect(bare).toEqual({ ...spec, maxPositions: 1024, tokens: { bos: 50_256, eos: [50_256], pad: null } });
    expect(spec).toMatchObject({
      learnedPositions: true,
      tiedHead: true,
      attn: { qkvBias: true, outBias: true, kvHeads: 4 },
      layers: [{ rope: null, ffn: { ffnDim: 128, activation: "geluTanh", gated: false, bias: true } }, { rope: null }],
    });
    expect(write(spec)).toMatchObject({
      n_embd: 32,
      n_head: 4,
      n_layer: 2,
      n_positions: 128,
      n_inner: null,
      activation_function: "gelu_new",
    });
    expect(at(read({ ...config, n_inner: 40, activation_function: "relu" }).layers, 0).ffn).toMatchObject({
      ffnDim: 40,
      activation: "relu",
    });
  });

  it("refuses unscaled or cross attention, gates, rope and missing positions", () => {
    refuses(() => read({ ...config, scale_attn_weights: false }), "scale_attn_weights is false, expected true");
    refuses(
      () => read({ ...config, scale_attn_by_inverse_layer_idx: true }),
      "scale_attn_by_inverse_layer_idx is true, expected false",
    );
    refuses(() => read({ ...config, add_cross_attention: true }), "add_cross_attention is true, expected false");
    refuses(() => read({ ...config, n_embd: 33 }), "n_head is 4, expected a divisor of hidden_size (33)");
    refuses(() => read({ ...config, activation_function: "mish" }), 'activation_function is "mish"');
    refuses(() => write({ ...spec, learnedPositions: false }), "a gpt2 model cannot have no learnt positions");
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, ffn: { ...layer.ffn, gated: true } })) }),
      "an FFN with a gate or without biases",
    );
    refuses(
      () => write({ ...spec, layers: read(goldenConfig("dense/llama")).layers }),
      "a gpt2 model cannot have rope",
    );
  });
});
