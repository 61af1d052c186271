/** Where a run's first weights come from. */
import { randomStream } from "../base/random.js";
import type { ModelConfig } from "../config/index.js";
import type { DecoderSpec } from "../spec/types.js";
import type { Slot } from "../tensors/slots.js";
import { elements } from "../graph/ir.js";

const norms = new Set(["inputNorm", "ffnNorm", "finalNorm", "qNorm", "kNorm"]);

/**
 * A freshly drawn tensor: norms are 1, biases 0, all else normal with the spec's `initStd`, as transformers initialises these families.
 * The stream is named by the slot, so the value depends on nothing but seed and slot.
 */
export function freshTensor(spec: DecoderSpec, slot: Slot, seed: number): Float32Array {
  const data = new Float32Array(elements(slot.shape));
  if (norms.has(slot.at.part)) return data.fill(1);
  if (slot.at.part.endsWith("Bias")) return data;
  randomStream(seed, `init ${slot.key}`).normals(data, 0, 0, spec.initStd);
  return data;
}

/** The spec of a new dense model; the vocabulary comes from its tokenizer. */
export function newModelSpec(model: ModelConfig, vocab: number, eos: number | null): DecoderSpec {
  return {
    family: model.family,
    vocab,
    hidden: model.hidden,
    tiedHead: model.tiedHead,
    normEps: model.normEps,
    maxPositions: model.maxPositions,
    attn: {
      heads: model.heads,
      kvHeads: model.kvHeads ?? model.heads,
      headDim: model.headDim ?? model.hidden / model.heads,
      qkNorm: model.family === "qwen3",
      qkvBias: model.family === "qwen2",
      outBias: false,
      rope: { theta: model.ropeTheta, scaling: { kind: "none" } },
    },
    layers: Array.from({ length: model.layers }, () => ({ window: null, ffn: { kind: "dense", inner: model.inner, bias: false } })),
    tokens: { bos: null, eos: eos === null ? [] : [eos], pad: null },
    initStd: model.initStd,
    auxLossCoef: 0,
  };
}
