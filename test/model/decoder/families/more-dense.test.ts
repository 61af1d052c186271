/** Further dense families: class defaults for absent keys, what released files say, what is refused by name. */
import { describe, expect, it } from "vitest";
import { at } from "../../../../src/base/at.js";
import { falconAlibi, mptAlibi } from "../../../../src/model/decoder/families/alibi.js";
import type { DecoderSpec } from "../../../../src/model/decoder/types.js";
import { present } from "../../../support/present.js";
import { goldenConfig, read, refuses, without, write, type Config } from "./configs.js";

const windowsOf = ({ layers }: DecoderSpec): (number | null)[] => layers.map(({ window }) => window);
const hasRope = ({ layers }: DecoderSpec): boolean[] => layers.map(({ rope }) => rope !== null);
const firstRope = ({ layers }: DecoderSpec) => present(at(layers, 0).rope);
const dense = (name: string): Config => goldenConfig(`dense/${name}`);

describe("glm and glm4", () => {
  it("turn neighbouring pairs of half of each head, with biases on queries, keys and values", () => {
    const bare = without(dense("glm4"), "rope_parameters", "partial_rotary_factor", "attention_bias", "rms_norm_eps");
    expect(read(bare)).toEqual(read(dense("glm4")));
    expect(read(bare)).toMatchObject({
      block: "sandwich",
      attn: { qkvBias: true, outBias: false },
      norm: { eps: 1.5625e-7 },
    });
    expect(firstRope(read(bare))).toMatchObject({ rotary: 4, interleaved: true, theta: 10_000 });
    expect(read({ ...bare, model_type: "glm" }).block).toBe("pre");
    expect(read(without(bare, "eos_token_id")).tokens.eos).toEqual([151_329, 151_336, 151_338]);
    const endless = { ...read(bare), tokens: { ...read(bare).tokens, eos: [] } };
    expect(read(write(endless))).toEqual(endless);
  });

  it("write no other blocks than their own", () => {
    refuses(() => write({ ...read(dense("glm4")), block: "pre" }), "a glm4 model cannot have pre blocks");
    refuses(() => write({ ...read(dense("glm")), block: "sandwich" }), 'a glm model cannot have block "sandwich"');
  });
});

describe("seed_oss", () => {
  it("has keys of its own for the biases of the output projection and the FFN", () => {
    const bare = without(dense("seed_oss"), "attention_bias", "attention_out_bias", "mlp_bias", "head_dim");
    expect(read(bare).attn).toMatchObject({ headDim: 128, qkvBias: true, outBias: false });
    const biased = read({ ...bare, attention_bias: false, attention_out_bias: true, mlp_bias: true });
    expect(biased).toMatchObject({ attn: { qkvBias: false, outBias: true }, layers: [{ ffn: { bias: true } }, {}] });
    expect(read(write(biased))).toEqual(biased);
  });
});

describe("arcee", () => {
  it("squares its ReLU and has no gate", () => {
    expect(at(read(without(dense("arcee"), "hidden_act")).layers, 0).ffn).toMatchObject({
      activation: "relu2",
      gated: false,
    });
    const gated = read(dense("arcee"));
    refuses(
      () =>
        write({ ...gated, layers: gated.layers.map((layer) => ({ ...layer, ffn: { ...layer.ffn, gated: true } })) }),
      "a arcee model cannot have an FFN with a gate",
    );
  });
});

