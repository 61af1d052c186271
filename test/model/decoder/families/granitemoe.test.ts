import { describe, expect, it } from "vitest";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("granitemoe", () => {
  const config = goldenConfig("moe/granitemoe");
  const spec = read(config);

  it("reads absent keys as the class does, and any activation", () => {
    const bare = read(
      without(
        config,
        "embedding_multiplier",
        "residual_multiplier",
        "logits_scaling",
        "attention_multiplier",
        "num_local_experts",
        "num_experts_per_tok",
        "rms_norm_eps",
      ),
    );
    expect(bare).toMatchObject({
      norm: { eps: 1e-6 },
      multipliers: { embedding: 1, residual: 1, logits: 1 },
      attn: { scale: 1 },
      layers: [{ ffn: { experts: 8, topK: 2 } }, {}],
    });
    expect(read({ ...config, hidden_act: "gelu_pytorch_tanh", attention_bias: true })).toMatchObject({
      attn: { qkvBias: true, outBias: true },
      layers: [{ ffn: { activation: "geluTanh" } }, {}],
    });
  });

  it("refuses windows, shared experts, plain softmax routers and sinks", () => {
    refuses(
      () => read({ ...config, num_experts_per_tok: 5 }),
      "num_experts_per_tok is 5, expected at most the number of experts (4)",
    );
    refuses(() => read({ ...config, logits_scaling: 0 }), "logits_scaling is 0, expected a number above 0");
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, window: 4 })) }),
      "a granitemoe model cannot have a sliding attention window",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: false } })),
      "a granitemoe model cannot have a shared expert",
    );
    refuses(
      () => write(withExperts(spec, { router: softmaxRouter("softmax-topk") })),
      "router weights that are not renormalised",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, sinks: true } }),
      "a granitemoe model cannot have attn.sinks true",
    );
  });
});

describe("granitemoe_swa", () => {
  const config = goldenConfig("moe/granitemoe_swa");
  const spec = read(config);

  it("reads a rope base per layer, 0 for none, and full attention on every fourth layer", () => {
    expect(spec.attn.sinks).toBe(true);
    expect(spec.layers.map(({ rope }) => rope?.theta ?? null)).toEqual([10_000, null]);
    const bare = { ...without(config, "layer_types", "layer_rope_theta", "sliding_window"), num_hidden_layers: 5 };
    expect(read(bare).layers.map(({ window }) => window)).toEqual([null, 128, 128, 128, null]);
    expect(read(bare).layers.map(({ rope }) => present(rope).theta)).toEqual(Array(5).fill(10_000));
    expect(write(spec)).toMatchObject({
      layer_rope_theta: [10_000, 0],
      layer_types: ["full_attention", "full_attention"],
      sliding_window: 128,
    });
  });

  it("reads a shared expert where it has a size", () => {
    expect(at(spec.layers, 0).ffn).toMatchObject({ shared: null });
    expect(at(read({ ...config, shared_intermediate_size: 48 }).layers, 0).ffn).toMatchObject({
      shared: { ffnDim: 48, gated: false },
    });
  });

  it("refuses incomplete rope bases, a missing window and gated shared experts", () => {
    refuses(
      () => read({ ...config, layer_rope_theta: [1] }),
      "layer_rope_theta is [1], expected 2 entries, one per layer (found 1)",
    );
    refuses(() => read({ ...config, layer_rope_theta: [1, -1] }), "expected a list of numbers from 0, one per layer");
    refuses(
      () => read({ ...config, layer_types: ["sliding_attention", "full_attention"], sliding_window: null }),
      "sliding windows are switched off",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, sinks: false } }),
      "a granitemoe_swa model cannot have no attention sinks",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: true } })),
      "a granitemoe_swa model cannot have a shared expert behind a gate",
    );
  });
});
