/** The plan of a torch_dist folder: chunks fill every box of every tensor once, also where large ones are cut. */
import { describe, expect, it } from "vitest";
import { layoutOf } from "../../../src/files/checkpoint/weight-layout.js";
import { parseDcpMetadata } from "../../../src/files/formats/dcp-metadata.js";
import { plainAttention, plainRope } from "../../../src/model/decoder/plain.js";
import {
  plainBlocks,
  plainExperts,
  rmsNorm,
  softmaxRouter,
  type DecoderSpec,
  type Ffn,
} from "../../../src/model/decoder/types.js";

const dense: Ffn = { kind: "dense", ffnDim: 24_576, bias: false, activation: "silu", gated: true };
const moe: Ffn = {
  ...plainExperts,
  kind: "moe",
  ffnDim: 1408,
  activation: "silu",
  experts: 4,
  topK: 2,
  router: softmaxRouter("topk-softmax"),
  shared: { ffnDim: 512, gated: true },
};

const large = (ffns: readonly Ffn[]): DecoderSpec => ({
  ...plainBlocks,
  family: "upcycle",
  vocab: 50_257,
  hidden: 2048,
  tiedHead: false,
  norm: rmsNorm(1e-5),
  maxPositions: 2048,
  attn: { ...plainAttention({ heads: 16, kvHeads: 4, headDim: 128 }), qkvBias: true },
  layers: ffns.map((ffn) => ({ window: null, rope: plainRope(10_000, 128), ffn })),
  tokens: { bos: null, eos: [], pad: null },
  initStd: 0.02,
  auxLossCoef: 0.01,
});

/** Vectors of 32 bytes. */
const small: DecoderSpec = {
  ...large([dense, dense]),
  hidden: 16,
  attn: { ...plainAttention({ heads: 2, kvHeads: 1, headDim: 8 }) },
  layers: [dense, dense].map((ffn) => ({ window: null, rope: plainRope(10_000, 8), ffn: { ...ffn, ffnDim: 24 } })),
};

describe("the plan of a torch_dist folder", () => {
  it.each([
    ["dense", [dense, dense], undefined],
    ["moe", [moe, moe], undefined],
    ["mixed, in small files", [dense, moe], 3e8],
    // Its norms have fewer bytes than what archives are aligned to.
    ["small", [dense, dense], undefined],
  ] as const)("%s has a place for every byte, and none for two", (name, ffns, maxBytes) => {
    const spec = name === "small" ? small : large(ffns);
    const layout = layoutOf("torch_dist", spec, "BF16", maxBytes);
    const chunks = layout.chunks();
    const places = chunks.flatMap(({ places: all, bytes }) =>
      all.map(({ file, offset }) => ({ file, begin: offset, end: offset + bytes })),
    );
    const sums = new Map(chunks.map((_chunk, i) => [i, 0]));
    const between = [...layout.between(chunks, sums)].map(({ file, offset, bytes }) => ({
      file,
      begin: offset,
      end: offset + bytes.length,
    }));
    const first = layout.files.map(({ header }, file) => ({ file, begin: 0, end: header.bytes.length }));
    const taken = [...first, ...places, ...between].sort(
      (x, y) => x.file - y.file || x.begin - y.begin || x.end - y.end,
    );
    taken.forEach(({ file, begin }, i) => {
      const before = taken[i - 1];
      if (before?.file !== file) return expect(begin).toBe(0);
      expect(begin).toBeGreaterThanOrEqual(before.end);
      // Archives begin at multiples of 64 bytes.
      expect(begin).toBeLessThan(before.end + 64);
    });
    layout.files.forEach(({ header }, file) =>
      expect(taken.findLast((one) => one.file === file)!.end).toBe(header.fileBytes),
    );
    const { tensors } = parseDcpMetadata(layout.extras()[".metadata"] as Uint8Array, "m");
    const stored = [...tensors].filter(([key]) => !key.includes("pre_mlp_layernorm"));
    const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 2);
    expect(places.reduce((sum, { begin, end }) => sum + end - begin, 0)).toBe(
      stored.reduce((sum, [, { shape }]) => sum + size(shape), 0),
    );
  });

  it("cuts what is large along the axis of tensor parallelism, into eight at most", () => {
    const layout = layoutOf("torch_dist", large([dense]), "F32");
    const { tensors } = parseDcpMetadata(layout.extras()[".metadata"] as Uint8Array, "m");
    const sizesOf = (key: string): readonly (readonly number[])[] => tensors.get(key)!.chunks.map(({ sizes }) => sizes);
    expect(sizesOf("decoder.layers.mlp.linear_fc2.weight")).toEqual(Array(4).fill([1, 2048, 6144]));
    expect(sizesOf("decoder.layers.mlp.linear_fc1.weight")).toEqual(Array(8).fill([1, 6144, 2048]));
    expect(sizesOf("embedding.word_embeddings.weight").length).toBe(8);
    // A group's queries, key and value stay together.
    expect(sizesOf("decoder.layers.self_attention.linear_qkv.weight")).toEqual([[1, 3072, 2048]]);
  });
});