describe("exaone4", () => {
  const bare = without(dense("exaone4"), "layer_types", "sliding_window_pattern", "sliding_window");

  it("has rope on layers with a window alone, or everywhere where there is no window", () => {
    const five = read({ ...bare, num_hidden_layers: 5 });
    expect(windowsOf(five)).toEqual([4096, 4096, 4096, null, 4096]);
    expect(hasRope(five)).toEqual([true, true, true, false, true]);
    expect(five).toMatchObject({ block: "post", attn: { qkNorm: { span: "head", afterRope: false } } });
    const whole = read({ ...bare, sliding_window: null, sliding_window_pattern: null });
    expect([windowsOf(whole), hasRope(whole)]).toEqual([
      [null, null],
      [true, true],
    ]);
    expect(read(write(whole))).toEqual(whole);
    const full = read({ ...bare, layer_types: ["full_attention", "full_attention"] });
    expect(hasRope(full)).toEqual([false, false]);
    expect(read(write(full))).toEqual(full);
  });

  it("reads a pattern of letters only beside layer_types, and no window without a size", () => {
    refuses(
      () => read({ ...bare, sliding_window_pattern: "LLLG" }),
      'sliding_window_pattern is "LLLG", expected a number',
    );
    const types = ["sliding_attention", "full_attention"];
    expect(windowsOf(read({ ...bare, sliding_window_pattern: "LG", layer_types: types }))).toEqual([4096, null]);
    refuses(
      () => read({ ...bare, sliding_window: null, layer_types: types }),
      "because sliding windows are switched off",
    );
    const everywhere = read(dense("exaone4"));
    refuses(
      () =>
        write({ ...everywhere, layers: everywhere.layers.map((layer) => ({ ...layer, rope: firstRope(everywhere) })) }),
      "rope on other layers than those with a sliding window",
    );
  });
});

describe("cohere2", () => {
  const bare = without(dense("cohere2"), "layer_types", "sliding_window", "logit_scale", "tie_word_embeddings");

  it("has a window and rope on three layers of four", () => {
    const five = read({ ...bare, num_hidden_layers: 5 });
    expect(windowsOf(five)).toEqual([4096, 4096, 4096, null, 4096]);
    expect(hasRope(five)).toEqual([true, true, true, false, true]);
    expect(five).toMatchObject({ block: "parallel-shared", tiedHead: true, multipliers: { logits: 1 / 16 } });
    expect(windowsOf(read({ ...bare, sliding_window_pattern: 2, sliding_window: 7 }))).toEqual([7, null]);
  });

  it("takes keys of released files for what the class computes, and refuses the rest", () => {
    const released = {
      layer_switch: 4,
      order_of_interleaved_layers: "local_attn_first",
      position_embedding_type: "rope_gptj",
      rotary_pct: 1,
      use_embedding_sharing: true,
      use_gated_activation: true,
      use_parallel_block: true,
      use_parallel_embedding: false,
    };
    expect(read({ ...bare, ...released })).toEqual(read(bare));
    refuses(() => read({ ...bare, layer_switch: 3 }), "layer_switch is 3, expected 4");
    refuses(() => read({ ...bare, use_qk_norm: true }), "use_qk_norm is true, expected false");
    refuses(() => read({ ...bare, use_parallel_block: false }), "use_parallel_block is false, expected true");
    refuses(() => read({ ...bare, rotary_pct: 0.5 }), "rotary_pct is 0.5, expected 1");
    refuses(() => read({ ...bare, head_dim: 16 }), "head_dim is 16, expected 8, hidden_size / num_attention_heads");
  });
});

describe("ernie4_5, helium, hunyuan_v1_dense", () => {
  it("turn neighbouring pairs, with biases by one key or by three", () => {
    const ernie = without(dense("ernie4_5"), "use_bias", "tie_word_embeddings", "rope_parameters");
    expect(read(ernie)).toEqual(read(dense("ernie4_5")));
    expect(firstRope(read(ernie))).toMatchObject({ theta: 500_000, interleaved: true });
    expect(read({ ...ernie, use_bias: true })).toMatchObject({
      attn: { qkvBias: true, outBias: true },
      layers: [{ ffn: { bias: true } }, {}],
    });
    const helium = without(dense("helium"), "rope_parameters", "attention_bias", "mlp_bias", "rms_norm_eps");
    expect(read(helium)).toEqual(read(dense("helium")));
    expect(read(helium)).toMatchObject({ norm: { eps: 1e-8 }, attn: { outBias: false } });
    expect(firstRope(read(helium)).theta).toBe(100_000);
    refuses(() => read({ ...helium, head_dim: 16 }), "head_dim is 16, expected 8");
  });

  it("normalise queries and keys behind rope, whose alpha raises theta", () => {
    const hunyuan = without(dense("hunyuan_v1_dense"), "rope_parameters");
    const released = {
      rope_scaling: {
        alpha: 1000,
        beta_fast: 32,
        beta_slow: 1,
        factor: 1,
        mscale: 1,
        mscale_all_dim: 1,
        type: "dynamic",
      },
      rope_theta: 10_000,
      use_qk_norm: true,
      use_cla: false,
      norm_type: "hf_rms",
    };
    const spec = read({ ...hunyuan, ...released });
    expect(spec.attn.qkNorm).toMatchObject({ span: "head", afterRope: true });
    expect(firstRope(spec).theta).toBeCloseTo(10_000 * 1000 ** (8 / 6), 3);
    refuses(() => read({ ...hunyuan, use_qk_norm: false }), "use_qk_norm is false, expected true");
    refuses(() => read({ ...hunyuan, use_cla: true }), "use_cla is true, expected false");
    refuses(() => read({ ...hunyuan, rope_scaling: { type: "dynamic", factor: 2 } }), 'rope_scaling.type is "dynamic"');
  });
});

