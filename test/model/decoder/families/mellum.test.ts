import { describe, expect, it } from "vitest";
import { plainRope } from "../../../../src/model/decoder/plain.js";
import { softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";

describe("mellum", () => {
  const config = goldenConfig("moe/mellum");
  const spec = read(config);
  const own = [
    "num_local_experts",
    "num_experts_per_tok",
    "norm_topk_prob",
    "layer_types",
    "mlp_layer_types",
    "rope_parameters",
    "sliding_window",
    "moe_intermediate_size",
    "head_dim",
    "num_key_value_heads",
  ];

  it("reads absent keys as the class does", () => {
    expect(read(without(config, ...own))).toMatchObject({
      attn: { headDim: 128, kvHeads: 4 },
      layers: [
        {
          window: null,
          rope: plainRope(500_000, 128),
          ffn: { experts: 64, topK: 8, ffnDim: 896, router: softmaxRouter("topk-softmax") },
        },
        {},
      ],
    });
  });

  it("reads window, rope and FFN per layer, and no flat rope keys", () => {
    const mixed = {
      ...config,
      layer_types: ["sliding_attention", "full_attention"],
      mlp_layer_types: ["dense", "sparse"],
      rope_theta: 7,
    };
    const mixedSpec = read(mixed);
    expect(mixedSpec.layers).toMatchObject([
      { window: 1024, rope: plainRope(10_000, 8), ffn: { kind: "dense", ffnDim: 64 } },
      { window: null, rope: plainRope(500_000, 8), ffn: { kind: "moe", experts: 8 } },
    ]);
    const output = write(mixedSpec);
    expect(output).toMatchObject({
      mlp_layer_types: ["dense", "sparse"],
      layer_types: mixed.layer_types,
      sliding_window: 1024,
      rope_theta: undefined,
      rope_scaling: undefined,
    });
    expect(read(output)).toEqual(mixedSpec);
  });

  it("refuses incomplete lists of layers, a flat rope and shared experts", () => {
    const types = 'expected "dense" or "sparse" for each of 2 layers, at least one of them "sparse"';
    refuses(() => read({ ...config, mlp_layer_types: ["sparse"] }), `mlp_layer_types is ["sparse"], ${types}`);
    refuses(() => read({ ...config, mlp_layer_types: ["dense", "dense"] }), types);
    refuses(() => read({ ...config, mlp_layer_types: ["moe", "sparse"] }), types);
    refuses(
      () => read({ ...config, rope_parameters: { rope_theta: 5 } }),
      "expected an entry for full_attention and one for sliding_attention",
    );
    refuses(
      () => read({ ...config, layer_types: ["sliding_attention", "full_attention"], sliding_window: null }),
      "sliding windows are switched off",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: false } })),
      "a mellum model cannot have a shared expert",
    );
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, rope: null })) }),
      "a mellum model cannot have layers without rope",
    );
  });
});
