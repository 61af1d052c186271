import { describe, expect, it } from "vitest";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";

describe("phimoe", () => {
  const config = goldenConfig("moe/phimoe");
  const spec = read(config);
  const factors = { short_factor: [1, 1, 1, 2], long_factor: [1, 2, 3, 4], short_mscale: 1.25, long_mscale: 1.25 };
  const long = { rope_scaling: { type: "longrope", ...factors }, rope_theta: 5, original_max_position_embeddings: 64 };

  it("reads absent keys as the class does", () => {
    const bare = read(without(config, "num_local_experts", "router_jitter_noise", "rms_norm_eps", "rope_parameters"));
    expect(bare).toMatchObject({
      norm: { kind: "layer", weight: "scale", bias: true, eps: 1e-5 },
      layers: [{ rope: { theta: 1_000_000 } }, {}],
    });
    expect(at(bare.layers, 0).ffn).toMatchObject({
      experts: 16,
      topK: 2,
      router: { score: "sparsemixer", jitter: 0.01 },
    });
  });

  it("reads both mscales of LongRoPE as the factor on cos and sin", () => {
    const rest = without(config, "rope_parameters");
    const read1 = read({ ...rest, ...long });
    expect(at(read1.layers, 0).rope).toMatchObject({
      theta: 5,
      scaling: {
        kind: "longrope",
        short: [1, 1, 1, 2],
        long: [1, 2, 3, 4],
        originalMaxPositions: 64,
        attentionFactor: 1.25,
      },
    });
    expect(write(read1)).toMatchObject({
      original_max_position_embeddings: 64,
      rope_parameters: { ...factors, rope_type: "longrope", rope_theta: 5 },
    });
    expect(read(write(read1))).toEqual(read1);
  });

  it("may have a bias on the logits", () => {
    expect(read(config).headBias).toBe(false);
    const biased = read({ ...config, lm_head_bias: true });
    expect(biased.headBias).toBe(true);
    expect(read(write(biased))).toEqual(biased);
  });

  it("refuses other routers, one-expert choices and unequal mscales", () => {
    const rest = without(config, "rope_parameters");
    refuses(
      () => read({ ...config, num_experts_per_tok: 1 }),
      "num_experts_per_tok is 1, expected 2 (SparseMixer takes two experts)",
    );
    refuses(() => read({ ...config, num_local_experts: 1 }), "num_local_experts is 1, expected at least 2");
    refuses(() => read({ ...config, router_jitter_noise: -1 }), "router_jitter_noise is -1, expected a number from 0");
    refuses(
      () => read({ ...rest, ...long, rope_scaling: { ...long.rope_scaling, long_mscale: 2 } }),
      "short_mscale and long_mscale are 1.25 and 2, expected one number",
    );
    refuses(
      () =>
        read({
          ...rest,
          ...long,
          rope_scaling: { type: "longrope", short_factor: [1, 1, 1, 2], long_factor: [1, 2, 3, 4] },
        }),
      "rope_scaling.short_mscale is missing",
    );
    refuses(
      () => read({ ...rest, rope_scaling: { type: "linear", factor: 2 } }),
      'rope_scaling.type is "linear", expected "default" or "longrope"',
    );
    refuses(
      () => read({ ...rest, rope_scaling: { rope_type: "linear", factor: 2 } }),
      'rope_scaling.rope_type is "linear", expected "default" or "longrope"',
    );
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("topk-softmax") })),
      "a phimoe model cannot have a softmax router (it has SparseMixer)",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: false } })),
      "a phimoe model cannot have a shared expert",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkvBias: true } }),
      "a bias on only some of the attention projections",
    );
  });
});