describe("ministral and ministral3", () => {
  it("ministral has a window on every layer unless layer_types says otherwise", () => {
    const bare = without(dense("ministral"), "layer_types");
    expect(windowsOf(read(bare))).toEqual([8, 8]);
    expect(windowsOf(read({ ...bare, sliding_window: null }))).toEqual([null, null]);
    expect(write(read({ ...bare, sliding_window: null }))).toMatchObject({ sliding_window: 4096 });
  });

  it("ministral3 scales queries by the length of its first training", () => {
    const config = dense("ministral3");
    const spec = read(config);
    expect(spec.attn.lengthScale).toEqual({ beta: 0.1, originalMaxPositions: 8 });
    expect(write(spec)).toMatchObject({
      rope_parameters: { llama_4_scaling_beta: 0.1, original_max_position_embeddings: 8 },
    });
    expect(write(spec)["rope_scaling"]).toBeUndefined();
    const classDefault = read(without(config, "rope_parameters"));
    expect(classDefault.attn.lengthScale).toEqual({ beta: 0.1, originalMaxPositions: 16_384 });
    expect(firstRope(classDefault)).toMatchObject({
      theta: 1e6,
      scaling: { kind: "yarn", factor: 16, attentionFactor: 1 },
    });
    const plain = { rope_type: "default", rope_theta: 5 };
    refuses(
      () => read({ ...config, rope_parameters: plain }),
      "llama_4_scaling_beta is missing, expected a number from 0",
    );
    const none = read({
      ...config,
      rope_parameters: { ...plain, llama_4_scaling_beta: 0, original_max_position_embeddings: 9 },
    });
    expect(none.attn.lengthScale).toBeNull();
  });
});

describe("apertus", () => {
  it("has xIELU without a gate, and Llama 3's rope where a file has none", () => {
    const spec = read(without(dense("apertus"), "rope_parameters", "hidden_act"));
    expect(spec).toMatchObject({
      attn: { qkNorm: { span: "head" } },
      layers: [{ ffn: { activation: "xielu", gated: false } }, {}],
    });
    expect(firstRope(spec)).toMatchObject({
      theta: 12_000_000,
      scaling: { kind: "llama3", factor: 8, originalMaxPositions: 8192 },
    });
    refuses(() => read({ ...dense("apertus"), qk_norm: false }), "qk_norm is false, expected true");
    refuses(() => read({ ...dense("apertus"), post_norm: true }), "post_norm is true, expected false");
    refuses(() => read({ ...dense("llama"), hidden_act: "xielu" }), 'hidden_act is "xielu", expected "silu"');
    refuses(() => read({ ...dense("nemotron"), hidden_act: "xielu" }), 'hidden_act is "xielu", expected "silu" or');
  });
});

