import { describe, expect, it } from "vitest";
import { tiledAttention } from "../../../../src/engine/cuda/lowering/tiled-attention.js";

const heads = { batch: 64, sequence: 128, heads: 12, kvHeads: 4, headDim: 64, valueDim: 64 };
const chip = { capability: 90, multiprocessors: 132 };
const kinds = ["attention", "attentionGradQ", "attentionGradKV"] as const;

describe("attention by tiles", () => {
  it("takes the kernel of the least value heads that are large enough, in gradients of the larger heads", () => {
    const kernelOf = (headDim: number, valueDim: number) =>
      kinds.map((kind) => tiledAttention(kind, { ...heads, headDim, valueDim }, chip).kernel);
    expect(kernelOf(20, 64)).toEqual(["attention64", "attentionGradQ64", "attentionGradKV64"]);
    expect(kernelOf(65, 64)).toEqual(["attention64", "attentionGradQ128", "attentionGradKV128"]);
    expect(kernelOf(192, 128)).toEqual(["attention128", "attentionGradQ256", "attentionGradKV256"]);
    expect(kernelOf(1, 129)).toEqual(["attention256", "attentionGradQ256", "attentionGradKV256"]);
  });

  it("has blocks for each head of queries, for gradients of keys and values for each of keys", () => {
    const grids = kinds.map((kind) => tiledAttention(kind, heads, chip).grid);
    // 128 queries or 64 keys are a block's.
    expect(grids).toEqual([
      [1, 12, 64],
      [1, 12, 64],
      [2, 4, 64],
    ]);
  });

  it("gives a block fewer warps where few tokens or few blocks are", () => {
    const threadsOf = (sequence: number, batch: number) =>
      tiledAttention("attention", { ...heads, sequence, batch }, chip).block;
    expect([128, 64, 33, 32, 8].map((sequence) => threadsOf(sequence, 64))).toEqual([128, 64, 64, 32, 32]);
    expect([22, 21, 5].map((batch) => threadsOf(128, batch))).toEqual([128, 64, 32]);
  });

  it("needs no more shared memory than a block has on any GPU from compute capability 8.0 on", () => {
    const sizes = [1, 64, 65, 128, 192, 256];
    const most = kinds.flatMap((kind) =>
      sizes.flatMap((headDim) =>
        sizes.map((valueDim) => tiledAttention(kind, { ...heads, headDim, valueDim }, chip).shared),
      ),
    );
    expect(Math.max(...most)).toBeLessThanOrEqual(99 * 1024);
  });
});
