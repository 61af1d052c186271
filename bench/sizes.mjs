// Reference sizes of the training benchmark: fp32, AdamW, batch 8 x sequence 256.
import { plainAttention, plainRope } from "../dist/spec/plain.js";
import { plainBlocks, plainExperts, rmsNorm, softmaxRouter } from "../dist/spec/types.js";

export const shape = { batch: 8, sequence: 256, auxCoef: 0, zCoef: 0 };

const base = {
  family: "mixtral", vocab: 4096, hidden: 256, tiedHead: false, norm: rmsNorm(1e-5), ...plainBlocks, maxPositions: 256,
  attn: plainAttention({ heads: 4, kvHeads: 4, headDim: 64 }),
  tokens: { bos: null, eos: [], pad: null }, initStd: 0.02, auxLossCoef: 0,
};
const layers = (ffn) => Array.from({ length: 4 }, () => ({ window: null, rope: plainRope(10000, 64), ffn }));
const moe = (experts, topK, inner) => layers({ kind: "moe", activation: "silu", inner, experts, topK, router: softmaxRouter("topk-softmax"), ...plainExperts, shared: null });

export const specs = {
  dense: { ...base, family: "llama", layers: layers({ kind: "dense", inner: 704, bias: false, activation: "silu", gated: true }) },
  moe: { ...base, layers: moe(8, 2, 704) },
  fine: { ...base, layers: moe(64, 8, 88) },
};
