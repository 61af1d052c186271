import { describe, expect, it } from "vitest";
import { stringifyConfig } from "../../../../src/model/decoder/config.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("dbrx", () => {
  const config = goldenConfig("moe/dbrx");
  const attention = config["attn_config"] as Record<string, unknown>;
  const experts = config["ffn_config"] as Record<string, unknown>;
  const spec = read(config);
  const withAttention = (change: object): object => ({ ...config, attn_config: { ...attention, ...change } });
  const withFfn = (change: object): object => ({ ...config, ffn_config: { ...experts, ...change } });

  it("reads settings from the nested objects", () => {
    expect(spec).toMatchObject({
      norm: { kind: "layer", weight: "scale", bias: false, eps: 1e-5 },
      attn: { kvHeads: 2, headDim: 8, clip: 8 },
      auxLossCoef: 0.01,
      layers: [
        {
          rope: { theta: 10_000 },
          ffn: {
            ffnDim: 64,
            experts: 4,
            topK: 2,
            activation: "silu",
            router: { renormalise: { plus: 0, atLeast: 0 } },
          },
        },
        {},
      ],
    });
    // As the released models have it: no rope_parameters, another base.
    expect(
      present(
        at(read({ ...without(config, "rope_parameters"), attn_config: { ...attention, rope_theta: 5 } }).layers, 0)
          .rope,
      ).theta,
    ).toBe(5);
    expect(
      at(read(withFfn({ ffn_act_fn: { name: "gelu" }, moe_normalize_expert_weights: null })).layers, 0).ffn,
    ).toMatchObject({ activation: "gelu", router: { renormalise: null } });
    const bare = read({ ...config, ffn_config: { ffn_hidden_size: 8 }, attn_config: { rope_theta: 10_000 } });
    expect(bare).toMatchObject({ attn: { kvHeads: 1, clip: null }, layers: [{ ffn: { experts: 4, topK: 1 } }, {}] });
  });

  it("writes no limit as one that nothing reaches, and floats as floats", () => {
    expect(read(withAttention({ clip_qkv: null })).attn.clip).toBeNull();
    expect(read(withAttention({ clip_qkv: 1e30 })).attn.clip).toBeNull();
    const text = stringifyConfig(write({ ...spec, attn: { ...spec.attn, clip: null } }));
    expect(text).toContain('"clip_qkv": 1e+30');
    expect(text).toContain('"moe_normalize_expert_weights": 1.0');
    expect(text).toContain('"rope_theta": 10000.0');
    expect(Object.keys(write(spec)).filter((key) => key.includes("."))).toEqual([]);
    expect(write(spec)["ffn_config"]).toEqual({
      ffn_act_fn: { name: "silu" },
      ffn_hidden_size: 64,
      moe_num_experts: 4,
      moe_top_k: 2,
      moe_loss_weight: 0.01,
      moe_normalize_expert_weights: 1,
    });
  });

  it("refuses other norms of weights, conflicting rope bases and tied heads", () => {
    refuses(
      () => read(withFfn({ moe_normalize_expert_weights: 2 })),
      "ffn_config.moe_normalize_expert_weights is 2, expected 1.0 or null",
    );
    refuses(
      () => read(withFfn({ moe_top_k: 5 })),
      "ffn_config.moe_top_k is 5, expected at most the number of experts (4)",
    );
    refuses(
      () => read(withAttention({ kv_n_heads: 3 })),
      "attn_config.kv_n_heads is 3, expected a divisor of num_attention_heads (4)",
    );
    refuses(() => read(withAttention({ clip_qkv: -1 })), "attn_config.clip_qkv is -1, expected a number above 0");
    refuses(() => read(withAttention({ rope_theta: 7 })), "rope_theta is given as 7 and as 10000");
    refuses(
      () => read({ ...without(config, "rope_parameters"), attn_config: {} }),
      "attn_config.rope_theta is missing",
    );
    refuses(() => read({ ...config, rope_theta: 7 }), "rope_theta is 7, expected the rope_theta of attn_config");
    refuses(() => read({ ...config, attn_config: 3 }), "attn_config is 3, expected an object or null");
    refuses(() => read({ ...config, tie_word_embeddings: true }), "tie_word_embeddings is true, expected false");
    refuses(() => read({ ...config, head_dim: 16 }), "head_dim is 16, expected 8, d_model / n_heads");
    refuses(() => write({ ...spec, tiedHead: true }), "a dbrx model cannot have a tied output head");
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: false } })),
      "a dbrx model cannot have a shared expert",
    );
    refuses(() => write({ ...spec, norm: { ...spec.norm, eps: 1e-6 } }), "a dbrx model cannot have norm.eps 0.000001");
  });
});
