import { existsSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { configFromSpec, stringifyConfig } from "../../../src/model/decoder/config.js";
import { softmaxRouter } from "../../../src/model/decoder/types.js";
import type { DecoderSpec, MoeFfn } from "../../../src/model/decoder/types.js";
import { families, specOf } from "./arbitrary.js";
import { goldenConfig as golden, read } from "./families/configs.js";
import { plainRope } from "../../../src/model/decoder/plain.js";
import { at } from "../../../src/base/at.js";

/** The same model with heads of another size. */
function withHeads(spec: DecoderSpec, headDim: number): DecoderSpec {
  return {
    ...spec,
    attn: { ...spec.attn, headDim, scale: headDim ** -0.5 },
    layers: spec.layers.map((layer) => ({ ...layer, rope: plainRope(10_000, headDim) })),
  };
}

const isMoe = (family: string): boolean =>
  existsSync(new URL(`../../golden/moe/${family}/config.json`, import.meta.url));
/** Factors that are written as others (reciprocals, YaRN's mscale) may come back with their last bits changed. */
const rounded = (spec: DecoderSpec): unknown =>
  JSON.parse(
    JSON.stringify(spec, (_, value: unknown) => (typeof value === "number" ? Number(value.toPrecision(12)) : value)),
  );

describe("a spec as config and back", () => {
  it.each(families)("%s: the spec survives config and JSON text", (family) => {
    fc.assert(
      fc.property(specOf(family), (spec) => {
        const text = stringifyConfig(configFromSpec(spec, { dtype: "bfloat16" }));
        expect(rounded(read(JSON.parse(text)))).toEqual(rounded(spec));
      }),
      { numRuns: 200 },
    );
  });

  it.each(families.filter((family) => family !== "upcycle"))(
    "%s: what HF wrote says the same after we write it",
    (family) => {
      const spec = read(golden(isMoe(family) ? `moe/${family}` : `dense/${family}`));
      expect(read(configFromSpec(spec, { dtype: "float32" }))).toEqual(spec);
    },
  );

  it("writes no float key as an integer, for any spec of any family", () => {
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

  it("writes mixtral's config with sorted keys and floats as floats", () => {
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

  it("writes rope flat and nested", () => {
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

  it("writes num_experts, mlp_only_layers and norm_topk_prob for qwen3_moe", () => {
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

  it.each<[string, DecoderSpec, string]>([
    [
      "dense layer",
      {
        ...mixtral,
        layers: [
          at(mixtral.layers, 0),
          {
            ...at(mixtral.layers, 0),
            ffn: { kind: "dense", ffnDim: 64, bias: false, activation: "silu", gated: true },
          },
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
      { ...mixtral, layers: [at(mixtral.layers, 0), { ...at(mixtral.layers, 1), window: 4 }] },
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
