/** Where a run's first weights come from. */
import { randomStream } from "../base/random.js";
import type { ModelConfig } from "../base/schemas/index.js";
import { plainAttention, plainQkNorm, plainRope } from "../model/decoder/plain.js";
import { plainBlocks, rmsNorm, type DecoderSpec } from "../model/decoder/types.js";
import { isBuffer, type Slot, type SlotPart } from "../model/tensors/slots.js";
import { elements } from "../graph/ir/ir.js";

const norms = new Set<SlotPart>([
  "inputNorm",
  "ffnNorm",
  "postAttentionNorm",
  "postFfnNorm",
  "finalNorm",
  "qNorm",
  "kNorm",
  "qLatentNorm",
  "kvLatentNorm",
]);

/** As transformers begins them (activations.py, XIELUActivation): p and n are 0.8. */
const xieluNumbers: Readonly<Partial<Record<SlotPart, number>>> = {
  activationP: Math.log(Math.expm1(0.8)),
  activationN: Math.log(Math.expm1(0.8 - 0.5)),
  activationBeta: 0.5,
  activationEps: -1e-6,
};

/**
 * A freshly drawn tensor: norms are 1, biases 0, all else normal with the spec's `initStd`, as transformers initialises
 * these families. The stream is named by the slot, so the value depends on nothing but seed and slot.
 */
export function freshTensor(spec: DecoderSpec, slot: Slot, seed: number): Float32Array {
  const data = new Float32Array(elements(slot.shape));
  // A weight that acts as 1 + w starts at 0; queries and keys follow the same rule in the families that have both.
  if (norms.has(slot.at.part)) return data.fill(spec.norm.weight === "one-plus" ? 0 : 1);
  const number = xieluNumbers[slot.at.part];
  if (number !== undefined) return data.fill(number);
  if (slot.at.part.endsWith("Bias") || isBuffer(slot.at)) return data;
  randomStream(seed, `init ${slot.key}`).normals(data, 0, 0, spec.initStd);
  return data;
}

/** The spec of a new dense model; the vocabulary comes from its tokenizer. */
export function newModelSpec(model: ModelConfig, vocab: number, eos: number | null): DecoderSpec {
  const headDim = model.headDim ?? model.hidden / model.heads;
  return {
    ...plainBlocks,
    family: model.family,
    vocab,
    hidden: model.hidden,
    tiedHead: model.tiedHead,
    norm: rmsNorm(model.normEps),
    maxPositions: model.maxPositions,
    attn: {
      ...plainAttention({ heads: model.heads, kvHeads: model.kvHeads ?? model.heads, headDim }),
      qkNorm: plainQkNorm(model.family, model.normEps),
    },
    layers: Array.from({ length: model.layers }, () => ({
      window: null,
      rope: plainRope(model.ropeTheta, headDim),
      ffn: { kind: "dense", ffnDim: model.inner, bias: false, activation: "silu", gated: true },
    })),
    tokens: { bos: null, eos: eos === null ? [] : [eos], pad: null },
    initStd: model.initStd,
    auxLossCoef: 0,
  };
}
