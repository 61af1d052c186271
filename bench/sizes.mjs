/** The reference sizes of the training benchmark: float32, AdamW, batches of 8 sequences of 256 tokens. */
import { plainAttention, plainRope } from "../dist/model/decoder/plain.js";
import { plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../dist/model/decoder/types.js";

export const shape = { batch: 8, sequence: 256, auxCoef: 0, zCoef: 0 };

const base = {
  family: /** @type {const} */ ("mixtral"),
  vocab: 4096,
  hidden: 256,
  tiedHead: false,
  norm: rmsNorm(1e-5),
  ...plainBlocks,
  maxPositions: 256,
  attn: plainAttention({ heads: 4, kvHeads: 4, headDim: 64 }),
  tokens: { bos: null, eos: [], pad: null },
  initStd: 0.02,
  auxLossCoef: 0,
};
/**
 * Four layers with this FFN.
 *
 * @param {import("../dist/model/decoder/types.js").LayerSpec["ffn"]} ffn
 */
const layers = (ffn) => Array.from({ length: 4 }, () => ({ window: null, rope: plainRope(10000, 64), ffn }));
const moe = (experts, topK, ffnDim) =>
  layers({
    kind: "moe",
    activation: "silu",
    ffnDim,
    experts,
    topK,
    router: softmaxRouter("topk-softmax"),
    ...plainExperts,
    shared: null,
  });

/**
 * The reference sizes.
 *
 * @type {Record<"dense" | "moe" | "fine", import("../dist/model/decoder/types.js").DecoderSpec>}
 */
export const specs = {
  dense: {
    ...base,
    family: "llama",
    layers: layers({ kind: "dense", ffnDim: 704, bias: false, activation: "silu", gated: true }),
  },
  moe: { ...base, layers: moe(8, 2, 704) },
  fine: { ...base, layers: moe(64, 8, 88) },
};

/** Tokens of a step in every reference size and in each length of sequence below. */
const TOKENS = shape.batch * shape.sequence;

const dense = (hidden, count, ffnDim, vocab) => ({
  ...base,
  family: "llama",
  vocab,
  hidden,
  attn: plainAttention({ heads: hidden / 64, kvHeads: hidden / 64, headDim: 64 }),
  layers: Array.from({ length: count }, () => ({
    window: null,
    rope: plainRope(10000, 64),
    ffn: { kind: "dense", ffnDim, bias: false, activation: "silu", gated: true },
  })),
});

/** How the cost grows, by what grows: each [name, spec, shape]. */
export const ladders = {
  // The dense reference size; as many tokens a step.
  sequence: [128, 256, 512, 1024, 2048, 4096].map((sequence) => [
    `sequence ${sequence}`,
    { ...specs.dense, maxPositions: sequence },
    { ...shape, sequence, batch: Math.max(1, TOKENS / sequence) },
  ]),
  // Experts of an eighth of the width, 8 of them per token: FLOPs stay.
  experts: [8, 16, 32, 64, 128, 256].map((experts) => [
    `${experts} experts`,
    { ...base, layers: moe(experts, 8, 88) },
    shape,
  ]),
  // Dense models, 512 tokens a step.
  size: [
    [256, 4, 704, 4096],
    [512, 8, 1408, 8192],
    [640, 12, 1728, 16384],
    [768, 14, 2048, 32768],
  ].map(([hidden, count, ffnDim, vocab]) => [
    `hidden ${hidden}, ${count} layers, vocabulary ${vocab}`,
    dense(hidden, count, ffnDim, vocab),
    { ...shape, batch: 2 },
  ]),
};

/** What a name stands for: a reference size, or `ladder:index`. */
export function measured(name) {
  if (Object.hasOwn(specs, name)) return { spec: specs[name], shape };
  const [ladder, index] = name.split(":");
  const [, spec, own] = ladders[ladder][Number(index)];
  return { spec, shape: own };
}