describe("cwm, jais2, hyperclovax, vaultgemma", () => {
  it("cwm has a window on all layers but every fourth, and Llama 3's rope where a file has none", () => {
    const bare = without(dense("cwm"), "layer_types", "sliding_window", "rope_parameters");
    const five = read({ ...bare, num_hidden_layers: 5 });
    expect(windowsOf(five)).toEqual([null, 8192, 8192, 8192, null]);
    expect(firstRope(five)).toMatchObject({ theta: 1e6, scaling: { kind: "llama3", factor: 16 } });
    expect(windowsOf(read({ ...bare, sliding_window: 0, layer_types: ["full_attention", "full_attention"] }))).toEqual([
      null,
      null,
    ]);
    expect(read(without(bare, "eos_token_id")).tokens.eos).toEqual([128_001, 128_008, 128_009]);
  });

  it("jais2 has biases everywhere and squares its ReLU", () => {
    const bare = without(dense("jais2"), "attention_bias", "mlp_bias", "hidden_act", "layer_norm_eps");
    expect(read(bare)).toEqual(read(dense("jais2")));
    expect(read(bare)).toMatchObject({
      attn: { qkvBias: true },
      layers: [{ ffn: { activation: "relu2", bias: true } }, {}],
    });
  });

  it("hyperclovax multiplies logits, and has norms behind each part unless it says otherwise", () => {
    const bare = without(dense("hyperclovax"), "attention_multiplier", "use_post_norm");
    expect(read(bare)).toMatchObject({ block: "sandwich", multipliers: { logits: 0.25 }, attn: { scale: 8 ** -0.5 } });
    expect(read({ ...bare, use_post_norm: false, attention_multiplier: 0.1 })).toMatchObject({
      block: "pre",
      attn: { scale: 0.1 },
    });
    refuses(() => write({ ...read(bare), block: "post" }), "a hyperclovax model cannot have post blocks");
  });

  it("vaultgemma is Gemma 2 without norms behind", () => {
    const bare = without(dense("vaultgemma"), "attn_logit_softcapping", "final_logit_softcapping", "layer_types");
    expect(read(bare)).toMatchObject({
      block: "pre",
      logitSoftcap: 30,
      attn: { softcap: 50 },
      norm: { weight: "one-plus" },
    });
    expect(windowsOf(read(bare))).toEqual([8, null]);
  });
});

describe("classes that make a mask for sliding layers even where there are none", () => {
  it.each(["gemma2", "gemma3_text", "olmo3", "vaultgemma", "cohere2", "ministral", "cwm"])(
    "%s: get a size for it",
    (family) => {
      const spec = read(dense(family));
      const full = {
        ...spec,
        layers: spec.layers.map((layer) => ({
          ...layer,
          window: null,
          rope: family === "cohere2" ? null : layer.rope,
        })),
      };
      const same = family === "olmo3" || family === "gemma3_text" ? [firstRope(spec), firstRope(spec)] : null;
      const layers = full.layers.map((layer, i) => ({ ...layer, rope: same?.[i] ?? layer.rope }));
      const config = write({ ...full, layers });
      expect(config["sliding_window"]).toBeGreaterThan(0);
      expect(windowsOf(read(config))).toEqual([null, null]);
    },
  );
});

