import { existsSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { configFromSpec, specFromConfig, stringifyConfig } from "../../../src/model/decoder/config.js";
import { plainExperts, softmaxRouter } from "../../../src/model/decoder/types.js";
import type { DecoderSpec, MoeFfn, Rope } from "../../../src/model/decoder/types.js";
import { families, specOf } from "./arbitrary.js";
import { plainRope } from "../../../src/model/decoder/plain.js";

/** The same model with heads of another size. */
function withHeads(spec: DecoderSpec, headDim: number): DecoderSpec {
  return {
    ...spec,
    attn: { ...spec.attn, headDim, scale: headDim ** -0.5 },
    layers: spec.layers.map((layer) => ({ ...layer, rope: plainRope(10_000, headDim) })),
  };
}

const golden = (name: string): Record<string, unknown> =>
  JSON.parse(readFileSync(new URL(`../../golden/${name}/config.json`, import.meta.url), "utf8")) as Record<
    string,
    unknown
  >;
const isMoe = (family: string): boolean =>
  existsSync(new URL(`../../golden/moe/${family}/config.json`, import.meta.url));
const read = (config: unknown): DecoderSpec => specFromConfig(config, "m/config.json");
const without = (config: Record<string, unknown>, ...keys: string[]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

/** Factors that are written as others (reciprocals, YaRN's mscale) may come back with their last bits changed. */
const rounded = (spec: DecoderSpec): unknown =>
  JSON.parse(
    JSON.stringify(spec, (_, value: unknown) => (typeof value === "number" ? Number(value.toPrecision(12)) : value)),
  );

describe("round trip", () => {
  test.each(families)("%s: the spec survives config and JSON text", (family) => {
    fc.assert(
      fc.property(specOf(family), (spec) => {
        const text = stringifyConfig(configFromSpec(spec, { dtype: "bfloat16" }));
        expect(rounded(read(JSON.parse(text)))).toEqual(rounded(spec));
      }),
      { numRuns: 200 },
    );
  });

  test.each(families.filter((family) => family !== "upcycle"))(
    "%s: what HF wrote says the same after we write it",
    (family) => {
      const spec = read(golden(isMoe(family) ? `moe/${family}` : `dense/${family}`));
      expect(read(configFromSpec(spec, { dtype: "float32" }))).toEqual(spec);
    },
  );

  test("no float key is ever written as an integer", () => {
    const floats =
      /"(rms_norm_eps|norm_eps|norm_epsilon|layer_norm_eps|attn_logit_softcapping|final_logit_softcapping|clip_qkv|logit_scale|partial_rotary_factor|rope_theta|factor|low_freq_factor|high_freq_factor|router_aux_loss_coef|router_jitter_noise|routed_scaling_factor|router_scaling_factor|mscale|mscale_all_dim|input_jitter_noise|moe_norm_min|moe_loss_weight|moe_normalize_expert_weights|layer_norm_epsilon|routed_scaling_factor|initializer_range|attention_dropout)": (.*?),?$/gm;
    fc.assert(
      fc.property(fc.constantFrom(...families).chain(specOf), (spec) => {
        for (const [, key, literal] of stringifyConfig(configFromSpec(spec, { dtype: "float16" })).matchAll(floats))
          expect(`${key} ${literal}`).toMatch(/[.e]|null/);
      }),
    );
  });
});

describe("configFromSpec", () => {
  const mixtral = read(golden("moe/mixtral"));

  test("mixtral text", () => {
    expect(stringifyConfig(configFromSpec(mixtral, { dtype: "bfloat16" }))).toBe(`{
  "architectures": [
    "MixtralForCausalLM"
  ],
  "attention_dropout": 0.0,
  "bos_token_id": 1,
  "dtype": "bfloat16",
  "eos_token_id": 2,
  "head_dim": 8,
  "hidden_act": "silu",
  "hidden_size": 32,
  "initializer_range": 0.02,
  "intermediate_size": 64,
  "max_position_embeddings": 128,
  "model_type": "mixtral",
  "num_attention_heads": 4,
  "num_experts_per_tok": 2,
  "num_hidden_layers": 2,
  "num_key_value_heads": 2,
  "num_local_experts": 4,
  "output_router_logits": false,
  "pad_token_id": 0,
  "rms_norm_eps": 0.00001,
  "rope_parameters": {
    "rope_theta": 1000000.0,
    "rope_type": "default"
  },
  "rope_scaling": null,
  "rope_theta": 1000000.0,
  "router_aux_loss_coef": 0.001,
  "router_jitter_noise": 0.0,
  "sliding_window": null,
  "tie_word_embeddings": false,
  "torch_dtype": "bfloat16",
  "transformers_version": "5.18.0",
  "use_cache": true,
  "vocab_size": 96
}
`);
  });

  test("rope is written flat and nested", () => {
    expect(configFromSpec(read(golden("dense/llama3_rope")), { dtype: "float32" })).toMatchObject({
      rope_theta: 10000,
      rope_scaling: {
        rope_type: "llama3",
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 32,
      },
      rope_parameters: {
        rope_type: "llama3",
        rope_theta: 10000,
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 32,
      },
    });
  });

  test("qwen families write num_experts, mlp_only_layers and norm_topk_prob", () => {
    const config = configFromSpec(read(golden("moe/qwen3_moe_mixed")), { dtype: "float32" });
    expect(config).toMatchObject({
      num_experts: 8,
      mlp_only_layers: [0],
      norm_topk_prob: true,
      intermediate_size: 64,
      moe_intermediate_size: 16,
    });
    expect(config).not.toHaveProperty("num_local_experts");
  });

  test.each<[string, DecoderSpec, string]>([
    [
      "dense layer",
      {
        ...mixtral,
        layers: [
          mixtral.layers[0]!,
          { ...mixtral.layers[0]!, ffn: { kind: "dense", ffnDim: 64, bias: false, activation: "silu", gated: true } },
        ],
      },
      "a mixtral model cannot have dense layers",
    ],
    [
      "order",
      {
        ...mixtral,
        layers: mixtral.layers.map((layer) => ({
          ...layer,
          ffn: { ...layer.ffn, router: softmaxRouter("softmax-topk") } as MoeFfn,
        })),
      },
      "not renormalised",
    ],
    ["bias", { ...mixtral, attn: { ...mixtral.attn, qkvBias: true } }, "cannot have query, key and value biases"],
    [
      "windows",
      { ...mixtral, layers: [mixtral.layers[0]!, { ...mixtral.layers[1]!, window: 4 }] },
      "different attention windows",
    ],
    ["family", { ...mixtral, family: "llama" }, "a llama model cannot have mixture-of-experts layers"],
    ["odd head", withHeads(mixtral, 7), "the head size is 7"],
    [
      "biases",
      {
        ...read(golden("dense/starcoder2")),
        attn: { ...read(golden("dense/starcoder2")).attn, qkvBias: false, outBias: false },
      },
      "a starcoder2 model cannot have biases in only one of attention and FFN",
    ],
    [
      "sandwich blocks",
      { ...read(golden("dense/stablelm")), block: "sandwich" },
      "a stablelm model cannot have sandwich blocks",
    ],
    ["post blocks", { ...read(golden("dense/cohere")), block: "post" }, 'a cohere model cannot have block "post"'],
    [
      "norm",
      { ...read(golden("dense/nemotron")), norm: { kind: "rms", weight: "scale", bias: false, eps: 1e-5 } },
      'a nemotron model cannot have norm.kind "rms"',
    ],
    [
      "scale",
      { ...mixtral, attn: { ...mixtral.attn, scale: 1 } },
      "a mixtral model cannot have an attention scale of 1",
    ],
    ["block", { ...mixtral, block: "parallel" }, "a mixtral model cannot have parallel blocks"],
    [
      "gemma scale",
      { ...read(golden("dense/gemma2")), attn: { ...read(golden("dense/gemma2")).attn, scale: 0.3 } },
      "an attention scale of 0.3 (not one over the square root of an integer)",
    ],
    [
      "gemma factor",
      { ...read(golden("dense/gemma")), multipliers: { embedding: 1, residual: 1, logits: 1 } },
      "a gemma model cannot have multipliers.embedding 1",
    ],
    ["olmo2 block", { ...read(golden("dense/olmo2")), block: "pre" }, "a olmo2 model cannot have pre blocks"],
    [
      "olmo3 rope",
      {
        ...read(golden("dense/olmo3")),
        layers: read(golden("dense/olmo3")).layers.map((layer) => ({ ...layer, rope: null })),
      },
      "cannot have layers without rope",
    ],
    [
      "groups",
      { ...mixtral, attn: { ...mixtral.attn, kvHeads: 3 } },
      "num_key_value_heads is 3, expected a divisor of num_attention_heads (4)",
    ],
  ])("refuses what the family cannot say: %s", (_, spec, message) => {
    expect(() => configFromSpec(spec, { dtype: "float32" })).toThrow(UpcycleError);
    expect(() => configFromSpec(spec, { dtype: "float32" })).toThrow(message);
  });
});

describe("class defaults for absent keys", () => {
  const window = (config: unknown): (number | null)[] => read(config).layers.map((layer) => layer.window);

  test("mistral: no sliding_window key means 4096, null means none", () => {
    const config = golden("dense/mistral");
    expect(window(config)).toEqual([null, null]);
    expect(window({ ...config, sliding_window: 7 })).toEqual([7, 7]);
    expect(window(without(config, "sliding_window"))).toEqual([4096, 4096]);
  });

  test("qwen2 and qwen3: windows from layer_types, else from max_window_layers, only if switched on", () => {
    for (const family of ["qwen2", "qwen3"]) {
      const config = { ...golden(`dense/${family}`), sliding_window: 16, max_window_layers: 1 };
      expect(window(without(config, "layer_types"))).toEqual([null, null]);
      expect(window({ ...without(config, "layer_types"), use_sliding_window: true })).toEqual([null, 16]);
      expect(
        window({ ...config, use_sliding_window: true, layer_types: ["sliding_attention", "full_attention"] }),
      ).toEqual([16, null]);
      expect(() => read({ ...config, layer_types: ["sliding_attention", "full_attention"] })).toThrow(
        "sliding windows are switched off",
      );
    }
  });

  test("qwen2_moe slides on even layers below max_window_layers, qwen3_moe on all", () => {
    const on = { use_sliding_window: true, sliding_window: 5 };
    expect(window({ ...without(golden("moe/qwen2_moe"), "layer_types"), ...on })).toEqual([5, null]);
    expect(window({ ...golden("moe/qwen3_moe"), ...on })).toEqual([5, 5]);
  });

  test("biases", () => {
    expect(read(golden("dense/qwen2")).attn).toMatchObject({ qkvBias: true, outBias: false });
    expect(read(without(golden("moe/qwen2_moe"), "qkv_bias")).attn.qkvBias).toBe(true);
    expect(read({ ...golden("dense/llama"), attention_bias: true, mlp_bias: true })).toMatchObject({
      attn: { qkvBias: true, outBias: true },
      layers: [{ ffn: { bias: true } }, { ffn: { bias: true } }],
    });
  });

  test("heads: null and absent head_dim, absent and null num_key_value_heads", () => {
    const llama = golden("dense/llama");
    expect(read({ ...llama, head_dim: null }).attn.headDim).toBe(8);
    expect(read(without(llama, "head_dim", "num_key_value_heads")).attn).toMatchObject({ headDim: 8, kvHeads: 4 });
    expect(read({ ...golden("moe/mixtral"), num_key_value_heads: null }).attn.kvHeads).toBe(4);
    expect(read(without(golden("dense/qwen3"), "head_dim")).attn.headDim).toBe(128);
  });

  test("routing", () => {
    const moe = (config: unknown): unknown => read(config).layers[0]!.ffn;
    expect(moe(golden("moe/mixtral"))).toEqual({
      kind: "moe",
      activation: "silu",
      ffnDim: 64,
      experts: 4,
      topK: 2,
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    });
    expect(moe(golden("moe/qwen2_moe"))).toEqual({
      kind: "moe",
      activation: "silu",
      ffnDim: 16,
      experts: 4,
      topK: 2,
      router: softmaxRouter("softmax-topk"),
      ...plainExperts,
      shared: { ffnDim: 32, gated: true },
    });
    expect(moe(without(golden("moe/qwen3_moe"), "norm_topk_prob"))).toMatchObject({
      router: softmaxRouter("softmax-topk"),
      experts: 8,
    });
    expect(moe(golden("moe/qwen3_moe_norm"))).toMatchObject({ router: softmaxRouter("topk-softmax") });
    expect(moe({ ...without(golden("moe/qwen3_moe"), "num_local_experts"), num_experts: 16 })).toMatchObject({
      experts: 16,
    });
    expect(read(golden("moe/qwen3_moe_mixed")).layers.map(({ ffn }) => ffn.kind)).toEqual(["dense", "moe"]);
    expect(read({ ...golden("moe/qwen3_moe"), decoder_sparse_step: 2 }).layers.map(({ ffn }) => ffn.kind)).toEqual([
      "dense",
      "moe",
    ]);
    expect(moe({ ...golden("moe/qwen2_moe"), shared_expert_intermediate_size: 0 })).toMatchObject({ shared: null });
  });

  test("nemotron: half of each head turns, the activation is squared ReLU", () => {
    const config = without(
      golden("dense/nemotron"),
      "rope_parameters",
      "partial_rotary_factor",
      "hidden_act",
      "norm_eps",
      "bos_token_id",
      "initializer_range",
    );
    expect(read(config)).toEqual({ ...read(golden("dense/nemotron")), tokens: { bos: 2, eos: [2], pad: 0 } });
    expect(read({ ...config, partial_rotary_factor: 1 }).layers[0]!.rope!.rotary).toBe(8);
  });

  test("starcoder2: biases everywhere, no window, a tied head", () => {
    const config = without(
      golden("dense/starcoder2"),
      "use_bias",
      "sliding_window",
      "tie_word_embeddings",
      "num_key_value_heads",
    );
    expect(read(config)).toEqual({ ...read(golden("dense/starcoder2")), tiedHead: true });
    expect(window({ ...config, sliding_window: 9 })).toEqual([9, 9]);
  });

  test("stablelm: a quarter of each head turns, blocks in sequence or in parallel", () => {
    const config = without(
      golden("dense/stablelm"),
      "rope_parameters",
      "partial_rotary_factor",
      "use_qkv_bias",
      "use_parallel_residual",
      "layer_norm_eps",
    );
    expect(read(config)).toEqual(read(golden("dense/stablelm")));
    expect(read(config).layers[0]!.rope!.rotary).toBe(2);
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

  test("cohere: a tied head, logits times 1/16", () => {
    const config = without(
      golden("dense/cohere"),
      "logit_scale",
      "tie_word_embeddings",
      "attention_bias",
      "use_qk_norm",
      "pad_token_id",
    );
    expect(read(config)).toEqual(read(golden("dense/cohere")));
    expect(read({ ...config, logit_scale: 2 }).multipliers).toEqual({ embedding: 1, residual: 1, logits: 2 });
  });

  test("gemma: the embedding factor has the type of the weights, the activation is the tanh GELU, the head is tied", () => {
    const gemma = golden("dense/gemma");
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
      read({ ...gemma, hidden_act: "gelu", hidden_activation: "gelu_pytorch_tanh" }).layers[0]!.ffn.activation,
    ).toBe("geluTanh");
  });

  test("gemma2: caps, scale and windows", () => {
    const gemma2 = golden("dense/gemma2");
    const bare = without(
      gemma2,
      "attn_logit_softcapping",
      "final_logit_softcapping",
      "query_pre_attn_scalar",
      "layer_types",
      "sliding_window",
    );
    expect(read(bare)).toMatchObject({ logitSoftcap: 30, block: "sandwich", attn: { softcap: 50, scale: 1 / 16 } });
    expect(window(bare)).toEqual([4096, null]);
    expect(read({ ...bare, attn_logit_softcapping: null, final_logit_softcapping: null })).toMatchObject({
      logitSoftcap: null,
      attn: { softcap: null },
    });
    expect(window({ ...bare, sliding_window: null })).toEqual([null, null]);
  });

  test("gemma3_text and olmo3: a rope per attention type, nested and flat", () => {
    const flat = without(golden("dense/gemma3_text"), "rope_parameters", "layer_types");
    const thetas = (config: unknown): number[] => read(config).layers.map(({ rope }) => rope!.theta);
    expect(thetas({ ...flat, sliding_window_pattern: 2 })).toEqual([10_000, 1_000_000]);
    expect(window({ ...flat, sliding_window_pattern: 2, sliding_window: 9 })).toEqual([9, null]);
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
    expect(configFromSpec(spec, { dtype: "float32" })).toMatchObject({
      rope_theta: 7,
      rope_local_base_freq: 5,
      rope_scaling: { rope_type: "linear", factor: 8 },
      rope_parameters: {
        full_attention: { rope_theta: 7, rope_type: "linear", factor: 8 },
        sliding_attention: { rope_theta: 5, rope_type: "default" },
      },
    });
    const olmo3 = {
      ...without(golden("dense/olmo3"), "rope_parameters"),
      layer_types: ["full_attention", "sliding_attention"],
    };
    expect(thetas(olmo3)).toEqual([500_000, 500_000]);
    expect(
      read({ ...olmo3, rope_theta: 3, rope_scaling: { rope_type: "linear", factor: 2 } }).layers.map(
        ({ rope }) => rope,
      ),
    ).toEqual([{ ...plainRope(3, 8), scaling: { kind: "linear", factor: 2 } }, plainRope(3, 8)]);
    // The flat keys of olmo3 have one theta for both.
    const two = read({
      ...olmo3,
      rope_parameters: { full_attention: { rope_theta: 3 }, sliding_attention: { rope_theta: 4 } },
    });
    expect(without(configFromSpec(two, { dtype: "float32" }), "rope_parameters").rope_theta).toBeUndefined();
    expect(window(without({ ...olmo3, num_hidden_layers: 5, sliding_window: 3 }, "layer_types"))).toEqual([
      3,
      3,
      3,
      null,
      3,
    ]);
  });

  test("granite: logits are divided, attention_multiplier is the scale also when absent", () => {
    const granite = golden("dense/granite");
    expect(read(granite)).toMatchObject({
      multipliers: { embedding: 12, residual: 0.22, logits: 1 / 8 },
      attn: { scale: 0.25 },
    });
    expect(read(without(granite, "attention_multiplier", "logits_scaling"))).toMatchObject({
      multipliers: { logits: 1 },
      attn: { scale: 1 },
    });
  });

  test("smollm3: every fourth layer has no rope, and only such layers slide", () => {
    const smollm3 = { ...without(golden("dense/smollm3"), "no_rope_layers", "layer_types"), num_hidden_layers: 5 };
    expect(read(smollm3).layers.map(({ rope }) => rope === null)).toEqual([false, false, false, true, false]);
    expect(read({ ...smollm3, no_rope_layer_interval: 2 }).layers.map(({ rope }) => rope === null)).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
    expect(window({ ...smollm3, use_sliding_window: true, sliding_window: 6 })).toEqual([null, null, null, 6, null]);
    expect(window({ ...smollm3, use_sliding_window: true })).toEqual([null, null, null, null, null]);
  });

  test("olmo2 and olmo: where norms stand and what they are", () => {
    const rms = { kind: "rms", weight: "scale", bias: false, eps: 1e-5 };
    expect(read(golden("dense/olmo2"))).toMatchObject({
      block: "post",
      norm: rms,
      attn: { qkNorm: { span: "full", norm: rms } },
    });
    expect(read({ ...golden("dense/olmo"), clip_qkv: 8 })).toMatchObject({
      block: "pre",
      norm: { kind: "layer", weight: "none", bias: false, eps: 1e-5 },
      attn: { clip: 8, qkNorm: null },
    });
  });

  test("gpt_neox: rotary_pct and rotary_emb_base, parallel blocks", () => {
    const config = without(golden("dense/gpt_neox"), "rope_parameters", "use_parallel_residual", "attention_bias");
    expect(read(config)).toEqual(read(golden("dense/gpt_neox")));
    const other = read({ ...config, rotary_pct: 0.5, rotary_emb_base: 7, use_parallel_residual: false });
    expect(other).toMatchObject({ block: "pre", layers: [{ rope: { theta: 7, rotary: 4 } }, {}] });
    expect(configFromSpec(other, { dtype: "float32" })).toMatchObject({ rotary_pct: 0.5, rotary_emb_base: 7 });
  });

  test("tokens", () => {
    expect(
      read({ ...without(golden("dense/llama"), "bos_token_id"), eos_token_id: [5, 6], pad_token_id: -1 }).tokens,
    ).toEqual({ bos: 1, eos: [5, 6], pad: null });
    expect(read(without(golden("dense/qwen2"), "bos_token_id", "eos_token_id", "pad_token_id")).tokens).toEqual({
      bos: null,
      eos: [],
      pad: null,
    });
  });

  test("rope: flat, nested, old spelling, absent", () => {
    const bare = without(golden("dense/llama"), "rope_parameters");
    const rope = (config: unknown): Rope => read(config).layers[0]!.rope!;
    expect(rope(bare)).toEqual(plainRope(10_000, 8));
    expect(rope(without(golden("moe/mixtral"), "rope_parameters")).theta).toBe(1_000_000);
    expect(rope({ ...bare, rope_theta: 5e5, rope_scaling: { type: "linear", factor: 2 } })).toEqual({
      ...plainRope(5e5, 8),
      scaling: { kind: "linear", factor: 2 },
    });
    expect(rope({ ...bare, rope_theta: 5e5, rope_parameters: { rope_type: "default" } }).theta).toBe(5e5);
    expect(
      rope({
        ...bare,
        rope_parameters: { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, rope_theta: 3 },
        original_max_position_embeddings: 9,
      }),
    ).toMatchObject({ theta: 3, scaling: { originalMaxPositions: 9 } });
  });
});

describe("what cannot be read", () => {
  const llama = golden("dense/llama");
  const nemotron = golden("dense/nemotron");
  const moe = golden("moe/qwen3_moe");
  test.each<[unknown, string]>([
    [null, "m/config.json: not a JSON object"],
    [[], "m/config.json: not a JSON object"],
    [{}, `m/config.json: model_type is missing, expected one of ${families.join(", ")}`],
    [{ model_type: "gpt3" }, 'm/config.json: model_type is "gpt3", expected one of upcycle, llama'],
    [{ model_type: "toString" }, 'model_type is "toString"'],
    [without(llama, "hidden_size"), "m/config.json: hidden_size is missing, expected an integer from 1"],
    [{ ...llama, hidden_size: 32.5 }, "hidden_size is 32.5, expected an integer"],
    [{ ...llama, hidden_size: "32" }, 'hidden_size is "32"'],
    [{ ...llama, num_hidden_layers: 1e9 }, "num_hidden_layers is 1000000000, expected an integer from 1 to 10000"],
    [{ ...llama, hidden_act: "gelu" }, 'm/config.json: hidden_act is "gelu", expected "silu"'],
    [{ ...llama, rms_norm_eps: 0 }, "rms_norm_eps is 0, expected a number above 0"],
    [{ ...llama, head_dim: 5 }, "the head size is 5, expected an even number"],
    [
      { ...llama, head_dim: null, num_attention_heads: 6 },
      "num_attention_heads is 6, expected a divisor of hidden_size (32)",
    ],
    [{ ...llama, num_key_value_heads: 3 }, "num_key_value_heads is 3, expected a divisor of num_attention_heads (4)"],
    [
      { ...llama, rope_parameters: { rope_type: "ntk", rope_theta: 1 } },
      'rope_parameters.rope_type is "ntk", expected one of "default", "linear", "llama3", "yarn", "longrope"',
    ],
    [{ ...llama, rope_scaling: { type: "dynamic", factor: 2 } }, 'rope_scaling.type is "dynamic"'],
    [{ ...llama, rope_theta: 5 }, "rope_theta is given as 5 and as 10000"],
    [{ ...llama, rope_scaling: { rope_type: "linear", factor: 2 } }, "rope_scaling and rope_parameters disagree"],
    [{ ...llama, rope_parameters: { full_attention: { rope_theta: 3 } } }, "rope_parameters.full_attention is"],
    [{ ...llama, partial_rotary_factor: 0.5 }, "partial_rotary_factor is 0.5, expected 1"],
    [{ ...nemotron, partial_rotary_factor: 0.25 }, "partial_rotary_factor is given as 0.25 and as 0.5"],
    [
      { ...nemotron, rope_parameters: {}, partial_rotary_factor: 0.1 },
      "turns an even number of each head's 8 elements (found 0)",
    ],
    [{ ...nemotron, hidden_act: "quick_gelu" }, 'hidden_act is "quick_gelu", expected "silu" or "gelu" or'],
    [{ ...golden("dense/stablelm"), qk_layernorm: "yes" }, 'qk_layernorm is "yes", expected true or false'],
    [{ ...golden("dense/stablelm"), head_dim: 16 }, "head_dim is 16, expected 8, hidden_size / num_attention_heads"],
    [{ ...golden("dense/cohere"), use_qk_norm: "yes" }, 'use_qk_norm is "yes", expected true or false'],
    [without(golden("dense/cohere"), "rope_parameters"), "rope_theta is missing, expected a number above 0"],
    [
      { ...golden("dense/phi3"), rope_parameters: { rope_type: "longrope" } },
      "rope_parameters.short_factor is missing, expected 4 numbers, one for each rotated pair",
    ],
    [
      { ...llama, rope_scaling: { rope_type: "longrope", short_factor: [1, 1, 1, 1], long_factor: [1, 2, 3] } },
      "rope_scaling.long_factor is [1,2,3]",
    ],
    [{ ...llama, rope_scaling: { type: "yarn", factor: 0 } }, "rope_scaling.factor is 0, expected a number above 0"],
    [{ ...golden("dense/gpt_neox"), num_key_value_heads: 2 }, "num_key_value_heads is 2, expected 4"],
    [{ ...golden("dense/gpt_neox"), rotary_pct: -1 }, "rotary_pct is -1, expected a number above 0"],
    [{ ...llama, quantization_config: { quant_method: "gptq" } }, 'quant_method "gptq", expected 8-bit floats'],
    [{ ...moe, clip_qkv: 8 }, "clip_qkv is 8, expected no such key"],
    [{ ...moe, num_experts_per_tok: 9 }, "num_experts_per_tok is 9, expected at most the number of experts (8)"],
    [{ ...moe, num_experts: 9 }, "num_experts is 9 but num_local_experts is 8"],
    [{ ...moe, mlp_only_layers: [0, 1] }, "leave none of 2 layers with experts"],
    [{ ...moe, router_aux_loss_coef: -1 }, "router_aux_loss_coef is -1"],
    [{ ...golden("dense/qwen2"), layer_types: ["full_attention"] }, "expected 2 entries, one per layer (found 1)"],
    [
      { ...golden("dense/qwen2"), layer_types: ["full_attention", "linear_attention"] },
      'expected only "full_attention" and "sliding_attention"',
    ],
    [{ ...golden("dense/gemma"), hidden_act: "gelu" }, 'hidden_act is "gelu", expected "gelu_pytorch_tanh"'],
    [
      { ...golden("dense/gemma2"), use_bidirectional_attention: true },
      "use_bidirectional_attention is true, expected false or null",
    ],
    [
      { ...golden("dense/gemma3_text"), attn_logit_softcapping: 50 },
      "attn_logit_softcapping is 50, expected no such key",
    ],
    [
      { ...golden("dense/gemma3_text"), rope_theta: 5 },
      "rope_parameters.full_attention and the flat rope keys disagree",
    ],
    [
      { ...golden("dense/olmo3"), rope_parameters: { rope_theta: 5 } },
      "expected an entry for full_attention and one for sliding_attention",
    ],
    [
      { ...golden("dense/olmo3"), rope_parameters: { full_attention: { rope_type: "ntk", factor: 8 } } },
      'rope_parameters.full_attention.rope_type is "ntk", expected one of "default", "linear", "llama3", ' +
        '"yarn", "longrope"',
    ],
    [{ ...golden("dense/granite"), logits_scaling: 0 }, "logits_scaling is 0, expected a number above 0"],
    [
      { ...golden("dense/smollm3"), no_rope_layers: [1] },
      "no_rope_layers is [1], expected 0 or 1 for each of 2 layers",
    ],
    [{ ...golden("dense/olmo"), clip_qkv: -1 }, "clip_qkv is -1, expected a number above 0"],
    [{ ...golden("dense/mistral"), sliding_window: 0 }, "sliding_window is 0, expected an integer from 1"],
  ])("%#: one clear line", (config, line) => {
    try {
      read(config);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(UpcycleError);
      expect((error as UpcycleError).line).toContain(line);
      expect((error as UpcycleError).line).not.toContain("\n");
    }
  });

  test("any change of any key is read or refused, never anything else", () => {
    const configs = [
      "dense/llama3_rope",
      "dense/mistral",
      "dense/qwen2",
      "dense/qwen3",
      "dense/nemotron",
      "dense/starcoder2",
      "dense/stablelm",
      "dense/stablelm_qk",
      "dense/cohere",
      "dense/gemma",
      "dense/gemma2",
      "dense/gemma3_text",
      "dense/granite",
      "dense/smollm3",
      "dense/olmo3",
      "dense/olmo",
      "dense/phi3",
      "dense/gpt_neox",
      "moe/mixtral",
      "moe/qwen2_moe",
      "moe/qwen3_moe",
      "moe/olmoe",
      "moe/flex_olmo",
      "moe/mellum",
      "moe/dots1",
      "moe/glm4_moe",
      "moe/solar_open",
      "moe/hy_v3",
      "moe/hunyuan_v1_moe",
      "moe/deepseek_v3",
      "moe/granitemoe",
      "moe/granitemoe_swa",
      "moe/phimoe",
      "moe/ernie4_5_moe",
      "moe/lfm2_moe",
      "moe/gpt_oss",
      "moe/dbrx",
      "dense/gpt2",
    ].map(golden);
    const change = fc
      .constantFrom(...configs)
      .chain((config) =>
        fc.tuple(
          fc.constant(config),
          fc.constantFrom(...Object.keys(config), "rope_scaling", "rope_theta", "quantization_config"),
          fc.oneof(fc.jsonValue(), fc.constantFrom(null, 0, -1, 1e308, true, "", [], {}, undefined)),
        ),
      );
    fc.assert(
      fc.property(change, ([config, key, value]) => {
        try {
          read({ ...config, [key]: value });
        } catch (error) {
          expect(error).toBeInstanceOf(UpcycleError);
        }
      }),
      { numRuns: 2000 },
    );
  });
});
