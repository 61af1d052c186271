// Models of the benchmarks on a GPU, with random weights.
import { plainAttention, plainRope } from "../dist/model/decoder/plain.js";
import { plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../dist/model/decoder/types.js";
import { startWeight } from "./start.mjs";

/**
 * The description of a decoder of these sizes.
 *
 * @returns {import("../dist/model/decoder/types.js").DecoderSpec}
 */
export function model({ vocab, hidden, layers, heads, ffnDim, experts = 0, topK = 1 }) {
  /** @type {import("../dist/model/decoder/types.js").LayerSpec["ffn"]} */
  const ffn =
    experts === 0
      ? { kind: "dense", ffnDim, bias: false, activation: "silu", gated: true }
      : {
          kind: "moe",
          activation: "silu",
          ffnDim,
          experts,
          topK,
          router: softmaxRouter("topk-softmax"),
          ...plainExperts,
          shared: null,
        };
  return {
    family: experts === 0 ? "llama" : "mixtral",
    vocab,
    hidden,
    tiedHead: false,
    norm: rmsNorm(1e-5),
    ...plainBlocks,
    maxPositions: 4096,
    attn: plainAttention({ heads, kvHeads: heads, headDim: hidden / heads }),
    tokens: { bos: null, eos: [], pad: null },
    initStd: 0.02,
    auxLossCoef: experts === 0 ? 0 : 0.01,
    layers: Array.from({ length: layers }, () => ({ window: null, rope: plainRope(10000, hidden / heads), ffn })),
  };
}

const big = { vocab: 32768, hidden: 768, layers: 12, heads: 12 };
const small = { vocab: 4096, hidden: 256, layers: 8, heads: 4 };
/** Sizes by name. */
export const sizes = {
  dense135M: { ...big, ffnDim: 2048 },
  E8G1T2: { ...big, ffnDim: 2048, experts: 8, topK: 2 },
  E8G8T8: { ...big, ffnDim: 256, experts: 64, topK: 8 },
  dense956M: { vocab: 32768, hidden: 2048, layers: 16, heads: 16, ffnDim: 5632 },
  "dense8.5M": { ...small, ffnDim: 704 },
  "E8G1T2-39M": { ...small, ffnDim: 704, experts: 8, topK: 2 },
};

/**
 * A weight of any size from a few random numbers: making millions of them takes longer than the measurement.
 *
 * @param {string} key
 * @param {readonly number[]} dims
 */
export function weightOf(key, dims) {
  const size = dims.reduce((product, dim) => product * dim, 1);
  const rows = startWeight(key, [Math.min(dims[0], 64), ...dims.slice(1)]);
  const data = new Float32Array(size);
  for (let at = 0; at < size; at += rows.length) data.set(rows.subarray(0, Math.min(rows.length, size - at)), at);
  return data;
}

/** The value in the middle. */
export const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
