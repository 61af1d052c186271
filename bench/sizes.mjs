// Reference sizes of the training benchmark: fp32, AdamW, batch 8 x sequence 256.
export const shape = { batch: 8, sequence: 256, auxCoef: 0, zCoef: 0 };

const base = {
  family: "mixtral", vocab: 4096, hidden: 256, tiedHead: false, normEps: 1e-5, maxPositions: 256,
  attn: { heads: 4, kvHeads: 4, headDim: 64, qkNorm: false, qkvBias: false, outBias: false, rope: { theta: 10000, scaling: { kind: "none" } } },
  tokens: { bos: null, eos: [], pad: null }, initStd: 0.02, auxLossCoef: 0,
};
const layers = (ffn) => Array.from({ length: 4 }, () => ({ window: null, ffn }));
const moe = (experts, topK, inner) => layers({ kind: "moe", inner, experts, topK, order: "topk-softmax", shared: null });

export const specs = {
  dense: { ...base, family: "llama", layers: layers({ kind: "dense", inner: 704, bias: false }) },
  moe: { ...base, layers: moe(8, 2, 704) },
  fine: { ...base, layers: moe(64, 8, 88) },
};
