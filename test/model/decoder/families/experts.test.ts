import { describe, expect, it } from "vitest";
import { at } from "../../../../src/base/at.js";
import { plainExperts, softmaxRouter } from "../../../../src/model/decoder/types.js";
import { goldenConfig, read, without } from "./configs.js";

describe("experts of a config", () => {
  it("have counts, order, sparse layers and shared expert by mixtral's, qwen2_moe's and qwen3_moe's keys", () => {
    const moe = (config: unknown): unknown => at(read(config).layers, 0).ffn;
    expect(moe(goldenConfig("moe/mixtral"))).toEqual({
      kind: "moe",
      activation: "silu",
      ffnDim: 64,
      experts: 4,
      topK: 2,
      router: softmaxRouter("topk-softmax"),
      ...plainExperts,
      shared: null,
    });
    expect(moe(goldenConfig("moe/qwen2_moe"))).toEqual({
      kind: "moe",
      activation: "silu",
      ffnDim: 16,
      experts: 4,
      topK: 2,
      router: softmaxRouter("softmax-topk"),
      ...plainExperts,
      shared: { ffnDim: 32, gated: true },
    });
    expect(moe(without(goldenConfig("moe/qwen3_moe"), "norm_topk_prob"))).toMatchObject({
      router: softmaxRouter("softmax-topk"),
      experts: 8,
    });
    expect(moe(goldenConfig("moe/qwen3_moe_norm"))).toMatchObject({ router: softmaxRouter("topk-softmax") });
    expect(moe({ ...without(goldenConfig("moe/qwen3_moe"), "num_local_experts"), num_experts: 16 })).toMatchObject({
      experts: 16,
    });
    expect(read(goldenConfig("moe/qwen3_moe_mixed")).layers.map(({ ffn }) => ffn.kind)).toEqual(["dense", "moe"]);
    expect(
      read({ ...goldenConfig("moe/qwen3_moe"), decoder_sparse_step: 2 }).layers.map(({ ffn }) => ffn.kind),
    ).toEqual(["dense", "moe"]);
    expect(moe({ ...goldenConfig("moe/qwen2_moe"), shared_expert_intermediate_size: 0 })).toMatchObject({
      shared: null,
    });
  });
});
