/**
 * Configs of public bug reports about models that were read wrong (docs/support-checked.md, "Public reports tried").
 * What transformers computes for the same changes of tiny models is compared by `test/external/sweep.mjs`.
 */
import { describe, expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { goldenConfig, read, refuses, without, type Config } from "./families/configs.js";

const llama = goldenConfig("dense/llama");
const ropeOf = (config: Config): unknown => at(read(config).layers, 0).rope;
/** A config with the keys of transformers 4 only. */
const flat = (config: Config, keys: Config): Config => ({ ...without(config, "rope_parameters"), ...keys });

describe("configs of public reports", () => {
  it("ggml-org/llama.cpp#20746: a decoder that sees behind its own token is refused", () => {
    refuses(() => read({ ...llama, is_causal: false }), "is_causal is false, expected true");
    expect(read({ ...llama, is_causal: true })).toEqual(read(llama));
  });

  it('huggingface/transformers#46077: use_bidirectional_attention "all" is refused', () => {
    const config = { ...goldenConfig("dense/gemma3_text"), use_bidirectional_attention: "all" };
    refuses(() => read(config), 'use_bidirectional_attention is "all", expected false');
    refuses(() => read({ ...llama, use_bidirectional_attention: true }), "use_bidirectional_attention is true");
  });

  it("huggingface/transformers#29995: Gemma's hidden_activation has the last word over a legacy hidden_act", () => {
    const gemma = goldenConfig("dense/gemma");
    const both = { ...gemma, hidden_act: "gelu", hidden_activation: "gelu_pytorch_tanh" };
    expect(read(both)).toEqual(read(gemma));
    refuses(() => read({ ...gemma, hidden_act: "gelu" }), 'hidden_act is "gelu"');
  });

  it("vllm-project/vllm#6692: of type and rope_type in rope_scaling the second counts", () => {
    const keys = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 32 };
    const rope = ropeOf(
      flat(llama, { rope_theta: 10_000, rope_scaling: { ...keys, rope_type: "llama3", type: "yarn" } }),
    );
    expect(rope).toMatchObject({ theta: 10_000, scaling: { kind: "llama3", factor: 8 } });
  });

  it("vllm-project/vllm#48621: YaRN with equal mscale and mscale_all_dim leaves cos and sin alone", () => {
    const yarn = { rope_type: "yarn", rope_theta: 10_000, factor: 16, original_max_position_embeddings: 32 };
    const scalingOf = (keys: Config): unknown => ropeOf({ ...llama, rope_parameters: { ...yarn, ...keys } });
    expect(scalingOf({ mscale: 1, mscale_all_dim: 1 })).toMatchObject({ scaling: { attentionFactor: 1 } });
    expect(scalingOf({})).toMatchObject({
      scaling: { attentionFactor: expect.closeTo(1.2772588722239782, 12) as number },
    });
  });

  it("vllm-project/vllm#42624: a rope_theta that stands in rope_parameters only is read", () => {
    expect(ropeOf(flat(llama, { rope_parameters: { rope_type: "default", rope_theta: 500_000 } }))).toMatchObject({
      theta: 500_000,
    });
  });

  it("vllm-project/vllm#33594: gpt_oss has the windows that layer_types says, whatever their order", () => {
    const config = goldenConfig("moe/gpt_oss");
    const types = ["full_attention", "sliding_attention"];
    const windows = read({ ...config, layer_types: types }).layers.map(({ window }) => window !== null);
    expect(windows).toEqual([false, true]);
  });

  it("ggml-org/llama.cpp#18145: a granitemoehybrid without experts is not taken for a granite", () => {
    refuses(() => read({ ...goldenConfig("dense/granite"), model_type: "granitemoehybrid" }), "model_type is");
  });

  it("settings of single layers (per_layer_config of transformers 5) are refused", () => {
    refuses(() => read({ ...llama, per_layer_config: { 1: { rms_norm_eps: 0.1 } } }), "per_layer_config is");
    expect(read({ ...llama, per_layer_config: {} })).toEqual(read(llama));
  });

  it("attention_layers of GPT-Neo and n_embed of Falcon, which transformers gives the last word, are held to the rest", () => {
    const neo = goldenConfig("dense/gpt_neo");
    const kinds = read(neo).layers.map(({ window }) => (window === null ? "global" : "local"));
    expect(read({ ...neo, attention_layers: kinds })).toEqual(read(neo));
    refuses(() => read({ ...neo, attention_layers: [...kinds].reverse() }), "attention_layers is");
    refuses(() => read({ ...goldenConfig("dense/falcon"), n_embed: 8 }), "n_embed is 8");
  });

  it("layer_types of a family whose layers are all alike is refused unless every layer has full attention", () => {
    const types = ["sliding_attention", "full_attention"];
    refuses(() => read({ ...llama, layer_types: types, sliding_window: 8 }), "layer_types is");
    expect(read({ ...llama, layer_types: ["full_attention", "full_attention"] })).toEqual(read(llama));
  });
});
