import { describe, expect, it } from "vitest";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";
import { at } from "../../../../src/base/at.js";
import { present } from "../../../support/present.js";

describe("gpt_oss", () => {
  const config = goldenConfig("moe/gpt_oss");
  const spec = read(config);

  it("reads absent keys as the class does: YaRN, biases, every other layer slides", () => {
    const bare = without(
      config,
      "rope_parameters",
      "layer_types",
      "sliding_window",
      "attention_bias",
      "num_local_experts",
      "num_experts_per_tok",
      "head_dim",
    );
    const fromBare = read(bare);
    expect(fromBare).toMatchObject({
      attn: { headDim: 64, qkvBias: true, outBias: true, sinks: true },
      layers: [{ window: 128, ffn: { experts: 128, topK: 4 } }, { window: null }],
    });
    expect(at(fromBare.layers, 0).rope).toEqual({ ...present(at(spec.layers, 0).rope), rotary: 64 });
    expect(at(read({ ...bare, original_max_position_embeddings: 16 }).layers, 0).rope).toMatchObject({
      scaling: { kind: "yarn", originalMaxPositions: 16 },
    });
    expect(
      at(read({ ...bare, rope_scaling: null, rope_parameters: { rope_type: "default", rope_theta: 5 } }).layers, 0)
        .rope,
    ).toMatchObject({ theta: 5, scaling: { kind: "none" } });
    expect(at(spec.layers, 0).ffn).toMatchObject({
      bias: true,
      gated: true,
      clampedGlu: { alpha: 1.702, limit: 7 },
      router: { bias: true, renormalise: { plus: 0, atLeast: 0 } },
    });
  });

  it("refuses MXFP4 weights, another clamped unit, and experts without biases or sinks", () => {
    refuses(
      () => read({ ...config, quantization_config: { quant_method: "mxfp4" } }),
      'quant_method "mxfp4", expected 8-bit floats',
    );
    refuses(() => read({ ...config, quantization_config: { quant_method: "mxfp4" } }), "Mxfp4Config(dequantize=True)");
    refuses(() => read({ ...config, swiglu_limit: 5 }), "swiglu_limit is 5, expected 7");
    refuses(() => read({ ...config, hidden_act: "gelu" }), 'hidden_act is "gelu", expected "silu"');
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, sinks: false } }),
      "a gpt_oss model cannot have no attention sinks",
    );
    refuses(
      () => write(withExperts(spec, { bias: false })),
      "a router or experts without biases, or experts without a gate",
    );
    refuses(
      () => write(withExperts(spec, { clampedGlu: null })),
      "a gated unit other than the one clamped at 7 with alpha 1.702",
    );
    refuses(() => write(withExperts(spec, { shared: { ffnDim: 16, gated: false } })), "a shared expert");
  });
});
