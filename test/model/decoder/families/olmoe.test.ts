import { describe, expect, it } from "vitest";
import { rmsNorm, softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, refuses, withExperts, without, write } from "./configs.js";

const own = [
  "num_experts",
  "num_experts_per_tok",
  "rms_norm_eps",
  "router_aux_loss_coef",
  "norm_topk_prob",
  "rope_parameters",
  "num_key_value_heads",
  "pad_token_id",
  "eos_token_id",
];

describe("olmoe", () => {
  const config = goldenConfig("moe/olmoe");
  const spec = read(config);

  it("reads absent keys as the class does, and clipping beside a norm over all heads", () => {
    expect(read(without(config, ...own))).toMatchObject({
      norm: rmsNorm(1e-5),
      auxLossCoef: 0.01,
      tokens: { eos: [50_279], pad: 1 },
      attn: { kvHeads: 4, clip: null },
      layers: [
        {
          rope: { theta: 10_000 },
          ffn: { experts: 64, topK: 8, ffnDim: 16, router: softmaxRouter("softmax-topk"), shared: null },
        },
        {},
      ],
    });
    expect(read({ ...config, clip_qkv: 8, attention_bias: true, norm_topk_prob: true })).toMatchObject({
      block: "pre",
      attn: { clip: 8, qkvBias: true, outBias: true, qkNorm: { span: "full", afterRope: false } },
      layers: [{ ffn: { router: softmaxRouter("topk-softmax") } }, {}],
    });
  });

  it("refuses other head sizes, windows, shared experts and norms over each head", () => {
    refuses(() => read({ ...config, head_dim: 16 }), "head_dim is 16, expected 8, hidden_size / num_attention_heads");
    refuses(() => read({ ...config, sliding_window: 4 }), "sliding_window is 4, expected no such key");
    refuses(() => read({ ...config, clip_qkv: 0 }), "clip_qkv is 0, expected a number above 0");
    refuses(
      () => read({ ...config, num_experts_per_tok: 9 }),
      "num_experts_per_tok is 9, expected at most the number of experts (8)",
    );
    refuses(
      () => write(withExperts(spec, { shared: { ffnDim: 4, gated: false } })),
      "a olmoe model cannot have a shared expert",
    );
    refuses(
      () => write({ ...spec, layers: spec.layers.map((layer) => ({ ...layer, window: 4 })) }),
      "a olmoe model cannot have a sliding attention window",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkNorm: { span: "head", norm: spec.norm, afterRope: false } } }),
      'a olmoe model cannot have attn.qkNorm.span "head"',
    );
  });
});

describe("flex_olmo", () => {
  const config = goldenConfig("moe/flex_olmo");
  const spec = read(config);

  it("reads absent keys as the class does: OLMo 2's blocks", () => {
    expect(read(without(config, ...own))).toMatchObject({
      block: "post",
      norm: rmsNorm(1e-6),
      auxLossCoef: 0.01,
      tokens: { eos: [100_257], pad: 100_277 },
      attn: { kvHeads: 4, qkNorm: { span: "full", norm: rmsNorm(1e-6) } },
      layers: [
        { rope: { theta: 500_000 }, ffn: { experts: 7, topK: 5, ffnDim: 64, router: softmaxRouter("softmax-topk") } },
        {},
      ],
    });
  });

  it("refuses clipping, pre-norm blocks and queries without a norm", () => {
    refuses(() => read({ ...config, clip_qkv: 8 }), "clip_qkv is 8, expected no such key");
    refuses(() => write({ ...spec, block: "pre" }), "a flex_olmo model cannot have pre blocks");
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkNorm: null } }),
      "a flex_olmo model cannot have queries and keys without a norm",
    );
    refuses(
      () => write({ ...spec, attn: { ...spec.attn, qkvBias: true } }),
      "a bias on only some of the attention projections",
    );
  });
});
