import { describe, expect, it } from "vitest";
import { rmsNorm } from "../../../../src/model/decoder/types.js";
import { placements } from "../../../../src/model/tensors/placement.js";
import { goldenConfig, read, refuses, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("deepseek_v3", () => {
  const config = goldenConfig("moe/deepseek_v3");
  const spec = read(config);
  const bare = without(config, "rope_parameters");
  /** As released. */
  const yarn = {
    type: "yarn",
    factor: 40,
    mscale: 1,
    mscale_all_dim: 1,
    beta_fast: 32,
    beta_slow: 1,
    original_max_position_embeddings: 4096,
  };

  it("reads the ranks and sizes of latents, and the epsilon of their norms", () => {
    expect(read({ ...config, rms_norm_eps: 1e-5 })).toMatchObject({
      norm: { eps: 1e-5 },
      attn: {
        headDim: 12,
        heads: 4,
        kvHeads: 4,
        scale: 12 ** -0.5,
        latent: { queryRank: 16, kvRank: 8, ropeDim: 4, valueDim: 8, norm: rmsNorm(1e-6) },
      },
      layers: [{ rope: { rotary: 4, interleaved: true } }, {}],
    });
    const sizes = [
      "q_lora_rank",
      "kv_lora_rank",
      "qk_rope_head_dim",
      "qk_nope_head_dim",
      "v_head_dim",
      "qk_head_dim",
      "head_dim",
    ];
    expect(read(without(config, ...sizes)).attn).toMatchObject({
      headDim: 192,
      latent: { queryRank: 1536, kvRank: 512, ropeDim: 64, valueDim: 128 },
    });
    expect(present(at(read({ ...config, rope_interleave: false }).layers, 0).rope).interleaved).toBe(false);
  });

  it("names queries straight from the hidden states as usual", () => {
    const direct = read({ ...config, q_lora_rank: null });
    expect(present(direct.attn.latent).queryRank).toBeNull();
    const names = placements(direct).map(({ name }) => name);
    expect(names).toContain("model.layers.0.self_attn.q_proj.weight");
    expect(names.join()).not.toMatch(/q_a_proj|q_b_proj|q_a_layernorm/);
    expect(write(direct)).toMatchObject({
      q_lora_rank: null,
      head_dim: 4,
      qk_nope_head_dim: 8,
      num_nextn_predict_layers: 0,
    });
  });

  it("reads mscale_all_dim as a factor on the scores, mscale over mscale_all_dim on cos and sin", () => {
    const withYarn = read({ ...bare, rope_scaling: yarn });
    const mscale = 0.1 * Math.log(40) + 1;
    expect(withYarn.attn.scale).toBe(12 ** -0.5 * mscale ** 2);
    expect(present(at(withYarn.layers, 0).rope).scaling).toMatchObject({
      kind: "yarn",
      factor: 40,
      attentionFactor: 1,
    });
    const output = write(withYarn);
    expect(output).toMatchObject({
      rope_scaling: { mscale: 1, mscale_all_dim: 1, attention_factor: 1 },
      rope_parameters: { mscale: 1, mscale_all_dim: 1, rope_type: "yarn" },
    });
    expect(read(output)).toEqual(withYarn);
    const without1 = read({ ...bare, rope_scaling: without(yarn, "mscale", "mscale_all_dim") });
    expect(without1.attn.scale).toBe(12 ** -0.5);
    expect(present(at(without1.layers, 0).rope).scaling).toMatchObject({ attentionFactor: mscale });
    expect(write(without1)).toMatchObject({ rope_scaling: { mscale: 1, attention_factor: mscale } });
    expect(read(write(without1))).toEqual(without1);
  });

  it("refuses biases, fewer key heads, odd rotary sizes and scales that YaRN cannot say", () => {
    refuses(() => read({ ...config, attention_bias: true }), "attention_bias is true, expected false");
    refuses(
      () => read({ ...config, num_key_value_heads: 2 }),
      "num_key_value_heads is 2, expected 4, num_attention_heads, because keys come from a latent",
    );
    refuses(() => read({ ...config, qk_rope_head_dim: 3 }), "qk_rope_head_dim is 3, expected an even number");
    refuses(() => read({ ...config, kv_lora_rank: 0 }), "kv_lora_rank is 0, expected an integer from 1");
    refuses(
      () => read({ ...bare, rope_scaling: yarn, rope_parameters: { ...yarn, mscale_all_dim: 2, attention_factor: 1 } }),
      "rope_scaling and rope_parameters disagree",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, scale: 1 } }),
      "a deepseek_v3 model cannot have an attention scale of 1",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, latent: null } }),
      "a deepseek_v3 model cannot have attention without latents",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, latent: { ...present(spec.attn.latent), norm: rmsNorm(1e-5) } } }),
      "a deepseek_v3 model cannot have attn.latent.norm.eps 0.00001",
    );
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, rope: null })) }),
      "a deepseek_v3 model cannot have layers without rope",
    );
  });
});
