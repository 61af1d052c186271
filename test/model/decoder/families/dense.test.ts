/** Class defaults of dense families for absent keys, and what their own keys mean. */
import { describe, expect, it } from "vitest";
import { at } from "../../../../src/base/at.js";
import { plainRope } from "../../../../src/model/decoder/plain.js";
import { present } from "../../../support/present.js";
import { goldenConfig, read, without, write } from "./configs.js";

const windowsOf = (config: unknown): (number | null)[] => read(config).layers.map(({ window }) => window);

describe("config of a dense family", () => {
  it("nemotron: half of each head turns, the activation is squared ReLU", () => {
    const config = without(
      goldenConfig("dense/nemotron"),
      "rope_parameters",
      "partial_rotary_factor",
      "hidden_act",
      "norm_eps",
      "bos_token_id",
      "initializer_range",
    );
    expect(read(config)).toEqual({ ...read(goldenConfig("dense/nemotron")), tokens: { bos: 2, eos: [2], pad: 0 } });
    expect(present(at(read({ ...config, partial_rotary_factor: 1 }).layers, 0).rope).rotary).toBe(8);
  });

  it("starcoder2: biases everywhere, no window, a tied head", () => {
    const config = without(
      goldenConfig("dense/starcoder2"),
      "use_bias",
      "sliding_window",
      "tie_word_embeddings",
      "num_key_value_heads",
    );
    expect(read(config)).toEqual({ ...read(goldenConfig("dense/starcoder2")), tiedHead: true });
    expect(windowsOf({ ...config, sliding_window: 9 })).toEqual([9, 9]);
  });

  it("stablelm: a quarter of each head turns, blocks in sequence or in parallel", () => {
    const config = without(
      goldenConfig("dense/stablelm"),
      "rope_parameters",
      "partial_rotary_factor",
      "use_qkv_bias",
      "use_parallel_residual",
      "layer_norm_eps",
    );
    expect(read(config)).toEqual(read(goldenConfig("dense/stablelm")));
    expect(present(at(read(config).layers, 0).rope).rotary).toBe(2);
    expect(read({ ...config, use_parallel_residual: true, use_qkv_bias: true })).toMatchObject({
      block: "parallel-shared",
      attn: { qkvBias: true, outBias: false },
    });
    expect(read({ ...config, qk_layernorm: true }).attn.qkNorm).toEqual({
      span: "own-head",
      norm: { kind: "layer", weight: "scale", bias: false, eps: 1e-5 },
      afterRope: false,
    });
  });

  it("cohere: a tied head, logits times 1/16", () => {
    const config = without(
      goldenConfig("dense/cohere"),
      "logit_scale",
      "tie_word_embeddings",
      "attention_bias",
      "use_qk_norm",
      "pad_token_id",
    );
    expect(read(config)).toEqual(read(goldenConfig("dense/cohere")));
    expect(read({ ...config, logit_scale: 2 }).multipliers).toEqual({ embedding: 1, residual: 1, logits: 2 });
  });

  it("gemma: the embedding factor has the type of the weights, the activation is the tanh GELU, the head is tied", () => {
    const gemma = goldenConfig("dense/gemma");
    const factor = (config: unknown): number => read(config).multipliers.embedding;
    expect(factor(gemma)).toBe(Math.fround(Math.sqrt(32)));
    expect(factor(without(gemma, "dtype"))).toBe(Math.fround(Math.sqrt(32)));
    // PyTorch: torch.tensor(3072 ** 0.5).bfloat16() is 55.5, .half() is 55.4375.
    expect(factor({ ...gemma, hidden_size: 3072, dtype: "bfloat16" })).toBe(55.5);
    expect(factor({ ...without(gemma, "dtype"), hidden_size: 3072, torch_dtype: "float16" })).toBe(55.4375);
    expect(read(without(gemma, "hidden_act", "tie_word_embeddings", "head_dim"))).toMatchObject({
      tiedHead: true,
      attn: { headDim: 256 },
      layers: [{ ffn: { activation: "geluTanh" } }, {}],
    });
    expect(
      at(read({ ...gemma, hidden_act: "gelu", hidden_activation: "gelu_pytorch_tanh" }).layers, 0).ffn.activation,
    ).toBe("geluTanh");
  });

  it("gemma2: class defaults of caps, scale and windows", () => {
    const gemma2 = goldenConfig("dense/gemma2");
    const bare = without(
      gemma2,
      "attn_logit_softcapping",
      "final_logit_softcapping",
      "query_pre_attn_scalar",
      "layer_types",
      "sliding_window",
    );
    expect(read(bare)).toMatchObject({ logitSoftcap: 30, block: "sandwich", attn: { softcap: 50, scale: 1 / 16 } });
    expect(windowsOf(bare)).toEqual([4096, null]);
    expect(read({ ...bare, attn_logit_softcapping: null, final_logit_softcapping: null })).toMatchObject({
      logitSoftcap: null,
      attn: { softcap: null },
    });
    expect(windowsOf({ ...bare, sliding_window: null })).toEqual([null, null]);
  });

  it("gemma3_text and olmo3: a rope per attention type, nested and flat", () => {
    const flat = without(goldenConfig("dense/gemma3_text"), "rope_parameters", "layer_types");
    const thetas = (config: unknown): number[] => read(config).layers.map(({ rope }) => present(rope).theta);
    expect(thetas({ ...flat, sliding_window_pattern: 2 })).toEqual([10_000, 1_000_000]);
    expect(windowsOf({ ...flat, sliding_window_pattern: 2, sliding_window: 9 })).toEqual([9, null]);
    const scaled = {
      ...flat,
      sliding_window_pattern: 2,
      rope_theta: 7,
      rope_local_base_freq: 5,
      rope_scaling: { rope_type: "linear", factor: 8 },
    };
    const spec = read(scaled);
    expect(spec.layers.map(({ rope }) => rope)).toEqual([
      plainRope(5, 8),
      { ...plainRope(7, 8), scaling: { kind: "linear", factor: 8 } },
    ]);
    expect(write(spec)).toMatchObject({
      rope_theta: 7,
      rope_local_base_freq: 5,
      rope_scaling: { rope_type: "linear", factor: 8 },
      rope_parameters: {
        full_attention: { rope_theta: 7, rope_type: "linear", factor: 8 },
        sliding_attention: { rope_theta: 5, rope_type: "default" },
      },
    });
    const olmo3 = {
      ...without(goldenConfig("dense/olmo3"), "rope_parameters"),
      layer_types: ["full_attention", "sliding_attention"],
    };
    expect(thetas(olmo3)).toEqual([500_000, 500_000]);
    expect(
      read({ ...olmo3, rope_theta: 500_000, rope_scaling: { rope_type: "linear", factor: 2 } }).layers.map(
        ({ rope }) => rope,
      ),
    ).toEqual([{ ...plainRope(500_000, 8), scaling: { kind: "linear", factor: 2 } }, plainRope(500_000, 8)]);
    // The flat keys of olmo3 have one theta for both, and only the class's own means the same in transformers 4 and 5.
    const two = read({
      ...olmo3,
      rope_parameters: { full_attention: { rope_theta: 3 }, sliding_attention: { rope_theta: 4 } },
    });
    expect(without(write(two), "rope_parameters").rope_theta).toBeUndefined();
    expect(windowsOf(without({ ...olmo3, num_hidden_layers: 5, sliding_window: 3 }, "layer_types"))).toEqual([
      3,
      3,
      3,
      null,
      3,
    ]);
  });

  it("granite: logits are divided, attention_multiplier is the scale also when absent", () => {
    const granite = goldenConfig("dense/granite");
    expect(read(granite)).toMatchObject({
      multipliers: { embedding: 12, residual: 0.22, logits: 1 / 8 },
      attn: { scale: 0.25 },
    });
    expect(read(without(granite, "attention_multiplier", "logits_scaling"))).toMatchObject({
      multipliers: { logits: 1 },
      attn: { scale: 1 },
    });
  });

  it("smollm3: every fourth layer has no rope, and only such layers slide", () => {
    const smollm3 = {
      ...without(goldenConfig("dense/smollm3"), "no_rope_layers", "layer_types"),
      num_hidden_layers: 5,
    };
    expect(read(smollm3).layers.map(({ rope }) => rope === null)).toEqual([false, false, false, true, false]);
    expect(read({ ...smollm3, no_rope_layer_interval: 2 }).layers.map(({ rope }) => rope === null)).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
    expect(windowsOf({ ...smollm3, use_sliding_window: true, sliding_window: 6 })).toEqual([null, null, null, 6, null]);
    expect(windowsOf({ ...smollm3, use_sliding_window: true })).toEqual([null, null, null, null, null]);
  });

  it("olmo2 and olmo: where norms stand and what they are", () => {
    const rms = { kind: "rms", weight: "scale", bias: false, eps: 1e-5 };
    expect(read(goldenConfig("dense/olmo2"))).toMatchObject({
      block: "post",
      norm: rms,
      attn: { qkNorm: { span: "full", norm: rms } },
    });
    expect(read({ ...goldenConfig("dense/olmo"), clip_qkv: 8 })).toMatchObject({
      block: "pre",
      norm: { kind: "layer", weight: "none", bias: false, eps: 1e-5 },
      attn: { clip: 8, qkNorm: null },
    });
  });

  it("gpt_neox: rotary_pct and rotary_emb_base, parallel blocks", () => {
    const config = without(
      goldenConfig("dense/gpt_neox"),
      "rope_parameters",
      "use_parallel_residual",
      "attention_bias",
    );
    expect(read(config)).toEqual(read(goldenConfig("dense/gpt_neox")));
    const other = read({ ...config, rotary_pct: 0.5, rotary_emb_base: 7, use_parallel_residual: false });
    expect(other).toMatchObject({ block: "pre", layers: [{ rope: { theta: 7, rotary: 4 } }, {}] });
    expect(write(other)).toMatchObject({ rotary_pct: 0.5, rotary_emb_base: 7 });
  });
});
