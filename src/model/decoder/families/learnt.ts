/** What GPT-2 and its kin have in common: keys of their own, heads that together are as wide as the model. */
import type { AttentionSpec, DecoderSpec, DenseFfn } from "../types.js";
import type { Common, Defaults } from "./common.js";
import { attentionOf, refuse, requireAttention, uniformDense } from "./common.js";
import type { ConfigReader } from "./reader.js";

/** Throws inputError unless the heads are hidden size / heads, as classes take them whatever `head_dim` says. */
export function requireSquareHeads<T extends Pick<Common, "attn" | "hidden">>(
  config: ConfigReader,
  { attn, hidden }: T,
  headsKey: string,
  hiddenKey: string,
): T["attn"] {
  if (attn.heads * attn.headDim !== hidden)
    throw config.fail("head_dim", `${hidden / attn.heads}, ${hiddenKey} / ${headsKey}`);
  return attn;
}

/** Assembles a dense model without gates whose positions are learnt. */
export function learntPositions(
  { layerCount, activation, ...common }: Omit<Common, "rope">,
  attn: AttentionSpec,
  { ffnDim, bias }: Pick<DenseFfn, "ffnDim" | "bias">,
  windows: readonly (number | null)[],
): DecoderSpec {
  const ffn: DenseFfn = { kind: "dense", ffnDim, bias, activation, gated: false };
  const layers = Array.from({ length: layerCount }, (_, layer) => ({
    window: windows[layer] ?? null,
    rope: null,
    ffn: { ...ffn },
  }));
  return { ...common, learnedPositions: true, attn, layers, auxLossCoef: 0 };
}

/** What the classes of GPT-2 and its kin take for absent keys, and how they spell the usual ones. */
export const gptDefaults: Defaults = {
  kvHeads: "heads",
  headDim: "derived",
  maxPositions: 1024,
  normEps: 1e-5,
  normKey: "layer_norm_epsilon",
  norm: { kind: "layer", weight: "scale", bias: true },
  activation: "geluTanh",
  activationKeys: ["activation_function"],
  ropeTheta: null,
  bos: 50_256,
  eos: 50_256,
  tiedHead: true,
  names: {
    hidden_size: "n_embd",
    num_attention_heads: "n_head",
    num_hidden_layers: "n_layer",
    max_position_embeddings: "n_positions",
    intermediate_size: "n_inner",
  },
};

/** A decoder of GPT-2's kind: biases everywhere, an FFN of four times the hidden size where the config says none. */
export function readGpt(config: ConfigReader, base: Omit<Common, "rope">): DecoderSpec {
  const attn = attentionOf(
    { ...base, attn: requireSquareHeads(config, base, "n_head", "n_embd") },
    { qkNorm: false, qkvBias: true, outBias: true },
  );
  const ffnDim = config.has("intermediate_size") ? config.int("intermediate_size") : 4 * base.hidden;
  return learntPositions(base, attn, { ffnDim, bias: true }, []);
}

/** The keys of such a decoder. Throws what `refuse` makes for a spec that the classes cannot hold. */
export function writeGpt(spec: DecoderSpec): Record<string, unknown> {
  requireAttention(spec, { qkNorm: false, qkvBias: true, outBias: true });
  if (!spec.learnedPositions) throw refuse(spec, "no learnt positions");
  if (spec.layers.some(({ rope }) => rope !== null)) throw refuse(spec, "rope");
  if (spec.layers.some(({ window }) => window !== null)) throw refuse(spec, "a sliding attention window");
  const { ffnDim, bias, gated } = uniformDense(spec, true);
  if (!bias || gated) throw refuse(spec, "an FFN with a gate or without biases");
  return { n_inner: ffnDim === 4 * spec.hidden ? null : ffnDim, attn_pdrop: 0, embd_pdrop: 0, resid_pdrop: 0 };
}
