import { describe, expect, it } from "vitest";
import { sigmoidRouter, softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

const common = [
  "n_routed_experts",
  "num_experts_per_tok",
  "moe_intermediate_size",
  "n_shared_experts",
  "n_group",
  "topk_group",
  "norm_topk_prob",
  "routed_scaling_factor",
  "first_k_dense_replace",
];

describe.each(["dots1", "glm4_moe", "solar_open", "deepseek_v3"])("%s: DeepSeek-V3's experts", (family) => {
  const config = goldenConfig(`moe/${family}`);
  const spec = read(config);

  it("reads choice within groups, scaling, and shared experts as multiples", () => {
    const layer = present(
      read({
        ...config,
        n_group: 4,
        topk_group: 2,
        norm_topk_prob: false,
        routed_scaling_factor: 3,
        n_shared_experts: 2,
      }).layers.at(-1),
    ).ffn;
    expect(layer).toMatchObject({
      router: sigmoidRouter({ groups: { count: 4, kept: 2 }, renormalised: false, scaling: 3 }),
      shared: { ffnDim: 32, gated: false },
    });
    expect(present(read({ ...config, n_shared_experts: 0 }).layers.at(-1)).ffn).toMatchObject({ shared: null });
    expect(read({ ...without(config, "n_routed_experts"), num_local_experts: 8 })).toEqual(spec);
    expect(write(spec)).toMatchObject({
      n_routed_experts: 8,
      topk_method: "noaux_tc",
      scoring_func: "sigmoid",
      n_shared_experts: 1,
    });
  });

  it("keeps a coefficient of our own load-balancing loss", () => {
    expect(write(spec)).not.toHaveProperty("router_aux_loss_coef");
    expect(read(write({ ...spec, auxLossCoef: 0.01 })).auxLossCoef).toBe(0.01);
  });

  it("refuses other routers, uneven groups and more choices than groups allow", () => {
    refuses(() => read({ ...config, topk_method: "greedy" }), 'topk_method is "greedy", expected "noaux_tc"');
    refuses(() => read({ ...config, scoring_func: "softmax" }), 'scoring_func is "softmax", expected "sigmoid"');
    refuses(() => read({ ...config, moe_layer_freq: 2 }), "moe_layer_freq is 2, expected 1");
    refuses(
      () => read({ ...config, n_group: 3, topk_group: 1 }),
      "n_group is 3, expected groups of equal size, at least 2, out of 8 experts",
    );
    refuses(() => read({ ...config, n_group: 8, topk_group: 1 }), "n_group is 8, expected groups of equal size");
    refuses(() => read({ ...config, n_group: 2, topk_group: 3 }), "topk_group is 3, expected at most n_group (2)");
    refuses(
      () => read({ ...config, n_group: 4, topk_group: 1, num_experts_per_tok: 3 }),
      "num_experts_per_tok is 3, but 1 of 4 groups have only 2 experts",
    );
    refuses(() => read({ ...config, num_local_experts: 9 }), "n_routed_experts is 8 but num_local_experts is 9");
    refuses(
      () => read({ ...config, routed_scaling_factor: 0 }),
      "routed_scaling_factor is 0, expected a number above 0",
    );
    refuses(() => read({ ...config, clip_qkv: 8 }), "clip_qkv is 8, expected no such key");
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("topk-softmax") })),
      `a ${family} model cannot have a router other than sigmoid with a correction bias`,
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 16, gated: true } })),
      `a ${family} model cannot have a shared expert behind a gate`,
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 17, gated: false } })),
      "a shared expert of 17, not a multiple of the routed ones' 16",
    );
    refuses(() => write(withExperts(spec, { bias: true })), "experts with biases");
  });
});

describe("leading dense layers", () => {
  const config = goldenConfig("moe/dots1");
  const spec = read(config);
  const kinds = (other: unknown): string[] => read(other).layers.map(({ ffn }) => ffn.kind);

  it("are read by their number, with the class's own default", () => {
    const none = without(config, "first_k_dense_replace");
    expect(kinds(none)).toEqual(["moe", "moe"]);
    expect(kinds(without(goldenConfig("moe/glm4_moe"), "first_k_dense_replace"))).toEqual(["dense", "moe"]);
    expect(
      kinds({ ...without(goldenConfig("moe/deepseek_v3"), "first_k_dense_replace"), num_hidden_layers: 4 }),
    ).toEqual(["dense", "dense", "dense", "moe"]);
  });

  it("refuses dense layers behind sparse ones, and no sparse layer", () => {
    refuses(
      () => read({ ...config, first_k_dense_replace: 2 }),
      "first_k_dense_replace is 2, expected fewer dense layers than the 2 there are",
    );
    refuses(
      () => write({ ...spec, layers: spec.layers.toReversed() }),
      "a dots1 model cannot have a dense layer behind a mixture-of-experts layer",
    );
  });
});

