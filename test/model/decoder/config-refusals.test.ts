/** Configs that say what a decoder description cannot, or nothing at all. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { UpcycleError } from "../../../src/base/errors.js";
import { families } from "./arbitrary.js";
import { goldenConfig as golden, read, without } from "./families/configs.js";

describe("specFromConfig of what cannot be read", () => {
  const llama = golden("dense/llama");
  const nemotron = golden("dense/nemotron");
  const moe = golden("moe/qwen3_moe");
  it.each<[unknown, string]>([
    [null, "m/config.json: not a JSON object"],
    [[], "m/config.json: not a JSON object"],
    [{}, `m/config.json: model_type is missing, expected one of ${families.join(", ")}`],
    [{ model_type: "gpt3" }, 'm/config.json: model_type is "gpt3", expected one of upcycle, llama'],
    [{ model_type: "bloom" }, "m/config.json: a bloom model is not read: a LayerNorm stands between its embedding and"],
    [{ model_type: "mamba2" }, "a mamba2 model is not read: its layers are recurrences"],
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
    [
      { ...golden("dense/olmo3"), rope_parameters: undefined, rope_theta: 300 },
      "rope_theta is 300, expected 500000, or an entry for each kind of layer in rope_parameters",
    ],
    [
      { ...golden("dense/llama3_rope"), original_max_position_embeddings: 16 },
      "original_max_position_embeddings is 16, expected",
    ],
    [{ ...golden("dense/granite"), logits_scaling: 0 }, "logits_scaling is 0, expected a number above 0"],
    [
      { ...golden("dense/smollm3"), no_rope_layers: [1] },
      "no_rope_layers is [1], expected 0 or 1 for each of 2 layers",
    ],
    [{ ...golden("dense/olmo"), clip_qkv: -1 }, "clip_qkv is -1, expected a number above 0"],
    [{ ...golden("dense/mistral"), sliding_window: 0 }, "sliding_window is 0, expected an integer from 1"],
  ])("case %#: is refused with one clear line", (config, line) => {
    try {
      read(config);
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(UpcycleError);
      expect((error as UpcycleError).line).toContain(line);
      expect((error as UpcycleError).line).not.toContain("\n");
    }
  });

  it("reads or refuses a config with any value under any key", () => {
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
      "dense/glm",
      "dense/glm4",
      "dense/seed_oss",
      "dense/arcee",
      "dense/exaone4",
      "dense/cohere2",
      "dense/ernie4_5",
      "dense/hunyuan_v1_dense",
      "dense/helium",
      "dense/ministral",
      "dense/ministral3",
      "dense/apertus",
      "dense/cwm",
      "dense/jais2",
      "dense/hyperclovax",
      "dense/vaultgemma",
      "dense/falcon",
      "dense/opt",
      "dense/mpt",
      "dense/gptj",
      "dense/codegen",
      "dense/phi",
      "dense/gpt_neo",
      "dense/gpt_bigcode",
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
