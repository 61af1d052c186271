import { describe, expect, it } from "vitest";
import { plainRope } from "../../../../src/model/decoder/plain.js";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("hunyuan_v1_moe", () => {
  const config = goldenConfig("moe/hunyuan_v1_moe");
  const spec = read(config);
  const bare = without(config, "rope_parameters");

  it("reads absent keys as the class does: norms behind rope, a shared expert of the experts' size", () => {
    expect(spec.attn.qkNorm).toMatchObject({ span: "head", afterRope: true });
    expect(read(without(config, "moe_topk", "num_experts", "num_key_value_heads"))).toMatchObject({
      attn: { kvHeads: 4 },
      layers: [
        {
          ffn: {
            experts: 1,
            topK: 1,
            ffnDim: 64,
            shared: { ffnDim: 64, gated: false },
            router: softmaxRouter("topk-softmax"),
          },
        },
        {},
      ],
    });
    expect(
      read({
        ...config,
        moe_topk: [2, 2],
        moe_intermediate_size: [64, 64],
        num_shared_expert: [1, 1],
        use_qk_norm: true,
      }),
    ).toEqual(spec);
    expect(read({ ...without(config, "moe_topk"), num_experts_per_tok: 2 })).toEqual(spec);
  });

  it("reads dynamic rope with an alpha as plain rope with another base", () => {
    const alpha = {
      type: "dynamic",
      alpha: 1000,
      factor: 1,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 1,
      mscale_all_dim: 1,
    };
    const withAlpha = read({ ...bare, rope_theta: 10_000, rope_scaling: alpha });
    expect(at(withAlpha.layers, 0).rope).toEqual(plainRope(10_000 * 1000 ** (8 / 6), 8));
    expect(read({ ...bare, rope_parameters: { rope_type: "dynamic", alpha: 1000, rope_theta: 10_000 } })).toEqual(
      withAlpha,
    );
    expect(read(write(withAlpha))).toEqual(withAlpha);
    refuses(
      () =>
        read({ ...bare, rope_theta: 5, rope_parameters: { rope_type: "dynamic", alpha: 1000, rope_theta: 10_000 } }),
      "rope_theta is given as 5 and as 10000",
    );
    refuses(
      () => read({ ...bare, rope_scaling: alpha, rope_parameters: { rope_type: "default", rope_theta: 10_000 } }),
      "rope_scaling and rope_parameters disagree",
    );
    refuses(() => read({ ...bare, rope_scaling: { type: "dynamic", factor: 2 } }), 'rope_scaling.type is "dynamic"');
    refuses(
      () => read({ ...bare, head_dim: 2, rope_scaling: alpha }),
      "head_dim is 2, expected more than 2, because rope has an alpha",
    );
  });

  it("refuses layers that differ, other shared experts and plain softmax routers", () => {
    refuses(
      () => read({ ...config, moe_topk: [2, 1] }),
      "moe_topk is [2,1], expected the same number of experts on every layer",
    );
    refuses(
      () => read({ ...config, moe_topk: [5, 5] }),
      "moe_topk is [5,5], expected at most the number of experts (4)",
    );
    refuses(() => read({ ...config, moe_topk: 5 }), "moe_topk is 5, expected at most the number of experts (4)");
    refuses(() => read({ ...config, moe_intermediate_size: [64, 32] }), "expected 64 on every layer");
    refuses(() => read({ ...config, num_shared_expert: 2 }), "num_shared_expert is 2, expected 1 on every layer");
    refuses(() => read({ ...config, use_qk_norm: false }), "use_qk_norm is false, expected true");
    refuses(() => read({ ...config, use_cla: true }), "use_cla is true, expected false");
    refuses(() => write(withExperts(spec, { shared: null })), "a hunyuan_v1_moe model cannot have no shared expert");
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 32, gated: false } })),
      "a shared expert of 32 beside experts of 64",
    );
    refuses(() => write(withExperts(spec, { shared: { ffnDim: 64, gated: true } })), "a shared expert behind a gate");
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("softmax-topk") })),
      "router weights that are not renormalised",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkNorm: { ...present(spec.attn.qkNorm), afterRope: false } } }),
      "a hunyuan_v1_moe model cannot have attn.qkNorm.afterRope false",
    );
  });
});