describe("dots1", () => {
  const config = goldenConfig("moe/dots1");

  it("reads absent keys as the class does: sizes of experts must be there, late layers slide", () => {
    const bare = without(
      config,
      "layer_types",
      "sliding_window",
      "max_window_layers",
      "routed_scaling_factor",
      "norm_topk_prob",
      "n_group",
      "topk_group",
    );
    expect(at(read(bare).layers, 1).ffn).toMatchObject({
      router: sigmoidRouter({ groups: null, renormalised: false, scaling: 1 }),
    });
    expect(read({ ...bare, max_window_layers: 1 }).layers.map(({ window }) => window)).toEqual([null, 4096]);
    refuses(() => read(without(config, "n_routed_experts")), "n_routed_experts is missing, expected an integer");
    refuses(() => read(without(config, "num_experts_per_tok")), "num_experts_per_tok is missing");
    refuses(() => read(without(config, "n_shared_experts")), "n_shared_experts is missing");
    refuses(
      () => write({ ...read(config), attn: { ...read(config).attn, qkNorm: null } }),
      "a dots1 model cannot have queries and keys without a norm",
    );
  });
});

describe("glm4_moe", () => {
  const config = goldenConfig("moe/glm4_moe");

  it("turns half of each head, with an optional norm on queries and keys and biases on queries, keys and values", () => {
    const bare = read(without(config, ...common, "partial_rotary_factor", "rope_parameters"));
    expect(bare.layers[1]).toMatchObject({
      rope: { rotary: 4, theta: 10_000 },
      ffn: {
        experts: 128,
        topK: 8,
        ffnDim: 1408,
        shared: { ffnDim: 1408 },
        router: sigmoidRouter({ groups: null, renormalised: true, scaling: 1 }),
      },
    });
    expect(read({ ...config, use_qk_norm: true, attention_bias: true }).attn).toMatchObject({
      qkNorm: { span: "head", afterRope: false },
      qkvBias: true,
      outBias: false,
    });
    expect(write(read({ ...config, num_nextn_predict_layers: 1 }))).toMatchObject({
      num_nextn_predict_layers: 0,
      use_qk_norm: false,
    });
  });

  it("refuses conflicting rotary factors, output biases and windows", () => {
    const spec = read(config);
    refuses(
      () => read({ ...config, partial_rotary_factor: 0.25 }),
      "partial_rotary_factor is given as 0.25 and as 0.5",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, outBias: true } }),
      "a glm4_moe model cannot have an output projection bias",
    );
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, window: 3 })) }),
      "a glm4_moe model cannot have a sliding attention window",
    );
  });
});

describe("solar_open", () => {
  const config = goldenConfig("moe/solar_open");

  it("reads absent keys as the class does", () => {
    expect(read(without(config, ...common, "rope_parameters", "head_dim"))).toMatchObject({
      attn: { headDim: 128 },
      layers: [
        { rope: { theta: 1_000_000, rotary: 128 }, ffn: { kind: "moe", experts: 128, topK: 8, ffnDim: 1280 } },
        {},
      ],
    });
  });

  it("refuses norms on queries and keys, partial rope and dense layers", () => {
    refuses(() => read({ ...config, use_qk_norm: true }), "use_qk_norm is true, expected false");
    // transformers makes tables for a part of the head, but turns the whole of it.
    refuses(() => read({ ...config, partial_rotary_factor: 0.5 }), "partial_rotary_factor is 0.5, expected 1");
    refuses(() => read({ ...config, first_k_dense_replace: 1 }), "first_k_dense_replace is 1, expected 0");
    refuses(
      () => write({ ...read(goldenConfig("moe/glm4_moe")), family: "solar_open" }),
      "a solar_open model cannot have dense layers",
    );
  });
});

describe("hy_v3", () => {
  const config = goldenConfig("moe/hy_v3");
  const spec = read(config);

  it("reads absent keys as the class does: the first layer is dense, weights are renormalised and scaled", () => {
    const bare = without(
      config,
      "mlp_layer_types",
      "num_experts",
      "num_experts_per_tok",
      "router_scaling_factor",
      "moe_intermediate_size",
      "rope_parameters",
      "num_shared_experts",
    );
    expect(read(bare).layers).toMatchObject([
      { rope: { theta: 11_158_840 }, ffn: { kind: "dense" } },
      {
        ffn: {
          experts: 192,
          topK: 8,
          ffnDim: 1536,
          shared: { ffnDim: 1536, gated: false },
          router: sigmoidRouter({ groups: null, renormalised: true, scaling: 2.826 }),
        },
      },
    ]);
    expect(write(spec)).toMatchObject({
      mlp_layer_types: ["dense", "sparse"],
      router_scaling_factor: 2.826,
      num_shared_experts: 1,
    });
  });

  it("refuses FFN biases, a missing shared expert and choice within groups", () => {
    refuses(() => read({ ...config, mlp_bias: true }), "mlp_bias is true, expected false");
    refuses(() => read({ ...config, num_shared_experts: 0 }), "num_shared_experts is 0, expected an integer from 1");
    refuses(() => read({ ...config, mlp_layer_types: ["dense", "dense"] }), 'at least one of them "sparse"');
    refuses(() => write(withExperts(spec, { shared: null })), "a hy_v3 model cannot have no shared expert");
    const router = (
      groups: { count: number; kept: number } | null,
      renormalised: boolean,
    ): ReturnType<typeof sigmoidRouter> => sigmoidRouter({ groups, renormalised, scaling: 1 });
    refuses(
      () => write(withExperts(spec, { router: router({ count: 2, kept: 1 }, true) })),
      "a hy_v3 model cannot have a choice of experts limited to groups",
    );
    refuses(
      () => write(withExperts(spec, { router: router(null, false) })),
      "a hy_v3 model cannot have router weights that are not renormalised",
    );
  });
});