describe("falcon", () => {
  const bare = without(
    dense("falcon"),
    ...["num_kv_heads", "new_decoder_architecture", "parallel_attn", "multi_query", "bias", "alibi"],
    ...["num_ln_in_parallel_attn", "ffn_hidden_size", "activation"],
  );

  it("reads the forms of 7B, 40B, 11B and RW", () => {
    expect(read(bare)).toMatchObject({
      block: "parallel-shared",
      attn: { kvHeads: 1, alibi: null },
      layers: [{ ffn: { ffnDim: 128, activation: "gelu" } }, {}],
    });
    // As 7B says; the number counts only in the new form.
    expect(read({ ...bare, num_kv_heads: 4 }).attn.kvHeads).toBe(1);
    const large = { ...bare, new_decoder_architecture: true, num_kv_heads: 2 };
    expect(read(large)).toMatchObject({ block: "parallel", attn: { kvHeads: 2 } });
    expect(read({ ...large, num_ln_in_parallel_attn: 1 }).block).toBe("parallel-shared");
    const rw = read({ ...bare, alibi: true, multi_query: false, parallel_attn: false, bias: true });
    expect(rw).toMatchObject({
      block: "pre",
      attn: { kvHeads: 4, qkvBias: true, outBias: true, alibi: { rounded: true, scaled: true } },
    });
    expect(hasRope(rw)).toEqual([false, false]);
    for (const spec of [read(bare), read(large), rw]) expect(read(write(spec))).toEqual(spec);
  });

  it("refuses forms that the class cannot compute", () => {
    refuses(
      () => read({ ...bare, alibi: true }),
      "alibi is true, expected false where several heads of queries share a key",
    );
    refuses(() => read({ ...bare, num_ln_in_parallel_attn: 2 }), "num_ln_in_parallel_attn is 2, expected 1");
    refuses(
      () => read({ ...bare, new_decoder_architecture: true, parallel_attn: false }),
      "parallel_attn is false, expected true",
    );
    refuses(
      () => read({ ...bare, apply_residual_connection_post_layernorm: true }),
      "apply_residual_connection_post_layernorm is true, expected false",
    );
    refuses(() => write({ ...read(bare), block: "post" }), "a falcon model cannot have post blocks");
  });

  it("has the slopes of transformers", () => {
    // build_alibi_tensor and build_mpt_alibi_tensor of transformers 5.18, six heads.
    expect(falconAlibi(6).slopes).toEqual([0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    expect(falconAlibi(32).slopes.slice(0, 3)).toEqual([0.83984375, 0.70703125, 0.59375]);
    expect(mptAlibi(6).slopes).toEqual([0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125]);
    expect(mptAlibi(4).slopes).toEqual([0.25, 0.0625, 0.015625, 0.00390625]);
  });
});

describe("mpt", () => {
  it("has linear biases, a limit and a scale, and an FFN of four widths", () => {
    const bare = without(dense("mpt"), "attn_config", "expansion_ratio", "no_bias", "norm_type");
    expect(read(bare)).toEqual(read(dense("mpt")));
    const own = read({ ...bare, attn_config: { clip_qkv: 6, softmax_scale: 0.25 } });
    expect(own.attn).toMatchObject({ clip: 6, scale: 0.25, alibi: { rounded: false, scaled: false } });
    expect(read(write(own))).toEqual(own);
    for (const [attention, line] of [
      [{ alibi: false }, "attn_config.alibi is false, expected true"],
      [{ alibi_bias_max: 16 }, "attn_config.alibi_bias_max is 16, expected 8"],
      [{ qk_ln: true }, "attn_config.qk_ln is true, expected false"],
      [{ prefix_lm: true }, "attn_config.prefix_lm is true, expected false"],
      [{ attn_type: "multiquery_attention" }, 'attn_config.attn_type is "multiquery_attention"'],
    ] as const)
      refuses(() => read({ ...bare, attn_config: attention }), line);
    refuses(() => read({ ...bare, expansion_ratio: 2 }), "expansion_ratio is 2, expected 4");
    refuses(() => read({ ...bare, no_bias: false }), "no_bias is false, expected true");
    refuses(
      () => read({ ...bare, logit_scale: "inv_sqrt_d_model" }),
      'logit_scale is "inv_sqrt_d_model", expected null',
    );
    refuses(() => read({ ...bare, norm_type: "rmsnorm" }), 'norm_type is "rmsnorm"');
  });
});

describe("opt", () => {
  it("begins its positions at the third row, with biases or without", () => {
    const bare = without(
      dense("opt"),
      "enable_bias",
      "layer_norm_elementwise_affine",
      "activation_function",
      "do_layer_norm_before",
      "word_embed_proj_dim",
    );
    expect(read(bare)).toEqual(read(dense("opt")));
    expect(read(bare)).toMatchObject({ learnedPositions: true, positionsOffset: 2, norm: { eps: 1e-5, bias: true } });
    const galactica = read({ ...bare, enable_bias: false, layer_norm_elementwise_affine: false });
    expect(galactica).toMatchObject({ attn: { qkvBias: false }, norm: { weight: "none", bias: false } });
    expect(read(write(galactica))).toEqual(galactica);
    // OPT 350M
    refuses(() => read({ ...bare, do_layer_norm_before: false }), "do_layer_norm_before is false, expected true");
    refuses(() => read({ ...bare, word_embed_proj_dim: 16 }), "word_embed_proj_dim is 16, expected 32");
    refuses(
      () => read({ ...bare, _remove_final_layer_norm: true }),
      "_remove_final_layer_norm is true, expected false",
    );
    refuses(
      () => write({ ...galactica, positionsOffset: 0 }),
      "a opt model cannot have learnt positions that begin at row 0",
    );
  });
});

describe("gptj and phi", () => {
  it("have a bias on the logits behind parallel blocks", () => {
    const gptj = read(without(dense("gptj"), "activation_function"));
    expect(gptj).toMatchObject({ block: "parallel-shared", headBias: true, attn: { qkvBias: false, outBias: false } });
    expect(firstRope(gptj)).toMatchObject({ theta: 10_000, rotary: 4, interleaved: true });
    expect(write(gptj)).toMatchObject({ rotary_dim: 4, n_inner: 64, activation_function: "gelu_new" });
    refuses(() => read({ ...dense("gptj"), rotary_dim: null }), "rotary_dim is null, expected an integer");
    refuses(() => read({ ...dense("gptj"), rotary_dim: 10 }), "rotary_dim is 10, expected an even number up to 8");
    refuses(() => write({ ...gptj, headBias: false }), "a gptj model cannot have logits without a bias");
    const codegen = read(without(dense("codegen"), "activation_function"));
    expect(codegen).toMatchObject({ family: "codegen", block: "parallel-shared", headBias: true });
    expect(codegen.layers[0]?.ffn).toMatchObject({ ffnDim: 128, gated: false, activation: "geluTanh" });
    refuses(() => read({ ...dense("codegen"), n_head: 2 }), "n_head is 2, expected a multiple of 4");
    const phi = read(without(dense("phi"), "rope_parameters", "partial_rotary_factor", "hidden_act"));
    expect(phi).toEqual(read(dense("phi")));
    expect(phi).toMatchObject({ block: "parallel-shared", headBias: true, attn: { qkvBias: true, outBias: true } });
    refuses(() => read({ ...dense("phi"), qk_layernorm: true }), "qk_layernorm is true, expected false");
  });
});

describe("gpt_neo and gpt_bigcode", () => {
  it("gpt_neo repeats kinds of attention, and does not scale scores", () => {
    const config = dense("gpt_neo");
    expect(read(config)).toMatchObject({ attn: { scale: 1, qkvBias: false, outBias: true }, learnedPositions: true });
    const bare = without(config, "attention_layers");
    const types = (kinds: unknown): DecoderSpec => read({ ...bare, num_layers: 4, attention_types: kinds });
    expect(windowsOf(types([[["global", "local"], 2]]))).toEqual([null, 8, null, 8]);
    expect(
      windowsOf(
        types([
          [["global"], 1],
          [["local"], 3],
        ]),
      ),
    ).toEqual([null, 8, 8, 8]);
    refuses(() => types([[["global"], 3]]), 'pairs of "global" and "local" for 4 layers (found 3)');
    refuses(() => types([[["everything"], 4]]), "attention_types is");
    refuses(() => types(null), "(found 24)");
  });

  it("gpt_bigcode has one key head, or one for each head", () => {
    const config = without(dense("gpt_bigcode"), "multi_query", "num_key_value_heads");
    expect(read(config).attn).toMatchObject({ heads: 4, kvHeads: 1 });
    const all = read({ ...config, multi_query: false });
    expect(all.attn.kvHeads).toBe(4);
    expect(read(write(all))).toEqual(all);
    refuses(
      () => write({ ...all, attn: { ...all.attn, kvHeads: 2 } }),
      "a gpt_bigcode model cannot have 2 key heads for 4 heads",
    );
    refuses(() => read({ ...config, scale_attn_weights: false }), "scale_attn_weights is false, expected true");
  });
});
