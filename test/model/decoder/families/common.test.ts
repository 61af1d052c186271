import { describe, expect, it } from "vitest";
import { goldenConfig, read, without } from "./configs.js";

describe("keys that all families read", () => {
  it("reads attention, query-key-value and FFN biases under each family's key", () => {
    expect(read(goldenConfig("dense/qwen2")).attn).toMatchObject({ qkvBias: true, outBias: false });
    expect(read(without(goldenConfig("moe/qwen2_moe"), "qkv_bias")).attn.qkvBias).toBe(true);
    expect(read({ ...goldenConfig("dense/llama"), attention_bias: true, mlp_bias: true })).toMatchObject({
      attn: { qkvBias: true, outBias: true },
      layers: [{ ffn: { bias: true } }, { ffn: { bias: true } }],
    });
  });

  it("derives head_dim and num_key_value_heads where they are null or absent", () => {
    const llama = goldenConfig("dense/llama");
    expect(read({ ...llama, head_dim: null }).attn.headDim).toBe(8);
    expect(read(without(llama, "head_dim", "num_key_value_heads")).attn).toMatchObject({ headDim: 8, kvHeads: 4 });
    expect(read({ ...goldenConfig("moe/mixtral"), num_key_value_heads: null }).attn.kvHeads).toBe(4);
    expect(read(without(goldenConfig("dense/qwen3"), "head_dim")).attn.headDim).toBe(128);
  });

  it("reads one or several end-of-text ids, -1 as none, and the class's ids for absent keys", () => {
    expect(
      read({ ...without(goldenConfig("dense/llama"), "bos_token_id"), eos_token_id: [5, 6], pad_token_id: -1 }).tokens,
    ).toEqual({ bos: 1, eos: [5, 6], pad: null });
    expect(read(without(goldenConfig("dense/qwen2"), "bos_token_id", "eos_token_id", "pad_token_id")).tokens).toEqual({
      bos: null,
      eos: [],
      pad: null,
    });
  });
});
